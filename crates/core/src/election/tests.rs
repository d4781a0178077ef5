//! The state machine, step by step. No test has a wall clock: there is none in its input.

#![expect(clippy::panic, reason = "a test that meets another action than it expects fails")]

mod leader;
mod slow;

use super::*;

const TIMING: Timing = Timing {
    lease: Duration::from_secs(12),
    renew_within: Duration::from_secs(10),
    period: Duration::from_secs(3),
    retry: Duration::from_secs(1),
};

/// How long a call takes here.
const CALL: Duration = Duration::from_millis(10);

/// The longest time between two reads of a standby.
const POLL: Duration = Duration::from_millis(3750);

/// One replica, and a Lease that it can write at once.
struct Replica {
    election: Election,
    now: Instant,
}

impl Replica {
    fn new() -> Self {
        let now = Instant::now();
        Self { election: Election::new("me".to_owned(), TIMING, now), now }
    }

    fn observing(lease: Option<ObservedLease>) -> Self {
        let mut replica = Self::new();
        assert_eq!(replica.next(), Action::Read, "nothing is written before the Lease is known");
        replica.read(lease);
        replica
    }

    fn leading() -> Self {
        let mut replica = Self::observing(None);
        let write = replica.next_write();
        replica.written(&write);
        assert!(replica.election.leads());
        replica
    }

    fn next(&mut self) -> Action {
        self.election.next(self.now)
    }

    fn read(&mut self, lease: Option<ObservedLease>) {
        let sent = self.now;
        self.now += CALL;
        self.election.read(lease, sent, self.now);
    }

    /// What it writes now; nothing else may come first.
    fn next_write(&mut self) -> Write {
        match self.next() {
            Action::Write(write) => write,
            other => panic!("a write, not {other:?}"),
        }
    }

    /// A write that succeeds.
    fn written(&mut self, write: &Write) -> ObservedLease {
        let sent = self.now;
        self.now += CALL;
        let lease = as_written(write, "written");
        self.election.written(lease.clone(), sent, self.now);
        lease
    }

    fn conflicted(&mut self) {
        let sent = self.now;
        self.now += CALL;
        self.election.conflicted(sent, self.now);
    }

    /// Reads this whenever it asks, until it does something else; gives that and how long it took.
    fn reading(&mut self, lease: &ObservedLease) -> (Action, Duration) {
        let began = self.now;
        loop {
            match self.next() {
                Action::Read => self.read(Some(lease.clone())),
                Action::Wait(until) => {
                    assert!(until > self.now, "it waits for a time to come");
                    self.now = until;
                }
                other => return (other, self.now - began),
            }
            assert!(self.now - began < Duration::from_secs(3600), "nothing happens");
        }
    }
}

fn as_written(write: &Write, renew_time: &str) -> ObservedLease {
    let NewRecord { holder, duration, acquire_time, transitions } = write.record.clone();
    let record = Record {
        holder,
        duration_seconds: i64::try_from(duration.as_secs()).ok(),
        acquire_time: acquire_time.or_else(|| Some("now".to_owned())),
        renew_time: Some(renew_time.to_owned()),
        transitions: Some(transitions),
    };
    ObservedLease { version: "1".to_owned(), record }
}

fn held(by: &str, renew_time: &str) -> ObservedLease {
    let record = Record {
        holder: by.to_owned(),
        duration_seconds: Some(12),
        acquire_time: Some("2026-01-01T00:00:00.000000Z".to_owned()),
        renew_time: Some(renew_time.to_owned()),
        transitions: Some(3),
    };
    ObservedLease { version: format!("version at {renew_time}"), record }
}

fn with(lease: &ObservedLease, change: impl FnOnce(&mut Record)) -> ObservedLease {
    let mut lease = lease.clone();
    change(&mut lease.record);
    lease
}

fn is_acquisition(action: &Action) -> bool {
    matches!(action, Action::Write(Write { change: Change::Acquire, .. }))
}

#[test]
fn missing_lease_is_created_at_once() {
    let write = Replica::observing(None).next_write();
    assert_eq!((write.change, write.version), (Change::Create, None));
    assert_eq!(
        write.record,
        NewRecord { holder: "me".to_owned(), duration: TIMING.lease, acquire_time: None, transitions: 0 }
    );
}

#[test]
fn lease_of_a_dead_holder_is_taken_after_its_duration_whatever_its_clock_said() {
    // ten minutes ahead of ours, behind ours, and no time: the wait is equal for each
    for renew_time in ["2036-01-01T00:10:00.000000Z", "2016-01-01T00:00:00.000000Z", "", "garbage"] {
        let lease = held("other", renew_time);
        let (action, took) = Replica::observing(Some(lease.clone())).reading(&lease);
        assert_eq!(took, TIMING.lease, "{renew_time}");
        let Action::Write(write) = action else { panic!("{action:?}") };
        assert_eq!(write.change, Change::Acquire);
        assert_eq!(write.version.as_ref(), Some(&lease.version), "guarded by the version that was read");
        assert_eq!((write.record.acquire_time, write.record.transitions), (None, 4), "a new term");
    }
}

#[test]
fn lease_that_is_renewed_is_never_taken() {
    let mut replica = Replica::observing(Some(held("other", "0")));
    for number in 0..1000 {
        // its clock runs backwards: another value, and that is all
        let lease = held("other", &(5000 - number).to_string());
        // one that comes later meets a standby that tries to take the Lease, and finds it changed
        let until = replica.now + TIMING.lease - POLL - CALL * 2;
        while replica.now < until {
            match replica.next() {
                Action::Read => replica.read(Some(lease.clone())),
                Action::Wait(until) => replica.now = until,
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn standby_reads_once_in_a_period_and_its_jitter() {
    let mut replica = Replica::observing(Some(held("other", "0")));
    let mut intervals = Vec::new();
    for renewal in 1..=9 {
        let Action::Wait(until) = replica.next() else { panic!("it waits") };
        intervals.push(until - replica.now);
        replica.now = until;
        assert_eq!(replica.next(), Action::Read);
        replica.read(Some(held("other", &renewal.to_string())));
    }
    assert!(intervals.iter().all(|interval| (TIMING.period..POLL).contains(interval)), "{intervals:?}");
    intervals.dedup();
    assert_eq!(intervals.len(), 9, "a jitter for each");
}

#[test]
fn read_of_a_standby_that_failed_is_made_again_soon() {
    const HANGS: Duration = Duration::from_secs(2);
    let mut replica = Replica::observing(Some(held("other", "0")));
    // the holder renews right after that, and dies
    let renewed = replica.now;
    for fails_after in [CALL, HANGS] {
        let Action::Wait(until) = replica.next() else { panic!("it waits") };
        let sent = until;
        replica.now = until;
        assert_eq!(replica.next(), Action::Read);
        replica.now += fails_after;
        replica.election.read_failed(sent, replica.now);
    }
    assert_eq!(replica.next(), Action::Read, "at once, where it took longer than a retry waits");
    let (action, _) = replica.reading(&held("other", "1"));
    assert!(is_acquisition(&action));
    let took = replica.now - renewed;
    let retry = TIMING.retry.mul_f64(1.0 + JITTER);
    assert!(took <= POLL + retry + HANGS + CALL + TIMING.lease, "{took:?}");
    assert!(took < Duration::from_secs(20), "the contract: {took:?}");
}

#[test]
fn standby_that_is_shown_each_renewal_never_reads_and_takes_the_lease_of_a_dead_holder() {
    let mut replica = Replica::observing(Some(held("other", "0")));
    let mut lease = held("other", "0");
    for number in 1..100 {
        // each comes a little late
        let until = replica.now + TIMING.period + Duration::from_millis(200);
        let action = replica.next();
        assert!(matches!(action, Action::Wait(at) if at > until), "{action:?}");
        replica.now = until;
        lease = held("other", &number.to_string());
        replica.election.shown(lease.clone(), replica.now);
    }
    let (action, took) = replica.reading(&lease);
    assert!(is_acquisition(&action));
    assert_eq!(took, TIMING.lease);
}

#[test]
fn release_that_is_shown_is_followed_at_once() {
    let mut replica = Replica::observing(Some(held("other", "0")));
    replica.election.shown(held("", "1"), replica.now);
    let write = replica.next_write();
    assert_eq!((write.change, write.version.as_deref()), (Change::Acquire, Some("version at 1")));
    replica.conflicted();
    replica.election.shown(held("", "2"), replica.now);
    assert_eq!(replica.next(), Action::Read, "what is shown may be older than what a write met");
}

#[test]
fn what_a_watch_cannot_show_is_read_at_once_and_by_no_leader() {
    let mut replica = Replica::observing(Some(held("other", "0")));
    assert!(matches!(replica.next(), Action::Wait(_)));
    replica.election.is_unclear(replica.now);
    assert_eq!(replica.next(), Action::Read);
    let mut leader = Replica::leading();
    leader.election.is_unclear(leader.now);
    leader.election.shown(held("other", "1"), leader.now);
    assert!(matches!(leader.next(), Action::Wait(_)) && leader.election.leads() && !leader.election.is_standby());
}

#[test]
fn absurd_duration_neither_prevents_failover_nor_lets_a_lease_be_stolen() {
    let rows = [
        (None, 12),
        (Some(0), 12),
        (Some(-5), 12),
        (Some(i64::MIN), 12),
        (Some(1), 12),
        (Some(14), 14),
        (Some(i64::from(i32::MAX)), 15),
        (Some(i64::MAX), 15),
    ];
    for (duration, expected) in rows {
        let lease = with(&held("other", "0"), |record| record.duration_seconds = duration);
        let (action, took) = Replica::observing(Some(lease.clone())).reading(&lease);
        assert!(is_acquisition(&action));
        assert_eq!(took, Duration::from_secs(expected), "{duration:?}");
    }
}

#[test]
fn absurd_transitions_are_counted_on_within_their_type() {
    for (transitions, next) in [(None, 1), (Some(-7), 1), (Some(i64::from(i32::MAX)), i64::from(i32::MAX))] {
        let lease = with(&held("", "0"), |record| record.transitions = transitions);
        assert_eq!(Replica::observing(Some(lease)).next_write().record.transitions, next);
    }
}

#[test]
fn released_lease_is_taken_at_once() {
    let mut replica = Replica::observing(Some(held("other", "0")));
    assert!(matches!(replica.next(), Action::Wait(_)));
    replica.now += POLL;
    assert_eq!(replica.next(), Action::Read);
    replica.read(Some(held("", "1")));
    let write = replica.next_write();
    assert_eq!((write.change, write.record.transitions), (Change::Acquire, 4));
}

#[test]
fn older_record_without_a_holder_is_no_release() {
    let mut replica = Replica::observing(Some(held("other", "0")));
    replica.now += POLL;
    let restored = with(&held("", "from a backup"), |record| record.transitions = Some(2));
    replica.read(Some(restored.clone()));
    let (action, took) = replica.reading(&restored);
    assert!(is_acquisition(&action));
    assert_eq!(took, TIMING.lease, "the holder may write until its fence ends");
}

#[test]
fn deleted_lease_is_not_taken_while_a_holder_may_write() {
    // the holder that was read of, or one that came after the release and was not read of
    for before in [held("other", "0"), held("", "0")] {
        let mut replica = Replica::observing(Some(before));
        replica.read(None);
        let deleted = replica.now;
        let write = loop {
            match replica.next() {
                Action::Read => replica.read(None),
                Action::Wait(until) => replica.now = until,
                Action::Write(write) => break write,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(write.change, Change::Create);
        assert_eq!(replica.now - deleted, TIMING.lease);
    }
}

#[test]
fn metadata_changed_by_others_is_no_sign_of_life() {
    let lease = held("other", "0");
    let mut replica = Replica::observing(Some(lease.clone()));
    replica.now += Duration::from_secs(11);
    let annotated = ObservedLease { version: "later".to_owned(), ..lease };
    let (action, took) = replica.reading(&annotated);
    assert_eq!(took, Duration::from_secs(1));
    let Action::Write(write) = action else { panic!("{action:?}") };
    assert_eq!(write.version.as_deref(), Some("later"));
}

#[test]
fn conflict_at_acquiring_is_followed_by_a_read_and_the_new_holder_is_respected() {
    let lease = held("", "0");
    let mut replica = Replica::observing(Some(lease));
    replica.next_write();
    replica.conflicted();
    assert_eq!(replica.next(), Action::Read, "at once");
    let other = with(&held("third", "1"), |record| record.transitions = Some(4));
    replica.read(Some(other.clone()));
    let (action, took) = replica.reading(&other);
    assert!(is_acquisition(&action) && took == TIMING.lease);
}

#[test]
fn conflicts_without_end_do_not_become_a_hot_loop() {
    let mut replica = Replica::observing(Some(held("", "0")));
    let (began, mut writes) = (replica.now, 0);
    while replica.now - began < Duration::from_secs(60) {
        match replica.next() {
            Action::Read => replica.read(Some(held("", "0"))),
            Action::Wait(until) => replica.now = until,
            Action::Write(_) => {
                writes += 1;
                replica.conflicted();
            }
            Action::StepDown(loss) => panic!("{loss:?}"),
        }
    }
    assert!((50..=120).contains(&writes), "{writes} in a minute");
}

#[test]
fn standby_that_is_asked_to_stop_writes_nothing() {
    let mut fresh = Replica::new();
    fresh.election.stop();
    assert_eq!(fresh.next(), Action::StepDown(Loss::Released));
    let mut standby = Replica::observing(Some(held("other", "0")));
    standby.election.stop();
    assert_eq!(standby.next(), Action::StepDown(Loss::Released));
}

#[test]
fn standby_that_may_have_acquired_the_lease_releases_it_when_it_is_asked_to_stop() {
    let mut replica = Replica::observing(Some(held("", "0")));
    let write = replica.next_write();
    replica.election.write_failed(replica.now, replica.now + TIMING.period.mul_f64(2.0));
    replica.now += TIMING.period.mul_f64(2.0);
    replica.election.stop();
    assert_eq!(replica.next(), Action::Read);
    replica.read(Some(as_written(&write, "1")));
    assert_eq!(replica.next_write().change, Change::Release);
}
