//! How attempts ended, and the backoff that follows.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Attempts, RetryState};
use crate::{failure::Failure, observed::ObservedState, retry_key::RetryKey, status};

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
        self.last_failure().is_some_and(|last| self.is_unchanged(key) || last.reads_as(failure))
    }

    /// The last attempt succeeded, or none is needed.
    pub fn settled(&mut self) {
        self.attempts = Attempts::Settled;
    }

    /// What the last attempts failed for may be over: the next one waits no longer.
    pub fn retry_now(&mut self) {
        if let Attempts::Failing { not_before, .. } = &mut self.attempts {
            *not_before = None;
        }
    }

    /// An attempt for this value of the renew annotation ended, without a token.
    pub fn renewal_attempted(&mut self, renew_annotation: Option<&str>) {
        self.renewals.unfulfilled = renew_annotation.map(str::to_owned);
        self.renewals.attempted.clone_from(&self.renewals.unfulfilled);
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
            self.renewal_attempted(renew_annotation);
        }
    }

    /// Attempts as a status reports them. Of several kinds of work that fail, the one that failed last is reported.
    #[must_use]
    pub fn reported(&self, now: DateTime<Utc>) -> status::Attempts {
        let attempts = match &self.attempts {
            Attempts::Settled => None,
            Attempts::Failing { count, failed_at, failure, .. } => Some((*failed_at, *count, failure)),
        };
        let streaks = self.reads.iter().chain(self.reverts.failing(now));
        let others = streaks.map(|streak| (streak.failed_at, streak.count, &streak.failure));
        let last = attempts.into_iter().chain(others).max_by_key(|(failed_at, ..)| *failed_at);
        status::Attempts {
            failures: last.map_or(0, |(_, count, _)| count),
            last_failure: last.map(|(failed_at, _, failure)| (failed_at, failure.clone())),
            renew_request: self.renewals.attempted.clone(),
            restart_failure: self.restarts.failure(),
        }
    }
}
