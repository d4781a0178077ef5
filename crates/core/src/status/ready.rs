//! `Ready`: whether the Secret holds a token that workloads can count on, and why not.

use chrono::TimeDelta;
use itwin_api::conditions::{READY, RENEWED, Reason, Verdict};

use super::inputs::Inputs;
use crate::{
    messages_lifetime as messages,
    observed::{Held, Integrity, Target},
    schedule,
    token::TokenMetadata,
};

/// `Ready`: the Secret holds a token for the current spec with at least the minimum validity left.
pub(super) fn ready(inputs: &Inputs<'_>, held: Option<&TokenMetadata>) -> Verdict {
    let (reason, mut message) = match held {
        Some(token_metadata) => ready_with_token(inputs, token_metadata),
        None => ready_without_token(inputs),
    };
    if let Some(notice) = inputs.client_expiry.and_then(|expiry| expiry.notice(inputs.now)) {
        message = format!("{message}; {notice}");
    }
    if let Some(finalizers) = inputs.deletion {
        message = format!("{message}; {}", messages::being_deleted(finalizers));
    }
    Verdict { kind: READY, holds: reason == Reason::TokenValid, reason, message }
}

fn ready_without_token(inputs: &Inputs<'_>) -> (Reason, String) {
    let is_going = inputs.deletion.is_some();
    if inputs.observed.suspend && !is_going {
        return suspended_without_token(inputs);
    }
    match (&inputs.attempts.last_failure, inputs.waits_for) {
        (None, _) if is_going => (Reason::Pending, without_attempt(inputs)),
        // what was requested before is not known either
        (None, None) if matches!(inputs.observed.target, Target::Unread { last: None }) => {
            (Reason::Pending, without_attempt(inputs))
        }
        (None, None) => (Reason::Pending, "no token was requested for this spec yet".to_owned()),
        (None, Some(authority)) => (Reason::Pending, waits_in_queue(authority)),
        // nothing is claimed of what could not be read
        (Some((_, failure)), _) if is_going || matches!(inputs.observed.target, Target::Unread { .. }) => {
            (failure.reason, format!("{}{}", without_attempt(inputs), because(inputs)))
        }
        (Some((_, failure)), _) => {
            (failure.reason, format!("Secret {} holds no token for this spec{}", inputs.secret, because(inputs)))
        }
    }
}

/// Nothing is requested for a suspended credential, and nothing is claimed of a Secret that could not be read.
fn suspended_without_token(inputs: &Inputs<'_>) -> (Reason, String) {
    let without = without_attempt(inputs);
    let is_unread = matches!(inputs.observed.target, Target::Unread { .. } | Target::Presumed);
    match &inputs.attempts.last_failure {
        Some((_, failure)) if is_unread => (failure.reason, format!("{without}{}", because(inputs))),
        None if is_unread && inputs.observed.held().is_none() => {
            (Reason::Suspended, format!("spec.suspend is true and {without}"))
        }
        _ => (Reason::Suspended, format!("spec.suspend is true and {without}: set it to false to get one")),
    }
}

/// Why a credential has no token for which nothing is requested: nothing is claimed of a Secret that was not read.
fn without_attempt(inputs: &Inputs<'_>) -> String {
    let secret = inputs.secret;
    match &inputs.observed.target {
        Target::Presumed | Target::Unread { last: None } => format!("Secret {secret} was not read"),
        _ => format!("Secret {secret} holds no token for this spec"),
    }
}

fn ready_with_token(inputs: &Inputs<'_>, token_metadata: &TokenMetadata) -> (Reason, String) {
    let secret = inputs.secret;
    let policy = &inputs.observed.desired.policy;
    let lifetime = token_metadata.lifetime();
    let minimum_validity = schedule::minimum_validity(policy, lifetime);
    let left = token_metadata.expires_at - inputs.now;
    let is_going = inputs.deletion.is_some();
    if left <= TimeDelta::zero() && inputs.observed.suspend && !is_going {
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
    if let Some(verdict) = ready_unread(inputs) {
        return verdict;
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
        _ if inputs.attempts.is_unwatched => format!("Secret {secret} held a valid token when it was read last"),
        _ => format!("Secret {secret} holds a valid token"),
    };
    let adjustment = schedule::adjustment(policy, lifetime)
        .map(|adjustment| messages::adjusted(adjustment, policy, lifetime))
        .map_or_else(String::new, |adjusted| format!("; {adjusted}"));
    (Reason::TokenValid, format!("{message}{adjustment}"))
}

/// What is claimed of a token that a read must show first, if that is not what it was before.
fn ready_unread(inputs: &Inputs<'_>) -> Option<(Reason, String)> {
    let Target::Ours(Held { data, .. }) = inputs.observed.target else { return None };
    let (secret, because) = (inputs.secret, because(inputs));
    match (data, inputs.observed.history.has_data_read_failed) {
        (Integrity::Suspect | Integrity::Untrusted, true) => {
            let message = format!(
                "the data of Secret {secret} may not be what the operator wrote, and could not be checked since, so that it \
                 is not known whether it holds a valid token{because}"
            );
            Some((Reason::SecretReadFailed, message))
        }
        (Integrity::Untrusted, false) => {
            let failed = inputs.attempts.last_failure.as_ref().map(|(_, failure)| failure.reason);
            let message = format!(
                "the data of Secret {secret} may not be what the operator wrote, and was not read since, so that it is not \
                 known whether it holds a valid token{because}"
            );
            Some((failed.unwrap_or(Reason::Pending), message))
        }
        // while it is being read, nothing is known to be wrong
        _ => None,
    }
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
