//! From the observed state and the time to the next step.
//!
//! The order matters: what must not be touched comes first, then whether a token is needed at all, then whether it
//! may be requested now. Nothing is read that the decision does not need, so that a restart with everything valid
//! reads no Secret before its time, which each credential has at another instant.

mod kept;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::conditions::Reason;

use crate::{
    action::{Action, Fetch, IssueReason},
    backoff,
    failure::Failure,
    messages,
    object::ObjectVersion,
    observed::{Authority, Client, Drift, Form, Held, History, Integrity, ObservedState, RenewalRequest, Target},
    restart::Restart,
    schedule,
    token::TokenMetadata,
    withheld::Withheld,
};

/// What is gone is not looked for sooner than this, by a write of its status: garbage collection deletes each Secret that is
/// created for it, and the next one would cost a token each time.
const LOOKS_AGAIN: TimeDelta = TimeDelta::minutes(1);

/// The next step for one credential.
#[must_use]
pub fn decide(observed: &ObservedState, now: DateTime<Utc>) -> Action {
    if observed.suspend {
        return suspended(observed);
    }
    // a Secret that is there is kept in order: what was said of its credential may be wrong, and costs no more than before;
    // but one that outlives its credential would be renewed indefinitely, and a list without that one is proof
    let is_without_secret = matches!(observed.target, Target::Absent | Target::Presumed | Target::Adoptable(_));
    if observed.history.is_known_absent || (observed.history.is_gone && is_without_secret) {
        return Action::AwaitBackoff { until: now + LOOKS_AGAIN };
    }
    match &observed.target {
        Target::Unread { .. } => fetch(observed, Fetch::Target),
        // Whose Secret it is counts as an attempt's failure: otherwise a token would be requested and thrown away.
        Target::NotOwned(failure) => attempt(observed, now, |_| Action::Fail(failure.clone())),
        Target::Presumed if !observed.is_admitted && observed.unwritten.is_none() => {
            match request_token(observed, now, IssueReason::Missing) {
                // a status that was removed may be that of a good token, of which no failure is claimed
                Action::Fail(_) => fetch(observed, Fetch::Target),
                action => action,
            }
        }
        Target::Presumed => fetch(observed, Fetch::Target),
        Target::Absent | Target::Adoptable(_) => request_token(observed, now, IssueReason::Missing),
        Target::Ours(held) => with_held(observed, held, now),
    }
}

/// Nothing is done, but the status must be true: whether the Secret holds a token is still observed.
///
/// Whether the Secret outlives the credential is no matter of its token, so that it is set right.
fn suspended(observed: &ObservedState) -> Action {
    match &observed.target {
        Target::Unread { .. } | Target::Presumed => fetch(observed, Fetch::Target),
        Target::Ours(held) if is_owner_due(observed, held) => patch_owner(observed, held),
        Target::Ours(held) if held.data.is_unread() || is_check_due(observed, held) => {
            fetch(observed, Fetch::TargetData)
        }
        _ => Action::UpToDate { renew_at: None },
    }
}

/// The next step for a credential that is being deleted, that finalizers hold, and whose Secret is to outlive it. Nothing is
/// created or requested for it. But while the Secret has its owner reference, garbage collection takes it with the credential.
#[must_use]
pub fn release(observed: &ObservedState) -> Option<Action> {
    match &observed.target {
        Target::Unread { .. } => Some(fetch(observed, Fetch::Target)),
        Target::Ours(held) if is_owner_due(observed, held) => Some(patch_owner(observed, held)),
        _ => None,
    }
}

/// Whether the data, which was trusted at the start for who wrote it, is to be read once.
fn is_check_due(observed: &ObservedState, held: &Held) -> bool {
    observed.history.is_check_due && !held.form.is_read()
}

/// A read is needed, unless the last ones of its kind failed and the next one waits.
fn fetch(observed: &ObservedState, what: Fetch) -> Action {
    match observed.history.reads.of(what) {
        Some(until) => Action::AwaitBackoff { until: *until },
        None => Action::Fetch(what),
    }
}

/// The data is read for what must not wait, unless the last reads of it failed. The wait before the first read after a start
/// in a conflict only spares the API server.
fn read_at_once(observed: &ObservedState) -> Action {
    if observed.history.has_data_read_failed {
        fetch(observed, Fetch::TargetData)
    } else {
        Action::Fetch(Fetch::TargetData)
    }
}

/// Until when reads wait that a request needs; that of the data after a start in a conflict holds up no user.
fn reads_wait(observed: &ObservedState, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let History { reads, has_data_read_failed, .. } = &observed.history;
    let data = reads.target_data.filter(|_| *has_data_read_failed || !observed.is_asked_for(now));
    [reads.target, data, reads.client].into_iter().flatten().max()
}

/// Whether what others changed may be reverted now.
fn may_revert(observed: &ObservedState) -> bool {
    observed.history.revert_not_before.is_none()
}

/// Whether the operator's own metadata may be reverted now: a template that the API server refuses holds up only itself, and
/// so does the data of a Secret that is immutable.
fn may_patch_own(observed: &ObservedState) -> bool {
    let history = &observed.history;
    let is_of_template = history.withheld != Withheld::Nothing || history.is_refused_as_immutable;
    may_revert(observed) || (is_of_template && history.restore_not_before.is_none())
}

/// Whether the owner reference is to be written, which waits for nothing: the credential may be deleted at any time.
fn is_owner_due(observed: &ObservedState, held: &Held) -> bool {
    held.drift == Drift::Ownership && may_patch_own(observed) && !matches!(held.form, Form::OtherType(_))
}

/// The owner reference is written, once it is known that the Secret is one to be written.
fn patch_owner(observed: &ObservedState, held: &Held) -> Action {
    if held.form == Form::TypeUnknown { read_at_once(observed) } else { Action::PatchMetadata }
}

/// Labels, annotations and owner reference are written, once it is known that the Secret is one to be written.
fn patch_metadata(observed: &ObservedState, held: &Held) -> Action {
    if held.form == Form::TypeUnknown { fetch(observed, Fetch::TargetData) } else { Action::PatchMetadata }
}

fn with_held(observed: &ObservedState, held: &Held, now: DateTime<Utc>) -> Action {
    let action = token_action(observed, held, now);
    let waits = matches!(action, Action::AwaitBackoff { .. } | Action::AwaitAdmission | Action::AwaitInterval { .. });
    let is_valid = observed.held_for_spec().is_some_and(|token_metadata| token_metadata.expires_at > now);
    let is_good = is_valid && !held.data.is_unread() && held.data != Integrity::Tampered;
    // what holds up a better token keeps no workload from the one that is there
    if waits && is_good { restart(observed, held).unwrap_or(action) } else { action }
}

/// The restart of workloads, or its record, that is due for the token that is held. Both are recorded in the Secret, so
/// that it must be one to be written.
fn restart(observed: &ObservedState, held: &Held) -> Option<Action> {
    let issued_at = observed.held_for_spec()?.issued_at;
    let action = match observed.restart {
        Restart::Due(Duration::ZERO) => Action::Restart { issued_at },
        Restart::Unrecorded(Duration::ZERO) => Action::RecordRestarts { issued_at },
        _ => return None,
    };
    match held.form {
        Form::OtherType(_) => None,
        Form::TypeUnknown => Some(fetch(observed, Fetch::TargetData)),
        _ => Some(action),
    }
}

/// What is next for the Secret and its token, and then for workloads.
fn token_action(observed: &ObservedState, held: &Held, now: DateTime<Utc>) -> Action {
    if is_owner_due(observed, held) {
        return patch_owner(observed, held);
    }
    if held.data.is_unread() {
        return if observed.is_asked_for(now) { read_at_once(observed) } else { fetch(observed, Fetch::TargetData) };
    }
    if let Form::OtherType(type_) = &held.form {
        // nothing can be written, so that nothing is requested either; the token that it may have stays as it is
        return attempt(observed, now, |_| Action::Fail(other_type(observed, type_)));
    }
    let Some(token_metadata) = &held.token_metadata else {
        return request_token(observed, now, IssueReason::Missing);
    };
    if held.data == Integrity::Tampered {
        return request_token(observed, now, IssueReason::Tampered);
    }
    if held.drift != Drift::None && may_revert(observed) {
        return patch_metadata(observed, held);
    }
    if observed.held_for_spec().is_none() {
        return request_token(observed, now, IssueReason::SpecChanged);
    }
    match client_change(observed, held, token_metadata) {
        // what the token was requested with is recorded in the data
        ClientChange::Unknown if !held.form.is_read() => return fetch(observed, Fetch::TargetData),
        ClientChange::Unknown => return fetch(observed, Fetch::Client),
        ClientChange::Changed => return request_token(observed, now, IssueReason::ClientChanged),
        ClientChange::Same => {}
    }
    let waits_until = observed.history.renew_not_before.filter(|until| *until > now);
    // each value of the annotation is attempted once; after that it waits for a better token like any renewal, and one that
    // was issued for it waits only for a write
    let is_issued = || observed.unwritten.as_ref().is_some_and(|kept| kept::fits(kept, observed, now) == Some(true));
    let is_asked_for =
        |request: RenewalRequest| is_issued() || (request.is_due(now) && (request.fresh || waits_until.is_none()));
    if observed.renewal_request.is_some_and(is_asked_for) {
        return request_token(observed, now, IssueReason::Requested);
    }
    let renew_at = schedule::renew_at(token_metadata, &observed.desired.policy, &observed.uid);
    let waits_until = waits_until.filter(|_| now >= renew_at);
    let is_of_another_clock = token_metadata.is_of_another_clock(now);
    if is_of_another_clock || (now >= renew_at && waits_until.is_none()) {
        return request_token(observed, now, IssueReason::Due);
    }
    // a revert that waits, since others keep changing labels, keeps no workload from the token
    if let Some(action) = restart(observed, held) {
        return action;
    }
    if let Some(until) = waits_until {
        return Action::AwaitBetterToken { until };
    }
    // also where nothing can be requested
    if is_check_due(observed, held) && observed.history.reads.target_data.is_none() {
        return fetch(observed, Fetch::TargetData);
    }
    if let Some(action) = dangling_reference(observed, now) {
        return action;
    }
    // nothing else waits for these
    if observed.history.is_client_expiry_unread && observed.client.version().is_some() {
        return fetch(observed, Fetch::Client);
    }
    if is_check_due(observed, held) {
        return fetch(observed, Fetch::TargetData);
    }
    if let Some(until) = observed.renewal_request.and_then(|request| request.not_before) {
        return Action::AwaitBetterToken { until };
    }
    Action::UpToDate { renew_at: Some(renew_at) }
}

/// What the spec names and is not there, or is of no use, is reported before it is needed: the token is good meanwhile.
fn dangling_reference(observed: &ObservedState, now: DateTime<Utc>) -> Option<Action> {
    let failure = match (&observed.authority, &observed.client) {
        (Authority::Unlisted(failure), _) => failure,
        (Authority::Unavailable(failure), _) if failure.reason == Reason::AuthorityNotFound => failure,
        (_, Client::Missing) => return Some(attempt(observed, now, |observed| fetch(observed, Fetch::Client))),
        (_, Client::Unusable(failure)) => failure,
        // what was wrong with it may not be over: an earlier process read it, and versions say nothing of its content
        (_, Client::Unread { .. }) if observed.history.has_failed_for_client => {
            return Some(attempt(observed, now, |observed| fetch(observed, Fetch::Client)));
        }
        _ => return None,
    };
    Some(attempt(observed, now, |_| Action::Fail(failure.clone())))
}

enum ClientChange {
    Unknown,
    Changed,
    Same,
}

/// Whether the client's credentials are others than those that the held token was requested with.
///
/// A client Secret that is gone or of no use is no change: the token is good until it must be renewed.
fn client_change(observed: &ObservedState, held: &Held, token_metadata: &TokenMetadata) -> ClientChange {
    let is_another = |version: &ObjectVersion| *version != token_metadata.client_version;
    match &observed.client {
        Client::Unread { version: Some(version) } if is_another(version) => ClientChange::Unknown,
        // it was changed after it was observed; once the Secret was read, there is nothing more to compare with
        Client::Usable { version, same_as_held: None } if is_another(version) && !held.form.is_read() => {
            ClientChange::Unknown
        }
        Client::Usable { same_as_held: Some(false), .. } => ClientChange::Changed,
        _ => ClientChange::Same,
    }
}

/// An attempt is due: is it allowed now?
fn attempt(observed: &ObservedState, now: DateTime<Utc>, make: impl Fn(&ObservedState) -> Action) -> Action {
    match pending_backoff(observed, now) {
        Some(until) => Action::AwaitBackoff { until },
        None => make(observed),
    }
}

/// The end of the backoff, which a user who asks for a renewal does not wait for.
fn pending_backoff(observed: &ObservedState, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let until = observed.history.not_before.filter(|until| *until > now && !observed.is_asked_for(now))?;
    let asked_for = observed.renewal_request.filter(|request| request.fresh).and_then(|request| request.not_before);
    Some(asked_for.map_or(until, |asked_for| asked_for.min(until)))
}

/// A token is needed.
fn request_token(observed: &ObservedState, now: DateTime<Utc>, issue_reason: IssueReason) -> Action {
    let is_revert = matches!(issue_reason, IssueReason::Missing | IssueReason::Tampered);
    if let Some(until) = observed.history.restore_not_before.filter(|_| is_revert && !observed.is_asked_for(now)) {
        return Action::AwaitBackoff { until };
    }
    attempt(observed, now, |observed| ask(observed, now, issue_reason))
}

/// The write of a token that was issued before, if it is still what is wanted: whatever keeps another one from being
/// requested.
fn write_kept(observed: &ObservedState, now: DateTime<Utc>, issue_reason: IssueReason) -> Option<Action> {
    let unwritten = observed.unwritten.as_ref().filter(|_| observed.desired.template_failure.is_none())?;
    match kept::fits(unwritten, observed, now) {
        Some(true) => Some(unwritable(observed).unwrap_or(Action::WriteIssuedToken(issue_reason))),
        Some(false) => None,
        // labels may be all that changed
        None => Some(fetch(observed, Fetch::Client)),
    }
}

/// What can be found out before the request is sent, from what costs nothing to what needs a read.
fn ask(observed: &ObservedState, now: DateTime<Utc>, issue_reason: IssueReason) -> Action {
    if let Some(action) = write_kept(observed, now, issue_reason) {
        return action;
    }
    match &observed.authority {
        Authority::Pending | Authority::Unanswered { failure: None, .. } => return Action::AwaitAuthority,
        Authority::Unlisted(failure)
        | Authority::Unavailable(failure)
        | Authority::Unanswered { failure: Some(failure), .. }
        | Authority::Forbids(failure) => return Action::Fail(failure.clone()),
        Authority::Ready { .. } => {}
    }
    match &observed.client {
        Client::Unusable(failure) => return Action::Fail(failure.clone()),
        // nothing is sent where there is no client, so that nothing is to be waited for
        Client::Missing => return fetch(observed, Fetch::Client),
        Client::Unread { .. } | Client::Verified { .. } | Client::Usable { .. } => {}
    }
    if let Some(failure) = &observed.desired.template_failure {
        return Action::Fail(failure.clone());
    }
    // as with renewals on request: a spec or client Secret that is changed in a loop takes no turn of others
    let is_change = matches!(issue_reason, IssueReason::SpecChanged | IssueReason::ClientChanged);
    if let Some(until) = observed.history.change_not_before.filter(|_| is_change && !observed.is_asked_for(now)) {
        return Action::AwaitBackoff { until };
    }
    if let Some(until) = reads_wait(observed, now) {
        // it would be admitted for nothing
        return Action::AwaitBackoff { until };
    }
    if !observed.is_admitted {
        // before anything is read: what waits costs no call
        return Action::AwaitAdmission;
    }
    if !matches!(observed.client, Client::Usable { .. }) {
        return fetch(observed, Fetch::Client);
    }
    if observed.history.is_token_unknown && observed.is_held_unread(now) {
        // else a server that returns the token which it issued before would not be noticed
        return fetch(observed, Fetch::TargetData);
    }
    unwritable(observed).unwrap_or_else(|| send(observed, now, issue_reason))
}

/// What keeps the Secret from taking a token, if anything does.
fn unwritable(observed: &ObservedState) -> Option<Action> {
    let (Target::Ours(Held { form, .. }) | Target::Adoptable(form)) = &observed.target else { return None };
    match form {
        Form::Writable => None,
        Form::Presumed if !observed.history.withheld.has_data() => None,
        // of a template that the API server refuses, the keys that are there are written
        Form::Presumed | Form::Unread | Form::TypeUnknown => Some(fetch(observed, Fetch::TargetData)),
        Form::Immutable => Some(Action::Fail(messages::secret_immutable(&observed.desired.secret))),
        Form::OtherType(type_) => Some(Action::Fail(other_type(observed, type_))),
    }
}

fn other_type(observed: &ObservedState, type_: &str) -> Failure {
    messages::secret_type_mismatch(&observed.desired.secret, type_)
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
