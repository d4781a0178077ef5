//! The status of a credential, as a pure function of the observed state, the last attempt and the time.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{
    conditions::{READY, RENEWED, Reason, Verdict},
    credential::{CredentialStatus, LastFailure},
    time,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    failure::Failure,
    messages_lifetime as messages,
    messages_restart::ABOUT_RESTARTS,
    observed::{Expires, Held, Integrity, ObservedState, Target},
    schedule,
    token::{Description, TokenMetadata},
};

/// How the last attempt ended, as far as this process knows.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    /// Consecutive failed attempts.
    pub failures: u32,
    /// The last failure, if the last attempt failed.
    pub last_failure: Option<(DateTime<Utc>, Failure)>,
    /// The value of the renew annotation that was acted upon last.
    pub renew_request: Option<String>,
    /// Why workloads could not be restarted for the token that is held, if they could not.
    pub restart_failure: Option<String>,
}

/// Everything that a status is made from.
pub struct Inputs<'a> {
    /// What was observed after the attempt.
    pub observed: &'a ObservedState,
    /// Attempts up to now.
    pub attempts: &'a Attempts,
    /// What the token was issued for.
    pub description: &'a Description,
    /// The Secret's name.
    pub secret: &'a str,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// The next attempt.
    pub renew_at: Option<DateTime<Utc>>,
    /// The status that the object has.
    pub previous: &'a CredentialStatus,
    /// The authority in whose queue a token request has waited for long.
    pub waits_for: Option<&'a str>,
    /// When the client's credentials expire, where the client Secret says so.
    pub client_expiry: Option<ClientExpiry<'a>>,
    /// The time.
    pub now: DateTime<Utc>,
}

/// When the client's credentials expire.
#[derive(Clone, Copy, Debug)]
pub struct ClientExpiry<'a> {
    /// The client Secret, `namespace/name`.
    pub secret: &'a str,
    /// The key that says so.
    pub key: &'a str,
    /// When.
    pub expires: Expires,
}

/// A status reports that the client's credentials expire from this long before they do.
const CLIENT_EXPIRY_NOTICE: TimeDelta = TimeDelta::days(14);

impl ClientExpiry<'_> {
    fn at(&self) -> Option<DateTime<Utc>> {
        match self.expires {
            Expires::At(at) => Some(at),
            Expires::Invalid => None,
        }
    }

    /// A sentence about it, from two weeks before. That it cannot be read keeps no one from a token: it is only said.
    #[must_use]
    pub fn notice(&self, now: DateTime<Utc>) -> Option<String> {
        let Some(at) = self.at() else { return Some(messages::client_expiry_invalid(self.secret, self.key)) };
        match at - now {
            left if left <= TimeDelta::zero() => Some(messages::client_expired(self.secret, at)),
            left if left <= CLIENT_EXPIRY_NOTICE => Some(messages::client_expires(self.secret, at)),
            _ => None,
        }
    }

    /// The instant after which, by the clock alone, a status says something else about it.
    #[must_use]
    pub fn next_change(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let at = self.at()?;
        let begins = at.checked_sub_signed(CLIENT_EXPIRY_NOTICE);
        [begins, Some(at)].into_iter().flatten().filter(|at| *at > now).min()
    }
}

/// The status that the object should have.
#[must_use]
pub fn status(inputs: &Inputs<'_>) -> CredentialStatus {
    let held = inputs.observed.held_for_spec();
    let condition =
        |verdict: Verdict| verdict.into_condition(&inputs.previous.conditions, inputs.generation, inputs.now);
    let ours = [Some(ready(inputs, held)), renewed(inputs, held)].into_iter().flatten().map(condition);
    let conditions = ours.fold(inputs.previous.conditions.clone(), with_condition);
    let scopes = held.map(|_| inputs.description.scopes()).unwrap_or_default();
    let usable_until = |token_metadata: &TokenMetadata| {
        let policy = &inputs.observed.desired.policy;
        token_metadata.expires_at - schedule::minimum_validity(policy, token_metadata.lifetime())
    };
    CredentialStatus {
        observed_generation: inputs.generation,
        conditions,
        secret_name: Some(inputs.secret.to_owned()),
        issuer: held.map(|token_metadata| token_metadata.issuer.to_string()),
        client_id: held.and_then(|_| inputs.description.client_id.as_deref().map(str::to_owned)),
        scope: (!scopes.is_empty()).then(|| scopes.join(" ")),
        scopes,
        issued_at: held.map(|token_metadata| time::to_rfc3339(token_metadata.issued_at)),
        expires_at: held.map(|token_metadata| time::to_rfc3339(token_metadata.expires_at)),
        renew_at: inputs.renew_at.map(time::to_rfc3339),
        usable_until: held.map(|token_metadata| time::to_rfc3339(usable_until(token_metadata))),
        consecutive_failures: i32::try_from(inputs.attempts.failures).unwrap_or(i32::MAX),
        last_failure: inputs.attempts.last_failure.as_ref().map(|(time, failure)| LastFailure {
            time: time::to_rfc3339(*time),
            reason: failure.reason.as_str().to_owned(),
            message: failure.summary().to_owned(),
        }),
        last_renew_request: inputs.attempts.renew_request.clone(),
        client_secret_expires_at: inputs.client_expiry.and_then(|expiry| expiry.at()).map(time::to_rfc3339),
    }
}

/// `Ready`: the Secret holds a token for the current spec with at least the minimum validity left.
fn ready(inputs: &Inputs<'_>, held: Option<&TokenMetadata>) -> Verdict {
    let (reason, mut message) = match held {
        Some(token_metadata) => ready_with_token(inputs, token_metadata),
        None => ready_without_token(inputs),
    };
    if let Some(notice) = inputs.client_expiry.and_then(|expiry| expiry.notice(inputs.now)) {
        message = format!("{message}; {notice}");
    }
    Verdict { kind: READY, holds: reason == Reason::TokenValid, reason, message }
}

fn ready_without_token(inputs: &Inputs<'_>) -> (Reason, String) {
    let secret = inputs.secret;
    if inputs.observed.suspend {
        let message = format!(
            "spec.suspend is true and Secret {secret} holds no token for this spec: set it to false to get one"
        );
        return (Reason::Suspended, message);
    }
    match (&inputs.attempts.last_failure, inputs.waits_for) {
        (None, None) => (Reason::Pending, "no token was requested for this spec yet".to_owned()),
        (None, Some(authority)) => (Reason::Pending, waits_in_queue(authority)),
        (Some((_, failure)), _) => {
            (failure.reason, format!("Secret {secret} holds no token for this spec{}", because(inputs)))
        }
    }
}

fn ready_with_token(inputs: &Inputs<'_>, token_metadata: &TokenMetadata) -> (Reason, String) {
    let secret = inputs.secret;
    let policy = &inputs.observed.desired.policy;
    let lifetime = token_metadata.lifetime();
    let minimum_validity = schedule::minimum_validity(policy, lifetime);
    let left = token_metadata.expires_at - inputs.now;
    if left <= TimeDelta::zero() && inputs.observed.suspend {
        let message = format!(
            "the token in Secret {secret} has expired and spec.suspend is true: set it to false to get another"
        );
        return (Reason::Suspended, message);
    }
    if left <= TimeDelta::zero() {
        let message = format!("the token in Secret {secret} has expired and could not be renewed{}", because(inputs));
        return (Reason::TokenExpired, message);
    }
    if token_metadata.is_of_another_clock(inputs.now) {
        let message = format!(
            "the token in Secret {secret} was requested while a clock was ahead of this one, so that its expiry is not \
             known, and could not be renewed{}",
            because(inputs)
        );
        return (Reason::BelowMinimumValidity, message);
    }
    let is_suspect = matches!(inputs.observed.target, Target::Ours(Held { data: Integrity::Suspect, .. }));
    // while it is being read, nothing is known to be wrong
    if is_suspect && inputs.observed.history.is_data_unreadable {
        let message = format!(
            "the data of Secret {secret} was written by others and could not be read since, so that it is not known whether \
             it holds a valid token{}",
            because(inputs)
        );
        return (Reason::SecretReadFailed, message);
    }
    // from the moment it is issued, since each token would fall below it before its renewal
    if schedule::is_too_short(policy, lifetime) {
        let authority = &inputs.observed.desired.authority;
        let longest = schedule::longest_minimum_validity(lifetime);
        let message = messages::lifetime_too_short(authority, lifetime, minimum_validity, longest);
        return (Reason::LifetimeTooShort, message);
    }
    if left < minimum_validity {
        let message = format!(
            "the token in Secret {secret} is valid for less than minimumValidity ({} s) and could not be renewed{}",
            minimum_validity.num_seconds(),
            because(inputs)
        );
        return (Reason::BelowMinimumValidity, message);
    }
    let message = match inputs.observed.target {
        Target::Unread { .. } => format!("Secret {secret} held a valid token when it was read last"),
        Target::Ours(Held { data: Integrity::Unverified | Integrity::Suspect, .. }) => {
            format!("Secret {secret} held a valid token when it was read last, and was changed since")
        }
        _ => format!("Secret {secret} holds a valid token"),
    };
    let adjustment = schedule::adjustment(policy, lifetime)
        .map(|adjustment| messages::adjusted(adjustment, policy, lifetime))
        .map_or_else(String::new, |adjusted| format!("; {adjusted}"));
    (Reason::TokenValid, format!("{message}{adjustment}"))
}

/// Where to read why there is no better token: it is written once, in the other condition.
fn because(inputs: &Inputs<'_>) -> String {
    let failure = inputs.attempts.last_failure.as_ref().map(|_| format!("see the message of condition {RENEWED}"));
    let causes: Vec<String> = [failure, inputs.waits_for.map(waits_in_queue)].into_iter().flatten().collect();
    if causes.is_empty() { String::new() } else { format!(": {}", causes.join("; ")) }
}

/// The same text for as long as it waits: a status changes only when something other than time does.
fn waits_in_queue(authority: &str) -> String {
    format!(
        "the token request has waited in the queue of ITwinAuthority {authority} for longer than 30 s: others come \
         first, ask its administrator to raise requestsPerMinute or maxConcurrentRequests"
    )
}

/// The conditions with this one in the place of the one of its type. Those of other writers stay as they are, and so does
/// one of ours that is not known again, with the generation that it is about.
fn with_condition(mut conditions: Vec<Condition>, condition: Condition) -> Vec<Condition> {
    match conditions.iter_mut().find(|present| present.type_ == condition.type_) {
        Some(present) => *present = condition,
        None => conditions.push(condition),
    }
    conditions
}

/// Whether a status says that the credential is ready.
#[must_use]
pub fn is_ready(status: &CredentialStatus) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == READY && condition.status == "True")
}

/// Replaces the conditions of others.
pub fn replace_others(conditions: &mut Vec<Condition>, others: Vec<Condition>) {
    conditions.retain(is_ours);
    conditions.extend(others);
}

/// Whether a condition is the operator's.
#[must_use]
pub fn is_ours(condition: &Condition) -> bool {
    [READY, RENEWED].contains(&condition.type_.as_str())
}

/// `Renewed`: how the last attempt ended; `None` before the first one, and before the first one for a changed spec.
fn renewed(inputs: &Inputs<'_>, held: Option<&TokenMetadata>) -> Option<Verdict> {
    let restart_failure = inputs.attempts.restart_failure.as_deref();
    let with_restarts = |message: String| match restart_failure {
        None => message,
        Some(failure) => format!("{message}{ABOUT_RESTARTS}{failure}"),
    };
    if let Some((_, failure)) = &inputs.attempts.last_failure {
        let message = with_restarts(failure.message.clone());
        return Some(Verdict { kind: RENEWED, holds: false, reason: failure.reason, message });
    }
    held.map(|_| Verdict {
        kind: RENEWED,
        holds: true,
        reason: Reason::TokenIssued,
        message: with_restarts(format!("a verified token was written into Secret {}", inputs.secret)),
    })
}

/// What a process that just started can take from the status about attempts before its time.
#[must_use]
pub fn attempts(previous: &CredentialStatus) -> Attempts {
    let last_failure = previous.last_failure.as_ref().and_then(|failure| {
        let time = time::from_rfc3339(&failure.time)?;
        // the condition has the whole message
        let message = previous
            .conditions
            .iter()
            .find(|condition| condition.type_ == RENEWED && condition.reason == failure.reason)
            .and_then(|condition| condition.message.split(ABOUT_RESTARTS).next())
            .unwrap_or(&failure.message);
        Some((time, Failure::new(Reason::parse(&failure.reason)?, message)))
    });
    Attempts {
        failures: last_failure.as_ref().map_or(0, |_| u32::try_from(previous.consecutive_failures).unwrap_or_default()),
        last_failure,
        renew_request: previous.last_renew_request.clone(),
        restart_failure: previous
            .conditions
            .iter()
            .filter(|condition| condition.type_ == RENEWED)
            .find_map(|condition| Some(condition.message.split_once(ABOUT_RESTARTS)?.1.to_owned())),
    }
}

/// Whether a status says that the expiry in the client Secret cannot be read.
#[must_use]
pub fn says_no_time(status: &CredentialStatus) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == READY && condition.message.contains(messages::NO_TIME))
}

/// Whether a condition of this type is True.
#[must_use]
pub fn holds(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        observed::{Authority, Client, Desired, Drift, Form, History},
        policy::{Policy, RenewBefore},
        restart::Restart,
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
            renewal_request: None,
            authority: Authority::Pending,
            client: Client::Unread { version: None },
            target: token_metadata.map_or(Target::Absent, |token_metadata| {
                Target::Ours(Held {
                    token_metadata: Some(token_metadata),
                    data: Integrity::Verified,
                    drift: Drift::None,
                    form: Form::Presumed,
                })
            }),
            history: History::default(),
            is_admitted: false,
            unwritten: None,
            retry_key: Default::default(),
            restart: Restart::Done,
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
        Attempts {
            failures: 3,
            last_failure: Some((at(1), Failure::new(reason, "what happened"))),
            renew_request: None,
            restart_failure: None,
        }
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
        assert!(
            message.contains("lifetime of 400 s") && message.contains("minimumValidity to 180s or less"),
            "{message}"
        );
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
        let ready = |integrity: Integrity, is_unreadable: bool| {
            let mut observed = observe(Some(3600));
            if let Target::Ours(held) = &mut observed.target {
                held.data = integrity;
            }
            observed.history.is_data_unreadable = is_unreadable;
            let previous = CredentialStatus::default();
            let status = reported(&observed, &Attempts::default(), &previous, at(1));
            let ready = status.conditions.into_iter().find(|condition| condition.type_ == READY).expect("Ready");
            (ready.status, ready.reason, ready.message)
        };
        let expected = |status: &str, reason: &str, message: &str| (status.into(), reason.into(), message.into());
        assert_eq!(
            ready(Integrity::Verified, false),
            expected("True", "TokenValid", "Secret token holds a valid token")
        );
        let unverified = "Secret token held a valid token when it was read last, and was changed since";
        assert_eq!(ready(Integrity::Unverified, true), expected("True", "TokenValid", unverified));
        let (status, reason, message) = ready(Integrity::Suspect, true);
        assert_eq!((&*status, &*reason), ("False", "SecretReadFailed"), "{message}");
        assert!(message.contains("was written by others"), "{message}");
        let (status, ..) = ready(Integrity::Suspect, false);
        assert_eq!(status, "True", "it is being read");
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
            assert_eq!(
                status.last_failure.map(|failure| failure.message),
                attempts.last_failure.map(|(_, f)| f.message)
            );
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
}
