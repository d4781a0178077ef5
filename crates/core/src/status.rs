//! The status of a credential, as a pure function of the observed state, the last attempt and the time.

mod inputs;
mod reading;
mod ready;
#[cfg(test)]
mod tests;

use itwin_api::{
    conditions::{RENEWED, Reason, Verdict},
    credential::{CredentialStatus, LastFailure},
    time,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use self::ready::ready;
pub use self::{
    inputs::{Attempts, Inputs},
    reading::{
        attempts, holds, is_our_type, is_ours, is_ready, replace_others, says_being_deleted, says_no_time,
        vouched_issue,
    },
};
use crate::{messages_restart::ABOUT_RESTARTS, schedule, token::TokenMetadata};

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

/// The conditions with this one in the place of the one of its type. Those of other writers stay as they are, and so does
/// one of ours that is not known again, with the generation that it is about.
fn with_condition(mut conditions: Vec<Condition>, condition: Condition) -> Vec<Condition> {
    match conditions.iter_mut().find(|present| present.type_ == condition.type_) {
        Some(present) => *present = condition,
        None => conditions.push(condition),
    }
    conditions
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
    // one that is False becomes True only with an attempt that succeeds, or where none is due
    if inputs.attempts.follows_failure && reading::has_failed(inputs.previous) {
        return None;
    }
    held.map(|_| Verdict {
        kind: RENEWED,
        holds: true,
        reason: Reason::TokenIssued,
        message: with_restarts(format!("a verified token was written into Secret {}", inputs.secret)),
    })
}
