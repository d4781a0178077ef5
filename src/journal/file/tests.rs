//! The file of the crash journal: its records, its limits, and directories that cannot be used.

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
