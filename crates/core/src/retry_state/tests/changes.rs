//! What remains of earlier specs, clients and authorities after a change.

use super::*;

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

/// The same of a credential that is being deleted.
fn deleted(generation: i64, spec: serde_json::Value) -> ITwinServiceCredential {
    let mut deleted = serde_json::to_value(edited(generation, spec)).expect("a credential");
    deleted["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z");
    serde_json::from_value(deleted).expect("a credential")
}

#[test]
fn deletion_changes_nothing_of_what_is_known_of_the_spec_and_an_edit_before_or_after_it_does() {
    let failing = || {
        let mut state = new();
        state.client_expiry_read(Some(Expires::At(at(9))));
        fail(&mut state, false, None);
        state.reverts_mut().refused(Failure::new(Reason::SecretWriteFailed, "because"), TimeDelta::seconds(5), at(0));
        state
    };
    let known =
        |state: &RetryState| (state.failures(), state.reverts().failing(at(1)).is_some(), state.client_expires());
    let another = || json!({"clientCredentialsRef": {"name": "another"}});
    let mut state = failing();
    for _ in 0..2 {
        state.follow_deleted(&deleted(2, json!({})), at(1));
        assert_eq!(known(&state), (1, true, Some(Expires::At(at(9)))), "only the deletion was counted");
    }
    state.follow_deleted(&deleted(3, another()), at(1));
    assert_eq!(known(&state), (0, false, None), "it was edited after that");
    let mut state = failing();
    state.follow_deleted(&deleted(3, another()), at(1));
    assert_eq!(known(&state), (0, false, None), "it was edited before that");
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
fn what_an_earlier_process_could_not_read_is_read_at_the_start_and_not_some_minutes_later() {
    let is_uncertain = |reason: Reason, failures: u32| {
        let status = json!({
            "observedGeneration": 1,
            "consecutiveFailures": failures,
            "lastFailure": {"time": time::to_rfc3339(at(0)), "reason": reason.as_str(), "message": "because"},
        });
        let state = RetryState::recall(&credential(status), at(0));
        assert!(
            state.check_at().is_some_and(|check_at| check_at >= at(0) + CHECKED_FROM),
            "others are not read before"
        );
        assert_eq!(state.reads_not_before(at(0)).target_data, None);
        state.is_target_verified(&"uid/1".into()) == Some(false)
    };
    assert!(is_uncertain(Reason::SecretReadFailed, 1));
    assert!(!is_uncertain(Reason::SecretReadFailed, 0), "its watch failed, no read");
    assert!(!is_uncertain(Reason::Timeout, 1));
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

/// One whose authority asked for a wait of a minute: all its clients where it is rate limited, else this one.
fn asked_to_wait(reason: Reason, now: DateTime<Utc>) -> RetryState {
    let wait = Some(TimeDelta::seconds(60));
    let mut state = new();
    let mut observed = observed(None);
    observed.desired.authority = "bentley-ims".to_owned();
    state.failed(FailedAttempt {
        observed: &observed,
        failure: Failure {
            retry_after: wait,
            server_wait: wait.filter(|_| reason == Reason::RateLimited),
            ..Failure::new(reason, "not now")
        },
        failures_before: 9,
        wait: TimeDelta::seconds(250),
        by_others: false,
        renew_annotation: None,
        now,
    });
    state
}

#[test]
fn wait_that_an_authority_asked_for_holds_for_no_other_spec_once_the_clock_was_set_back() {
    for is_postponed in [false, true] {
        let mut state = asked_to_wait(Reason::RateLimited, at(7200));
        if is_postponed {
            // so many that the failure has another time, which is before the edit
            let mut now = at(0);
            for _ in 0..8 {
                now = state.postponed(TimeDelta::zero(), "uid", now).expect("it fails");
            }
        }
        state.follow_spec(&edited(2, json!({"authorityRef": {"name": "bentley-ims"}})), at(3600));
        assert_eq!(state.backoff_until(&key(), at(3601)), None, "postponed: {is_postponed}");
    }
}

#[test]
fn wait_that_an_authority_asked_for_holds_for_another_spec_and_not_for_another_authority() {
    for (authority, expected) in [("bentley-ims", Some(at(60))), ("other", None)] {
        let mut state = asked_to_wait(Reason::RateLimited, at(0));
        for generation in 2..4 {
            state.follow_spec(&edited(generation, json!({"authorityRef": {"name": authority}})), at(generation));
            assert_eq!(state.backoff_until(&key(), at(generation)), expected, "{authority}");
        }
    }
}

#[test]
fn wait_that_an_authority_asked_one_client_for_ends_with_an_edit_which_may_correct_it() {
    for reason in [Reason::InvalidClient, Reason::RequestRejected] {
        let mut state = asked_to_wait(reason, at(0));
        assert!(state.backoff_until(&key(), at(1)).is_some(), "{reason:?}");
        let another_client = RetryKey { client: ClientKey::Absent, ..key() };
        assert_eq!(state.backoff_until(&another_client, at(1)), None, "{reason:?}");
        let spec = json!({"authorityRef": {"name": "bentley-ims"}, "clientCredentialsRef": {"name": "another"}});
        state.follow_spec(&edited(2, spec), at(2));
        assert_eq!(state.backoff_until(&key(), at(2)), None, "{reason:?}");
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
