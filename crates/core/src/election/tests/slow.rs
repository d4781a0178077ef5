//! A standby whose calls take long.

use super::*;

#[test]
fn standby_waits_for_no_read_once_the_lease_is_free_and_for_each_one_that_it_needs() {
    let mut replica = Replica::observing(Some(held("other", "0")));
    let free = replica.now + TIMING.lease;
    assert_eq!(replica.election.read_deadline(), Some(free));
    replica.now = free - CALL;
    assert_eq!(replica.next(), Action::Read);
    let sent = replica.now;
    replica.now = free;
    replica.election.read_failed(sent, replica.now);
    let write = replica.next_write();
    assert_eq!((write.change, write.version.as_deref()), (Change::Acquire, Some("version at 0")), "it is guarded");
    replica.conflicted();
    assert_eq!(replica.next(), Action::Read);
    assert_eq!(replica.election.read_deadline(), None, "nothing is written before it is answered");
    assert_eq!(Replica::new().election.read_deadline(), None, "nor before the first one");
}

#[test]
fn leader_reads_only_until_it_steps_down() {
    let replica = Replica::leading();
    assert!(replica.election.read_deadline().is_some());
    assert_eq!(replica.election.read_deadline(), replica.election.renew_deadline());
}

#[test]
fn read_that_takes_long_does_not_put_off_the_next_one_except_for_a_pause() {
    for took in [2, 5].map(Duration::from_secs) {
        let mut replica = Replica::observing(Some(held("other", "0")));
        let Action::Wait(sent) = replica.next() else { panic!("it waits") };
        replica.now = sent + took;
        replica.election.read(Some(held("other", "1")), sent, replica.now);
        let Action::Wait(until) = replica.next() else { panic!("it waits") };
        let next = until - sent;
        assert!(next < POLL || next == took + TIMING.retry, "{next:?} after one that took {took:?}");
        assert!(next >= TIMING.period && until - replica.now >= TIMING.retry, "{next:?} after one that took {took:?}");
        assert_eq!(
            replica.election.read_deadline(),
            Some(replica.now + TIMING.lease),
            "what it shows is as new as it may be"
        );
    }
}
