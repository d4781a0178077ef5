//! One reconcile of one credential: what it knows and holds, and how it notes the end of an attempt.

use std::sync::Arc;

use chrono::TimeDelta;
use itwin_api::failure::Failure;
use itwin_core::{action::IssueReason, backoff, observed::ObservedState};
use itwin_oauth::failure::RequestFailure;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    RequeueAfter,
    context::Context,
    fetched::{self, FetchedSecrets},
    observation::{self, Caches},
    others::Registered,
    references::References,
    requests::Slot,
    retry_state::RetryState,
};
use crate::{cluster::CallError, observe::index::Key};

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
    pub(super) key: &'a Arc<Key>,
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
    /// The worker that does this.
    pub(super) worker: Option<OwnedSemaphorePermit>,
}

/// How an attempt ended.
pub(super) enum Attempted {
    Written(IssueReason),
    Failed(Failure),
}

impl Reconciler<'_> {
    /// The observed state, and a number that moves with everything that may make a new attempt worth while.
    pub(super) fn observe(&self) -> (ObservedState, u32) {
        let Context { index, namespaces, authorities, .. } = self.context;
        let others = &Registered { index, namespaces };
        let caches = Caches { index, others, authorities, is_admitted: self.slot.is_some() };
        observation::observe(&self.references, &self.retry_state, &self.fetched, &caches, self.context.clock.now())
    }

    /// Has the Secret to write read again before the next decision.
    pub(super) fn forget_target(&mut self) {
        self.context.index.invalidate(&self.references.target);
        // whether the client is the same was found out with the token that was there
        self.fetched = FetchedSecrets::default();
    }

    /// Reads the Secret to write, with its data.
    pub(super) async fn read_target(&mut self) -> Result<(), CallError> {
        let read = fetched::read_target(&self.context.cluster, &self.context.index, &self.references).await?;
        if let Some(read) = read.as_ref().filter(|read| read.is_ours) {
            self.retry_state.verified_target = Some(read.version.clone());
        }
        self.fetched.target = read;
        Ok(())
    }

    /// Notes that the last attempt succeeded, or that none is needed.
    pub(super) fn nothing_is_wrong(&mut self) {
        self.retry_state.attempts.failures = 0;
        self.retry_state.attempts.last_failure = None;
        self.retry_state.not_before = None;
        self.retry_state.inputs = None;
    }

    /// Notes an attempt that failed.
    pub(super) fn failed(&mut self, observed: &ObservedState, inputs: u32, failure: RequestFailure) {
        let now = self.context.clock.now();
        let RequestFailure { failure, retry_after, .. } = failure;
        self.retry_state.attempts.failures = self.retry_state.attempts.failures.saturating_add(1);
        let wait = backoff::delay(
            self.retry_state.attempts.failures,
            observed.left(now),
            failure.reason,
            retry_after,
            &observed.uid,
        );
        self.retry_state.not_before = Some(now + wait);
        self.retry_state.failed_by_others = false;
        self.retry_state.inputs = Some(inputs);
        if observed.is_asked_for(now) {
            self.retry_state.unfulfilled_request = self.references.renew_annotation().cloned();
            self.retry_state.attempts.renew_request.clone_from(&self.retry_state.unfulfilled_request);
        }
        tracing::warn!(
            credential = %self.references.key,
            reason = failure.reason.as_str(),
            failures = self.retry_state.attempts.failures,
            retry_in_ms = wait.num_milliseconds(),
            "no token: {}",
            failure.message
        );
        self.retry_state.attempts.last_failure = Some((now, failure.clone()));
        self.outcome = Some(Attempted::Failed(failure));
    }
}
