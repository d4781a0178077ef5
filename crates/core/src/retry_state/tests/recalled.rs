//! What a start takes over from the status: a failed attempt is not forgotten.

use super::*;
use crate::{renewal::renewal_request, samples};

/// A process that starts at second 100, with this renew annotation, and a status with a failure at second 50.
fn started(reason: &str, failures: u32, annotation: Option<&str>) -> RetryState {
    let mut object = serde_json::to_value(credential(json!({
        "observedGeneration": 1,
        "consecutiveFailures": failures,
        "lastRenewRequest": "now",
        "lastFailure": {"time": time::to_rfc3339(at(50)), "reason": reason, "message": "because"},
    })))
    .expect("a credential");
    if let Some(value) = annotation {
        object["metadata"]["annotations"] = json!({"credentials.itwin.dev/renew": value});
    }
    RetryState::recall(&serde_json::from_value(object).expect("a credential"), at(100))
}

/// The state with a valid token that was issued at this second.
fn holding(issued_at: i64) -> ObservedState {
    let token_metadata = TokenMetadata { issued_at: at(issued_at), ..samples::content().token_metadata };
    let held = Held {
        token_metadata: Some(token_metadata),
        data: Integrity::Verified,
        drift: Drift::None,
        form: Form::Presumed,
    };
    let client = Client::Verified { version: "uid/1".into() };
    ObservedState { target: Target::Ours(held), client, ..observed(None) }
}

#[test]
fn secret_that_could_not_be_read_is_of_another_type_or_was_changed_repeatedly_is_read_at_a_start() {
    let is_verified = |state: RetryState| state.is_target_verified(&"uid/1".into());
    for (reason, failures) in [("SecretReadFailed", 1), ("SecretTypeMismatch", 1), ("SecretConflict", 0)] {
        assert_eq!(is_verified(started(reason, failures, None)), Some(false), "{reason}");
    }
    assert_eq!(is_verified(started("Timeout", 1, None)), None);
}

#[test]
fn renewal_on_request_that_failed_before_a_start_is_open_until_the_secret_records_it() {
    let open = |state: &RetryState, annotation, renewed_for| {
        renewal_request(&state.renewal_clues(annotation, renewed_for), at(100)).map(|request| request.fresh)
    };
    let digest = fingerprint::renewal("now");
    let failed = started("InvalidClient", 1, Some("now"));
    assert_eq!(open(&failed, Some("now"), None), Some(false), "it is no fresh one, and waits for the backoff");
    assert_eq!(open(&failed, Some("now"), Some("another")), Some(false));
    assert_eq!(open(&failed, Some("now"), Some(&digest)), None, "its token was written after all");
    assert!(failed.not_before().is_some_and(|until| until > at(100)));
    // none of these says that the attempt for the value failed
    assert_eq!(open(&started("SecretConflict", 0, Some("now")), Some("now"), None), None);
    assert_eq!(open(&started("InvalidClient", 1, None), None, None), None, "it is no longer asked for");
    assert_eq!(open(&started("InvalidClient", 1, Some("later")), Some("later"), None), Some(true));
}

#[test]
fn failure_of_a_server_is_reported_after_a_start_until_something_shows_that_it_is_over() {
    let reported = |reason: &str, change: &dyn Fn(&mut ObservedState), now| {
        let (mut state, mut observed) = (started(reason, 3, None), holding(0));
        change(&mut observed);
        state.none_due(&observed, now);
        let attempts = state.reported(now);
        attempts.last_failure.map(|(_, failure)| (failure.reason, attempts.failures))
    };
    let unchanged = |_: &mut ObservedState| {};
    let failing = Some((Reason::InvalidClient, 3));
    assert_eq!(reported("InvalidClient", &unchanged, at(100)), failing);
    assert_eq!(reported("Timeout", &unchanged, at(100)), Some((Reason::Timeout, 3)));
    let not_shown = |observed: &mut ObservedState| observed.client = Client::Unread { version: None };
    assert_eq!(reported("InvalidClient", &not_shown, at(100)), failing);

    assert_eq!(reported("ClientCredentialsNotFound", &unchanged, at(100)), None, "it is there, else it would be due");
    let written_since = |observed: &mut ObservedState| observed.target = holding(60).target;
    assert_eq!(reported("InvalidClient", &written_since, at(100)), None, "a token was written since");
    let changed_back = |observed: &mut ObservedState| observed.client = Client::Verified { version: "uid/3".into() };
    assert_eq!(reported("InvalidClient", &changed_back, at(100)), None, "the client was changed, and changed back");
    assert_eq!(reported("InvalidClient", &unchanged, at(49)), None, "the clock was set back");
    let mut state = started("InvalidClient", 3, None);
    state.written(None);
    assert!(state.last_failure().is_none());
}

#[test]
fn suspended_credential_does_not_keep_that_secrets_were_not_watched() {
    let reported = |state: &RetryState| state.reported(at(100)).last_failure.map(|(_, failure)| failure.reason);
    let mut state = started("SecretReadFailed", 0, None);
    let failure = Failure::new(Reason::SecretReadFailed, "not watched");
    state.set_unwatched(Some(Arc::new(Unwatched { since: at(99), read_from: at(99), failure })));
    state.none_attempted();
    state.set_unwatched(None);
    assert_eq!(reported(&state), Some(Reason::SecretReadFailed), "it may be so still");
    state.none_attempted();
    assert_eq!(reported(&state), None);
    let mut rejected = started("InvalidClient", 3, None);
    rejected.none_attempted();
    assert_eq!(reported(&rejected), Some(Reason::InvalidClient), "only a request shows that it is over");
}

#[test]
fn status_from_before_a_deletion_counts_after_a_start() {
    let started = |deleted_at: Option<&str>| {
        let mut object = serde_json::to_value(credential(json!({
            "observedGeneration": 1,
            "issuer": "https://ims.example.com",
            "issuedAt": time::to_rfc3339(at(0)),
            "expiresAt": time::to_rfc3339(at(3600)),
            "consecutiveFailures": 2,
            "lastFailure": {"time": time::to_rfc3339(at(50)), "reason": "Timeout", "message": "late"},
        })))
        .expect("a credential");
        object["metadata"]["generation"] = json!(2);
        object["metadata"]["deletionTimestamp"] = json!(deleted_at);
        let state = RetryState::recall(&serde_json::from_value(object).expect("a credential"), at(100));
        (state.last_held().map(|held| held.token_metadata.expires_at), state.last_failure().map(|last| last.reason))
    };
    assert_eq!(started(Some("2027-01-15T08:00:00Z")), (Some(at(3600)), Some(Reason::Timeout)));
    assert_eq!(started(None), (None, None), "the spec was changed");
}

#[test]
fn status_from_after_a_deletion_does_not_count_for_a_spec_that_was_edited_since() {
    let message = format!("Secret token holds a valid token; {}", messages_lifetime::being_deleted(&[]));
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "TokenValid", "message": message,
        "lastTransitionTime": time::to_rfc3339(at(0)),
    });
    let mut object = serde_json::to_value(credential(json!({
        "observedGeneration": 2,
        "conditions": [condition],
        "clientSecretExpiresAt": time::to_rfc3339(at(9)),
        "consecutiveFailures": 2,
        "lastFailure": {"time": time::to_rfc3339(at(50)), "reason": "Timeout", "message": "late"},
    })))
    .expect("a credential");
    object["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z");
    let mut started = |generation: i64| {
        object["metadata"]["generation"] = json!(generation);
        let state = RetryState::recall(&serde_json::from_value(object.clone()).expect("a credential"), at(100));
        (state.client_expires(), state.last_failure().map(|last| last.reason))
    };
    assert_eq!(started(2), (Some(Expires::At(at(9))), Some(Reason::Timeout)));
    assert_eq!(started(3), (None, None));
}

#[test]
fn failure_for_an_earlier_spec_is_known_after_a_start_by_the_condition_that_stays() {
    let condition = json!({
        "type": "Renewed", "status": "False", "reason": "InvalidClient", "message": "because",
        "lastTransitionTime": time::to_rfc3339(at(0)),
    });
    let mut object = serde_json::to_value(credential(
        json!({"observedGeneration": 1, "lastRenewRequest": "now", "conditions": [condition]}),
    ))
    .expect("a credential");
    object["metadata"]["annotations"] = json!({"credentials.itwin.dev/renew": "now"});
    let state = RetryState::recall(&serde_json::from_value(object).expect("a credential"), at(100));
    assert!(state.is_retrying() && state.reported(at(100)).follows_failure);
    assert!(renewal_request(&state.renewal_clues(Some("now"), None), at(100)).is_some());
    assert_eq!(state.failures(), 0, "it is not claimed for this spec");
}

#[test]
fn renew_annotation_that_is_too_long_at_a_start_was_reported_before() {
    let started = |status: serde_json::Value| {
        let mut object = serde_json::to_value(credential(status)).expect("a credential");
        object["metadata"]["annotations"] = json!({secret_keys::RENEW_TOO_LONG: ""});
        RetryState::recall(&serde_json::from_value(object).expect("a credential"), at(100))
    };
    let mut known = started(json!({"observedGeneration": 1}));
    assert!(!known.reports_long_renewal(true, at(100)), "by the process that wrote the status");
    assert!(!known.reports_long_renewal(false, at(101)));
    assert!(known.reports_long_renewal(true, at(102)), "it is another one");
    assert!(started(json!(null)).reports_long_renewal(true, at(100)), "the credential is new");
}
