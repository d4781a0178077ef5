//! What is remembered of a credential between two reconciles. All of it can be lost: then it is read again, at the price
//! of a few reads, never of a token request.
//!
//! Its methods are the only writers, so that what belongs together changes together.

mod attempts;
mod object;
mod tokens;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{
    credential::{CredentialStatus, ITwinServiceCredential},
    digest, time,
};

pub use self::attempts::FailedAttempt;
use crate::{
    conflict::Reverts,
    desired_secret::Content,
    failure::Failure,
    fingerprint,
    last_held::LastHeld,
    object::ObjectVersion,
    observed::{Reads, TokenMetadata},
    restart::Restarts,
    retry_key::RetryKey,
    status,
    streak::Streak,
};

/// After a start the backoff of an earlier process is obeyed for at most this long, since no one knows what was fixed
/// meanwhile. The UID spreads it, so that a start is no storm.
const INHERITED_BACKOFF: TimeDelta = TimeDelta::seconds(30);

/// What is remembered of a credential.
pub struct RetryState {
    attempts: Attempts,
    renewals: Renewals,
    /// When a token was requested last.
    requested_at: Option<DateTime<Utc>>,
    /// A token that was issued but could not be written yet: it is not requested again.
    unwritten: Option<Box<Content>>,
    /// Version of the Secret whose data was read and found to be what the operator wrote.
    verified_target: Option<ObjectVersion>,
    /// Version of the client Secret that was read and found to hold what the token was requested with.
    verified_client: Option<ObjectVersion>,
    /// Version of the client Secret that was read last and could be used, with the digest of the client's credentials.
    client_content: Option<(ObjectVersion, Arc<str>)>,
    reverts: Reverts,
    /// Restarts of workloads.
    pub restarts: Restarts,
    status: WrittenStatus,
    /// Reads of Secrets that failed.
    reads: Reads<Streak>,
    /// The token that the Secret held when it was read last.
    last_held: Option<LastHeld>,
    /// No renewal before the second instant: the last one, at the first, gave no token that would be better.
    renew_not_before: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// It was suspended since the token that is held was written or found up to date.
    was_suspended: bool,
    /// Consecutive writes of the status that failed.
    api_failures: u32,
    /// When the client's credentials expire, as the client Secret said when it was read last.
    client_expires_at: Option<DateTime<Utc>>,
    /// An event said that the renew annotation is too long, which it still is.
    is_long_renewal_reported: bool,
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

/// The status that this process wrote.
#[derive(Default)]
struct WrittenStatus {
    /// The status, with the resourceVersion that the object then had, until the watch brings it.
    pending: Option<(u64, Box<CredentialStatus>)>,
    /// The newest resourceVersion of the object that was observed or written: a watch may show an older one again.
    newest: u64,
}

impl RetryState {
    /// What the object itself records of the time before this process.
    #[must_use]
    pub fn recall(credential: &ITwinServiceCredential, now: DateTime<Utc>) -> Self {
        let default = CredentialStatus::default();
        let previous = credential.status.as_ref().unwrap_or(&default);
        let status::Attempts { failures, last_failure, renew_request, restart_failure } = status::attempts(previous);
        let uid = credential.metadata.uid.as_deref().unwrap_or_default();
        let wait = TimeDelta::milliseconds(
            (INHERITED_BACKOFF.num_milliseconds() as f64 * digest::unit_interval(["start", uid])) as i64,
        );
        // no time is reported while the credential waits for its authority
        let not_before = (failures > 0 && previous.observed_generation == credential.metadata.generation)
            .then(|| previous.renew_at.as_deref().and_then(time::from_rfc3339).unwrap_or(now + wait).min(now + wait));
        let attempts = last_failure.map_or(Attempts::Settled, |(failed_at, failure)| Attempts::Failing {
            count: failures,
            failed_at,
            failure,
            not_before,
            key: None,
            by_others: false,
            postponed: Postponed::default(),
        });
        Self {
            attempts,
            renewals: Renewals { attempted: renew_request, ..Renewals::default() },
            requested_at: None,
            unwritten: None,
            verified_target: None,
            verified_client: None,
            client_content: None,
            reverts: Reverts::default(),
            restarts: Restarts::recall(restart_failure),
            status: WrittenStatus::default(),
            reads: Reads::default(),
            last_held: last_held(credential, previous),
            renew_not_before: None,
            was_suspended: false,
            api_failures: 0,
            client_expires_at: previous.client_secret_expires_at.as_deref().and_then(time::from_rfc3339),
            is_long_renewal_reported: false,
        }
    }
}

/// The token that the Secret held when an earlier process wrote the status. It counts only as long as the Secret cannot
/// be read, and nothing is decided on it.
fn last_held(credential: &ITwinServiceCredential, status: &CredentialStatus) -> Option<LastHeld> {
    let instant = |text: &Option<String>| text.as_deref().and_then(time::from_rfc3339);
    let is_current = status.observed_generation == credential.metadata.generation;
    let token_metadata = TokenMetadata {
        request: fingerprint::request(&credential.spec).into(),
        issuer: status.issuer.as_deref().filter(|_| is_current)?.into(),
        authority: None,
        client_reference: None,
        client_version: "".into(),
        issued_at: instant(&status.issued_at)?,
        expires_at: instant(&status.expires_at)?,
    };
    Some(LastHeld { token_metadata, record: None })
}

#[cfg(test)]
mod tests;
