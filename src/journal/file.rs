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
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn record(name: &str) -> Record {
        Record { left: Left::UnderWay, crashes: 3, key: ObjectKey::new("team-a", name), uid: "1-2".into() }
    }

    fn written(directory: &TempDir) -> Vec<Record> {
        read(&directory.path().join(NAME)).expect("readable")
    }

    fn open(directory: &TempDir) -> Slots {
        let (mut slots, _) = Slots::open(directory.path());
        slots.publish(directory.path());
        slots
    }

    #[test]
    fn written_records_are_read_and_freed_ones_are_not() {
        let directory = TempDir::new().expect("a directory");
        let mut slots = open(&directory);
        let [a, b] = ["a", "b"].map(|name| slots.take(&record(name)).expect("a slot"));
        assert_eq!(written(&directory), [record("a"), record("b")]);
        slots.write(&b, &Record { left: Left::Released, ..record("b") });
        slots.free(Some(a));
        assert_eq!(written(&directory), [Record { left: Left::Released, ..record("b") }]);
        slots.take(&record("longer-than-a")).expect("a slot");
        assert_eq!(written(&directory)[0], record("longer-than-a"), "the free slot is used again");
        slots.close(&[&b]);
        assert_eq!(written(&directory).len(), 1);
        slots.take(&record("c"));
        assert_eq!(written(&directory).len(), 1, "nothing is written after it is closed");
    }

    #[test]
    fn longest_names_fit_into_a_slot() {
        let longest =
            Record { key: ObjectKey::new("n".repeat(63), "a".repeat(253)), uid: "u".repeat(UID_MAX), ..record("") };
        let line = Record { crashes: u32::MAX, ..longest }.line().expect("it fits");
        assert!(Record::parse(&[line.as_bytes(), &[0; SLOT]].concat()[..SLOT]).is_some());
        assert_eq!(Record { uid: "u".repeat(SLOT), ..record("a") }.line(), None);
    }

    #[test]
    fn invalid_records_are_ignored() {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join(NAME);
        let slot = |line: &str| [line.as_bytes(), &vec![0; SLOT - line.len()]].concat();
        let good = slot("held 1 team-a/agent 1-2\n");
        for wrong in [
            "",
            "held 1 team-a/agent 1-2",
            "held 1 team-a/agent\n",
            "held 1 team-a/agent 1-2 more\n",
            "held -1 team-a/agent 1-2\n",
            "held 4294967296 team-a/agent 1-2\n",
            "lost 1 team-a/agent 1-2\n",
            "held 1 agent 1-2\n",
            "held 1 team-a/ 1-2\n",
            "held 1 team-a/a/b 1-2\n",
            "held 1 team-a/\u{1b}[31m 1-2\n",
        ] {
            std::fs::write(&file, [slot(wrong), good.clone()].concat()).expect("written");
            assert_eq!(written(&directory).len(), 1, "{wrong:?}");
        }
        std::fs::write(&file, [vec![0xff; SLOT], vec![b'\n'; SLOT], good.clone(), b"held 1 t/a".to_vec()].concat())
            .expect("written");
        assert_eq!(written(&directory).len(), 1);
        std::fs::write(&file, [vec![0; SLOTS_MAX * SLOT], good].concat()).expect("written");
        assert_eq!(written(&directory), [], "data after the last slot is not read");
    }

    #[test]
    fn symbolic_link_is_replaced_by_a_file() {
        let directory = TempDir::new().expect("a directory");
        let elsewhere = directory.path().join("elsewhere");
        std::fs::write(&elsewhere, [b"held 1 team-a/agent 1-2\n".as_slice(), &[0; 9]].concat()).expect("written");
        std::os::unix::fs::symlink(&elsewhere, directory.path().join(NAME)).expect("a link");
        let (mut slots, records) = Slots::open(directory.path());
        assert_eq!(records, []);
        slots.publish(directory.path());
        slots.take(&record("a")).expect("a slot");
        assert_eq!(written(&directory), [record("a")]);
        assert_eq!(std::fs::read(&elsewhere).expect("readable"), b"held 1 team-a/agent 1-2\n\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn number_of_slots_is_limited() {
        let directory = TempDir::new().expect("a directory");
        let mut slots = open(&directory);
        let taken: Vec<Slot> = (0..SLOTS_MAX + 1).filter_map(|_| slots.take(&record("a"))).collect();
        assert_eq!(taken.len(), SLOTS_MAX);
        assert_eq!(written(&directory).len(), SLOTS_MAX);
        slots.free(taken.into_iter().next());
        assert!(slots.take(&record("b")).is_some());
    }

    #[test]
    fn operator_continues_without_a_usable_directory() {
        let (mut slots, records) = Slots::open(Path::new("/there/is/no/such/directory"));
        slots.publish(Path::new("/there/is/no/such/directory"));
        assert!(slots.has_failed && records.is_empty());
        let slot = slots.take(&record("a"));
        slots.free(slot);
    }

    #[test]
    fn operator_continues_if_the_disk_is_full() {
        let full = File::options().write(true).open("/dev/full").expect("Linux has it");
        let mut slots = Slots { file: Some(full), free: Vec::new(), count: 0, has_failed: false };
        let slot = slots.take(&record("a"));
        assert!(slots.has_failed && slot.is_some());
        slots.free(slot);
    }
}
