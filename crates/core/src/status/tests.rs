//! What a status says of each state, and what the next process reads of it.

mod deletion;
mod renewed;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::conditions::READY;

use super::*;
use crate::{
    client_expiry::{ClientExpiry, Expires},
    failure::Failure,
    observed::{Drift, Form, Held, Integrity, ObservedState, Target},
    policy::RenewBefore,
    samples,
    token::Description,
};

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
}

fn observe(lifetime: Option<i64>) -> ObservedState {
    let token_metadata = lifetime.map(|lifetime| TokenMetadata {
        request: "request".into(),
        issuer: "https://ims".into(),
        authority: Some("ims".into()),
        client_reference: Some("client/keys".into()),
        client_version: "".into(),
        issued_at: at(0),
        expires_at: at(lifetime),
    });
    ObservedState {
        target: token_metadata.map_or(Target::Absent, |token_metadata| {
            Target::Ours(Held {
                token_metadata: Some(token_metadata),
                data: Integrity::Verified,
                drift: Drift::None,
                form: Form::Presumed,
            })
        }),
        ..samples::observed_state()
    }
}

fn reported(
    observed: &ObservedState,
    attempts: &Attempts,
    previous: &CredentialStatus,
    now: DateTime<Utc>,
) -> CredentialStatus {
    reported_of((observed, None), attempts, previous, now)
}

fn reported_of(
    (observed, waits_for): (&ObservedState, Option<&str>),
    attempts: &Attempts,
    previous: &CredentialStatus,
    now: DateTime<Utc>,
) -> CredentialStatus {
    status(&Inputs {
        observed,
        attempts,
        description: &Description::default(),
        secret: "token",
        generation: Some(1),
        renew_at: Some(at(2400)),
        previous,
        waits_for,
        client_expiry: None,
        deletion: None,
        now,
    })
}

#[test]
fn long_wait_in_the_queue_is_in_ready_where_there_is_no_usable_token() {
    let ready = |held: Option<i64>, failed: bool| {
        let mut attempts = Attempts::default();
        if failed {
            attempts.last_failure = Some((at(0), Failure::new(Reason::ServerError, "it failed")));
        }
        let status = reported_of((&observe(held), Some("ims")), &attempts, &CredentialStatus::default(), at(10));
        let condition = status.conditions.into_iter().find(|condition| condition.type_ == READY);
        let condition = condition.expect("Ready");
        (condition.reason, condition.message)
    };
    let queued = |(reason, message): (String, String), expected: &str| {
        assert_eq!(reason, expected);
        assert!(message.contains("queue of ITwinAuthority ims"), "{message}");
        message
    };
    queued(ready(None, false), "Pending");
    assert!(queued(ready(None, true), "ServerError").contains("see the message of condition Renewed; "));
    queued(ready(Some(5), false), "TokenExpired");
    let (reason, message) = ready(Some(3600), false);
    assert_eq!((reason.as_str(), message.contains("queue")), ("TokenValid", false), "a good token is good");
}

fn condition<'a>(status: &'a CredentialStatus, kind: &str) -> Option<(&'a str, &'a str)> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((condition.status.as_str(), condition.reason.as_str()))
}

fn ready_at(observed: &ObservedState, attempts: &Attempts, second: i64) -> (String, String) {
    let status = reported(observed, attempts, &CredentialStatus::default(), at(second));
    let (status, reason) = condition(&status, READY).expect("always there");
    (status.to_owned(), reason.to_owned())
}

fn failed(reason: Reason) -> Attempts {
    Attempts { failures: 3, last_failure: Some((at(1), Failure::new(reason, "what happened"))), ..Attempts::default() }
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn ready_follows_the_token_not_the_last_attempt() {
    let observed = observe(Some(3600));
    let failed = failed(Reason::InvalidClient);
    assert_eq!(ready_at(&observed, &failed, 3300), pair("True", "TokenValid"));
    assert_eq!(ready_at(&observed, &failed, 3301), pair("False", "BelowMinimumValidity"));
    assert_eq!(ready_at(&observed, &failed, 3600), pair("False", "TokenExpired"));
    let status = reported(&observed, &failed, &CredentialStatus::default(), at(1));
    assert_eq!(condition(&status, RENEWED), Some(("False", "InvalidClient")));
}

#[test]
fn without_a_token_the_last_failure_is_the_reason() {
    assert_eq!(ready_at(&observe(None), &failed(Reason::InvalidClient), 1), pair("False", "InvalidClient"));
    assert_eq!(ready_at(&observe(None), &Attempts::default(), 1), pair("False", "Pending"));
}

#[test]
fn tokens_too_short_for_the_promise_are_reported_as_such_from_the_first_moment() {
    for second in [0, 50, 200, 399] {
        let reported = ready_at(&observe(Some(400)), &Attempts::default(), second);
        assert_eq!(reported, pair("False", "LifetimeTooShort"), "after {second} s");
    }
    let message = message(&observe(Some(400)), None, 0);
    assert!(message.contains("lifetime of 400 s") && message.contains("minimumValidity to 180s or less"), "{message}");
    let mut unset = observe(Some(400));
    unset.desired.policy.minimum_validity = None;
    for (second, reason) in [(0, "TokenValid"), (300, "TokenValid"), (301, "BelowMinimumValidity")] {
        assert_eq!(ready_at(&unset, &Attempts::default(), second).1, reason, "after {second} s");
    }
}

fn message(observed: &ObservedState, client_expiry: Option<ClientExpiry<'_>>, second: i64) -> String {
    let status = status(&Inputs {
        observed,
        attempts: &Attempts::default(),
        description: &Description::default(),
        secret: "token",
        generation: Some(1),
        renew_at: None,
        previous: &CredentialStatus::default(),
        waits_for: None,
        client_expiry,
        deletion: None,
        now: at(second),
    });
    status.conditions.into_iter().find(|condition| condition.type_ == READY).expect("Ready").message
}

#[test]
fn renewal_at_another_time_than_the_spec_says_is_in_ready() {
    let with = |renew_before| {
        let mut observed = observe(Some(3600));
        observed.desired.policy.renew_before = renew_before;
        message(&observed, None, 1)
    };
    assert_eq!(with(RenewBefore::Default), "Secret token holds a valid token");
    let shortened = with(RenewBefore::Fixed(TimeDelta::hours(1)));
    assert!(shortened.contains(crate::messages_lifetime::RENEWED_LATER), "{shortened}");
    assert!(shortened.ends_with("set spec.renewBefore to 1800s or less"), "{shortened}");
    let raised = with(RenewBefore::Percentage(1));
    assert!(raised.ends_with("set spec.renewBeforePercentage to 10 or more"), "{raised}");
}

#[test]
fn client_secret_that_expires_is_in_ready_for_two_weeks_before_and_afterwards() {
    let day = 24 * 3600;
    let expires = |expires| ClientExpiry { secret: "team/client", key: "expires_at", expires };
    let expiry = expires(Expires::At(at(20 * day)));
    let token = |second: i64| {
        let mut observed = observe(Some(3600));
        if let Target::Ours(Held { token_metadata: Some(token_metadata), .. }) = &mut observed.target {
            (token_metadata.issued_at, token_metadata.expires_at) = (at(second), at(second + 3600));
        }
        message(&observed, Some(expiry), second)
    };
    assert_eq!(token(6 * day - 1), "Secret token holds a valid token");
    assert_eq!(expiry.next_change(at(0)), Some(at(6 * day)));
    let soon = token(6 * day);
    assert!(soon.contains("expire at 2027-02-04T08:00:00Z") && soon.contains("Secret team/client"), "{soon}");
    assert_eq!(token(20 * day - 1), soon, "the text does not change with time");
    assert_eq!(expiry.next_change(at(6 * day)), Some(at(20 * day)));
    assert!(token(20 * day).contains("expired at 2027-02-04T08:00:00Z"), "{}", token(20 * day));
    assert_eq!(expiry.next_change(at(20 * day)), None);
    assert_eq!(expires(Expires::At(DateTime::<Utc>::MIN_UTC)).next_change(at(0)), None);
    let invalid = expires(Expires::Invalid);
    let said = message(&observe(Some(3600)), Some(invalid), 0);
    assert!(said.starts_with("Secret token holds a valid token; key expires_at of Secret team/client "), "{said}");
    assert_eq!(invalid.next_change(at(0)), None);
}

#[test]
fn ready_claims_nothing_of_a_token_that_was_requested_while_a_clock_was_ahead() {
    let ready = |second: i64| {
        let status = reported(&observe(Some(3600)), &Attempts::default(), &CredentialStatus::default(), at(second));
        let ready = status.conditions.into_iter().find(|condition| condition.type_ == READY).expect("Ready");
        (ready.status, ready.reason)
    };
    // the clocks of two nodes differ a little
    assert_eq!(ready(-60), ("True".into(), "TokenValid".into()));
    assert_eq!(ready(-61), ("False".into(), "BelowMinimumValidity".into()));
}

#[test]
fn ready_claims_nothing_of_data_that_was_not_read_since_it_was_changed() {
    let ready = |integrity: Integrity, has_read_failed: bool| {
        let mut observed = observe(Some(3600));
        if let Target::Ours(held) = &mut observed.target {
            held.data = integrity;
        }
        observed.history.has_data_read_failed = has_read_failed;
        let previous = CredentialStatus::default();
        let status = reported(&observed, &Attempts::default(), &previous, at(1));
        let ready = status.conditions.into_iter().find(|condition| condition.type_ == READY).expect("Ready");
        (ready.status, ready.reason, ready.message)
    };
    let expected = |status: &str, reason: &str, message: &str| (status.into(), reason.into(), message.into());
    assert_eq!(ready(Integrity::Verified, false), expected("True", "TokenValid", "Secret token holds a valid token"));
    let unverified = "Secret token held a valid token when it was read last, and was changed since";
    assert_eq!(ready(Integrity::Unverified, true), expected("True", "TokenValid", unverified));
    let (status, reason, message) = ready(Integrity::Suspect, true);
    assert_eq!((&*status, &*reason), ("False", "SecretReadFailed"), "{message}");
    assert!(message.contains("could not be checked since"), "{message}");
    let (status, ..) = ready(Integrity::Suspect, false);
    assert_eq!(status, "True", "it is being read");
    let (status, reason, message) = ready(Integrity::Untrusted, true);
    assert_eq!((&*status, &*reason), ("False", "SecretReadFailed"), "{message}");
    let (status, reason, message) = ready(Integrity::Untrusted, false);
    assert_eq!((&*status, &*reason), ("False", "Pending"), "{message}");
    assert!(message.contains("was not read since"), "{message}");
}

#[test]
fn ready_says_when_the_secret_was_read_while_it_is_not_watched() {
    let message = |is_unwatched: bool| {
        let attempts = Attempts { is_unwatched, ..Attempts::default() };
        let status = reported(&observe(Some(3600)), &attempts, &CredentialStatus::default(), at(1));
        let ready = status.conditions.into_iter().find(|condition| condition.type_ == READY).expect("Ready");
        (ready.status, ready.message)
    };
    let expected = |message: &str| ("True".to_owned(), message.to_owned());
    assert_eq!(message(false), expected("Secret token holds a valid token"));
    assert_eq!(message(true), expected("Secret token held a valid token when it was read last"));
}

#[test]
fn cause_of_a_failure_is_written_once() {
    let cause = "ITwinAuthority ims answered invalid_client: check client_id";
    let failure = Failure::new(Reason::InvalidClient, cause);
    let failed = Attempts { last_failure: Some((at(1), failure)), failures: 1, ..Attempts::default() };
    for (lifetime, now) in [(None, 1), (Some(3600), 3301), (Some(3600), 3600)] {
        let status = reported(&observe(lifetime), &failed, &CredentialStatus::default(), at(now));
        let text = serde_json::to_string(&status).expect("JSON");
        assert_eq!(text.matches("check client_id").count(), 1, "{text}");
        assert!(text.contains("see the message of condition Renewed"), "{text}");
        let (_, recalled) = attempts(&status).last_failure.expect("a failure");
        assert_eq!(recalled.message, cause, "another process knows the whole message");
    }
}

#[test]
fn suspended_is_reported_only_without_a_usable_token() {
    let mut suspended = observe(Some(3600));
    suspended.suspend = true;
    assert_eq!(ready_at(&suspended, &Attempts::default(), 1), pair("True", "TokenValid"));
    assert_eq!(ready_at(&suspended, &Attempts::default(), 3601), pair("False", "Suspended"));
}

#[test]
fn restarts_that_failed_are_in_renewed_whatever_it_is_and_the_next_process_recalls_them() {
    for attempts in [Attempts::default(), failed(Reason::ServerError)] {
        let attempts = Attempts { restart_failure: Some("Deployment a does not exist".into()), ..attempts };
        let status = reported(&observe(Some(3600)), &attempts, &CredentialStatus::default(), at(1));
        let renewed = status.conditions.iter().find(|condition| condition.type_ == RENEWED).expect("Renewed");
        assert!(renewed.message.ends_with("; restarts of workloads: Deployment a does not exist"), "{renewed:?}");
        assert_eq!(super::attempts(&status).restart_failure, attempts.restart_failure);
        assert_eq!(status.last_failure.map(|failure| failure.message), attempts.last_failure.map(|(_, f)| f.message));
    }
}

#[test]
fn time_alone_changes_nothing() {
    let observed = observe(Some(3600));
    let first = reported(&observed, &Attempts::default(), &CredentialStatus::default(), at(1));
    let second = reported(&observed, &Attempts::default(), &first, at(1000));
    assert_eq!(first, second);
}

#[test]
fn attempts_survive_a_restart_through_the_status() {
    let before = failed(Reason::ServerError);
    let status = reported(&observe(Some(3600)), &before, &CredentialStatus::default(), at(1));
    let after = attempts(&status);
    assert_eq!((after.failures, after.last_failure), (before.failures, before.last_failure));
}

#[test]
fn renewed_is_about_the_generation_of_its_attempt() {
    let first = reported(&observe(Some(3600)), &Attempts::default(), &CredentialStatus::default(), at(1));
    let mut changed = observe(Some(3600));
    changed.desired.request = "other".into();
    let status = status(&Inputs {
        observed: &changed,
        attempts: &Attempts::default(),
        description: &Description::default(),
        secret: "token",
        generation: Some(2),
        renew_at: None,
        previous: &first,
        waits_for: None,
        client_expiry: None,
        deletion: None,
        now: at(2),
    });
    let generation = |kind: &str| {
        let condition = status.conditions.iter().find(|condition| condition.type_ == kind).expect("it is there");
        (condition.reason.as_str(), condition.observed_generation)
    };
    assert_eq!(generation(READY), ("Pending", Some(2)));
    assert_eq!(generation(RENEWED), ("TokenIssued", Some(1)));
}

#[test]
fn secret_that_cannot_be_read_counts_as_it_was_until_its_token_expires() {
    let mut unread = observe(Some(3600));
    unread.target = Target::Unread { last: unread.held().cloned() };
    let failed = failed(Reason::SecretReadFailed);
    assert_eq!(ready_at(&unread, &failed, 1), pair("True", "TokenValid"));
    assert_eq!(ready_at(&unread, &failed, 3600), pair("False", "TokenExpired"));
}

#[test]
fn ready_of_a_suspended_credential_claims_nothing_of_a_secret_that_was_not_read() {
    let ready = |target: Target, attempts: &Attempts| {
        let observed = ObservedState { target, suspend: true, ..observe(None) };
        let status = reported(&observed, attempts, &CredentialStatus::default(), at(1));
        let ready = status.conditions.into_iter().find(|condition| condition.type_ == READY).expect("Ready");
        (ready.reason, ready.message)
    };
    let failed = failed(Reason::SecretReadFailed);
    for target in [Target::Unread { last: None }, Target::Presumed] {
        let because = "Secret token was not read: see the message of condition Renewed";
        assert_eq!(ready(target.clone(), &failed), pair("SecretReadFailed", because));
        let suspended = "spec.suspend is true and Secret token was not read";
        assert_eq!(ready(target, &Attempts::default()), pair("Suspended", suspended));
    }
    let without = "spec.suspend is true and Secret token holds no token for this spec: set it to false to get one";
    assert_eq!(ready(Target::Absent, &failed), pair("Suspended", without));
    let unread = ObservedState { target: Target::Unread { last: None }, ..observe(None) };
    assert_eq!(message(&unread, None, 1), "Secret token was not read");
}

#[test]
fn conditions_of_others_stay_where_they_are() {
    let theirs = Condition { type_: "Audited".to_owned(), ..first_condition() };
    let previous = CredentialStatus { conditions: vec![theirs.clone(), first_condition()], ..Default::default() };
    let status = reported(&observe(Some(3600)), &Attempts::default(), &previous, at(1));
    let types: Vec<&str> = status.conditions.iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(types, ["Audited", READY, RENEWED]);
    assert_eq!(status.conditions[0], theirs);
    assert!(!is_ours(&theirs) && status.conditions[1..].iter().all(is_ours));
}

fn first_condition() -> Condition {
    let status = reported(&observe(None), &Attempts::default(), &CredentialStatus::default(), at(0));
    status.conditions.into_iter().next().expect("Ready")
}
