//! How each method changes what is remembered.

use itwin_api::conditions::Reason;
use serde_json::json;

use super::*;
use crate::{
    action::Fetch,
    observed::{Authority, Client, Desired, History, ObservedState, Policy, RenewBefore, RenewalRequest, Target},
    restart::Restart,
    retry_key::{AuthorityRevision, ClientKey},
};

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
}

fn credential(status: serde_json::Value) -> ITwinServiceCredential {
    serde_json::from_value(json!({
        "apiVersion": "credentials.itwin.dev/v1alpha1",
        "kind": "ITwinServiceCredential",
        "metadata": {"name": "agent", "uid": "uid", "generation": 1},
        "spec": {"clientCredentialsRef": {"name": "client"}},
        "status": status,
    }))
    .expect("a credential")
}

fn new() -> RetryState {
    RetryState::recall(&credential(json!(null)), at(0))
}

fn key() -> RetryKey {
    RetryKey { generation: 1, ..RetryKey::default() }
}

fn observed(renewal_request: Option<RenewalRequest>) -> ObservedState {
    ObservedState {
        uid: "uid".into(),
        desired: Desired {
            request: "request".into(),
            authority: "ims".into(),
            client_reference: "client/keys".into(),
            secret: "team/token".into(),
            template_failure: None,
            policy: Policy { renew_before: RenewBefore::Default, minimum_validity: TimeDelta::minutes(5) },
        },
        suspend: false,
        renewal_request,
        authority: Authority::Pending,
        client: Client::Missing,
        target: Target::Absent,
        history: History::default(),
        retry_key: key(),
        is_admitted: false,
        unwritten: None,
        restart: Restart::Done,
    }
}

fn fail(state: &mut RetryState, by_others: bool, renewal: Option<RenewalRequest>) {
    let failures_before = state.failures();
    state.failed(FailedAttempt {
        observed: &observed(renewal),
        failure: Failure::new(Reason::Timeout, "late"),
        failures_before,
        wait: TimeDelta::seconds(10),
        by_others,
        renew_annotation: Some("now"),
        now: at(0),
    });
}

#[test]
fn credential_that_failed_before_a_start_waits_for_half_a_minute_at_most_whatever_was_reported() {
    let recalled = |renew_at: Option<DateTime<Utc>>| {
        let status = json!({
            "observedGeneration": 1,
            "consecutiveFailures": 1,
            "renewAt": renew_at.map(time::to_rfc3339),
            "lastFailure": {"time": time::to_rfc3339(at(0)), "reason": "Timeout", "message": "late"},
        });
        RetryState::recall(&credential(status), at(0)).not_before()
    };
    let waits = [None, Some(at(3600))].map(recalled);
    assert_eq!(waits[0], waits[1], "no time is reported of one that waited for its authority");
    assert!(waits[0].is_some_and(|until| at(0) < until && until <= at(0) + INHERITED_BACKOFF));
    assert_eq!(recalled(Some(at(0))), Some(at(0)), "a wait that is over stays over");
}

#[test]
fn backoff_ends_with_a_success_or_with_a_change_of_what_the_attempt_depended_on() {
    let mut state = new();
    assert_eq!(state.backoff_until(&key(), at(0)), None);
    fail(&mut state, false, None);
    fail(&mut state, false, None);
    assert_eq!((state.failures(), state.is_retrying()), (2, true));
    assert_eq!(state.backoff_until(&key(), at(5)), Some(at(10)));
    let changed = [
        RetryKey { generation: 2, ..key() },
        RetryKey { authority: AuthorityRevision { revision: 0, recoveries: 1 }, ..key() },
        RetryKey { client: ClientKey::Absent, ..key() },
    ];
    assert!(changed.iter().all(|key| state.backoff_until(key, at(5)).is_none()));
    assert_eq!(state.backoff_until(&key(), at(-5)), None, "the clock was set back");
    state.settled();
    assert_eq!((state.failures(), state.not_before(), state.last_failure()), (0, None, None));
}

#[test]
fn renewal_waits_for_a_better_token_unless_the_clock_was_set_back() {
    let mut state = new();
    state.renewal_waits(at(100), at(50));
    assert_eq!([50, 99].map(|now| state.renew_not_before(at(now))), [Some(at(100)); 2]);
    assert_eq!(state.renew_not_before(at(49)), None, "the clock was set back");
}

#[test]
fn failure_of_others_is_no_retry_and_a_reported_one_is_no_news() {
    let mut state = new();
    let (late, other) = (Failure::new(Reason::Timeout, "late"), Failure::new(Reason::ServerError, "down"));
    assert!(!state.is_reported(&late, &key()));
    fail(&mut state, true, None);
    assert!(!state.is_retrying());
    assert!(state.is_reported(&other, &key()), "nothing changed since");
    let changed = RetryKey { generation: 2, ..key() };
    assert!(state.is_reported(&late, &changed) && !state.is_reported(&other, &changed));
}

#[test]
fn renewal_on_request_stays_open_until_a_token_was_written() {
    let mut state = new();
    fail(&mut state, false, Some(RenewalRequest { fresh: true, not_before: None }));
    let clues = state.renewal_clues(Some("now"), None);
    assert_eq!((clues.attempted, clues.unfulfilled), (Some("now"), Some("now")));
    state.written(Some("now"));
    let clues = state.renewal_clues(Some("now"), None);
    assert_eq!((clues.attempted, clues.unfulfilled), (Some("now"), None));
    assert_eq!(state.failures(), 0);
}

#[test]
fn status_counts_until_the_watch_brings_it_and_an_older_object_is_noticed() {
    let mut state = new();
    assert!(!state.observed_version(5));
    state.status_write_begins();
    state.status_written(7, CredentialStatus::default());
    assert!(!state.observed_version(6), "the written status counts");
    assert!(state.written_status().is_some());
    assert!(!state.observed_version(7));
    assert!(state.written_status().is_none());
    assert!(state.observed_version(6), "a watch shows an older one again");
}

#[test]
fn long_renewal_is_reported_once_for_as_long_as_it_is() {
    let mut state = new();
    assert_eq!([true, true, false, true].map(|long| state.reports_long_renewal(long)), [true, false, false, true]);
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
    assert_eq!(reported(&state), (1, Some(Reason::SecretWriteFailed)));
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
fn token_of_the_status_counts_until_the_secret_is_read_and_only_for_its_spec() {
    let status = json!({
        "observedGeneration": 1,
        "issuer": "https://ims.example.com",
        "issuedAt": time::to_rfc3339(at(0)),
        "expiresAt": time::to_rfc3339(at(3600)),
    });
    let mut state = RetryState::recall(&credential(status.clone()), at(0));
    assert_eq!(state.last_held().map(|held| held.token_metadata.expires_at), Some(at(3600)));
    state.remember_observed(&observed(None), None);
    assert_eq!(state.last_held(), None, "there is no Secret");
    let mut old = status;
    old["observedGeneration"] = json!(0);
    assert!(RetryState::recall(&credential(old), at(0)).last_held().is_none());
}

#[test]
fn suspension_is_remembered_until_a_token_is_written_or_none_is_due() {
    let ends: [fn(&mut RetryState); 2] = [|state| state.written(None), |state| state.up_to_date(None)];
    for end in ends {
        let mut state = new();
        assert!(!state.was_suspended());
        state.suspended();
        assert!(state.was_suspended());
        end(&mut state);
        assert!(!state.was_suspended());
    }
}
