//! Waiting for the turn of a token request: joining the queue, and what is reported meanwhile.

use std::time::Duration;

use chrono::TimeDelta;
use itwin_api::digest;
use itwin_core::{failure::Failure, messages, observed::ObservedState, requests::Blocked};

use super::{
    RequeueAfter, observation,
    reconciler::{Reconciler, requeue},
    references::requester,
    requests::Place,
};
use crate::cluster::CallError;

/// A credential without a usable token that waits for longer says so in its condition Ready.
const REPORT_AFTER: Duration = Duration::from_secs(30);
/// Thousands that began to wait at the same time report it within so long, not all at once.
const REPORT_SPREAD: Duration = Duration::from_secs(5);

/// Nothing is sent for now, and that was not reported yet.
pub(super) struct NotQueued {
    /// What to report.
    pub(super) failure: Failure,
    /// It is not the failure of this credential's client.
    pub(super) by_others: bool,
}

impl Reconciler<'_> {
    /// Has the token request wait for its turn. Returns for how long it has waited.
    ///
    /// # Errors
    /// [`NotQueued`].
    pub(super) fn enqueue(&mut self, observed: &ObservedState) -> Result<Duration, NotQueued> {
        let authority = &self.references.credential.spec.authority_ref.name;
        let request = observation::request(&self.references, &self.retry_state, observed, &self.context.index);
        let Place { since, blocked } = self.context.authorities.requests.enqueue(authority, self.key, request);
        self.is_blocked = blocked.is_some();
        if let Some(blocked) = blocked {
            let by_others = !matches!(blocked, Blocked::Client(_));
            let failure = messages::blocked(authority, blocked);
            if !self.retry_state.is_reported(&failure, &observed.retry_key) {
                // it must not take a probe while this is reported
                self.context.authorities.requests.leave(self.key);
                return Err(NotQueued { failure, by_others });
            }
            let now = self.context.clock.now();
            self.counts_at = self.retry_state.postponed(observed.left(now), &observed.uid, now);
        }
        self.waits = true;
        Ok(self.context.authorities.requests.waited(since))
    }

    /// A wait that is so long is reported.
    fn reported_after(&self) -> Duration {
        REPORT_AFTER + REPORT_SPREAD.mul_f64(digest::unit_interval(["wait", &self.references.uid]))
    }

    /// Has the report say how a request waits that another reconcile has queued.
    pub(super) fn follow_place(&mut self) {
        let requests = &self.context.authorities.requests;
        let Some(Place { since, blocked }) = requests.place(self.key, &requester(&self.references)) else { return };
        self.is_blocked = blocked.is_some();
        self.waits_long = !self.is_blocked && requests.waited(since) >= self.reported_after();
    }

    /// Reports how the credential stands while it waits, and says when to report again.
    pub(super) async fn await_admission(&mut self, waited: Duration) -> Result<RequeueAfter, CallError> {
        let until_report = self.reported_after().checked_sub(waited).filter(|left| !left.is_zero());
        // behind an open circuit it is the failure that is reported, not the queue
        self.waits_long = until_report.is_none() && !self.is_blocked;
        let until_report = until_report.map(|left| TimeDelta::from_std(left).unwrap_or_default());
        // what waits costs no API call, and of a credential that nothing is known of there is nothing to report yet
        if let Some(left) = until_report.filter(|_| observation::is_new(&self.references, &self.retry_state)) {
            return Ok(requeue(left));
        }
        let until_count = self.counts_at.map(|at| at - self.context.clock.now());
        self.report(None, [until_report, until_count].into_iter().flatten().min()).await
    }
}
