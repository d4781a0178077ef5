//! Which failures are reported, and what ends them.

use super::*;

#[test]
fn failure_of_others_is_no_retry_and_a_reported_one_is_no_news() {
    let mut state = new();
    let (late, other) = (Failure::new(Reason::Timeout, "late"), Failure::new(Reason::ServerError, "down"));
    assert!(!state.is_reported(&late, &key()));
    fail(&mut state, true, None);
    assert!(!state.is_retrying());
    assert!(state.is_reported(&other, &key()), "nothing changed since");
    let changed = RetryKey { client: ClientKey::Absent, ..key() };
    assert!(state.is_reported(&late, &changed) && !state.is_reported(&other, &changed));
}

#[test]
fn failure_that_happened_last_is_reported_whatever_failed() {
    let mut state = new();
    let fails = |reason| Failure::new(reason, "because");
    let read = |state: &mut RetryState, result, second| {
        state.read(Fetch::Target, result, TimeDelta::zero(), "uid", at(second));
    };
    let reported = |state: &RetryState| {
        let attempts = state.reported(at(60));
        (attempts.failures, attempts.last_failure.map(|(_, failure)| failure.reason))
    };
    fail(&mut state, false, None);
    read(&mut state, Err(fails(Reason::SecretReadFailed)), 1);
    read(&mut state, Err(fails(Reason::SecretReadFailed)), 2);
    assert_eq!(reported(&state), (2, Some(Reason::SecretReadFailed)));
    assert!(state.reads_not_before(at(2)).target.is_some_and(|until| until > at(2)));
    state.reverts_mut().refused(fails(Reason::SecretWriteFailed), TimeDelta::seconds(1), at(3));
    assert_eq!(reported(&state), (2, Some(Reason::SecretWriteFailed)), "it counts as no failed renewal");
    state.reverts_mut().all_reverted();
    read(&mut state, Ok(()), 4);
    assert_eq!(reported(&state), (1, Some(Reason::Timeout)));
}

#[test]
fn reads_that_failed_are_no_longer_reported_once_nothing_needs_to_be_read() {
    let mut state = new();
    let done: [fn(&mut RetryState); 2] = [|state| state.all_read(&observed(None)), |state| state.written(None)];
    for done in done {
        let failure = Failure::new(Reason::SecretReadFailed, "because");
        state.read(Fetch::Target, Err(failure), TimeDelta::zero(), "uid", at(0));
        assert_eq!(state.reported(at(0)).failures, 1);
        // such as a watch that showed what could not be read
        done(&mut state);
        assert_eq!(state.reported(at(0)).failures, 0);
    }
    state.read(Fetch::Client, Err(Failure::new(Reason::SecretReadFailed, "because")), TimeDelta::zero(), "uid", at(0));
    state.all_read(&ObservedState { client: Client::Unread { version: None }, ..observed(None) });
    assert_eq!(state.reported(at(0)).failures, 1, "nothing showed it");
}

#[test]
fn attempts_that_are_not_made_count_at_the_end_of_each_backoff_and_seldom_change_the_status() {
    let mut state = new();
    assert_eq!(state.postponed(TimeDelta::zero(), "uid", at(0)), None, "nothing failed");
    fail(&mut state, true, None);
    assert_eq!(state.postponed(TimeDelta::zero(), "uid", at(9)), Some(at(10)), "the backoff goes on");
    assert_eq!(state.failures_and_postponed(), 1);
    let (mut now, mut statuses) = (at(10), vec![state.reported(at(10))]);
    for _ in 0..100 {
        let next = state.postponed(TimeDelta::zero(), "uid", now).expect("it fails");
        assert!(next > now && next <= now + TimeDelta::minutes(1), "an outage without a token");
        now = next;
        let status = state.reported(now);
        let last = statuses.last().expect("the first");
        if (status.failures, &status.last_failure) != (last.failures, &last.last_failure) {
            statuses.push(status);
        }
    }
    assert_eq!(state.failures_and_postponed(), 101);
    let shown: Vec<u32> = statuses.iter().map(|status| status.failures).collect();
    assert_eq!(shown, [1, 9, 17, 33, 65]);
    assert_eq!(state.failures(), 1, "they prolong no backoff of an attempt");
    fail(&mut state, false, None);
    assert_eq!((state.failures(), state.failures_and_postponed()), (2, 102), "a probe that failed");
    let far = state.postponed(TimeDelta::zero(), "uid", at(-3600)).expect("it fails");
    assert!(far < at(-3600) + TimeDelta::minutes(2), "the clock was set back");
    state.settled();
    assert_eq!(state.failures_and_postponed(), 0);
}

#[test]
fn backoff_of_a_clock_that_was_set_back_binds_no_one_where_attempts_are_not_made() {
    let mut state = new();
    fail(&mut state, false, None);
    let mut now = at(10);
    for _ in 0..7 {
        now = state.postponed(TimeDelta::zero(), "uid", now).expect("it fails");
    }
    let set_back = at(-7200);
    assert!(state.postponed(TimeDelta::zero(), "uid", set_back).is_some());
    let failed_at = state.reported(set_back).last_failure.map(|(failed_at, _)| failed_at);
    assert_eq!(failed_at, Some(set_back), "the eighth is shown");
    assert_eq!(state.backoff_until(&key(), set_back), None);
    assert_eq!(state.backoff_until(&key(), set_back + TimeDelta::minutes(10)), None);
}

#[test]
fn failures_of_reads_and_reverts_end_with_what_was_observed_while_an_attempt_waits() {
    let mut state = new();
    let failure = || Failure::new(Reason::SecretReadFailed, "it failed");
    state.read(Fetch::Target, Err(failure()), TimeDelta::zero(), "uid", at(0));
    state.reverts_mut().refused(failure(), TimeDelta::seconds(5), at(0));
    fail(&mut state, false, None);
    let mut unread = observed(None);
    unread.target = Target::Unread { last: None };
    state.remember_observed(&unread, None);
    assert!(state.reads_not_before(at(0)).target.is_some() && state.reverts().failing(at(0)).is_some());
    let mut good = observed(None);
    good.target = Target::Ours(Held {
        token_metadata: None,
        data: Integrity::Verified,
        drift: Drift::None,
        form: crate::observed::Form::Presumed,
    });
    state.remember_observed(&good, None);
    assert!(state.reads_not_before(at(0)).target.is_none() && state.reverts().failing(at(0)).is_none());
    assert_eq!(state.reported(at(0)).last_failure.map(|(_, failure)| failure.reason), Some(Reason::Timeout));
}

#[test]
fn watch_of_secrets_that_fails_is_reported_where_nothing_else_is_and_counts_as_no_failure() {
    let mut state = new();
    let failure = Failure::new(Reason::SecretReadFailed, "not watched");
    let unwatched = Unwatched { since: at(5), read_from: at(5), failure: failure.clone() };
    state.set_unwatched(Some(Arc::new(unwatched)));
    let reported = state.reported(at(6));
    assert_eq!((reported.failures, reported.last_failure), (0, Some((at(5), failure))));
    assert!(reported.is_unwatched && !state.is_retrying(), "it holds up nothing");
    fail(&mut state, false, None);
    let reason = |state: &RetryState| state.reported(at(6)).last_failure.map(|(_, failure)| failure.reason);
    assert_eq!(reason(&state), Some(Reason::Timeout), "its own failure says more");
    state.settled();
    assert_eq!(reason(&state), Some(Reason::SecretReadFailed));
    state.set_unwatched(None);
    assert!(reason(&state).is_none() && !state.reported(at(6)).is_unwatched);
}

#[test]
fn what_a_watch_showed_before_it_failed_is_read_within_five_minutes_and_not_by_all_at_once() {
    let failure = Failure::new(Reason::SecretReadFailed, "not watched");
    let unwatched = Unwatched { since: at(-1000), read_from: at(0), failure };
    let until = |uid: usize| unwatched.shown_until(&uid.to_string(), at(0)).expect("not at once");
    let all: Vec<_> = (0..100).map(until).collect();
    assert!(all.iter().all(|until| *until <= at(240)));
    let early = all.iter().filter(|until| **until < at(112)).count();
    assert!((30..70).contains(&early), "{early} of 100 in the first half");
    assert_eq!(unwatched.shown_until("0", at(300)), None);
    assert_eq!(unwatched.shown_until("0", at(-1)), None, "the clock was set back");
}
