//! What a status says that was written before, by this process or an earlier one.

use chrono::{DateTime, Utc};
use itwin_api::{
    conditions::{READY, RENEWED, Reason},
    credential::CredentialStatus,
    time,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::inputs::Attempts;
use crate::{
    failure::Failure,
    messages_lifetime::{BEING_DELETED, NO_TIME},
    messages_restart::ABOUT_RESTARTS,
};

/// Whether a status says that the credential is ready.
#[must_use]
pub fn is_ready(status: &CredentialStatus) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == READY && condition.status == "True")
}

/// When the token was issued that the Secret held, as a status says in which nothing speaks against that token.
#[must_use]
pub fn vouched_issue(status: &CredentialStatus) -> Option<DateTime<Utc>> {
    let is_about_token = |condition: &Condition| {
        let reason = Reason::parse(&condition.reason).filter(|_| condition.type_ == READY);
        // any other one is about a Secret without a token, or with one that may be another
        matches!(
            reason,
            Some(
                Reason::TokenValid
                    | Reason::TokenExpired
                    | Reason::BelowMinimumValidity
                    | Reason::LifetimeTooShort
                    | Reason::Suspended
            )
        )
    };
    let issued_at = status.issued_at.as_deref().and_then(time::from_rfc3339);
    issued_at.filter(|_| status.conditions.iter().any(is_about_token))
}

/// Replaces the conditions of others.
pub fn replace_others(conditions: &mut Vec<Condition>, others: Vec<Condition>) {
    conditions.retain(is_ours);
    conditions.extend(others);
}

/// Whether a condition is the operator's.
#[must_use]
pub fn is_ours(condition: &Condition) -> bool {
    is_our_type(&condition.type_)
}

/// Whether a condition of this type is the operator's.
#[must_use]
pub fn is_our_type(kind: &str) -> bool {
    [READY, RENEWED].contains(&kind)
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
        follows_failure: last_failure.is_none() && has_failed(previous),
        last_failure,
        renew_request: previous.last_renew_request.clone(),
        restart_failure: previous
            .conditions
            .iter()
            .filter(|condition| condition.type_ == RENEWED)
            .find_map(|condition| Some(condition.message.split_once(ABOUT_RESTARTS)?.1.to_owned())),
        is_unwatched: false,
    }
}

/// Whether a status says that the last attempt failed, for whatever spec.
#[must_use]
pub(super) fn has_failed(status: &CredentialStatus) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == RENEWED && condition.status == "False")
}

/// Whether a status says that the expiry in the client Secret cannot be read.
#[must_use]
pub fn says_no_time(status: &CredentialStatus) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == READY && condition.message.contains(NO_TIME))
}

/// Whether a status was written after the deletion of its credential, which a finalizer holds.
#[must_use]
pub fn says_being_deleted(status: &CredentialStatus) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == READY && condition.message.contains(BEING_DELETED))
}

/// Whether a condition of this type is True.
#[must_use]
pub fn holds(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}
