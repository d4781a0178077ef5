//! The object itself, and calls to the Kubernetes API.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{conditions::Reason, credential::CredentialStatus, digest, time};

use super::{LongRenewal, RetryState, WithoutEffect, WrittenStatus};
use crate::{backoff, events::Said, status};

/// A status that another writer replaced is written again immediately, but no sooner than this after the last time: two
/// operators, each of which remembers failures of its own, would answer each other's statuses as fast as watches show them.
const REWRITE_AGAIN: TimeDelta = TimeDelta::seconds(30);

/// A status that the API server stores without a part is not written again for so long at first, and at most: its CRD may
/// be upgraded, and what is new in the status is written anyway.
const STORED_OTHERWISE: (TimeDelta, TimeDelta) = (TimeDelta::minutes(9), TimeDelta::hours(6));

/// That there is no such object counts for this long: it is looked for more often, and what is answered otherwise is no
/// proof.
const GONE: Duration = Duration::from_secs(120);

/// The object itself.
impl RetryState {
    /// The status that was written and that the watch has not brought yet.
    #[must_use]
    pub fn written_status(&self) -> Option<&CredentialStatus> {
        self.status.pending.as_ref().map(|(_, status)| &**status)
    }

    /// The resourceVersion that the object had after that.
    #[must_use]
    pub fn written_version(&self) -> Option<u64> {
        self.status.pending.as_ref().map(|(version, _)| *version)
    }

    /// A status is about to be written: whatever becomes of it, the next reconcile compares with what the object then has.
    /// Until one is known to be written, none counts as the last one: the object may have this one or the one before.
    pub fn status_write_begins(&mut self) {
        (self.status.newest, self.status.is_uncertain) = (0, true);
    }

    /// A status was written, and the object then had this resourceVersion.
    pub fn status_written(&mut self, version: u64, status: CredentialStatus, now: DateTime<Utc>) {
        let own = Some(own_part(&status));
        let rewritten_at = if self.status.own == own { Some(now) } else { self.status.rewritten_at };
        let is_stored = self.status.without_effect.as_ref().is_some_and(|before| Some(before.own) == own);
        let futile = if is_stored { 0 } else { self.status.futile };
        let pending = Some((version, Box::new(status)));
        self.status = WrittenStatus { pending, newest: version, own, rewritten_at, futile, ..WrittenStatus::default() };
    }

    /// The write of this status, which the object of this UID did not have as far as was known, left it at this
    /// resourceVersion: the API server stores it in another way, such as without a field that the CRD does not know.
    pub fn status_changed_nothing(&mut self, version: u64, status: CredentialStatus, uid: &str, now: DateTime<Utc>) {
        let own = own_part(&status);
        let before = self.status.without_effect.take();
        let is_after_a_wait = before.is_some_and(|before| before.own == own && before.until <= now);
        self.status_written(version, status, now);
        self.status.futile = self.status.futile.saturating_add(u32::from(is_after_a_wait));
        let until = now + stored_otherwise_for(self.status.futile, uid);
        self.status.without_effect = Some(Box::new(WithoutEffect { version, own, written_at: now, until }));
    }

    /// Whether a write of this status to the object at this resourceVersion changed nothing lately.
    #[must_use]
    pub fn is_stored_otherwise(&self, status: &CredentialStatus, version: u64, now: DateTime<Utc>) -> bool {
        self.status.without_effect.as_ref().is_some_and(|last| {
            // a time to come was read from a clock that was ahead
            let is_recent = (last.written_at..last.until).contains(&now);
            is_recent && last.version == version && last.own == own_part(status)
        })
    }

    /// When a status that the API server stores without a part is written again.
    #[must_use]
    pub fn stored_otherwise_until(&self) -> Option<DateTime<Utc>> {
        self.status.without_effect.as_ref().map(|last| last.until)
    }

    /// This status could not be written, or may not have been. Events say what is new in it already.
    pub fn status_unwritten(&mut self, status: &CredentialStatus) {
        self.said = Some(Box::new(status.into()));
    }

    /// The object has the last status.
    pub fn status_shown(&mut self) {
        self.said = None;
    }

    /// What events said up to the last status, if its write failed: it is no news, also where the object does not have it.
    #[must_use]
    pub fn said(&self) -> Option<&Said> {
        self.said.as_deref()
    }

    /// No status could be written, since the API server has no such object; watches show it at this resourceVersion. It may
    /// be gone without that watches can show it, and an API server may say so for a moment of what is there.
    pub fn not_found(&mut self, version: u64, now: Instant) {
        self.status.gone_at = Some((version, now));
    }

    /// After such an answer a list succeeded, and does not hold the object.
    pub fn known_absent(&mut self, version: u64, now: Instant) {
        self.status.absent_at = Some((version, now));
    }

    /// The API server has the object.
    pub fn found(&mut self) {
        (self.status.gone_at, self.status.absent_at) = (None, None);
    }

    /// Whether the API server lately said that it has no such object, and watches show no other version of it than this.
    #[must_use]
    pub fn is_gone(&self, version: u64, now: Instant) -> bool {
        counts(self.status.gone_at, version, now)
    }

    /// Whether a list lately showed it.
    #[must_use]
    pub fn is_known_absent(&self, version: u64, now: Instant) -> bool {
        counts(self.status.absent_at, version, now)
    }

    /// How long not to write this status, which the object does not have: it is the one that was written last, another
    /// writer has replaced it, and so had one shortly before. What is news, such as the next failure or the end of a token,
    /// is written immediately, and so is any status after a write that was not answered: what differs from it may be news.
    #[must_use]
    pub fn rewrite_waits(&self, status: &CredentialStatus, now: DateTime<Utc>) -> Option<TimeDelta> {
        let rewritten_at = self.status.rewritten_at.filter(|_| !self.status.is_uncertain)?;
        let left = rewritten_at + REWRITE_AGAIN - now;
        // a time to come was read from a clock that was ahead
        let is_recent = left > TimeDelta::zero() && left <= REWRITE_AGAIN;
        (is_recent && self.status.own == Some(own_part(status))).then_some(left)
    }

    /// Forgets the status that was written once the watch has brought it. Returns whether the object, at this
    /// resourceVersion, is older than one that was known before: then no one knows what its status is.
    pub fn observed_version(&mut self, version: u64) -> bool {
        self.status.pending.take_if(|(written_at, _)| *written_at <= version);
        let newest = self.status.pending.as_ref().map_or(version, |(written_at, _)| *written_at);
        self.status.newest = self.status.newest.max(newest);
        newest < self.status.newest
    }

    /// Whether to report that the renew annotation is too long: once for as long as it is, and no more often than a renewal
    /// on request is made, however often it changes.
    pub fn reports_long_renewal(&mut self, is_too_long: bool, now: DateTime<Utc>) -> bool {
        let LongRenewal { is_reported, reported_at } = &mut self.long_renewal;
        // a time to come was read from a clock that was ahead
        let recent = TimeDelta::zero()..backoff::ON_REQUEST_FLOOR;
        let is_recent = reported_at.is_some_and(|at| recent.contains(&(now - at)));
        let is_news = is_too_long && !*is_reported && !is_recent;
        if is_news {
            *reported_at = Some(now);
        }
        *is_reported = is_too_long && (*is_reported || is_news);
        is_news
    }

    /// A reconcile was reported.
    pub fn api_succeeded(&mut self) {
        self.api_failures = 0;
    }

    /// When time changes `Ready` of the status that was reported last.
    #[must_use]
    pub fn ready_changes_at(&self) -> Option<DateTime<Utc>> {
        self.ready_changes_at
    }

    /// Notes when time changes `Ready` of the status that is reported.
    pub fn set_ready_changes_at(&mut self, at: Option<DateTime<Utc>>) {
        self.ready_changes_at = at;
    }

    /// Whether the metadata of both Secrets was read within `limit`, for this spec and this renew annotation.
    #[must_use]
    pub fn has_metadata(&self, renew_annotation: Option<&str>, limit: TimeDelta, now: DateTime<Utc>) -> bool {
        self.metadata_read.as_ref().is_some_and(|(at, generation, annotation)| {
            *generation == self.generation
                && annotation.as_deref() == renew_annotation
                && (TimeDelta::zero()..limit).contains(&(now - *at))
        })
    }

    /// When the metadata of both Secrets was read last.
    #[must_use]
    pub fn metadata_read_at(&self) -> Option<DateTime<Utc>> {
        self.metadata_read.as_ref().map(|(at, ..)| *at)
    }

    /// Whether an attempt is due after one that failed: what it failed on may have changed.
    #[must_use]
    pub fn retries_now(&self, now: DateTime<Utc>) -> bool {
        self.is_retrying() && self.not_before().is_none_or(|until| until <= now)
    }

    /// Notes that the metadata of both Secrets was read.
    pub fn metadata_read(&mut self, renew_annotation: Option<&str>, now: DateTime<Utc>) {
        self.metadata_read = Some((now, self.generation, renew_annotation.map(Box::from)));
    }

    /// The report failed. Returns the wait before the next reconcile, not capped yet.
    pub fn api_failed(&mut self, uid: &str) -> TimeDelta {
        self.api_failures = self.api_failures.saturating_add(1);
        backoff::delay(self.api_failures, TimeDelta::zero(), Reason::ServerError, None, uid)
    }
}

/// How long a status is not written again that the API server stores without a part, after so many waits for nothing. All
/// statuses are stored alike, and the UID spreads them.
fn stored_otherwise_for(futile: u32, uid: &str) -> TimeDelta {
    let (first, longest) = STORED_OTHERWISE;
    let most = (first * 2_i32.pow(futile.min(6))).min(longest).num_milliseconds() as f64;
    TimeDelta::milliseconds((most / 2.0 * (1.0 + digest::unit_interval(["stored otherwise", uid]))) as i64)
}

/// Whether what was found out of an object at a resourceVersion still counts.
fn counts(found_out: Option<(u64, Instant)>, version: u64, now: Instant) -> bool {
    found_out.is_some_and(|(of, at)| of == version && now.saturating_duration_since(at) < GONE)
}

/// A digest of what the operator says in a status: without the conditions of others, and without the times of transitions,
/// which are taken over from the status before.
fn own_part(status: &CredentialStatus) -> u32 {
    let mut own = status.clone();
    own.conditions.retain(status::is_ours);
    own.conditions.sort_by(|one, other| one.type_.cmp(&other.type_));
    for condition in &mut own.conditions {
        condition.last_transition_time = time::to_kubernetes(DateTime::UNIX_EPOCH);
    }
    digest::short([serde_json::to_string(&own).unwrap_or_default().as_str()])
}
