//! What is trusted of a Secret that was not read, after writes, reads and a start.

use itwin_oauth::sensitive::Sensitive;

use super::*;

fn versions() -> [ObjectVersion; 3] {
    ["uid/1", "uid/2", "uid/3"].map(ObjectVersion::from)
}

/// What is concluded of a version that was not read, of which managed fields show the operator as the only writer and whose
/// annotations describe the token of the samples.
fn unread(state: &RetryState, version: &ObjectVersion) -> Integrity {
    let recorded = samples::content().token_metadata;
    let clues = DataClues {
        is_verified_version: state.is_target_verified(version),
        sole_writer_of: Some(6).filter(|_| state.vouches_for(Some(&recorded))),
        keys_written: 6,
        may_be_immutable: false,
        is_template_current: true,
        has_token_metadata: true,
        is_disproved: state.is_disproved(version),
        is_token_untrusted: state.distrusts_token(Some(&recorded)),
        is_undescribed: false,
        type_: Some(SECRET_TYPE),
    };
    integrity(None, &clues)
}

#[test]
fn token_that_an_answer_shows_not_to_be_stored_does_not_count_until_a_read_verifies_one() {
    let [first, second, third] = versions();
    let (content, other) = (samples::content(), Sensitive::new("other".to_owned()));
    let recorded = &content.token_metadata;
    let later = TokenMetadata { expires_at: at(9999), ..recorded.clone() };
    for was_verified in [false, true] {
        for (token, recorded, expected) in [
            (Some(&other), Some(recorded), Integrity::Untrusted),
            (None, Some(recorded), Integrity::Untrusted),
            (Some(&content.token), Some(&later), Integrity::Untrusted),
            // another key was changed, or the annotations were removed
            (Some(&content.token), Some(recorded), Integrity::Unverified),
            (Some(&content.token), None, Integrity::Unverified),
        ] {
            let mut state = new();
            if was_verified {
                state.target_verified(first.clone());
            }
            state.remember(LastHeld::written(&content));
            state.target_written_otherwise(token, recorded, was_verified);
            state.written(None);
            assert!(state.was_target_there());
            assert_eq!([&second, &third].map(|version| unread(&state, version)), [expected; 2]);
            state.target_verified(third.clone());
            assert_eq!(
                [&second, &third].map(|version| unread(&state, version)),
                [Integrity::Unverified, Integrity::Verified]
            );
        }
    }
}

#[test]
fn version_that_a_read_disproved_is_not_read_again_and_the_next_one_does_not_count_before_it_is() {
    let [first, second, third] = versions();
    let mut state = new();
    state.target_verified(first.clone());
    state.remember(LastHeld::written(&samples::content()));
    state.disprove(second.clone());
    assert_eq!(
        [&first, &second, &third].map(|version| unread(&state, version)),
        [Integrity::Verified, Integrity::Tampered, Integrity::Untrusted]
    );
}

#[test]
fn create_whose_answer_is_lost_is_no_sign_of_the_secret_and_its_token_does_not_count_before_it_is_read() {
    let [first, second, _] = versions();
    let mut state = new();
    state.token_uncertain(false);
    assert_eq!((unread(&state, &first), state.was_target_there()), (Integrity::Untrusted, false));
    let mut state = new();
    state.target_verified(first.clone());
    state.token_uncertain(true);
    assert_eq!([&first, &second].map(|version| unread(&state, version)), [Integrity::Verified, Integrity::Unverified]);
}

#[test]
fn update_whose_answer_is_lost_over_a_token_that_was_no_good_does_not_count_before_it_is_read() {
    let [first, second, _] = versions();
    let observed = |data: Integrity, request: &str| {
        let mut token_metadata = samples::content().token_metadata;
        token_metadata.request = request.into();
        let held = Held { token_metadata: Some(token_metadata), data, drift: Drift::None, form: Form::Presumed };
        ObservedState { target: Target::Ours(held), ..samples::observed_state() }
    };
    for (number, (observed, second_of_write, expected)) in [
        (observed(Integrity::Verified, "request"), 3599, Integrity::Unverified),
        (observed(Integrity::Verified, "request"), 3600, Integrity::Untrusted),
        (observed(Integrity::Verified, "another"), 1, Integrity::Untrusted),
        (observed(Integrity::Unverified, "request"), 1, Integrity::Untrusted),
    ]
    .into_iter()
    .enumerate()
    {
        let mut state = new();
        state.target_verified(first.clone());
        state.token_uncertain(observed.holds_good(at(second_of_write)));
        assert_eq!(unread(&state, &second), expected, "row {number}");
        // an API server that is behind shows the version of before
        state.remember_observed(&observed, Some(&first));
        assert_eq!(unread(&state, &second), expected, "row {number}, after the version of before was seen again");
        let mut read = observed;
        if let Target::Ours(held) = &mut read.target {
            (held.data, held.form) = (Integrity::Verified, Form::Writable);
        }
        state.remember_observed(&read, Some(&second));
        assert_eq!(unread(&state, &second), Integrity::Verified, "row {number}, after a read");
        assert_eq!((unread(&state, &first), state.trust.is_uncertain()), (Integrity::Unverified, false));
    }
}

#[test]
fn secret_was_there_once_a_version_of_it_is_seen_that_may_be_written() {
    let [version, ..] = versions();
    let held = Held { token_metadata: None, data: Integrity::Tampered, drift: Drift::None, form: Form::Presumed };
    for (target, expected) in [(Target::Ours(held), true), (Target::Adoptable(Form::Presumed), false)] {
        let mut state = new();
        state.remember_observed(&ObservedState { target, ..observed(None) }, Some(&version));
        assert_eq!(state.was_target_there(), expected);
    }
}

/// A process that starts at second 100 with this status.
fn started(ready: Option<(&str, &str)>, issued_at: Option<i64>, failure: Option<&str>) -> RetryState {
    let condition = ready.map(|(status, reason)| {
        json!({
            "type": "Ready", "status": status, "reason": reason, "message": "because",
            "lastTransitionTime": time::to_rfc3339(at(0)),
        })
    });
    let failure = failure.map(|reason| json!({"time": time::to_rfc3339(at(50)), "reason": reason, "message": "so"}));
    let status = json!({
        "observedGeneration": 1,
        "conditions": condition.into_iter().collect::<Vec<_>>(),
        "issuedAt": issued_at.map(|second| time::to_rfc3339(at(second))),
        "consecutiveFailures": 0,
        "lastFailure": failure,
    });
    RetryState::recall(&credential(status), at(100))
}

#[test]
fn token_that_the_status_does_not_vouch_for_is_read_at_a_start_and_any_other_is_not() {
    let [version, ..] = versions();
    let ready = Some(("True", "TokenValid"));
    for (number, (ready, issued_at, failure, expected)) in [
        (ready, Some(0), None, Integrity::Verified),
        (Some(("False", "TokenExpired")), Some(0), Some("Timeout"), Integrity::Verified),
        (Some(("False", "Suspended")), Some(0), None, Integrity::Verified),
        // its status was not written any more, or it was written by someone else
        (ready, Some(-9), None, Integrity::Suspect),
        (ready, None, None, Integrity::Suspect),
        (Some(("False", "SecretConflict")), None, Some("SecretConflict"), Integrity::Untrusted),
        (Some(("False", "SecretConflict")), None, None, Integrity::Untrusted),
        (Some(("False", "SecretReadFailed")), Some(0), None, Integrity::Untrusted),
        (None, None, None, Integrity::Untrusted),
        // others fight over something else
        (ready, Some(0), Some("SecretConflict"), Integrity::Unverified),
    ]
    .into_iter()
    .enumerate()
    {
        let mut state = started(ready, issued_at, failure);
        assert_eq!(unread(&state, &version), expected, "row {number}");
        state.target_verified(version.clone());
        assert_eq!(unread(&state, &version), Integrity::Verified, "row {number}");
    }
    assert_eq!(unread(&new(), &version), Integrity::Verified, "nothing was ever reported of it");
}

#[test]
fn token_of_another_spec_that_was_not_read_is_not_trusted_once_the_spec_is_its_own() {
    let [version, ..] = versions();
    let mut state = started(Some(("False", "SecretReadFailed")), Some(0), None);
    let token_metadata = samples::content().token_metadata;
    for (form, expected) in [(Form::TypeUnknown, Integrity::Untrusted), (Form::Writable, Integrity::Verified)] {
        let token_metadata = Some(token_metadata.clone());
        let held = Held { token_metadata, data: Integrity::Verified, drift: Drift::None, form };
        state.remember_observed(&ObservedState { target: Target::Ours(held), ..observed(None) }, Some(&version));
        assert_eq!(unread(&state, &version), expected);
    }
}

#[test]
fn token_that_must_not_count_before_it_is_read_does_not_while_the_secret_cannot_be_read() {
    let content = samples::content();
    let mut state = new();
    state.remember(LastHeld::written(&content));
    assert_eq!(state.held_unread(), Some(&content.token_metadata));
    state.token_uncertain(true);
    assert_eq!(state.held_unread(), Some(&content.token_metadata), "a good one was there before");
    state.disprove("uid/1".into());
    assert_eq!(state.held_unread(), None);
    state.target_verified("uid/2".into());
    assert_eq!(state.held_unread(), Some(&content.token_metadata));
    for (number, (ready, expected)) in [
        (Some(("True", "TokenValid")), true),
        (Some(("False", "Suspended")), true),
        (Some(("False", "SecretReadFailed")), false),
        (None, false),
    ]
    .into_iter()
    .enumerate()
    {
        let mut state = started(ready, Some(0), None);
        state.remember(LastHeld { record: None, ..LastHeld::written(&content) });
        assert_eq!(state.held_unread().is_some(), expected, "row {number}");
    }
}

#[test]
fn conflict_of_before_a_start_is_read_and_attempted_after_a_wait_and_goes_on_with_the_next_revert() {
    let waits = |state: &RetryState, second| state.reads_not_before(at(second)).target_data;
    let mut state = started(None, None, Some("SecretConflict"));
    let until = waits(&state, 100).expect("a wait");
    assert!(at(100) < until && until <= at(100) + INHERITED_BACKOFF);
    assert_eq!(state.backoff_until(&key(), at(100)), Some(until));
    assert_eq!((waits(&state, 130), waits(&state, 9)), (None, None), "it is over, or the clock was set back");
    state.read(Fetch::TargetData, Ok(()), TimeDelta::zero(), "uid", at(101));
    assert_eq!(waits(&state, 100), None);
    assert_eq!(state.reverts_mut().record(1, at(131)), 1, "the first revert is one too many");
    let other = started(None, None, Some("Timeout"));
    assert_eq!((waits(&other, 100), other.backoff_until(&key(), at(100))), (None, None));
}

#[test]
fn conflict_of_before_a_start_waits_no_longer_than_a_renewal_can() {
    let until = |left: Option<i64>| {
        let of_before = credential(json!({
            "observedGeneration": 1,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "TokenValid", "message": "because",
                "lastTransitionTime": time::to_rfc3339(at(0)),
            }],
            "issuer": "https://ims.example.com",
            "issuedAt": time::to_rfc3339(at(0)),
            "expiresAt": left.map(|left| time::to_rfc3339(at(100 + left))),
            "consecutiveFailures": 0,
            "lastFailure": {"time": time::to_rfc3339(at(50)), "reason": "SecretConflict", "message": "so"},
        }));
        let state = RetryState::recall(&of_before, at(100));
        (state.reads_not_before(at(100)).target_data, state.backoff_until(&key(), at(100)))
    };
    let (spread, _) = until(None);
    assert!(spread > Some(at(102)), "{spread:?}");
    assert_eq!(until(Some(3600)).0, spread, "there is time");
    let (read, attempt) = until(Some(10));
    assert!(read.is_some_and(|read| at(101) < read && read < at(102)), "{read:?}");
    assert_eq!(attempt, read);
    assert_eq!(until(Some(-10)), (None, Some(at(100))), "it has expired");
}

#[test]
fn reads_that_failed_are_not_reported_of_a_credential_of_which_nothing_is_read_any_more() {
    let failed = |is_suspect: bool, is_undescribed: bool| {
        let mut state = new();
        for what in [Fetch::TargetData, Fetch::Client] {
            let failure = Failure::new(Reason::SecretReadFailed, "because");
            state.read(what, Err(failure), TimeDelta::zero(), "uid", at(0));
        }
        state.nothing_to_read(is_suspect, is_undescribed);
        let waits = state.reads_not_before(at(0));
        (state.reported(at(0)).last_failure.is_some(), waits.target_data.is_some(), waits.client.is_some())
    };
    assert_eq!(failed(false, false), (false, false, false));
    assert_eq!(failed(true, false), (true, true, false), "whether the token is good is not known");
    for is_suspect in [false, true] {
        assert_eq!(failed(is_suspect, true), (true, true, true), "both are read again");
    }
}
