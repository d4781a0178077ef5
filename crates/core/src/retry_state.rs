//! What is remembered of a credential between two reconciles. All of it can be lost: then it is read again, at the price
//! of a few reads, never of a token request.
//!
//! Its methods are the only writers, so that what belongs together changes together.

mod attempts;
mod better_token;
mod compared;
mod object;
mod spec;
mod tokens;
mod trust;
mod unwatched;

use std::{borrow::Cow, sync::Arc, time::Instant};

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{
    conditions::Reason,
    credential::{CredentialStatus, ITwinServiceCredential},
    digest, secret_keys, time,
};

pub use self::{attempts::FailedAttempt, unwatched::Unwatched};
use self::{
    better_token::BetterTokenWait,
    compared::Compared,
    spec::{AskedWait, Edits},
    trust::{Trust, inherited_wait, within_what_is_left},
};
use crate::{
    client_expiry::Expires,
    conflict::Reverts,
    events::Said,
    failure::Failure,
    fingerprint,
    last_held::LastHeld,
    object::ObjectVersion,
    observed::Reads,
    restart::Restarts,
    retry_key::RetryKey,
    status,
    streak::Streak,
    token::{Content, TokenMetadata},
};

/// After a start the backoff of an earlier process is obeyed for at most this long, since no one knows what was fixed
/// meanwhile. The UID spreads it, so that a start is no storm.
const INHERITED_BACKOFF: TimeDelta = TimeDelta::seconds(30);

/// After a start the Secrets of all credentials are read once, but not at once: the first after this, ...
const CHECKED_FROM: TimeDelta = TimeDelta::minutes(1);
/// ... and the last so much later. The UID decides.
const CHECKED_WITHIN: TimeDelta = TimeDelta::minutes(14);

fn check_after(uid: &str) -> TimeDelta {
    let spread = CHECKED_WITHIN.num_milliseconds() as f64 * digest::unit_interval(["check", uid]);
    CHECKED_FROM + TimeDelta::milliseconds(spread as i64)
}

/// What is remembered of a credential.
pub struct RetryState {
    /// Generation of the spec that all of this is about.
    generation: i64,
    /// That generation includes the deletion of the credential.
    is_deleted: bool,
    attempts: Attempts,
    /// The next attempt follows a failed one for an earlier spec.
    follows_failure: bool,
    edits: Edits,
    renewals: Renewals,
    /// When a token was requested last.
    requested_at: Option<DateTime<Utc>>,
    /// A token that was issued but could not be written yet: it is not requested again.
    unwritten: Option<Box<Content>>,
    /// Whether it is of the client as it is, if the client Secret was read since.
    compared: Option<Box<Compared>>,
    /// Version of the Secret whose data was read and found to be what the operator wrote.
    verified_target: Option<ObjectVersion>,
    /// What is not certain about any other version.
    trust: Trust,
    /// This process saw the Secret to write, as one that it may write, or wrote it.
    was_target_there: bool,
    /// The type of the Secret to write, with a version of the Secret that was read or written: it never changes.
    target_type: Option<(ObjectVersion, Cow<'static, str>)>,
    /// Version of the client Secret that was read and found to hold what the token was requested with.
    verified_client: Option<ObjectVersion>,
    /// Version of the client Secret that was read last and could be used, with the digest of the client's credentials.
    client_content: Option<(ObjectVersion, Arc<str>)>,
    /// Version of the client Secret that was known last.
    client_version: Option<ObjectVersion>,
    /// When the data of the Secret is read once: at the start it is trusted for who wrote it, as managed fields say.
    check_at: Option<DateTime<Utc>>,
    reverts: Reverts,
    /// Restarts of workloads.
    pub restarts: Restarts,
    status: WrittenStatus,
    /// Reads of Secrets that failed.
    reads: Reads<Streak>,
    /// The token that the Secret held when it was read last.
    last_held: Option<LastHeld>,
    /// Version of the Secret in which nothing describes a token, and whether it holds that one, as a read showed.
    undescribed: Option<(ObjectVersion, bool)>,
    /// No renewal for a while: the last one gave no token that would be better.
    better_token: Option<BetterTokenWait>,
    /// It was suspended since the token that is held was written or found up to date.
    was_suspended: bool,
    /// Consecutive writes of the status that failed.
    api_failures: u32,
    /// What events said up to the last status, if its write failed, whatever the object has.
    said: Option<Box<Said>>,
    client_expiry: ClientExpiry,
    /// When time changes `Ready` of the status that was reported last.
    ready_changes_at: Option<DateTime<Utc>>,
    /// When the metadata of both Secrets was read last, and for which generation and renew annotation; only where Secrets
    /// are not watched.
    metadata_read: Option<(DateTime<Utc>, i64, Option<Box<str>>)>,
    /// How the watch of its Secrets fails, if it does; shared with the other credentials.
    unwatched: Option<Arc<Unwatched>>,
    long_renewal: LongRenewal,
}

/// How the last attempts ended.
enum Attempts {
    /// The last one succeeded, or none was made.
    Settled,
    /// The last ones failed.
    Failing {
        /// Consecutive failed attempts.
        count: u32,
        /// When the last one failed.
        failed_at: DateTime<Utc>,
        /// Why.
        failure: Failure,
        /// No attempt before this instant, as long as `key` stays what it is.
        not_before: Option<DateTime<Utc>>,
        /// What the attempt depended on; `None` where an earlier process made it.
        key: Option<RetryKey>,
        /// It was the failure of others, for which nothing is sent for now: no attempt of this credential failed.
        by_others: bool,
        /// The wait that the authority asked all its clients for: rare, and so in a box.
        asked_wait: Option<Box<AskedWait>>,
        /// Attempts since the first of these failures that were due and not made.
        postponed: Postponed,
    },
}

/// Attempts that were due while nothing is sent, as behind an open circuit. They prolong no backoff.
#[derive(Clone, Copy, Debug, Default)]
struct Postponed {
    count: u32,
    /// When the next one is counted.
    until: Option<DateTime<Utc>>,
}

/// When the client's credentials expire, as the client Secret said when it was read last.
#[derive(Default)]
struct ClientExpiry {
    /// Name and key of the client Secret.
    key: (Box<str>, Box<str>),
    /// What it said, if it did.
    expires: Option<Expires>,
    /// The spec names another name or key since it was read.
    is_unread: bool,
}

impl ClientExpiry {
    fn key(credential: &ITwinServiceCredential) -> (Box<str>, Box<str>) {
        let keys = &credential.spec.client_credentials_ref;
        (keys.name.as_str().into(), keys.expires_at_key.as_str().into())
    }

    /// What a status that an earlier process wrote says.
    fn recall(credential: &ITwinServiceCredential, status: &CredentialStatus) -> Self {
        let is_current = is_current(credential, status);
        let at = status.client_secret_expires_at.as_deref().and_then(time::from_rfc3339).map(Expires::At);
        let expires = at.or_else(|| status::says_no_time(status).then_some(Expires::Invalid)).filter(|_| is_current);
        // of a credential without a status nothing was issued: its client Secret is read anyway
        let is_unread = !is_current && status.observed_generation.is_some();
        Self { key: Self::key(credential), expires, is_unread }
    }
}

/// What was done for the renew annotation.
#[derive(Default)]
struct Renewals {
    /// The value that an attempt was made for last.
    attempted: Option<String>,
    /// A value for which no token was issued yet.
    unfulfilled: Option<String>,
    /// When a token was requested last because a user asked for it.
    requested_at: Option<DateTime<Utc>>,
}

impl Renewals {
    /// What a status that an earlier process wrote says: after failed attempts, the value that was attempted last and that
    /// the object still has is unfulfilled. Where a token was issued for it after all, the Secret has its digest.
    fn recall(credential: &ITwinServiceCredential, attempted: Option<String>, has_failed: bool) -> Self {
        let annotation = credential.metadata.annotations.as_ref().and_then(|all| all.get(secret_keys::RENEW));
        let unfulfilled = annotation.filter(|value| has_failed && attempted.as_ref() == Some(*value)).cloned();
        Self { attempted, unfulfilled, requested_at: None }
    }
}

/// What was reported of a renew annotation that is too long.
#[derive(Default)]
struct LongRenewal {
    /// An event said that it is too long, which it still is.
    is_reported: bool,
    /// When an event of this process said so last.
    reported_at: Option<DateTime<Utc>>,
}

impl LongRenewal {
    /// An annotation that is too long at the start was reported by the process that wrote the status: many of them would
    /// cost an event each at every start. One that was written while no process ran is reported when it is changed.
    fn recall(credential: &ITwinServiceCredential, status: &CredentialStatus) -> Self {
        let annotations = credential.metadata.annotations.as_ref();
        let is_too_long = annotations.is_some_and(|all| all.contains_key(secret_keys::RENEW_TOO_LONG));
        Self { is_reported: is_too_long && status.observed_generation.is_some(), reported_at: None }
    }
}

/// The status that this process wrote.
#[derive(Default)]
struct WrittenStatus {
    /// The status, with the resourceVersion that the object then had, until the watch brings it.
    pending: Option<(u64, Box<CredentialStatus>)>,
    /// The newest resourceVersion of the object that was observed or written: a watch may show an older one again.
    newest: u64,
    /// Digest of the operator's own part of the status that was written last.
    own: Option<u32>,
    /// When that was written again last, since another writer had replaced it.
    rewritten_at: Option<DateTime<Utc>>,
    /// A write began after that, and it is not known whether it was made.
    is_uncertain: bool,
    /// The API server had no such object when the last one was to be written, of which watches showed this resourceVersion,
    /// and when it said so last.
    gone_at: Option<(u64, Instant)>,
    /// The same where a list showed it as well.
    absent_at: Option<(u64, Instant)>,
    /// The last write, if it changed nothing: rare, and so in a box.
    without_effect: Option<Box<WithoutEffect>>,
    /// How many writes were made after a wait since the API server stores statuses without a part, and changed nothing.
    futile: u32,
}

/// A write of a status that changed nothing.
struct WithoutEffect {
    /// The resourceVersion of the object.
    version: u64,
    /// The digest of the operator's own part.
    own: u32,
    written_at: DateTime<Utc>,
    /// The same is not written to the same version before this.
    until: DateTime<Utc>,
}

impl RetryState {
    /// What the object itself records of the time before this process.
    #[must_use]
    pub fn recall(credential: &ITwinServiceCredential, now: DateTime<Utc>) -> Self {
        let default = CredentialStatus::default();
        let previous = credential.status.as_ref().unwrap_or(&default);
        let recalled = status::attempts(previous);
        let uid = credential.metadata.uid.as_deref().unwrap_or_default();
        let last_held = last_held(credential, previous);
        let better_token = last_held.as_ref().and_then(|held| {
            let (written, of) = ((previous, &recalled), (&credential.spec, uid));
            BetterTokenWait::recall(of, written, &held.token_metadata, now)
        });
        let status::Attempts { failures, last_failure, follows_failure, renew_request, restart_failure, .. } = recalled;
        let wait = inherited_wait(uid);
        // a failure for an earlier spec says nothing of this one
        let is_current = is_current(credential, previous);
        let last_failure = last_failure.filter(|_| is_current);
        let is_conflict = last_failure.as_ref().is_some_and(|(_, failure)| failure.reason == Reason::SecretConflict);
        let wait = if is_conflict { within_what_is_left(wait, last_held.as_ref(), now) } else { wait };
        // no time is reported while the credential waits for its authority
        let not_before = (failures > 0 || is_conflict)
            .then(|| previous.renew_at.as_deref().and_then(time::from_rfc3339).unwrap_or(now + wait).min(now + wait));
        // what could not be read, or written, is read before it is claimed that nothing is wrong; a watch that failed, which
        // counts as no failure, is one of this process now
        let is_of_read = |reason: Reason| match reason {
            Reason::SecretReadFailed | Reason::SecretTypeMismatch => failures > 0,
            // admission may have changed what was written, under the name of the operator
            Reason::SecretConflict => true,
            _ => false,
        };
        let is_deleted = credential.metadata.deletion_timestamp.is_some();
        // nothing is requested for one that is being deleted, so that its data is not read
        let is_unread = !is_deleted && last_failure.as_ref().is_some_and(|(_, failure)| is_of_read(failure.reason));
        let trust = Trust::recall(previous, is_unread, is_conflict.then_some(now + wait));
        let generation = credential.metadata.generation.unwrap_or_default();
        let reverts = if is_conflict { Reverts::recall(generation, now) } else { Reverts::default() };
        let attempts = last_failure.map_or(Attempts::Settled, |(failed_at, failure)| Attempts::Failing {
            count: failures,
            failed_at,
            failure,
            not_before,
            key: None,
            by_others: false,
            asked_wait: None,
            postponed: Postponed::default(),
        });
        Self {
            generation,
            is_deleted,
            attempts,
            follows_failure: follows_failure || (failures > 0 && !is_current),
            edits: Edits::default(),
            renewals: Renewals::recall(credential, renew_request, follows_failure || failures > 0),
            requested_at: None,
            unwritten: None,
            compared: None,
            verified_target: None,
            trust,
            was_target_there: false,
            target_type: None,
            verified_client: None,
            client_content: None,
            client_version: None,
            check_at: Some(now + check_after(uid)),
            reverts,
            restarts: Restarts::recall(restart_failure),
            status: WrittenStatus::default(),
            reads: Reads::default(),
            last_held,
            undescribed: None,
            better_token,
            was_suspended: false,
            api_failures: 0,
            said: None,
            client_expiry: ClientExpiry::recall(credential, previous),
            ready_changes_at: None,
            metadata_read: None,
            unwatched: None,
            long_renewal: LongRenewal::recall(credential, previous),
        }
    }
}

/// Whether a status is about the current spec. The API server counts a deletion like a change of the spec; what came after
/// a status that says so is one.
fn is_current(credential: &ITwinServiceCredential, status: &CredentialStatus) -> bool {
    let generation = credential.metadata.generation;
    let of_deletion = credential.metadata.deletion_timestamp.as_ref().and(generation);
    let is_before = of_deletion.is_some_and(|deleted| status.observed_generation == Some(deleted - 1));
    status.observed_generation == generation || (is_before && !status::says_being_deleted(status))
}

/// The token that the Secret held when an earlier process wrote the status. It counts only as long as the Secret cannot
/// be read, and nothing is decided on it except for how long a better one is waited for.
fn last_held(credential: &ITwinServiceCredential, status: &CredentialStatus) -> Option<LastHeld> {
    let instant = |text: &Option<String>| text.as_deref().and_then(time::from_rfc3339);
    let is_current = is_current(credential, status);
    let token_metadata = TokenMetadata {
        request: fingerprint::request(&credential.spec).into(),
        issuer: status.issuer.as_deref().filter(|_| is_current)?.into(),
        authority: Some(credential.spec.authority_ref.name.as_str().into()),
        client_reference: Some(fingerprint::client_reference(&credential.spec.client_credentials_ref).into()),
        client_version: "".into(),
        issued_at: instant(&status.issued_at)?,
        expires_at: instant(&status.expires_at)?,
    };
    Some(LastHeld { token_metadata, record: None, sealed: None })
}

#[cfg(test)]
mod tests;
