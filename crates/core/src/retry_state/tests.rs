//! How each method changes what is remembered.

mod changes;
mod failures;
mod recalled;
mod trust;

use std::time::Duration;

use itwin_api::conditions::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;

use super::*;
use crate::{
    action::Fetch,
    client_expiry::Expires,
    last_held::Sealed,
    messages_lifetime,
    observed::{Client, Drift, Form, Held, Integrity, ObservedState, RenewalRequest, Target},
    retry_key::{AuthorityRevision, ClientKey},
    samples,
    secret_state::{DataClues, SECRET_TYPE, integrity},
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
    ObservedState { renewal_request, client: Client::Missing, ..samples::observed_state() }
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
    let (mut state, held) = (new(), samples::content().token_metadata);
    state.renewal_waits(at(100), Some(&held), at(50));
    assert_eq!([50, 99].map(|now| state.renew_not_before(Some(&held), at(now))), [Some(at(100)); 2]);
    assert_eq!(state.renew_not_before(Some(&held), at(49)), None, "the clock was set back");
}

#[test]
fn client_of_a_kept_token_is_compared_once_for_each_version_and_token() {
    let [version, other] = ["uid/2", "uid/3"].map(ObjectVersion::from);
    let mut state = new();
    state.unwritten_compared(&version, |_| true);
    state.keep(Box::new(samples::content()));
    assert_eq!(state.is_unwritten_of(&version), None, "there was no token to compare with");
    for is_same in [true, false] {
        state.unwritten_compared(&version, |_| is_same);
        assert_eq!((state.is_unwritten_of(&version), state.is_unwritten_of(&other)), (Some(is_same), None));
    }
    let kept = state.take_unwritten().expect("it was kept");
    assert_eq!(state.is_unwritten_of(&version), None);
    state.keep(kept);
    assert_eq!(state.is_unwritten_of(&version), Some(false), "a write of it failed");
    state.keep(Box::new(Content { client_fingerprint: "another".into(), ..samples::content() }));
    assert_eq!(state.is_unwritten_of(&version), None, "it is another token");
    state.unwritten_compared(&version, |_| true);
    let mut other_keys = credential(json!(null));
    state.follow_spec(&other_keys, at(0));
    assert_eq!(state.is_unwritten_of(&version), Some(true), "it is the same spec");
    other_keys.metadata.generation = Some(2);
    other_keys.spec.client_credentials_ref.client_secret_key = "another".to_owned();
    state.follow_spec(&other_keys, at(0));
    assert_eq!(state.is_unwritten_of(&version), None, "other keys of it are read");
}

#[test]
fn token_that_could_not_be_written_is_kept_until_it_expires() {
    let mut state = new();
    state.keep(Box::new(samples::content()));
    state.drop_expired(at(3599));
    assert!(state.unwritten().is_some());
    state.drop_expired(at(3600));
    assert!(state.unwritten().is_none());
}

#[test]
fn type_of_a_secret_is_known_for_as_long_as_it_is_the_same_secret() {
    let mut state = new();
    let (before, after, another) = ("uid/1".into(), "uid/2".into(), "other/3".into());
    assert_eq!(state.target_type(&before), None);
    state.target_type_observed(&before, Some("Opaque"));
    state.target_type_observed(&another, None);
    assert_eq!(
        [&before, &after, &another].map(|version| state.target_type(version)),
        [Some("Opaque"), Some("Opaque"), None]
    );
    state.target_type_observed(&another, Some("helm.sh/release.v1"));
    assert_eq!([&after, &another].map(|version| state.target_type(version)), [None, Some("helm.sh/release.v1")]);
    state.target_type_observed(&another, Some(&"x".repeat(100_000)));
    assert!(state.target_type(&another).is_some_and(|type_| type_.len() < 1000));
}

#[test]
fn secret_that_a_write_made_something_else_of_is_read_although_the_operator_is_its_only_writer() {
    let (written, later) = (ObjectVersion::new("uid", "1"), ObjectVersion::new("uid", "2"));
    let of_sole_writer = |state: &RetryState, version: &ObjectVersion| {
        let clues = DataClues {
            is_verified_version: state.is_target_verified(version),
            sole_writer_of: Some(6),
            keys_written: 6,
            may_be_immutable: false,
            is_template_current: true,
            has_token_metadata: true,
            is_disproved: state.is_disproved(version),
            is_token_untrusted: state.distrusts_token(None),
            is_undescribed: false,
            type_: Some(SECRET_TYPE),
        };
        integrity(None, &clues)
    };
    let mut state = new();
    assert_eq!(of_sole_writer(&state, &written), Integrity::Verified, "as at a start");
    assert!(!state.was_target_there());
    state.target_uncertain();
    state.written(None);
    assert_eq!(of_sole_writer(&state, &written), Integrity::Unverified);
    assert!(!state.was_target_there(), "a write that was not answered shows no Secret");
    state.target_verified(later.clone());
    assert!(state.was_target_there());
    assert_eq!(
        [&written, &later].map(|version| of_sole_writer(&state, version)),
        [Integrity::Unverified, Integrity::Verified]
    );
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
    state.status_written(7, CredentialStatus::default(), at(0));
    assert!(!state.observed_version(6), "the written status counts");
    assert!(state.written_status().is_some());
    assert!(!state.observed_version(7));
    assert!(state.written_status().is_none());
    assert!(state.observed_version(6), "a watch shows an older one again");
}

#[test]
fn what_events_said_of_a_status_whose_write_failed_is_remembered_until_the_object_has_the_last_one() {
    let mut state = new();
    assert!(state.said().is_none());
    let status = CredentialStatus { issued_at: Some("2026-01-01T00:00:00Z".into()), ..CredentialStatus::default() };
    state.status_unwritten(&status);
    state.status_written(7, CredentialStatus::default(), at(0));
    let said = Said::from(&status);
    assert!(state.said() == Some(&said) && said != Said::default(), "one that is written in between may say less");
    state.status_shown();
    assert!(state.said().is_none());
}

#[test]
fn object_is_gone_until_a_status_is_written_or_a_watch_shows_another_version() {
    let mut state = new();
    let now = Instant::now();
    assert!(!state.is_gone(7, now));
    state.not_found(7, now);
    assert!(state.is_gone(7, now) && !state.is_gone(8, now));
    state.status_written(9, CredentialStatus::default(), at(0));
    assert!(!state.is_gone(7, now));
    state.not_found(9, now);
    state.found();
    assert!(!state.is_gone(9, now));
}

#[test]
fn object_is_gone_for_two_minutes_after_the_api_server_said_so_last() {
    let (mut state, now) = (new(), Instant::now());
    let after = |seconds| now + Duration::from_secs(seconds);
    state.not_found(7, now);
    assert!(state.is_gone(7, after(119)) && !state.is_gone(7, after(120)));
    state.not_found(7, after(100));
    assert!(state.is_gone(7, after(219)) && !state.is_gone(7, after(220)));
}

#[test]
fn object_is_known_to_be_absent_for_two_minutes_after_the_last_list_without_it() {
    let (mut state, now) = (new(), Instant::now());
    let after = |seconds| now + Duration::from_secs(seconds);
    state.not_found(7, now);
    assert!(!state.is_known_absent(7, now), "an answer to a write is no proof");
    state.known_absent(7, now);
    state.not_found(7, after(100));
    assert!(state.is_known_absent(7, after(119)) && !state.is_known_absent(8, after(119)));
    assert!(!state.is_known_absent(7, after(120)), "nor does one prolong it");
    state.known_absent(7, after(120));
    state.found();
    assert!(!state.is_known_absent(7, after(120)));
    state.known_absent(7, after(120));
    state.status_written(9, CredentialStatus::default(), at(0));
    assert!(!state.is_known_absent(7, after(120)));
}

#[test]
fn status_that_the_object_cannot_hold_is_not_written_again_to_the_same_version() {
    let status = |failures| CredentialStatus { consecutive_failures: failures, ..CredentialStatus::default() };
    let mut state = new();
    state.status_written(7, status(1), at(0));
    assert!(!state.is_stored_otherwise(&status(1), 7, at(0)), "it was stored");
    state.status_changed_nothing(7, status(1), "uid", at(0));
    assert!(state.is_stored_otherwise(&status(1), 7, at(0)));
    assert!(!state.is_stored_otherwise(&status(1), 8, at(0)) && !state.is_stored_otherwise(&status(2), 7, at(0)));
    let until = state.stored_otherwise_until().expect("a time");
    assert!(until > at(0) && !state.is_stored_otherwise(&status(1), 7, until), "the CRD may be another one by then");
    state.status_written(8, status(2), at(0));
    assert!(!state.is_stored_otherwise(&status(1), 7, at(0)), "the object has another one by now");
}

#[test]
fn status_that_the_object_cannot_hold_is_written_again_ever_later_at_times_of_its_own() {
    let status = |failures| CredentialStatus { consecutive_failures: failures, ..CredentialStatus::default() };
    let minutes = |uid: &str| {
        let (mut state, mut now) = (new(), at(0));
        let mut waits = Vec::new();
        for failures in 0..9 {
            // what is new in a status is written immediately, and makes no later wait shorter
            state.status_written(7, status(failures), now);
            state.status_changed_nothing(7, status(failures), uid, now);
            // so is the same for another version of the object, which makes none longer
            state.status_changed_nothing(8, status(failures), uid, now);
            let until = state.stored_otherwise_until().expect("a time");
            assert!(state.is_stored_otherwise(&status(failures), 8, until - TimeDelta::seconds(1)));
            waits.push((until - now).num_minutes());
            now = until;
            state.status_changed_nothing(8, status(failures), uid, now);
        }
        // the CRD knows all of it by now
        state.status_written(9, status(8), now);
        state.status_changed_nothing(9, status(9), uid, now);
        let until = state.stored_otherwise_until().expect("a time");
        assert_eq!((until - now).num_minutes(), waits[0], "as at first");
        waits
    };
    let (one, other) = (minutes("one"), minutes("other"));
    assert_ne!(one, other, "not in step");
    for waits in [one, other] {
        assert!(waits.is_sorted() && (4..=9).contains(&waits[0]) && (180..=360).contains(&waits[8]), "{waits:?}");
    }
}

#[test]
fn status_that_others_replace_is_written_again_immediately_once_and_then_after_a_while() {
    let condition = |kind: &str, second| Condition {
        type_: kind.to_owned(),
        status: "False".to_owned(),
        reason: "InvalidClient".to_owned(),
        message: String::new(),
        observed_generation: Some(1),
        last_transition_time: time::to_kubernetes(at(second)),
    };
    let status = |failures, conditions: &[Condition]| CredentialStatus {
        consecutive_failures: failures,
        conditions: conditions.to_vec(),
        ..CredentialStatus::default()
    };
    let first = status(1, &[condition("Ready", 0), condition("Renewed", 0)]);
    let mut state = new();
    assert_eq!(state.rewrite_waits(&first, at(0)), None, "an earlier process wrote the one before");
    state.status_written(7, first.clone(), at(0));
    assert_eq!(state.rewrite_waits(&first, at(1)), None, "it is replaced for the first time");
    state.status_written(9, first.clone(), at(1));
    assert_eq!(state.rewrite_waits(&first, at(1)), Some(TimeDelta::seconds(30)));
    assert_eq!(state.rewrite_waits(&first, at(30)), Some(TimeDelta::seconds(1)));
    assert_eq!(state.rewrite_waits(&first, at(31)), None);
    assert_eq!(state.rewrite_waits(&first, at(0)), None, "the clock was set back");
    let others = status(1, &[condition("Renewed", 5), condition("Audited", 5), condition("Ready", 5)]);
    assert!(state.rewrite_waits(&others, at(2)).is_some(), "the times and the conditions of others are not its own");
    let second = status(2, &first.conditions);
    assert_eq!(state.rewrite_waits(&second, at(2)), None, "it is news");
    state.status_written(11, second.clone(), at(2));
    assert_eq!(
        state.rewrite_waits(&second, at(3)),
        Some(TimeDelta::seconds(28)),
        "the one before it was replaced, too"
    );
    state.status_write_begins();
    assert_eq!(state.rewrite_waits(&second, at(3)), None, "the object may have another status, which was not answered");
    state.status_written(13, second.clone(), at(4));
    assert_eq!(state.rewrite_waits(&second, at(5)), Some(TimeDelta::seconds(29)), "it is known again");
    let mut each = new();
    for second in [0, 1] {
        each.status_write_begins();
        each.status_written(7, first.clone(), at(second));
    }
    assert_eq!(each.rewrite_waits(&first, at(1)), Some(TimeDelta::seconds(30)), "as each write is made");
}

#[test]
fn long_renewal_is_reported_once_for_as_long_as_it_is_and_not_at_each_change() {
    let mut state = new();
    let table = [
        (0, true, true),
        (1, true, false),
        (2, false, false),
        // it was reported just now, and stays unreported until later
        (3, true, false),
        (10, true, true),
        (3600, true, false),
        (3601, false, false),
        (3602, true, true),
        (3603, false, false),
        // the clock was set back
        (60, true, true),
    ];
    for (second, is_too_long, expected) in table {
        assert_eq!(state.reports_long_renewal(is_too_long, at(second)), expected, "at second {second}");
    }
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
fn what_annotations_say_of_a_token_is_sealed_once_and_only_where_it_was_not_read() {
    let content = samples::content();
    let sealed = |digest: &str| Sealed {
        description: content.description.clone(),
        client_fingerprint: content.client_fingerprint.clone(),
        renewed_for: None,
        digest: digest.into(),
    };
    let digest = |state: &RetryState| state.last_held()?.sealed.as_ref().map(|sealed| sealed.digest.to_string());
    let mut state = new();
    state.remember_sealed(Some(&content.token_metadata), || Some(sealed("first")));
    assert_eq!(digest(&state), None, "no token is known");
    let token_metadata = content.token_metadata.clone();
    state.remember(LastHeld { token_metadata, record: None, sealed: None });
    let of_another = TokenMetadata { request: "another".into(), ..content.token_metadata.clone() };
    for of in [None, Some(&of_another)] {
        state.remember_sealed(of, || Some(sealed("another")));
        assert_eq!(digest(&state), None);
    }
    for later in ["first", "second"] {
        state.remember_sealed(Some(&content.token_metadata), || Some(sealed(later)));
        assert_eq!(digest(&state).as_deref(), Some("first"));
    }
    state.remember(LastHeld::written(&content));
    state.remember_sealed(Some(&content.token_metadata), || Some(sealed("third")));
    assert_eq!(digest(&state), None, "what was written or read needs no seal");
}

#[test]
fn token_that_a_status_describes_is_forgotten_once_a_read_shows_another_one() {
    let held = LastHeld::written(&samples::content());
    let [version, later] = ["uid/2", "uid/3"].map(ObjectVersion::from);
    let mut state = new();
    state.remember(LastHeld { record: None, ..held.clone() });
    state.disprove(version.clone());
    assert_eq!(state.last_held(), None);
    state.remember(held.clone());
    assert_eq!(state.holds_remembered(&version), None, "it was read again, or written");
    state.disprove(version.clone());
    assert_eq!(state.last_held(), Some(&held), "others may write it again");
    assert_eq!([&version, &later].map(|version| state.holds_remembered(version)), [Some(false), None]);
    state.prove(later.clone());
    assert_eq!([&version, &later].map(|version| state.holds_remembered(version)), [None, Some(true)]);
    assert_eq!(state.is_target_verified(&later), Some(true));
}

#[test]
fn secret_that_a_client_of_no_use_left_unread_is_read_again_once_that_client_is_changed() {
    let [before, after] = ["uid/2", "uid/3"].map(ObjectVersion::from);
    for (reason, is_read_again) in
        [(Reason::ClientCredentialsNotFound, true), (Reason::ClientCredentialsInvalid, true), (Reason::Timeout, false)]
    {
        let mut state = new();
        state.client_known(Some(&before));
        let failed = Err(Failure::new(reason, "because"));
        state.read(Fetch::TargetData, failed, TimeDelta::hours(1), "uid", at(0));
        for (client, is_read_again) in [(None, false), (Some(&before), false), (Some(&after), is_read_again)] {
            state.client_known(client);
            let waits = state.read_that_waits(Fetch::TargetData, at(0)).map(|failure| failure.reason);
            assert_eq!(waits, (!is_read_again).then_some(reason), "{client:?}");
        }
        assert_eq!(state.read_that_waits(Fetch::TargetData, at(60)), None, "it waits no longer");
    }
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
