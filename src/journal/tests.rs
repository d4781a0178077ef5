//! Which credentials are suspects of the crash journal across restarts of the process.

use itwin_core::object::ObjectKey;
use tempfile::TempDir;

use super::*;

const NONE_HELD: [(&str, u32); 0] = [];

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("team-a", name)
}

fn uid(name: &str) -> String {
    format!("uid-of-{name}")
}

fn open(directory: &TempDir) -> Journal {
    Journal::open(Some(directory.path()), &Arc::new(Metrics::new(false).expect("metrics")))
}

/// A process that leads and has these credentials.
fn leading(directory: &TempDir, names: &[&str]) -> Journal {
    let journal = open(directory);
    journal.leads(names.iter().map(|name| Arc::new(key(name))), |_| true);
    journal
}

/// The same a few seconds later.
fn settled(directory: &TempDir, names: &[&str]) -> Journal {
    let journal = leading(directory, names);
    age(&journal, suspects::SETTLE);
    journal
}

/// The process crashes while it reconciles these.
fn crash(journal: Journal, names: &[&str]) {
    let keys: Vec<ObjectKey> = names.iter().map(|name| key(name)).collect();
    for entry in keys.iter().map(|key| journal.begin(key, &uid(&key.name)).expect("it is not held back")) {
        std::mem::forget(entry);
    }
}

fn reconcile(journal: &Journal, name: &str) -> Result<(), Duration> {
    journal.begin(&key(name), &uid(name)).map(drop)
}

/// Advances the time of suspects.
fn age(journal: &Journal, by: Duration) {
    let mut state = journal.state().expect("a directory");
    state.leading_since = state.leading_since.and_then(|since| since.checked_sub(by));
    for suspect in state.suspects.values_mut() {
        if let Standing::Released(at) = &mut suspect.standing {
            *at = at.checked_sub(by).expect("long enough since the start of the machine");
        }
    }
}

/// The suspects, each with its number of crashes.
fn suspected(journal: &Journal) -> Vec<(String, u32)> {
    let state = journal.state().expect("a directory");
    let mut all: Vec<_> = state.suspects.iter().map(|(key, it)| (key.name.clone(), it.crashes)).collect();
    all.sort();
    all
}

fn is(found: &[(String, u32)], wanted: &[(&str, u32)]) -> bool {
    found.iter().map(|(name, crashes)| (name.as_str(), *crashes)).eq(wanted.iter().copied())
}

#[test]
fn credential_under_way_in_a_crash_is_reconciled_after_the_others() {
    let directory = TempDir::new().expect("a directory");
    crash(leading(&directory, &["bad", "good"]), &["bad"]);
    let journal = leading(&directory, &["bad", "good"]);
    assert!(is(&suspected(&journal), &[("bad", 1)]), "{:?}", suspected(&journal));
    assert_eq!(reconcile(&journal, "bad"), Err(suspects::REQUEUE));
    age(&journal, suspects::SETTLE);
    assert_eq!(reconcile(&journal, "bad"), Err(suspects::REQUEUE), "one was not served yet");
    let good = key("good");
    let under_way = journal.begin(&good, &uid("good")).expect("it is not a suspect");
    assert_eq!(reconcile(&journal, "bad"), Err(suspects::REQUEUE), "one is being served");
    drop(under_way);
    reconcile(&journal, "bad").expect("the others were served");
}

#[test]
fn credential_reconciled_before_a_crash_is_not_a_suspect() {
    let directory = TempDir::new().expect("a directory");
    let journal = settled(&directory, &["bad", "good"]);
    reconcile(&journal, "good").expect("there are no suspects");
    crash(journal, &["bad"]);
    assert!(is(&suspected(&open(&directory)), &[("bad", 1)]));
}

#[test]
fn reconciliation_that_panics_has_ended() {
    let directory = TempDir::new().expect("a directory");
    let journal = settled(&directory, &["bad"]);
    let key = key("bad");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _entry = journal.begin(&key, "uid").expect("there are no suspects");
        std::panic::resume_unwind(Box::new("a bug"));
    }));
    assert!(caught.is_err());
    assert!(is(&suspected(&open(&directory)), &NONE_HELD));
}

#[test]
fn suspect_that_crashes_again_waits_longer_and_the_others_of_its_first_crash_do_not() {
    let directory = TempDir::new().expect("a directory");
    let names = ["bad", "innocent", "good"];
    crash(leading(&directory, &names), &["bad", "innocent"]);
    let journal = settled(&directory, &names);
    reconcile(&journal, "good").expect("it is not a suspect");
    crash(journal, &["bad"]);
    let journal = settled(&directory, &names);
    assert!(is(&suspected(&journal), &[("bad", 2), ("innocent", 1)]), "{:?}", suspected(&journal));
    reconcile(&journal, "good").expect("it is not a suspect");
    reconcile(&journal, "innocent").expect("the others were served");
    let wait = reconcile(&journal, "bad").expect_err("held back");
    assert!(wait > suspects::HELD - Duration::from_secs(10), "{wait:?}");
    age(&journal, suspects::HELD);
    reconcile(&journal, "bad").expect("its wait is over");
}

#[test]
fn suspects_are_reconciled_one_at_a_time() {
    let directory = TempDir::new().expect("a directory");
    crash(leading(&directory, &["a", "b"]), &["a", "b"]);
    let journal = settled(&directory, &["a", "b"]);
    let (a, b) = (key("a"), key("b"));
    let entry = journal.begin(&a, &uid("a")).expect("there are no others");
    assert_eq!(journal.begin(&b, &uid("b")).map(drop), Err(suspects::REQUEUE));
    drop(entry);
    journal.begin(&b, &uid("b")).map(drop).expect("it is alone now");
}

#[test]
fn suspect_is_forgotten_some_time_after_a_reconciliation_without_a_crash() {
    let directory = TempDir::new().expect("a directory");
    crash(leading(&directory, &["bad"]), &["bad"]);
    let journal = settled(&directory, &["bad"]);
    reconcile(&journal, "bad").expect("there are no others");
    crash(journal, &["bad"]);
    let journal = settled(&directory, &["bad"]);
    assert!(is(&suspected(&journal), &[("bad", 2)]), "it crashed again soon after");
    age(&journal, suspects::HELD);
    reconcile(&journal, "bad").expect("its wait is over");
    age(&journal, suspects::PROBATION);
    reconcile(&journal, "another").expect("it is not a suspect");
    assert!(is(&suspected(&journal), &NONE_HELD));
    drop(journal);
    assert!(is(&suspected(&open(&directory)), &NONE_HELD));
}

#[test]
fn released_suspect_is_not_held_back_after_the_crash_of_another() {
    let directory = TempDir::new().expect("a directory");
    crash(leading(&directory, &["innocent", "bad"]), &["innocent"]);
    let journal = settled(&directory, &["innocent", "bad"]);
    reconcile(&journal, "bad").expect("it is not a suspect");
    reconcile(&journal, "innocent").expect("the others were served");
    crash(journal, &["bad"]);
    assert!(is(&suspected(&open(&directory)), &[("bad", 1)]));
}

#[test]
fn suspect_that_was_deleted_or_created_again_is_forgotten() {
    let directory = TempDir::new().expect("a directory");
    crash(leading(&directory, &["gone", "again"]), &["gone", "again"]);
    let journal = settled(&directory, &["again"]);
    assert!(is(&suspected(&journal), &[("again", 1)]));
    journal.begin(&key("again"), "another-uid").map(drop).expect("it is another credential");
    assert!(is(&suspected(&journal), &NONE_HELD));
}

#[test]
fn regular_end_of_the_process_adds_no_suspects() {
    let directory = TempDir::new().expect("a directory");
    crash(leading(&directory, &["a", "b"]), &["a"]);
    let journal = settled(&directory, &["a", "b"]);
    let (a, b) = (key("a"), key("b"));
    let under_way = [journal.begin(&b, &uid("b")), Ok(entry_of_suspect(&journal, &a))];
    journal.close();
    std::mem::forget(under_way);
    assert!(is(&suspected(&open(&directory)), &[("a", 1)]));
}

fn entry_of_suspect<'a>(journal: &'a Journal, key: &'a ObjectKey) -> Entry<'a> {
    age(journal, suspects::GRACE);
    journal.begin(key, &uid(&key.name)).expect("its wait is over")
}

#[test]
fn held_back_credentials_are_counted_until_they_are_reconciled() {
    let directory = TempDir::new().expect("a directory");
    crash(leading(&directory, &["a", "b"]), &["a"]);
    let metrics = Arc::new(Metrics::new(false).expect("metrics"));
    let journal = Journal::open(Some(directory.path()), &metrics);
    journal.leads(["a", "b"].iter().map(|name| Arc::new(key(name))), |_| true);
    let held = || {
        let text: String = metrics.pages().expect("text").collect();
        text.lines().any(|line| line == "itwin_held_back_credentials 1")
    };
    assert!(held());
    age(&journal, suspects::SETTLE);
    reconcile(&journal, "b").expect("it is not a suspect");
    reconcile(&journal, "a").expect("the others were served");
    assert!(!held());
}

#[test]
fn without_a_directory_there_are_no_suspects() {
    let metrics = Arc::new(Metrics::new(false).expect("metrics"));
    for directory in [None, Some(Path::new("/there/is/no/such/directory"))] {
        let journal = Journal::open(directory, &metrics);
        journal.leads(std::iter::once(Arc::new(key("a"))), |_| true);
        reconcile(&journal, "a").expect("there are no suspects");
    }
}
