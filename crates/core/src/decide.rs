//! From the observed state and the time to the next step.
//!
//! The order matters: what must not be touched comes first, then whether a token is needed at all, then whether it
//! may be requested now. Nothing is read that the decision does not need, so that a restart with everything valid
//! reads no Secret.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{
    action::{Action, Fetch, IssueReason},
    backoff, messages,
    observed::{Authority, Client, Form, Held, Integrity, ObservedState, Target, TokenMetadata, Unwritten},
    restart::Restart,
    schedule,
};

/// The next step for one credential.
#[must_use]
pub fn decide(observed: &ObservedState, now: DateTime<Utc>) -> Action {
    if observed.suspend {
        return suspended(&observed.target);
    }
    match &observed.target {
        Target::Unread => Action::Fetch(Fetch::Target),
        // Whose Secret it is counts as an attempt's failure: otherwise a token would be requested and thrown away.
        Target::NotOwned(failure) => attempt(observed, now, |_| Action::Fail(failure.clone())),
        Target::Presumed if !observed.is_admitted && observed.unwritten.is_none() => {
            request_token(observed, now, IssueReason::Missing)
        }
        Target::Presumed => Action::Fetch(Fetch::Target),
        Target::Absent | Target::Adoptable(_) => request_token(observed, now, IssueReason::Missing),
        Target::Ours(held) => with_held(observed, held, now),
    }
}

/// Nothing is done, but the status must be true: whether the Secret holds a token is still observed.
fn suspended(target: &Target) -> Action {
    match target {
        Target::Unread | Target::Presumed => Action::Fetch(Fetch::Target),
        Target::Ours(Held { data: Integrity::Unverified, .. }) => Action::Fetch(Fetch::TargetData),
        _ => Action::UpToDate { renew_at: None },
    }
}

fn with_held(observed: &ObservedState, held: &Held, now: DateTime<Utc>) -> Action {
    if held.data == Integrity::Unverified {
        return Action::Fetch(Fetch::TargetData);
    }
    let Some(token_metadata) = &held.token_metadata else {
        return request_token(observed, now, IssueReason::Missing);
    };
    if held.data == Integrity::Tampered {
        return request_token(observed, now, IssueReason::Tampered);
    }
    if observed.held_for_spec().is_none() {
        return request_token(observed, now, IssueReason::SpecChanged);
    }
    match client_change(observed, token_metadata) {
        // what the token was requested with is recorded in the data
        ClientChange::Unknown if !held.form.is_read() => return Action::Fetch(Fetch::TargetData),
        ClientChange::Unknown => return Action::Fetch(Fetch::Client),
        ClientChange::Changed => return request_token(observed, now, IssueReason::ClientChanged),
        ClientChange::Same => {}
    }
    if observed.renewal_request.is_some_and(|request| request.is_due(now)) {
        return request_token(observed, now, IssueReason::Requested);
    }
    let renew_at = schedule::renew_at(token_metadata, &observed.desired.policy, &observed.uid);
    if now >= renew_at {
        return request_token(observed, now, IssueReason::Due);
    }
    let issued_at = token_metadata.issued_at;
    // before the metadata: who keeps changing labels must not keep workloads from the token
    if observed.restart == Restart::Due(Duration::ZERO) {
        return Action::Restart { issued_at };
    }
    if !held.metadata_intact {
        return attempt(observed, now, |_| Action::PatchMetadata);
    }
    if observed.restart == Restart::Unrecorded(Duration::ZERO) {
        return Action::RecordRestarts { issued_at };
    }
    if let Some(until) = observed.renewal_request.and_then(|request| request.not_before) {
        return Action::BackOff { until };
    }
    Action::UpToDate { renew_at: Some(renew_at) }
}

enum ClientChange {
    Unknown,
    Changed,
    Same,
}

/// Whether the client's credentials are others than those that the held token was requested with.
///
/// A client Secret that is gone or of no use is no change: the token is good until it must be renewed.
fn client_change(observed: &ObservedState, token_metadata: &TokenMetadata) -> ClientChange {
    match &observed.client {
        Client::Unread { version: Some(version) } if *version != token_metadata.client_version => ClientChange::Unknown,
        Client::Usable { same_as_held: Some(false), .. } => ClientChange::Changed,
        _ => ClientChange::Same,
    }
}

/// An attempt is due: is it allowed now?
fn attempt(observed: &ObservedState, now: DateTime<Utc>, make: impl Fn(&ObservedState) -> Action) -> Action {
    match back_off(observed, now) {
        Some(until) => Action::BackOff { until },
        None => make(observed),
    }
}

/// The end of the backoff, which a user who asks for a renewal does not wait for.
fn back_off(observed: &ObservedState, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let until = observed.history.not_before.filter(|until| *until > now && !observed.is_asked_for(now))?;
    let asked_for = observed.renewal_request.filter(|request| request.fresh).and_then(|request| request.not_before);
    Some(asked_for.map_or(until, |asked_for| asked_for.min(until)))
}

/// A token is needed.
fn request_token(observed: &ObservedState, now: DateTime<Utc>, issue_reason: IssueReason) -> Action {
    attempt(observed, now, |observed| ask(observed, now, issue_reason))
}

/// What can be found out before the request is sent, from what costs nothing to what needs a read.
fn ask(observed: &ObservedState, now: DateTime<Utc>, issue_reason: IssueReason) -> Action {
    match &observed.authority {
        Authority::Pending => return Action::AwaitAuthority,
        Authority::Unavailable(failure) | Authority::Forbids(failure) => return Action::Fail(failure.clone()),
        Authority::Ready { .. } => {}
    }
    match &observed.client {
        Client::Unusable(failure) => return Action::Fail(failure.clone()),
        // nothing is sent where there is no client, so that nothing is to be waited for
        Client::Missing => return Action::Fetch(Fetch::Client),
        Client::Unread { .. } | Client::Verified { .. } | Client::Usable { .. } => {}
    }
    if let Some(failure) = &observed.desired.template_failure {
        return Action::Fail(failure.clone());
    }
    if let Some(unwritten) = &observed.unwritten {
        if observed.client.version().is_none() {
            return Action::Fetch(Fetch::Client);
        }
        if fits(unwritten, observed, now) {
            return unwritable(observed).unwrap_or(Action::WriteIssuedToken(issue_reason));
        }
    }
    if !observed.is_admitted {
        // before anything is read: what waits costs no call
        return Action::AwaitAdmission;
    }
    if !matches!(observed.client, Client::Usable { .. }) {
        return Action::Fetch(Fetch::Client);
    }
    unwritable(observed).unwrap_or_else(|| send(observed, now, issue_reason))
}

/// Whether a token that was issued before is still the one that is wanted. The version of the client Secret can be compared
/// without a read.
fn fits(unwritten: &Unwritten, observed: &ObservedState, now: DateTime<Utc>) -> bool {
    let Unwritten { token_metadata, client_reference } = unwritten;
    observed.held_for_spec().is_none_or(|held| held.expires_at <= token_metadata.expires_at)
        && *token_metadata.request == *observed.desired.request
        && Some(&*token_metadata.issuer) == observed.authority.issuer()
        && Some(&token_metadata.client_version) == observed.client.version()
        && *client_reference == observed.desired.client_reference
        && schedule::renew_at(token_metadata, &observed.desired.policy, &observed.uid) > now
}

/// What keeps the Secret from taking a token, if anything does.
fn unwritable(observed: &ObservedState) -> Option<Action> {
    let (Target::Ours(Held { form, .. }) | Target::Adoptable(form)) = &observed.target else { return None };
    let secret = &observed.desired.secret;
    match form {
        Form::Presumed | Form::Writable => None,
        Form::Unread => Some(Action::Fetch(Fetch::TargetData)),
        Form::Immutable => Some(Action::Fail(messages::secret_immutable(secret))),
        Form::OtherType(type_) => Some(Action::Fail(messages::secret_type_mismatch(secret, type_))),
    }
}

/// At most one request a second, whatever changes how often: the Secret may be edited as fast as it is restored. A renewal
/// that a user asks for is not held up.
fn send(observed: &ObservedState, now: DateTime<Utc>, issue_reason: IssueReason) -> Action {
    // a request in the future was sent before the clock was set back
    let last = observed.history.requested_at.filter(|at| *at <= now && !observed.is_asked_for(now));
    match last.map(|at| at + backoff::FLOOR).filter(|until| *until > now) {
        Some(until) => Action::AwaitInterval { until },
        None => Action::RequestToken(issue_reason),
    }
}

#[cfg(test)]
mod tests;
