//! What becomes of earlier attempts when the spec changes.
//!
//! A failure says nothing of a spec that it was not an attempt for: it is neither reported for the new one, nor does the
//! new one wait for its backoff. A spec or a client Secret that is changed in a loop is no way around the backoff
//! either, nor one to a token in each second: token requests that follow a change are limited as renewals on request
//! are, with a few at once, so that a correction of a correction waits for nothing.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::credential::ITwinServiceCredential;

use super::{Attempts, ClientExpiry, RetryState};
use crate::{backoff::ON_REQUEST_FLOOR, observed::Reads, retry_key::RetryKey};

/// So many changes are followed by a token request at once.
const EDITS_AT_ONCE: i32 = 3;

/// Token requests that follow a change of the spec or of the client.
#[derive(Debug, Default)]
pub(super) struct Edits {
    /// The next token request is one.
    is_counted: bool,
    /// When the last ones are forgotten.
    forgotten_at: Option<DateTime<Utc>>,
    /// No attempt before the second instant, as was found at the first.
    wait: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

impl Edits {
    /// The spec changed after a failed attempt. The next attempt is made at once, unless there were many such, or a server
    /// asked for a wait until then.
    fn edited(&mut self, asked_to_wait_until: Option<DateTime<Utc>>, now: DateTime<Utc>) {
        self.is_counted = true;
        let at_once =
            self.forgotten_at.map(|at| (at - ON_REQUEST_FLOOR * (EDITS_AT_ONCE - 1)).min(now + ON_REQUEST_FLOOR));
        let until = [at_once, asked_to_wait_until, self.until(now)].into_iter().flatten().max();
        self.wait = until.filter(|until| *until > now).map(|until| (now, until));
    }

    /// A token is requested, for another spec or client than that of the one that is held, or for another reason.
    pub(super) fn requested(&mut self, follows_change: bool, now: DateTime<Utc>) {
        if std::mem::take(&mut self.is_counted) || follows_change {
            // of a clock that was set back no more is left than of one that was not
            let latest = now + ON_REQUEST_FLOOR * (EDITS_AT_ONCE - 1);
            self.forgotten_at = Some(self.forgotten_at.unwrap_or(now).clamp(now, latest) + ON_REQUEST_FLOOR);
        }
        self.wait = None;
    }

    /// No further request that follows a change before this instant.
    fn next(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // a later time is that of a clock that was set back
        let forgotten_at = self.forgotten_at.filter(|at| *at <= now + ON_REQUEST_FLOOR * EDITS_AT_ONCE)?;
        Some(forgotten_at - ON_REQUEST_FLOOR * (EDITS_AT_ONCE - 1)).filter(|until| *until > now)
    }

    /// No attempt before this instant. A wait that was found later than now was found before the clock was set back.
    pub(super) fn until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.wait.filter(|(found, until)| *found <= now && now < *until).map(|(_, until)| until)
    }
}

/// The wait that an authority asked all its clients for with a failure.
#[derive(Debug)]
pub(super) struct AskedWait {
    /// The authority.
    pub(super) authority: Box<str>,
    /// When it was noted.
    pub(super) noted: DateTime<Utc>,
    /// Until when.
    pub(super) until: DateTime<Utc>,
}

impl AskedWait {
    /// No request to this authority before this instant. A wait that was noted later than now was noted before the
    /// clock was set back: it binds no one.
    fn until(&self, authority: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        (*self.authority == *authority && self.noted <= now).then_some(self.until)
    }
}

impl RetryState {
    /// No token is requested for another spec or client before this instant, since many were. A request that is
    /// repeated after a failure waits for its backoff only.
    #[must_use]
    pub fn change_not_before(&self, key: &RetryKey, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.edits.next(now).filter(|_| !self.is_repeated(key))
    }

    /// Whether the next attempt repeats one that failed and that rested on the same.
    pub(super) fn is_repeated(&self, key: &RetryKey) -> bool {
        matches!(self.attempts, Attempts::Failing { .. }) && self.is_unchanged(key)
    }

    /// Drops what is remembered of attempts for an earlier spec than this one.
    pub fn follow_spec(&mut self, credential: &ITwinServiceCredential, now: DateTime<Utc>) {
        let generation = credential.metadata.generation.unwrap_or_default();
        self.reverts.for_generation(generation);
        if std::mem::replace(&mut self.generation, generation) == generation {
            return;
        }
        self.reads = Reads::default();
        // other keys of the same version of the client Secret may hold another client
        self.compared = None;
        self.client_expiry.follow(credential);
        let is_retrying = self.is_retrying();
        if let Attempts::Failing { asked_wait, .. } = std::mem::replace(&mut self.attempts, Attempts::Settled) {
            let until = asked_wait.and_then(|wait| wait.until(&credential.spec.authority_ref.name, now));
            self.edits.edited(until, now);
            // the next one still follows a failed one: a spec that is edited takes no turn of others
            self.follows_failure = is_retrying;
        }
    }

    /// The same for a credential that is being deleted. The API server counts the deletion like a change of the spec, once:
    /// what failed before it is still about this spec.
    pub fn follow_deleted(&mut self, credential: &ITwinServiceCredential, now: DateTime<Utc>) {
        let generation = credential.metadata.generation.unwrap_or_default();
        let is_first = !std::mem::replace(&mut self.is_deleted, true);
        if is_first && self.generation.checked_add(1) == Some(generation) {
            self.generation = generation;
            self.reverts.keep_for_generation(generation);
        }
        self.follow_spec(credential, now);
    }
}

impl ClientExpiry {
    /// The date is that of one key of one Secret. Where the spec names another, it is read.
    fn follow(&mut self, credential: &ITwinServiceCredential) {
        let key = Self::key(credential);
        if self.key != key {
            *self = Self { key, expires: None, is_unread: true };
        }
    }
}

/// The time between the failure and the end of the wait that the server asked for; no longer than the backoff.
pub(super) fn asked_wait(asked_for: Option<TimeDelta>, backoff: TimeDelta) -> Option<TimeDelta> {
    asked_for.map(|asked_for| asked_for.min(backoff))
}
