//! When an authority is asked for endpoints and keys, and what follows from how that ended.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use itwin_core::{backoff, failure::Failure};
use tokio::time::Instant;

use super::{Authorities, entry::Entry};
use crate::oauth::authority::Authority;

/// Endpoints and keys are fetched again after this: keys are rotated days ahead, and an unknown `kid` is asked for at
/// once anyway.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// The longest wait before an authority that failed is asked again, unless it asks for a longer one and its endpoints and
/// keys are known.
const RETRY_CEILING: Duration = Duration::from_secs(60);

/// A token endpoint that may have moved has the discovery document read early at most this often: tenants can cause such
/// answers.
const EARLY_INTERVAL: Duration = Duration::from_secs(60);

impl Authorities {
    /// How long until endpoints and keys should be asked for; zero where that is now. A wait that the authority asked for
    /// in response to a token request delays them too, by one interval at most: keys may be rotated meanwhile. It delays
    /// nothing as long as tokens cannot be requested with those that are known, be it that the token endpoint may have
    /// moved since: they would expire.
    pub(in crate::controller) fn wait(&self, name: &str) -> Duration {
        let asked = self.requests.server_waits_until(name).map(Instant::from_std);
        let entries = self.entries();
        let Some(entry) = entries.get(name) else { return RETRY_CEILING };
        let due = entry.due;
        let asked = asked.filter(|_| are_of_use(entry));
        let until = asked.map_or(due, |until| until.clamp(due, due + REFRESH_INTERVAL));
        until.saturating_duration_since(self.clock.monotonic())
    }

    /// Notes that a token request showed that the token endpoint may have moved: if it comes from the discovery document,
    /// that is due now, unless the authority asked for a wait when it was requested. Returns whether it must be reconciled
    /// for it.
    pub(in crate::controller) fn ask_early(&self, authority: &Authority) -> bool {
        let now = self.clock.monotonic();
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&authority.name) else { return false };
        let is_early = |at: Instant| now.saturating_duration_since(at) < EARLY_INTERVAL;
        let asked_for_a_wait = entry.failure.as_ref().is_some_and(|failure| failure.retry_after.is_some());
        if authority.config.token_endpoint.is_some() || asked_for_a_wait || entry.asked_early.is_some_and(is_early) {
            return false;
        }
        entry.asked_early = Some(now);
        entry.due = now;
        true
    }

    /// Why the last refresh failed, if it failed.
    pub(in crate::controller) fn failure(&self, name: &str) -> Option<Failure> {
        self.entries().get(name).and_then(|entry| entry.failure.clone())
    }

    /// Notes endpoints and keys that were fetched for a token that no known key verified, if any were: a failure of before
    /// is over. Returns whether the credentials of `authority` must be reconciled, and `None` if nothing was fetched: else
    /// it must be reconciled itself.
    pub(in crate::controller) fn note_fetched(&self, authority: &Arc<Authority>) -> Option<bool> {
        let refreshed = authority.metadata().map(|metadata| metadata.refreshed);
        let noted = self.entries().get(&authority.name).and_then(|entry| entry.noted);
        // `None` is less than any instant
        (noted.is_some() && refreshed > noted).then(|| self.note(authority, Ok(())))
    }

    /// Notes how asking `authority` for endpoints and keys ended. Returns whether its credentials must be reconciled.
    pub(in crate::controller) fn note(&self, authority: &Arc<Authority>, result: Result<(), Failure>) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&authority.name) else { return false };
        if !entry.authority.as_ref().is_ok_and(|current| Arc::ptr_eq(current, authority)) {
            // the spec changed meanwhile; the answer is about another one
            return false;
        }
        let wait = match result {
            Ok(()) => {
                entry.failure = None;
                entry.failures = 0;
                REFRESH_INTERVAL
            }
            Err(failure) => {
                entry.failures += 1;
                let wait = retry_wait(entry.failures, &failure, &authority.name, authority.metadata().is_some());
                entry.failure = Some(failure);
                wait
            }
        };
        let now = self.clock.monotonic();
        (entry.noted, entry.due) = (Some(now), now + wait);
        // what it once answered stays good while it does not answer
        let failure = entry.failure.as_ref().filter(|_| authority.metadata().is_none());
        let unanswered = failure.map(|failure| failure.reason);
        let endpoint = authority.metadata().map(|metadata| metadata.endpoints.token.clone());
        let has_moved = entry.token_endpoint.is_some() && entry.token_endpoint != endpoint;
        if has_moved {
            // what failed there says nothing about the other one
            self.requests.reset_breaker(&authority.name);
        }
        entry.token_endpoint = endpoint;
        let news = !entry.was_asked || entry.unanswered != unanswered || has_moved;
        entry.unanswered = unanswered;
        entry.was_asked = true;
        entry.revision += u32::from(news);
        news
    }
}

/// Whether tokens can be requested with the endpoints and keys that are known: those were fetched, and no token request
/// has shown since that the token endpoint may have moved.
fn are_of_use(entry: &Entry) -> bool {
    let metadata = entry.authority.as_ref().ok().and_then(|authority| authority.metadata());
    // `None` is less than any instant
    metadata.is_some_and(|metadata| entry.asked_early <= Some(metadata.refreshed))
}

/// The wait before an authority is asked again. One that it asked for is obeyed as for token requests, where tokens can be
/// requested with the endpoints and keys that are known: while nothing is, all tokens would expire.
fn retry_wait(failures: u32, failure: &Failure, name: &str, is_known: bool) -> Duration {
    let wait = backoff::delay(failures, TimeDelta::zero(), failure.reason, failure.retry_after, name);
    let wait = wait.to_std().unwrap_or(RETRY_CEILING);
    if is_known && failure.retry_after.is_some() { wait } else { wait.min(RETRY_CEILING) }
}

#[cfg(test)]
mod tests;
