//! The file of the crash journal: slots of fixed size in any order, each empty or with one credential.
//!
//! An error of the file does not stop the operator. It is logged once, and the journal is incomplete or unused from
//! then on.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
};

use itwin_core::{
    object::ObjectKey,
    suspects::{self, Left},
};

/// The name of the file in the directory.
const NAME: &str = "under-way";
/// The name of the new file, which replaces the previous one once the process has started.
const NEW: &str = "under-way.new";
/// The size of one slot in bytes: enough for the longest namespace, name and UID. It is a divisor of the page size, so
/// that a write to a slot is atomic.
const SLOT: usize = 512;
/// The maximum number of slots, for credentials that are being reconciled and for suspects: half a MiB.
const SLOTS_MAX: usize = 1024;
/// The maximum length of a UID; those of Kubernetes have 36 characters.
const UID_MAX: usize = 64;

/// The content of one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What the process did with the credential.
    pub left: Left,
    /// The number of crashes that it was a suspect of before.
    pub crashes: u32,
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID.
    pub uid: String,
}

impl Record {
    /// The record for the next process, if the credential is a suspect.
    pub fn suspected(self) -> Option<Self> {
        let crashes = suspects::crashes(self.left, self.crashes)?;
        Some(Self { left: Left::Held, crashes, ..self })
    }

    /// The line of the file; `None` if it is longer than a slot, which is impossible for valid names.
    fn line(&self) -> Option<String> {
        let left = match self.left {
            Left::UnderWay => "under-way",
            Left::Held => "held",
            Left::Released => "released",
        };
        let line = format!("{left} {} {} {}\n", self.crashes, self.key, self.uid);
        (line.len() <= SLOT).then_some(line)
    }

    /// Parses the output of [`Self::line`]; `None` for anything else.
    fn parse(slot: &[u8]) -> Option<Self> {
        let line = slot.split(|byte| *byte == b'\n').next().filter(|line| line.len() < slot.len())?;
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        let left = match words.next()? {
            "under-way" => Left::UnderWay,
            "held" => Left::Held,
            "released" => Left::Released,
            _ => return None,
        };
        let crashes = words.next()?.parse().ok()?;
        let (namespace, name) = words.next()?.split_once('/')?;
        let uid = words.next()?;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        let is_whole = words.next().is_none() && uid.len() <= UID_MAX;
        let are_names = [namespace, name, uid].iter().all(|text| !text.is_empty() && text.chars().all(legal));
        (is_whole && are_names).then(|| Self {
            left,
            crashes,
            key: ObjectKey::new(namespace, name),
            uid: uid.to_owned(),
        })
    }
}

/// A slot of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// The slots of the file.
pub struct Slots {
    /// `None` if it cannot be written.
    file: Option<File>,
    free: Vec<Slot>,
    /// The number of slots in the file.
    count: usize,
    has_failed: bool,
}

impl Slots {
    /// Reads the file in this directory and creates a new one, which replaces it with [`Self::publish`].
    pub fn open(directory: &Path) -> (Self, Vec<Record>) {
        let mut slots = Self { file: None, free: Vec::new(), count: 0, has_failed: false };
        let records = match read(&directory.join(NAME)) {
            Ok(records) => records,
            Err(error) => {
                slots.failed(&error);
                Vec::new()
            }
        };
        match create(&directory.join(NEW)) {
            Ok(file) => slots.file = Some(file),
            Err(error) => slots.failed(&error),
        }
        (slots, records)
    }

    /// Replaces the old file with the new one. A process that is killed before leaves the old one.
    pub fn publish(&mut self, directory: &Path) {
        if self.file.is_some()
            && let Err(error) = fs::rename(directory.join(NEW), directory.join(NAME))
        {
            self.failed(&error);
            self.file = None;
        }
    }

    /// Writes this record to a free slot; `None` if there is none.
    pub fn take(&mut self, record: &Record) -> Option<Slot> {
        let new = || (self.count < SLOTS_MAX).then_some(Slot(self.count));
        let slot = self.free.pop().or_else(new)?;
        self.count = self.count.max(slot.0 + 1);
        self.write(&slot, record);
        Some(slot)
    }

    /// Writes a record to its slot.
    pub fn write(&mut self, slot: &Slot, record: &Record) {
        if let Some(line) = record.line() {
            self.put(slot.0, line.as_bytes());
        }
    }

    /// Empties a slot, so that another record can use it.
    pub fn free(&mut self, slot: Option<Slot>) {
        if let Some(slot) = slot {
            self.put(slot.0, &[0]);
            self.free.push(slot);
        }
    }

    /// Empties all slots except these, and closes the file.
    pub fn close(&mut self, kept: &[&Slot]) {
        for index in (0..self.count).filter(|index| !kept.contains(&&Slot(*index))) {
            self.put(index, &[0]);
        }
        self.file = None;
    }

    fn put(&mut self, index: usize, bytes: &[u8]) {
        let Some(file) = &self.file else { return };
        // at most half a MiB, so the product cannot overflow
        if let Err(error) = file.write_all_at(bytes, (index * SLOT) as u64) {
            self.failed(&error);
        }
    }

    fn failed(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.has_failed, true) {
            tracing::error!(
                %error,
                "the crash journal cannot be used, so no credential is held back after a crash: check --state-dir"
            );
        }
    }
}

/// The records of a file; none if it does not exist or is not a regular file.
fn read(path: &Path) -> io::Result<Vec<Record>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let mut bytes = Vec::new();
    File::open(path)?.take((SLOTS_MAX * SLOT) as u64).read_to_end(&mut bytes)?;
    Ok(bytes.chunks(SLOT).filter_map(Record::parse).collect())
}

fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().write(true).create_new(true).open(path)
}

#[cfg(test)]
mod tests;
