//! A replica that leads: renewals, the deadline, and how it steps down.

use super::*;

#[test]
fn renewal_keeps_the_term_and_comes_once_in_a_period() {
    let mut replica = Replica::leading();
    let sent = replica.now - CALL;
    assert_eq!(replica.next(), Action::Wait(sent + TIMING.period));
    replica.now = sent + TIMING.period;
    let write = replica.next_write();
    assert_eq!(write.change, Change::Renew);
    assert_eq!(write.record.acquire_time.as_deref(), Some("now"), "as the API server holds it");
    assert_eq!(write.record.transitions, 0);
}

#[test]
fn write_whose_answer_was_lost_is_found_and_renewed() {
    let mut replica = Replica::observing(Some(held("", "0")));
    let write = replica.next_write();
    let sent = replica.now;
    replica.now += Duration::from_secs(3);
    replica.election.write_failed(sent, replica.now);
    assert_eq!(replica.next(), Action::Read, "the time of a retry has passed since it was sent");
    replica.read(Some(as_written(&write, "1")));
    let renewal = replica.next_write();
    assert_eq!((renewal.change, renewal.record.transitions), (Change::Renew, 4), "the same term");
    assert!(!replica.election.leads(), "only a write that is answered makes a leader");
    replica.written(&renewal);
    assert!(replica.election.leads());
}

#[test]
fn leader_that_reads_of_another_holder_steps_down_for_good() {
    let mut replica = Replica::leading();
    replica.now += TIMING.period;
    replica.next_write();
    replica.conflicted();
    assert_eq!(replica.next(), Action::Read);
    replica.read(Some(held("other", "1")));
    assert_eq!(replica.next(), Action::StepDown(Loss::HolderChanged));
    replica.read(Some(held("", "2")));
    assert_eq!(replica.next(), Action::StepDown(Loss::HolderChanged), "even where the Lease is free again");
    assert!(!replica.election.leads());
}

#[test]
fn leader_that_cannot_renew_tries_until_its_deadline_and_steps_down_for_good() {
    let mut replica = Replica::leading();
    let renewed = replica.now - CALL;
    assert_eq!(replica.election.renew_deadline(), Some(renewed + TIMING.renew_within));
    let mut tries = 0;
    let loss = loop {
        let sent = replica.now;
        match replica.next() {
            Action::Wait(until) => replica.now = until,
            Action::Read => {
                (tries, replica.now) = (tries + 1, sent + CALL);
                replica.election.read_failed(sent, replica.now);
            }
            Action::Write(_) => {
                (tries, replica.now) = (tries + 1, sent + CALL);
                replica.election.write_failed(sent, replica.now);
            }
            Action::StepDown(loss) => break loss,
        }
    };
    assert_eq!((loss, tries), (Loss::RenewDeadline, 7));
    assert_eq!(replica.now, renewed + TIMING.renew_within);
}

#[test]
fn leader_creates_a_deleted_lease_again_with_its_term() {
    let mut replica = Replica::observing(Some(held("", "0")));
    let write = replica.next_write();
    replica.written(&write);
    replica.now += TIMING.period;
    replica.next_write();
    replica.conflicted();
    replica.read(None);
    let write = replica.next_write();
    assert_eq!(write.change, Change::Create);
    assert_eq!((write.record.acquire_time.as_deref(), write.record.transitions), (Some("now"), 4));
    // another replica was faster
    replica.conflicted();
    assert_eq!(replica.next(), Action::Wait(replica.now - CALL + TIMING.retry), "two conflicts, then a pause");
    replica.now += TIMING.retry;
    assert_eq!(replica.next(), Action::Read);
    replica.read(Some(held("other", "1")));
    assert_eq!(replica.next(), Action::StepDown(Loss::HolderChanged));
}

#[test]
fn leader_takes_a_lease_again_whose_holder_was_cleared() {
    let mut replica = Replica::leading();
    replica.now += TIMING.period;
    replica.next_write();
    replica.conflicted();
    replica.read(Some(held("", "cleared by hand")));
    let write = replica.next_write();
    assert_eq!((write.change, write.record.transitions), (Change::Acquire, 4));
}

#[test]
fn process_that_was_paused_past_its_deadline_steps_down_before_it_writes() {
    let mut replica = Replica::leading();
    replica.now += Duration::from_secs(3600);
    assert_eq!(replica.next(), Action::StepDown(Loss::RenewDeadline));
}

#[test]
fn leader_that_is_asked_to_stop_releases_the_lease() {
    let mut replica = Replica::leading();
    replica.election.stop();
    assert!(!replica.election.leads());
    let write = replica.next_write();
    assert_eq!((write.change, write.record.holder.as_str()), (Change::Release, ""));
    assert_eq!(write.record.duration, Duration::from_secs(1), "as client-go; the API server refuses 0");
    assert_eq!(write.version.as_deref(), Some("1"));
    replica.conflicted();
    assert_eq!(replica.next(), Action::Read);
    replica.read(Some(held("me", "1")));
    let write = replica.next_write();
    assert_eq!(write.record.transitions, 3, "unchanged");
    replica.written(&write);
    assert_eq!(replica.next(), Action::StepDown(Loss::Released));
}
