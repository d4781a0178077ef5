//! How attempts ended, and the backoff that follows.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::conditions::Reason;

use super::{
    Attempts, Postponed, RetryState,
    spec::{AskedWait, asked_wait},
    tokens::is_of_client,
};
use crate::{backoff, failure::Failure, observed::ObservedState, retry_key::RetryKey, status, token::TokenMetadata};

/// No backoff without `Retry-After` is longer: a later end was read from a clock that was ahead.
const LONGEST_BACKOFF: TimeDelta = TimeDelta::minutes(5);

/// So many attempts that were not made are in the status at first: after about five minutes.
const FIRST_STEP: u32 = 8;

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

    /// Consecutive attempts that failed, or that were due and not made.
    #[must_use]
    pub fn failures_and_postponed(&self) -> u32 {
        match self.attempts {
            Attempts::Settled => 0,
            Attempts::Failing { count, postponed, .. } => count.saturating_add(postponed.count),
        }
    }

    /// Notes that an attempt is due and not made, since nothing is sent for now. It counts at the end of each backoff that
    /// would follow a failure; `left` is the remaining validity of the token. Returns when the next one counts.
    pub fn postponed(&mut self, left: TimeDelta, uid: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let Attempts::Failing { count, failed_at, failure, not_before, postponed, .. } = &mut self.attempts else {
            return None;
        };
        let until = postponed.until.or(*not_before).filter(|until| (now..=now + LONGEST_BACKOFF).contains(until));
        if let Some(until) = until.filter(|until| *until > now) {
            return Some(until);
        }
        if *failed_at > now {
            // it was noted before the clock was set back: its backoff binds no one, also once the failure has another time
            *not_before = None;
        }
        let before = shown(*count, postponed.count);
        postponed.count = postponed.count.saturating_add(1);
        if shown(*count, postponed.count) != before {
            *failed_at = now;
        }
        let total = count.saturating_add(postponed.count);
        postponed.until = Some(now + backoff::delay(total, left, failure.reason, None, uid));
        postponed.until
    }

    /// Why the last attempt failed, if it did.
    #[must_use]
    pub fn last_failure(&self) -> Option<&Failure> {
        match &self.attempts {
            Attempts::Settled => None,
            Attempts::Failing { failure, .. } => Some(failure),
        }
    }

    /// Whether the last attempt failed because the client Secret is missing or of no use.
    #[must_use]
    pub fn has_failed_for_client(&self) -> bool {
        self.last_failure().is_some_and(|failure| is_of_client(failure.reason))
    }

    /// Whether attempts of the credential's own failed, and the next one follows them.
    #[must_use]
    pub fn is_retrying(&self) -> bool {
        self.follows_failure
            || matches!(self.attempts, Attempts::Failing { count, by_others, .. } if count > 0 && !by_others)
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
        let after_failure = match self.attempts {
            Attempts::Failing { not_before, failed_at, .. } if self.is_unchanged(key) && failed_at <= now => not_before,
            _ => None,
        };
        after_failure.max(self.edits.until(now))
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
        self.follows_failure = false;
    }

    /// No attempt is due. What the last ones failed for is over, unless only another request can show that.
    pub fn none_due(&mut self, observed: &ObservedState, now: DateTime<Utc>) {
        if !self.is_failure_open(observed, now) {
            self.settled();
        }
    }

    /// Nothing is attempted, since the credential is suspended or is being deleted, and what is to be read was. So what an
    /// earlier process could not read, or not watch, is over, unless Secrets are still not watched.
    pub fn none_attempted(&mut self) {
        let is_recalled = matches!(
            &self.attempts,
            Attempts::Failing { key: None, failure, .. } if failure.reason == Reason::SecretReadFailed
        );
        if is_recalled && self.unwatched.is_none() {
            self.settled();
        }
    }

    /// Whether the last attempt failed at the authorization server, and nothing shows that the next one would not: what it
    /// depended on is unchanged, the client is the one that the held token was requested with, and that token is older.
    /// This is so after a start, if the renewal that failed is no longer asked for.
    fn is_failure_open(&self, observed: &ObservedState, now: DateTime<Utc>) -> bool {
        let Attempts::Failing { failed_at, failure, .. } = &self.attempts else { return false };
        let is_older = |held: &TokenMetadata| {
            let is_same_client = observed.client.version().is_none_or(|version| *version == held.client_version);
            held.issued_at < *failed_at && is_same_client
        };
        // a failure in the future was noted before the clock was set back
        let is_known = *failed_at <= now && is_of_server(failure.reason);
        is_known && self.is_unchanged(&observed.retry_key) && observed.held_for_spec().is_some_and(is_older)
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
        let postponed = match self.attempts {
            Attempts::Settled => Postponed::default(),
            Attempts::Failing { postponed, .. } => Postponed { until: None, ..postponed },
        };
        let authority = observed.desired.authority.as_str();
        // one that it asks this client for ends where another is named, or this one is corrected
        let asked_wait = asked_wait(failure.server_wait, wait)
            .map(|wait| Box::new(AskedWait { authority: authority.into(), noted: now, until: now + wait }));
        self.attempts = Attempts::Failing {
            count: failures_before.saturating_add(1),
            failed_at: now,
            failure,
            not_before: Some(now + wait),
            key: Some(observed.retry_key.clone()),
            by_others,
            asked_wait,
            postponed,
        };
        if observed.is_asked_for(now) {
            self.renewal_attempted(renew_annotation);
        }
    }

    /// Attempts as a status reports them. Of several kinds of work that fail, the one that failed last is reported. What
    /// others do to the Secret, or to the writes of a part of its template, is reported too, and counts as no failure: it
    /// holds up no renewal. Nor does a watch of Secrets that fails, which is reported where nothing else is.
    #[must_use]
    pub fn reported(&self, now: DateTime<Utc>) -> status::Attempts {
        let attempts = match &self.attempts {
            Attempts::Settled => None,
            Attempts::Failing { count, failed_at, failure, postponed, .. } => {
                Some((*failed_at, shown(*count, postponed.count), failure))
            }
        };
        let reads = self.reads.iter().map(|streak| (streak.failed_at, streak.count, &streak.failure));
        let renewals: Vec<_> = attempts.into_iter().chain(reads).collect();
        let reverts = self.reverts.failing(now).map(|streak| (streak.failed_at, 0, &streak.failure));
        let last = renewals.iter().copied().chain(reverts).max_by_key(|(failed_at, ..)| *failed_at);
        let unwatched = self.unwatched().map(|unwatched| (unwatched.since, 0, &unwatched.failure));
        status::Attempts {
            failures: renewals.iter().map(|(_, count, _)| *count).max().unwrap_or_default(),
            last_failure: last.or(unwatched).map(|(failed_at, _, failure)| (failed_at, failure.clone())),
            follows_failure: self.follows_failure,
            renew_request: self.renewals.attempted.clone(),
            restart_failure: self.restarts.failure(),
            is_unwatched: self.unwatched.is_some(),
        }
    }
}

/// Whether only a request shows if it would fail for this reason again.
fn is_of_server(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::InvalidClient
            | Reason::InvalidScope
            | Reason::UnauthorizedClient
            | Reason::UnsupportedGrantType
            | Reason::RequestRejected
            | Reason::RateLimited
            | Reason::ServerError
            | Reason::Timeout
            | Reason::ConnectionFailed
            | Reason::TLSFailed
            | Reason::RedirectRefused
            | Reason::MalformedResponse
            | Reason::TokenRejected
            | Reason::ScopeReduced
            | Reason::ShorterThanCurrent
    )
}

/// Failures as a status shows them. Of the attempts that were not made it shows the last power of two from 8 on: a short
/// outage costs no write for them, and one of hours a few for each credential, not one in each backoff.
fn shown(count: u32, postponed: u32) -> u32 {
    let in_steps = postponed.checked_ilog2().map_or(0, |exponent| 1 << exponent);
    count.saturating_add(if in_steps >= FIRST_STEP { in_steps } else { 0 })
}
