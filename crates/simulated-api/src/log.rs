//! What was asked and answered, in order, with a hash by which two runs are compared.

use chrono::{DateTime, Utc};

/// Offset and prime of FNV-1a with 64 bits, a hash that no library version changes.
const FNV: (u64, u64) = (0xcbf2_9ce4_8422_2325, 0x0100_0000_01b3);

/// A hash of some bytes.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    continued(FNV.0, bytes)
}

fn continued(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV.1))
}

/// One request and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of the request, from 1.
    pub number: u64,
    /// When it was answered, by the server's wall clock.
    pub time: DateTime<Utc>,
    /// Name of the client.
    pub client: String,
    /// Method of the request.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// A hash of the request's body.
    pub body: u64,
    /// HTTP status, or what became of the connection.
    pub result: String,
}

/// The log.
#[derive(Debug)]
pub struct Log {
    entries: Vec<Entry>,
    hash: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self { entries: Vec::new(), hash: FNV.0 }
    }
}

impl Log {
    pub(crate) fn add(&mut self, entry: Entry) {
        let Entry { number, time, client, method, path, body, result } = &entry;
        let line = format!("{number} {time:?} {client} {method} {path} {body:x} {result}\n");
        self.hash = continued(self.hash, line.as_bytes());
        self.entries.push(entry);
    }

    /// All entries, in the order of their answers.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A hash of everything in the log: who asked what, with which body, when it was answered, and how.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }
}
