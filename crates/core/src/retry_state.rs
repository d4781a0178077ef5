//! What is remembered of a credential between two reconciles. All of it can be lost: then it is read again, at the price
//! of a few reads, never of a token request.
//!
//! Its methods are the only writers, so that what belongs together changes together.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{
    conditions::Reason,
    credential::{CredentialStatus, ITwinServiceCredential},
    digest,
    failure::Failure,
    time,
};

use crate::{
    backoff,
    conflict::Reverts,
    desired_secret::Content,
    observed::{ObservedState, Restart},
    renewal::RenewalClues,
    retry_key::RetryKey,
    status,
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
    verified_target: Option<Arc<str>>,
    /// Version of the client Secret that was read and found to hold what the token was requested with.
    verified_client: Option<Arc<str>>,
    reverts: Reverts,
    restarts: Restarts,
    status: WrittenStatus,
    /// Consecutive failed calls to the Kubernetes API.
    api_failures: u32,
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
    },
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

/// Restarts of workloads.
#[derive(Default)]
struct Restarts {
    /// When the token was issued for which workloads were restarted last.
    done_for: Option<DateTime<Utc>>,
    failing: Option<FailingRestart>,
}

struct FailingRestart {
    /// Consecutive failures.
    count: u32,
    not_before: DateTime<Utc>,
    message: String,
}

/// The status that this process wrote.
#[derive(Default)]
struct WrittenStatus {
    /// The status, with the resourceVersion that the object then had, until the watch brings it.
    pending: Option<(u64, Box<CredentialStatus>)>,
    /// The newest resourceVersion of the object that was observed or written: a watch may show an older one again.
    newest: u64,
}

/// An attempt that failed.
pub struct FailedAttempt<'a> {
    /// What it rested on.
    pub observed: &'a ObservedState,
    /// Why it failed.
    pub failure: Failure,
    /// Consecutive failures before it.
    pub failures_before: u32,
    /// The backoff that follows.
    pub wait: TimeDelta,
    /// It was the failure of others, for which nothing is sent for now.
    pub by_others: bool,
    /// The value of the renew annotation.
    pub renew_annotation: Option<&'a str>,
    /// The time.
    pub now: DateTime<Utc>,
}

impl RetryState {
    /// What the object itself records of the time before this process.
    #[must_use]
    pub fn recall(credential: &ITwinServiceCredential, now: DateTime<Utc>) -> Self {
        let default = CredentialStatus::default();
        let previous = credential.status.as_ref().unwrap_or(&default);
        let status::Attempts { failures, last_failure, renew_request, .. } = status::attempts(previous);
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
        });
        Self {
            attempts,
            renewals: Renewals { attempted: renew_request, ..Renewals::default() },
            requested_at: None,
            unwritten: None,
            verified_target: None,
            verified_client: None,
            reverts: Reverts::default(),
            restarts: Restarts::default(),
            status: WrittenStatus::default(),
            api_failures: 0,
            is_long_renewal_reported: false,
        }
    }
}

/// Attempts.
impl RetryState {
    /// Consecutive failed attempts.
    #[must_use]
    pub fn failures(&self) -> u32 {
        match self.attempts {
            Attempts::Settled => 0,
            Attempts::Failing { count, .. } => count,
        }
    }

    /// Why the last attempt failed, if it did.
    #[must_use]
    pub fn last_failure(&self) -> Option<&Failure> {
        match &self.attempts {
            Attempts::Settled => None,
            Attempts::Failing { failure, .. } => Some(failure),
        }
    }

    /// Whether attempts of the credential's own failed, and the next one follows them.
    #[must_use]
    pub fn is_retrying(&self) -> bool {
        matches!(self.attempts, Attempts::Failing { count, by_others, .. } if count > 0 && !by_others)
    }

    /// The end of the backoff, whether or not anything relevant changed since.
    #[must_use]
    pub fn not_before(&self) -> Option<DateTime<Utc>> {
        match self.attempts {
            Attempts::Settled => None,
            Attempts::Failing { not_before, .. } => not_before,
        }
    }

    /// The end of the backoff, as long as nothing relevant changed. A failure that was noted later than now was noted
    /// before the clock was set back: its backoff binds no one, else attempts would cease for as long.
    #[must_use]
    pub fn backoff_until(&self, key: &RetryKey, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self.attempts {
            Attempts::Failing { not_before, failed_at, .. } if self.is_unchanged(key) && failed_at <= now => not_before,
            _ => None,
        }
    }

    /// Whether nothing relevant changed since the last attempt that failed.
    #[must_use]
    pub fn is_unchanged(&self, key: &RetryKey) -> bool {
        match &self.attempts {
            Attempts::Failing { key: Some(before), .. } => before == key,
            _ => true,
        }
    }

    /// Whether this failure was reported, or another one and nothing relevant changed since: then it says nothing new.
    #[must_use]
    pub fn is_reported(&self, failure: &Failure, key: &RetryKey) -> bool {
        self.last_failure().is_some_and(|last| self.is_unchanged(key) || last == failure)
    }

    /// The last attempt succeeded, or none is needed.
    pub fn settled(&mut self) {
        self.attempts = Attempts::Settled;
    }

    /// An attempt failed.
    pub fn failed(&mut self, attempt: FailedAttempt<'_>) {
        let FailedAttempt { observed, failure, failures_before, wait, by_others, renew_annotation, now } = attempt;
        self.attempts = Attempts::Failing {
            count: failures_before.saturating_add(1),
            failed_at: now,
            failure,
            not_before: Some(now + wait),
            key: Some(observed.retry_key.clone()),
            by_others,
        };
        if observed.is_asked_for(now) {
            self.renewals.unfulfilled = renew_annotation.map(str::to_owned);
            self.renewals.attempted.clone_from(&self.renewals.unfulfilled);
        }
    }

    /// Attempts as a status reports them.
    #[must_use]
    pub fn reported(&self) -> status::Attempts {
        status::Attempts {
            failures: self.failures(),
            last_failure: match &self.attempts {
                Attempts::Settled => None,
                Attempts::Failing { failed_at, failure, .. } => Some((*failed_at, failure.clone())),
            },
            renew_request: self.renewals.attempted.clone(),
            restart_failure: self.restarts.failing.as_ref().map(|failing| failing.message.clone()),
        }
    }
}

/// Token requests, and the tokens that they gave.
impl RetryState {
    /// When a token was requested last.
    #[must_use]
    pub fn requested_at(&self) -> Option<DateTime<Utc>> {
        self.requested_at
    }

    /// A token is requested, because a user asked for it or for another reason.
    pub fn requested(&mut self, is_asked_for: bool, now: DateTime<Utc>) {
        self.requested_at = Some(now);
        if is_asked_for {
            self.renewals.requested_at = Some(now);
        }
    }

    /// What was done for the renew annotation; `renewed_for` is what the Secret records of it.
    #[must_use]
    pub fn renewal_clues<'a>(&'a self, annotation: Option<&'a str>, renewed_for: Option<&'a str>) -> RenewalClues<'a> {
        RenewalClues {
            annotation,
            attempted: self.renewals.attempted.as_deref(),
            unfulfilled: self.renewals.unfulfilled.as_deref(),
            renewed_for,
            requested_at: self.renewals.requested_at,
        }
    }

    /// Whether a renewal that a user asked for was attempted and gave no token yet.
    #[must_use]
    pub fn has_unfulfilled_renewal(&self) -> bool {
        self.renewals.unfulfilled.is_some()
    }

    /// The token that was issued and is not written yet.
    #[must_use]
    pub fn unwritten(&self) -> Option<&Content> {
        self.unwritten.as_deref()
    }

    /// Keeps a token that could not be written yet.
    pub fn keep(&mut self, content: Box<Content>) {
        self.unwritten = Some(content);
    }

    /// Takes the token that was kept.
    #[must_use]
    pub fn take_unwritten(&mut self) -> Option<Box<Content>> {
        self.unwritten.take()
    }

    /// Drops the token that was kept: it is not what is wanted.
    pub fn drop_unwritten(&mut self) {
        self.unwritten = None;
    }

    /// A token was written, which fulfils this value of the renew annotation.
    pub fn written(&mut self, renew_annotation: Option<&str>) {
        self.verified_client = None;
        self.fulfilled(renew_annotation);
        self.settled();
    }

    /// The Secret holds a token that is up to date: what was kept was written after all, or another one was.
    pub fn up_to_date(&mut self, renew_annotation: Option<&str>) {
        self.unwritten = None;
        self.fulfilled(renew_annotation);
    }

    fn fulfilled(&mut self, renew_annotation: Option<&str>) {
        self.renewals.unfulfilled = None;
        if let Some(value) = renew_annotation {
            self.renewals.attempted = Some(value.to_owned());
        }
    }
}

/// The Secrets.
impl RetryState {
    /// The version of the Secret to write that was read, or written, and holds what the operator wrote.
    #[must_use]
    pub fn verified_target(&self) -> Option<&Arc<str>> {
        self.verified_target.as_ref()
    }

    /// This version of the Secret to write holds what the operator wrote.
    pub fn target_verified(&mut self, version: Arc<str>) {
        self.verified_target = Some(version);
    }

    /// The version of the client Secret that was read and holds what the token was requested with.
    #[must_use]
    pub fn verified_client(&self) -> Option<&Arc<str>> {
        self.verified_client.as_ref()
    }

    /// This version of the client Secret holds what the token was requested with.
    pub fn client_verified(&mut self, version: Arc<str>) {
        self.verified_client = Some(version);
    }

    /// A change of the Secret was reverted. Returns by how many reverts there are more than an edit by hand explains.
    pub fn reverted(&mut self, generation: i64, now: DateTime<Utc>) -> u32 {
        self.reverts.note(generation, now)
    }

    /// The backoff that follows the last revert.
    pub fn revert_backs_off(&mut self, wait: TimeDelta) {
        self.reverts.back_off(wait);
    }

    /// The end of the conflict, should no further revert be needed; `None` where there is none.
    #[must_use]
    pub fn conflict_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.reverts.conflict_until(now)
    }
}

/// Restarts of workloads.
impl RetryState {
    /// What was done so far.
    #[must_use]
    pub fn restart(&self) -> Restart {
        let not_before = self.restarts.failing.as_ref().map(|failing| failing.not_before);
        Restart { done_for: self.restarts.done_for, not_before }
    }

    /// Workloads were restarted for the token that was issued at this instant.
    pub fn restarted(&mut self, issued_at: DateTime<Utc>) {
        self.restarts = Restarts { done_for: Some(issued_at), failing: None };
    }

    /// Some could not be restarted; the next try waits. The life of no token depends on it.
    pub fn restart_failed(&mut self, message: String, uid: &str, now: DateTime<Utc>) {
        let count = self.restarts.failing.as_ref().map_or(0, |failing| failing.count).saturating_add(1);
        let wait = backoff::delay(count, TimeDelta::zero(), Reason::ServerError, None, uid);
        self.restarts.failing = Some(FailingRestart { count, not_before: now + wait, message });
    }
}

/// The object itself.
impl RetryState {
    /// The status that was written and that the watch has not brought yet.
    #[must_use]
    pub fn written_status(&self) -> Option<&CredentialStatus> {
        self.status.pending.as_ref().map(|(_, status)| &**status)
    }

    /// A status is about to be written: whatever becomes of it, the next reconcile compares with what the object then has.
    pub fn status_write_begins(&mut self) {
        self.status.newest = 0;
    }

    /// A status was written, and the object then had this resourceVersion.
    pub fn status_written(&mut self, version: u64, status: CredentialStatus) {
        self.status = WrittenStatus { pending: Some((version, Box::new(status))), newest: version };
    }

    /// Forgets the status that was written once the watch has brought it. Returns whether the object, at this
    /// resourceVersion, is older than one that was known before: then no one knows what its status is.
    pub fn observed_version(&mut self, version: u64) -> bool {
        self.status.pending.take_if(|(written_at, _)| *written_at <= version);
        let newest = self.status.pending.as_ref().map_or(version, |(written_at, _)| *written_at);
        self.status.newest = self.status.newest.max(newest);
        newest < self.status.newest
    }

    /// Whether to report that the renew annotation is too long: once for as long as it is.
    pub fn reports_long_renewal(&mut self, is_too_long: bool) -> bool {
        let is_news = is_too_long && !self.is_long_renewal_reported;
        self.is_long_renewal_reported = is_too_long;
        is_news
    }

    /// Whether the last call to the Kubernetes API failed.
    #[must_use]
    pub fn is_api_failing(&self) -> bool {
        self.api_failures > 0
    }

    /// Calls to the Kubernetes API succeeded.
    pub fn api_succeeded(&mut self) {
        self.api_failures = 0;
    }

    /// A call to the Kubernetes API failed. Returns the wait before the next reconcile, not capped yet.
    pub fn api_failed(&mut self, uid: &str) -> TimeDelta {
        self.api_failures = self.api_failures.saturating_add(1);
        backoff::delay(self.api_failures, TimeDelta::zero(), Reason::ServerError, None, uid)
    }
}

#[cfg(test)]
mod tests;
