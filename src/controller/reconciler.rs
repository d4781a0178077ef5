//! One reconcile of one credential: what it knows and holds, and how it notes the end of an attempt.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_core::{
    action::IssueReason,
    backoff,
    events::Said,
    failure::Failure,
    object::ObjectKey,
    observed::ObservedState,
    restart::Restarts,
    retry_state::{FailedAttempt, RetryState},
    schedule, status,
};

use super::{
    RequeueAfter,
    context::Context,
    fetched::FetchedSecrets,
    interim::{Basis, Interim, Written},
    observation::{self, Caches},
    others::Registered,
    references::References,
    registry::Currency,
    requests::Slot,
};
use crate::{observe::index::Known, workers::Worker};

/// Wait for an authority that was not reconciled yet; its first answer enqueues the credential before that.
pub(super) const AWAIT_AUTHORITY: TimeDelta = TimeDelta::seconds(5);
/// No credential is reconciled again sooner than this: a bound on what any mistake in the schedule can cost.
const REQUEUE_FLOOR: TimeDelta = TimeDelta::milliseconds(10);

/// Requeues the credential after a wait.
pub(super) fn requeue(wait: TimeDelta) -> RequeueAfter {
    Some(wait.max(REQUEUE_FLOOR).to_std().unwrap_or_default())
}

/// One reconcile of one credential.
pub(super) struct Reconciler<'a> {
    pub(super) references: References<'a>,
    pub(super) key: &'a Arc<ObjectKey>,
    pub(super) context: &'a Context,
    pub(super) retry_state: Box<RetryState>,
    pub(super) fetched: FetchedSecrets,
    /// How the attempt ended, if one was made.
    pub(super) outcome: Option<Attempted>,
    /// The right to send one token request.
    pub(super) slot: Option<Slot>,
    /// A token request waits in the queue.
    pub(super) waits: bool,
    /// It has waited for so long that it is reported.
    pub(super) waits_long: bool,
    /// It waits behind an open circuit, so that no one knows when it is sent.
    pub(super) is_blocked: bool,
    /// When another attempt counts that is due and not made, since nothing is sent for now.
    pub(super) counts_at: Option<DateTime<Utc>>,
    /// What became of workloads.
    pub(super) restarted: Restarted,
    /// The status while a call is in flight.
    pub(super) interim: Arc<Interim>,
    /// What events said before the first status that was written while a call was in flight: an event is published for a
    /// transition from it.
    pub(super) before_interim: Option<Said>,
    /// Whether a token request keeps its place in the queue although this reconcile did not get to it.
    pub(super) keeps_place: bool,
    /// When something is due, as the report found before it wrote the status.
    pub(super) due_at: Option<DateTime<Utc>>,
    /// The worker that does this.
    pub(super) worker: Option<Worker>,
}

/// How an attempt ended.
pub(super) enum Attempted {
    Written(IssueReason),
    Failed(Failure),
}

/// What became of workloads in one reconcile.
#[derive(Default)]
pub(super) struct Restarted {
    /// Those that were restarted.
    pub(super) names: Vec<String>,
    /// When the token was issued for which they were.
    pub(super) issued_at: Option<DateTime<Utc>>,
    /// What was reported before.
    reported: Option<String>,
}

impl Restarted {
    /// A reconcile begins.
    pub(super) fn begin(&mut self, restarts: &Restarts) {
        self.reported = restarts.failure();
    }

    /// Whether something failed that was not reported.
    pub(super) fn has_failed(&self, restarts: &Restarts) -> bool {
        self.issued_at.is_some() && restarts.failure().is_some_and(|failure| self.reported.as_ref() != Some(&failure))
    }
}

impl Reconciler<'_> {
    /// The observed state.
    pub(super) fn observe(&mut self) -> ObservedState {
        let Context { index, namespaces, authorities, .. } = self.context;
        let others = &Registered { index, namespaces };
        let caches = Caches { index, others, authorities, is_admitted: self.slot.is_some() };
        let now = self.context.clock.now();
        let client = index.get(&self.references.client);
        self.retry_state.client_known(match &client {
            Known::Present(secret_metadata) => Some(&secret_metadata.version),
            Known::Unknown | Known::Absent => None,
        });
        let mut observed = observation::observe(&self.references, &self.retry_state, &self.fetched, &caches, now);
        observed.history.is_gone = self.is_gone();
        observed.history.is_known_absent = self.is_known_absent();
        observed.restart = self.observe_restarts(&observed);
        observed
    }

    /// Whether the credential is still as it was when this reconcile began, as far as the watch has brought.
    pub(super) fn currency(&self) -> Currency {
        let References { key, uid, credential, .. } = &self.references;
        self.context.namespaces.currency(key, uid, credential.metadata.generation)
    }

    /// Has the status change with time while the next call is in flight.
    pub(super) fn follow_time(&mut self, observed: &ObservedState) {
        let written = self.interim.try_take_written();
        self.note_interim(written);
        let now = self.context.clock.now();
        // time may have passed for `Ready` before this reconcile began
        let is_overdue = schedule::has_fallen_below(observed, now) && status::is_ready(&self.previous_status());
        let has_news = self.has_news() || is_overdue;
        let changes = || schedule::next_ready_change(observed, now).is_some();
        let basis = (has_news || changes()).then(|| self.basis(observed, now));
        self.interim.set(basis, has_news, &self.context.clock);
    }

    /// Whether something failed that was not reported yet.
    fn has_news(&self) -> bool {
        matches!(self.outcome, Some(Attempted::Failed(_))) || self.restarted.has_failed(&self.retry_state.restarts)
    }

    /// Notes a status that was written while a call was in flight.
    pub(super) fn note_interim(&mut self, written: Written) {
        if let Some((version, status)) = written.last {
            if self.before_interim.is_none() {
                let said = Said::from(&*self.previous_status());
                self.before_interim = Some(said);
            }
            self.retry_state.status_written(version, status, self.context.clock.now());
        }
        // the uncertain one is later than the last one that is known to be written
        if written.is_uncertain {
            self.retry_state.status_write_begins();
        }
    }

    fn basis(&self, observed: &ObservedState, now: DateTime<Utc>) -> Basis {
        let References { key, uid, credential, target, .. } = &self.references;
        Basis {
            key: key.clone(),
            uid: uid.clone(),
            generation: credential.metadata.generation,
            resource_version: self.guard(),
            authority: credential.spec.authority_ref.name.clone(),
            secret: target.name.clone(),
            observed: observed.clone(),
            attempts: self.retry_state.reported(now),
            description: self.description(observed),
            previous: self.previous_status().into_owned(),
            failures: self.retry_state.failures_and_postponed(),
            client_secret: self.references.client.to_string(),
            client_expires_key: credential.spec.client_credentials_ref.expires_at_key.clone(),
            client_expires: self.retry_state.client_expires(),
        }
    }

    /// Has the Secret to write read again before the next decision.
    pub(super) fn forget_target(&mut self) {
        self.context.index.invalidate(&self.references.target);
        // whether the client is the same was found out with the token that was there
        self.fetched = FetchedSecrets::default();
    }

    /// Whether a watch shows the Secrets of the credential: they are watched, and it does not fail.
    pub(super) fn is_watched(&self) -> bool {
        self.context.watch_secrets && self.retry_state.unwatched().is_none()
    }

    /// Until when what a watch showed before it failed is not read, if that is to come.
    pub(super) fn shown_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.retry_state.unwatched()?.shown_until(&self.references.uid, now)
    }

    /// Notes an attempt that failed.
    pub(super) fn failed(&mut self, observed: &ObservedState, failure: Failure) {
        self.failed_after(self.retry_state.failures(), observed, failure, false);
    }

    /// Notes an attempt that failed after so many others, or one that failed since those `by_others` do. Returns the
    /// backoff.
    pub(super) fn failed_after(
        &mut self,
        failures_before: u32,
        observed: &ObservedState,
        failure: Failure,
        by_others: bool,
    ) -> TimeDelta {
        let now = self.context.clock.now();
        let failures = failures_before.saturating_add(1);
        let wait = backoff::delay(failures, observed.left(now), failure.reason, failure.retry_after, &observed.uid);
        tracing::warn!(
            credential = %self.references.key,
            reason = failure.reason.as_str(),
            failures,
            retry_in_ms = wait.num_milliseconds(),
            "no token: {}",
            failure.message
        );
        self.retry_state.failed(FailedAttempt {
            observed,
            failure: failure.clone(),
            failures_before,
            wait,
            by_others,
            renew_annotation: self.references.renew_annotation().map(String::as_str),
            now,
        });
        self.outcome = Some(Attempted::Failed(failure));
        wait
    }
}
