//! The file of the crash journal: places of one size, each empty or with one credential, whichever stand where.
//!
//! No error of it stops the operator: it is logged once, and the journal is then of less use, or none.

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

/// Its name within the directory.
const NAME: &str = "under-way";
/// Under this name it is written at a start; then it takes the place of the one before.
const NEW: &str = "under-way.new";
/// Bytes of one place: the longest namespace, name and UID, and some. A divisor of a page, so that a write into it is
/// whole or was not begun.
const SLOT: usize = 512;
/// So many places at most: credentials that are being reconciled, and suspects. Half a mebibyte.
const SLOTS_MAX: usize = 1024;
/// The longest UID that is read; those of Kubernetes have 36 characters.
const UID_MAX: usize = 64;

/// What stands in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// How far the process came with the credential.
    pub left: Left,
    /// How many crashes it was suspected of before.
    pub crashes: u32,
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID.
    pub uid: String,
}

impl Record {
    /// The same for the next process, if the credential is suspected.
    pub fn suspected(self) -> Option<Self> {
        let crashes = suspects::crashes(self.left, self.crashes)?;
        Some(Self { left: Left::Held, crashes, ..self })
    }

    /// One line; `None` where it is too long for a place, which no object's names are.
    fn line(&self) -> Option<String> {
        let left = match self.left {
            Left::UnderWay => "under-way",
            Left::Held => "held",
            Left::Released => "released",
        };
        let line = format!("{left} {} {} {}\n", self.crashes, self.key, self.uid);
        (line.len() <= SLOT).then_some(line)
    }

    /// Reads what [`Self::line`] wrote; anything else is nothing.
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

/// A place in the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// The places of the file.
pub struct Slots {
    /// `None` where it cannot be written.
    file: Option<File>,
    free: Vec<Slot>,
    /// How many there are.
    count: usize,
    has_failed: bool,
}

impl Slots {
    /// Reads what stands in the file of this directory, and begins a new one, which takes its place with
    /// [`Self::publish`].
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

    /// Puts the new file in the place of the old one: a process that is killed before leaves the old one.
    pub fn publish(&mut self, directory: &Path) {
        if self.file.is_some()
            && let Err(error) = fs::rename(directory.join(NEW), directory.join(NAME))
        {
            self.failed(&error);
            self.file = None;
        }
    }

    /// Takes a free place for this record; `None` where there is none.
    pub fn take(&mut self, record: &Record) -> Option<Slot> {
        let new = || (self.count < SLOTS_MAX).then_some(Slot(self.count));
        let slot = self.free.pop().or_else(new)?;
        self.count = self.count.max(slot.0 + 1);
        self.write(&slot, record);
        Some(slot)
    }

    /// Writes a record into its place.
    pub fn write(&mut self, slot: &Slot, record: &Record) {
        if let Some(line) = record.line() {
            self.put(slot.0, line.as_bytes());
        }
    }

    /// Empties a place, which others may take then.
    pub fn free(&mut self, slot: Option<Slot>) {
        if let Some(slot) = slot {
            self.put(slot.0, &[0]);
            self.free.push(slot);
        }
    }

    /// Empties all places but these. Nothing is written any more.
    pub fn close(&mut self, kept: &[&Slot]) {
        for place in (0..self.count).filter(|place| !kept.contains(&&Slot(*place))) {
            self.put(place, &[0]);
        }
        self.file = None;
    }

    fn put(&mut self, place: usize, bytes: &[u8]) {
        let Some(file) = &self.file else { return };
        // the product is at most half a mebibyte
        if let Err(error) = file.write_all_at(bytes, (place * SLOT) as u64) {
            self.failed(&error);
        }
    }

    fn failed(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.has_failed, true) {
            tracing::error!(
                %error,
                "the crash journal cannot be used: after a crash no credential is held back; check --state-dir"
            );
        }
    }
}

/// The records of a file; none where there is no file, or something else.
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
    fn what_is_written_is_read_and_what_is_freed_is_not() {
        let directory = TempDir::new().expect("a directory");
        let mut slots = open(&directory);
        let [a, b] = ["a", "b"].map(|name| slots.take(&record(name)).expect("a place"));
        assert_eq!(written(&directory), [record("a"), record("b")]);
        slots.write(&b, &Record { left: Left::Released, ..record("b") });
        slots.free(Some(a));
        assert_eq!(written(&directory), [Record { left: Left::Released, ..record("b") }]);
        slots.take(&record("longer-than-a")).expect("a place");
        assert_eq!(written(&directory)[0], record("longer-than-a"), "the free place is taken again");
        slots.close(&[&b]);
        assert_eq!(written(&directory).len(), 1);
        slots.take(&record("c"));
        assert_eq!(written(&directory).len(), 1, "nothing is written any more");
    }

    #[test]
    fn longest_names_have_a_place() {
        let longest =
            Record { key: ObjectKey::new("n".repeat(63), "a".repeat(253)), uid: "u".repeat(UID_MAX), ..record("") };
        let line = Record { crashes: u32::MAX, ..longest }.line().expect("it fits");
        assert!(Record::parse(&[line.as_bytes(), &[0; SLOT]].concat()[..SLOT]).is_some());
        assert_eq!(Record { uid: "u".repeat(SLOT), ..record("a") }.line(), None);
    }

    #[test]
    fn garbage_is_nothing() {
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
        assert_eq!(written(&directory), [], "what stands behind the last place is not read");
    }

    #[test]
    fn something_else_than_a_file_is_replaced() {
        let directory = TempDir::new().expect("a directory");
        let elsewhere = directory.path().join("elsewhere");
        std::fs::write(&elsewhere, [b"held 1 team-a/agent 1-2\n".as_slice(), &[0; 9]].concat()).expect("written");
        std::os::unix::fs::symlink(&elsewhere, directory.path().join(NAME)).expect("a link");
        let (mut slots, records) = Slots::open(directory.path());
        assert_eq!(records, []);
        slots.publish(directory.path());
        slots.take(&record("a")).expect("a place");
        assert_eq!(written(&directory), [record("a")]);
        assert_eq!(std::fs::read(&elsewhere).expect("readable"), b"held 1 team-a/agent 1-2\n\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn there_are_so_many_places_and_no_more() {
        let directory = TempDir::new().expect("a directory");
        let mut slots = open(&directory);
        let taken: Vec<Slot> = (0..SLOTS_MAX + 1).filter_map(|_| slots.take(&record("a"))).collect();
        assert_eq!(taken.len(), SLOTS_MAX);
        assert_eq!(written(&directory).len(), SLOTS_MAX);
        slots.free(taken.into_iter().next());
        assert!(slots.take(&record("b")).is_some());
    }

    #[test]
    fn directory_that_cannot_be_used_stops_nothing() {
        let (mut slots, records) = Slots::open(Path::new("/there/is/no/such/directory"));
        slots.publish(Path::new("/there/is/no/such/directory"));
        assert!(slots.has_failed && records.is_empty());
        let slot = slots.take(&record("a"));
        slots.free(slot);
    }

    #[test]
    fn disk_that_is_full_stops_nothing() {
        let full = File::options().write(true).open("/dev/full").expect("Linux has it");
        let mut slots = Slots { file: Some(full), free: Vec::new(), count: 0, has_failed: false };
        let slot = slots.take(&record("a"));
        assert!(slots.has_failed && slot.is_some());
        slots.free(slot);
    }
}
