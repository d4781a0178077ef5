//! How each method changes what is remembered.

use itwin_api::conditions::Reason;
use serde_json::json;

use super::*;
use crate::{
    action::Fetch,
    client_expiry::Expires,
    messages_lifetime,
    observed::{Authority, Client, Desired, Drift, Held, History, Integrity, ObservedState, RenewalRequest, Target},
    policy::{Policy, RenewBefore},
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
    RetryKey::default()
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
            policy: Policy { renew_before: RenewBefore::Default, minimum_validity: Some(TimeDelta::minutes(5)) },
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
    fail_at(state, by_others, renewal, at(0));
}

fn fail_at(state: &mut RetryState, by_others: bool, renewal: Option<RenewalRequest>, now: DateTime<Utc>) {
    let failures_before = state.failures();
    state.failed(FailedAttempt {
        observed: &observed(renewal),
        failure: Failure::new(Reason::Timeout, "late"),
        failures_before,
        wait: TimeDelta::seconds(10),
        by_others,
        renew_annotation: Some("now"),
        now,
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
    assert_eq!([50, 99].map(|now| state.renew_not_before(None, at(now))), [Some(at(100)); 2]);
    assert_eq!(state.renew_not_before(None, at(49)), None, "the clock was set back");
}

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
fn label_of_the_client_secret_ends_no_backoff_and_another_value_does() {
    let mut state = new();
    let key = |state: &RetryState, version: &str| RetryKey { client: state.client_key(&version.into()), ..key() };
    state.client_read("uid/1".into(), Some("digest".to_owned()));
    let mut failed = observed(None);
    failed.retry_key = key(&state, "uid/1");
    state.failed(FailedAttempt {
        observed: &failed,
        failure: Failure::new(Reason::InvalidClient, "wrong"),
        failures_before: 0,
        wait: TimeDelta::seconds(10),
        by_others: false,
        renew_annotation: None,
        now: at(0),
    });
    assert_eq!(state.backoff_until(&key(&state, "uid/1"), at(1)), Some(at(10)));
    assert_eq!(state.backoff_until(&key(&state, "uid/2"), at(1)), None, "it must be read");
    state.client_read("uid/2".into(), Some("digest".to_owned()));
    assert_eq!(state.backoff_until(&key(&state, "uid/2"), at(1)), Some(at(10)), "it was labelled");
    state.client_read("uid/3".into(), Some("another".to_owned()));
    assert_eq!(state.backoff_until(&key(&state, "uid/3"), at(1)), None);
    state.client_read("uid/4".into(), None);
    assert_eq!(state.backoff_until(&key(&state, "uid/4"), at(1)), None, "it can no longer be used");
}

#[test]
fn renewal_on_request_is_echoed_once_its_attempt_has_ended_with_or_without_a_token() {
    let fresh = Some(RenewalRequest { fresh: true, not_before: None });
    let echoed = |state: &RetryState| state.reported(at(0)).renew_request;
    let mut state = new();
    state.requested(&observed(fresh), at(0));
    assert_eq!(echoed(&state), None, "the request is under way");
    fail(&mut state, false, fresh);
    assert_eq!(echoed(&state).as_deref(), Some("now"));
    assert!(state.has_unfulfilled_renewal());

    let mut state = new();
    fail(&mut state, false, None);
    assert_eq!(echoed(&state), None, "it was an attempt for something else");
    state.renewal_attempted(Some("now"));
    assert_eq!(echoed(&state).as_deref(), Some("now"), "such as a Secret that could not be read");
    state.written(Some("later"));
    assert_eq!(echoed(&state).as_deref(), Some("later"));
}

#[test]
fn attempt_that_may_succeed_by_now_waits_no_longer_and_stays_a_retry() {
    let mut state = new();
    fail(&mut state, false, None);
    state.retry_now();
    assert_eq!((state.backoff_until(&key(), at(0)), state.failures()), (None, 1));
    assert!(state.is_retrying());
}

#[test]
fn expiry_of_the_client_survives_a_restart_through_the_status() {
    let status = json!({"observedGeneration": 1, "clientSecretExpiresAt": time::to_rfc3339(at(9))});
    let mut state = RetryState::recall(&credential(status), at(0));
    assert_eq!((state.client_expires(), state.is_client_expiry_unread()), (Some(Expires::At(at(9))), false));
    state.client_expiry_read(None);
    assert_eq!(state.client_expires(), None);
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "TokenValid", "lastTransitionTime": time::to_rfc3339(at(0)),
        "message": messages_lifetime::client_expiry_invalid("team/client", "expires_at"),
    });
    let invalid = json!({"observedGeneration": 1, "conditions": [condition]});
    let state = RetryState::recall(&credential(invalid), at(0));
    assert_eq!((state.client_expires(), state.is_client_expiry_unread()), (Some(Expires::Invalid), false));
    let state = RetryState::recall(&credential(json!(null)), at(0));
    assert_eq!(
        (state.client_expires(), state.is_client_expiry_unread()),
        (None, false),
        "it is read with the first token"
    );
}

/// The credential with another generation and spec.
fn edited(generation: i64, spec: serde_json::Value) -> ITwinServiceCredential {
    let mut edited = serde_json::to_value(credential(json!(null))).expect("a credential");
    edited["metadata"]["generation"] = json!(generation);
    for (field, value) in spec.as_object().into_iter().flatten() {
        edited["spec"][field] = value.clone();
    }
    serde_json::from_value(edited).expect("a credential")
}

#[test]
fn expiry_of_the_client_is_of_one_key_of_one_secret_and_read_again_where_the_spec_names_another() {
    let references = [json!({"name": "client", "expiresAtKey": "until"}), json!({"name": "another"})];
    for reference in references {
        let mut state = new();
        state.client_expiry_read(Some(Expires::At(at(9))));
        state.follow_spec(&edited(2, json!({"scopes": ["other"]})), at(0));
        assert_eq!((state.client_expires(), state.is_client_expiry_unread()), (Some(Expires::At(at(9))), false));
        let edited = edited(3, json!({"clientCredentialsRef": reference}));
        state.follow_spec(&edited, at(0));
        assert_eq!((state.client_expires(), state.is_client_expiry_unread()), (None, true));
        state.client_expiry_read(None);
        assert!(!state.is_client_expiry_unread());
    }
    // it was changed while no process ran
    let status = json!({"observedGeneration": 0, "clientSecretExpiresAt": time::to_rfc3339(at(9))});
    let state = RetryState::recall(&credential(status), at(0));
    assert_eq!((state.client_expires(), state.is_client_expiry_unread()), (None, true));
}

#[test]
fn failure_for_an_earlier_spec_is_neither_reported_nor_waited_for() {
    let mut state = new();
    for _ in 0..9 {
        fail(&mut state, false, None);
    }
    let failed = Failure::new(Reason::SecretReadFailed, "because");
    state.read(Fetch::Client, Err(failed.clone()), TimeDelta::zero(), "uid", at(0));
    state.reverts_mut().refused(failed, TimeDelta::seconds(5), at(0));
    state.follow_spec(&edited(1, json!({})), at(1));
    assert_eq!(state.reported(at(1)).failures, 9, "the same spec");
    assert_eq!(
        (state.backoff_until(&key(), at(1)), state.reads_not_before(at(0)).client.is_some()),
        (Some(at(10)), true)
    );
    state.follow_spec(&edited(2, json!({})), at(1));
    let reported = state.reported(at(1));
    assert_eq!((reported.failures, reported.last_failure), (0, None));
    assert_eq!((state.failures(), state.not_before(), state.backoff_until(&key(), at(1))), (0, None, None));
    assert!(state.reads_not_before(at(0)).client.is_none() && state.reverts().failing(at(1)).is_none());
    assert!(state.is_retrying(), "it takes no turn of others");
    fail(&mut state, false, None);
    assert_eq!(state.reported(at(1)).failures, 1, "the first backoff is the shortest");
    state.settled();
    assert!(!state.is_retrying());
}

#[test]
fn failure_for_an_earlier_spec_is_not_recalled_after_a_start() {
    let status = json!({
        "observedGeneration": 0,
        "consecutiveFailures": 7,
        "lastFailure": {"time": time::to_rfc3339(at(0)), "reason": "Timeout", "message": "late"},
    });
    let state = RetryState::recall(&credential(status), at(0));
    assert_eq!((state.reported(at(0)).last_failure, state.failures(), state.not_before()), (None, 0, None));
    assert!(state.is_retrying());
}

#[test]
fn spec_that_is_edited_in_a_loop_gets_a_request_in_ten_seconds_after_the_first_ones() {
    let mut state = new();
    let mut requests = Vec::new();
    for second in 0..100 {
        if state.backoff_until(&key(), at(second)).is_none() {
            state.requested(&observed(None), at(second));
            fail_at(&mut state, false, None, at(second));
            requests.push(second);
        }
        state.follow_spec(&edited(second + 2, json!({})), at(second));
    }
    assert_eq!(requests[..4], [0, 1, 2, 3]);
    assert!(requests[4..].windows(2).all(|pair| pair[1] - pair[0] >= 10), "{requests:?}");
    assert!(requests.len() <= 4 + 10, "{requests:?}");
    // the clock is set back
    state.follow_spec(&edited(500, json!({})), at(-3600));
    assert!(state.backoff_until(&key(), at(-3600)).is_none_or(|until| until <= at(-3590)));
}

/// The Secret holds a token, which the client that there is now did not request.
fn with_another_client() -> ObservedState {
    let status = json!({
        "observedGeneration": 1,
        "issuer": "https://ims.example.com",
        "issuedAt": time::to_rfc3339(at(0)),
        "expiresAt": time::to_rfc3339(at(3600)),
    });
    let last = RetryState::recall(&credential(status), at(0)).last_held().map(|held| held.token_metadata.clone());
    let client = Client::Usable { version: "uid/2".into(), same_as_held: Some(false) };
    ObservedState { client, target: Target::Unread { last }, ..observed(None) }
}

#[test]
fn client_that_is_changed_in_a_loop_gets_a_token_in_ten_seconds_after_the_first_ones() {
    let mut state = new();
    let changed = with_another_client();
    let mut requests = Vec::new();
    for second in 0..100 {
        if state.change_not_before(&key(), at(second)).is_none() {
            state.requested(&changed, at(second));
            state.written(None);
            requests.push(second);
        }
    }
    assert_eq!(requests[..3], [0, 1, 2]);
    assert!(requests[3..].windows(2).all(|pair| pair[1] - pair[0] >= 10), "{requests:?}");
    assert!(requests.len() <= 3 + 10, "{requests:?}");
    assert_eq!(state.change_not_before(&key(), at(-3600)), None, "the clock was set back");
    assert!(state.change_not_before(&key(), at(99)).is_some());
    fail_at(&mut state, false, None, at(99));
    assert_eq!(state.change_not_before(&key(), at(99)), None, "a retry waits for its backoff only");
    let another = RetryKey { client: ClientKey::Absent, ..key() };
    assert!(state.change_not_before(&another, at(99)).is_some(), "it was changed again");
}

#[test]
fn renewals_and_retries_do_not_count_as_changes() {
    let mut state = new();
    let changed = with_another_client();
    for second in 0..9 {
        state.requested(&observed(None), at(second));
        state.written(None);
    }
    assert_eq!(state.change_not_before(&key(), at(9)), None);
    for second in 9..18 {
        state.requested(&changed, at(second));
        fail_at(&mut state, false, None, at(second));
    }
    state.settled();
    assert_eq!(state.change_not_before(&key(), at(18)), None, "one change and its retries");
}

#[test]
fn wait_that_an_authority_asked_for_holds_for_another_spec_and_not_for_another_authority() {
    for (authority, expected) in [("bentley-ims", Some(at(60))), ("other", None)] {
        let mut state = new();
        let mut observed = observed(None);
        observed.desired.authority = "bentley-ims".to_owned();
        state.failed(FailedAttempt {
            observed: &observed,
            failure: Failure {
                retry_after: Some(TimeDelta::seconds(60)),
                ..Failure::new(Reason::RequestRejected, "not now")
            },
            failures_before: 9,
            wait: TimeDelta::seconds(250),
            by_others: false,
            renew_annotation: None,
            now: at(0),
        });
        for generation in 2..4 {
            state.follow_spec(&edited(generation, json!({"authorityRef": {"name": authority}})), at(generation));
            assert_eq!(state.backoff_until(&key(), at(generation)), expected, "{authority}");
        }
    }
}

#[test]
fn read_of_the_client_secret_that_failed_says_nothing_of_another_version() {
    let mut state = new();
    let fail = |state: &mut RetryState| {
        let failure = Failure::new(Reason::SecretReadFailed, "because");
        state.read(Fetch::Client, Err(failure), TimeDelta::zero(), "uid", at(0));
    };
    let waits = |state: &RetryState| state.reads_not_before(at(0)).client.is_some();
    let [old, new] = ["uid/1", "uid/2"].map(ObjectVersion::from);
    state.client_known(Some(&old));
    fail(&mut state);
    for (known, expected) in [(Some(&old), true), (None, true), (Some(&new), false)] {
        state.client_known(known);
        assert_eq!(waits(&state), expected, "{known:?}");
    }
}

#[test]
fn secret_that_is_trusted_at_a_start_is_read_once_at_a_time_that_the_uid_spreads() {
    let mut times: Vec<_> = (0..100).map(|number| check_after(&format!("uid-{number}"))).collect();
    times.sort();
    assert!(times[0] >= CHECKED_FROM && times[99] <= CHECKED_FROM + CHECKED_WITHIN);
    assert!(times.windows(10).all(|ten| ten[9] - ten[0] > TimeDelta::seconds(10)), "{times:?}");
    let done: [fn(&mut RetryState); 2] =
        [|state| state.written(None), |state| state.read(Fetch::TargetData, Ok(()), TimeDelta::zero(), "uid", at(0))];
    for done in done {
        let mut state = new();
        assert_eq!(state.check_at(), Some(at(0) + check_after("uid")));
        done(&mut state);
        assert_eq!(state.check_at(), None);
    }
}
