//! Carries out one action of a reconcile, and says what follows it.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::time;
use itwin_core::{
    action::{Action, Fetch, IssueReason},
    observed::{Authority, ObservedState, Target},
    schedule,
};

use super::{
    RequeueAfter,
    action_error::ActionError,
    admission::NotQueued,
    reconciler::{AWAIT_AUTHORITY, Attempted, Reconciler, requeue},
    token_write::Written,
};
use crate::{cluster::CallError, observe::index::Known};

/// What follows a step.
pub(super) enum Next {
    /// The state is observed again.
    Decide,
    /// The reconcile ends with a report.
    Report {
        /// The next attempt.
        next_attempt: Option<DateTime<Utc>>,
        /// Another reconcile after this, whatever else is due.
        wait: Option<TimeDelta>,
    },
    /// The reconcile ends without a report.
    End {
        /// When the credential is reconciled again.
        again: RequeueAfter,
    },
    /// The reconcile ends, and the token request waits in the queue.
    AwaitAdmission {
        /// For so long it has waited.
        waited: Duration,
    },
}

impl Next {
    /// The reconcile ends with a report, and the next one comes after this wait.
    fn report_after(wait: Option<TimeDelta>) -> Self {
        Self::Report { next_attempt: None, wait }
    }
}

impl Reconciler<'_> {
    /// Carries out one action, and says what follows it.
    pub(super) async fn step(
        &mut self,
        action: Action,
        observed: &ObservedState,
        known: &Known,
    ) -> Result<Next, CallError> {
        match self.act(action, observed, known).await {
            Ok(next) => Ok(next),
            Err(ActionError::Changed) => {
                self.forget_target();
                Ok(Next::Decide)
            }
            Err(ActionError::Outdated) => Ok(Next::Decide),
            Err(ActionError::Gone) => Ok(Next::End { again: None }),
            Err(ActionError::Superseded) => Ok(Next::End { again: requeue(TimeDelta::zero()) }),
            Err(ActionError::SameToken { expires_at }) => {
                self.same_token(expires_at, observed);
                Ok(Next::Decide)
            }
            Err(ActionError::NotYet(wait)) => Ok(Next::report_after(Some(wait))),
            Err(ActionError::Failed(failure)) => {
                self.failed(observed, failure);
                Ok(Next::Decide)
            }
            Err(ActionError::Call(error)) => Err(error),
        }
    }

    async fn act(&mut self, action: Action, observed: &ObservedState, known: &Known) -> Result<Next, ActionError> {
        let now = self.context.clock.now();
        match action {
            Action::Fetch(what) => self.fetch(what, observed).await,
            Action::RequestToken(issue_reason) => {
                let written = Box::pin(self.request_and_write(issue_reason, observed, known)).await?;
                self.issued(issue_reason, written, observed, known);
            }
            Action::WriteIssuedToken(issue_reason) => {
                let written = self.write_issued(issue_reason, observed, known).await?;
                self.issued(issue_reason, written, observed, known);
            }
            Action::PatchMetadata => self.revert(observed, known).await?,
            Action::Restart { issued_at } => {
                self.restart_workloads(issued_at).await;
                self.follow_news();
                self.record_left(observed, known).await?;
                if self.retry_state.restarts.failure().is_some() {
                    return Ok(self.restarts_failed(observed));
                }
            }
            Action::RecordRestarts { issued_at } => self.record_restarts(issued_at, observed, known).await?,
            Action::Fail(failure) => return Err(failure.into()),
            Action::UpToDate { renew_at } => return Ok(self.up_to_date(renew_at, observed)),
            Action::AwaitBackoff { until } => return Ok(Next::Report { next_attempt: Some(until), wait: None }),
            Action::AwaitBetterToken { until } => {
                self.nothing_left(observed);
                return Ok(Next::Report { next_attempt: Some(until), wait: None });
            }
            Action::AwaitInterval { until } => return Err(ActionError::NotYet(until - now)),
            Action::AwaitAuthority => return Err(ActionError::NotYet(AWAIT_AUTHORITY)),
            Action::AwaitAdmission => match self.enqueue(observed) {
                Ok(waited) => return Ok(Next::AwaitAdmission { waited }),
                // what the Secret holds is found out before a failure is claimed
                Err(_) if matches!(observed.target, Target::Presumed) => self.fetch(Fetch::Target, observed).await,
                Err(NotQueued { failure, by_others }) => {
                    let by_others = by_others && !self.retry_state.is_retrying();
                    self.failed_after(self.retry_state.failures(), observed, failure, by_others);
                }
            },
        }
        Ok(Next::Decide)
    }

    /// Nothing is written, and nothing restarted. A new token is requested in time: the server returns one once this one
    /// has expired, or shortly before.
    fn same_token(&mut self, expires_at: DateTime<Utc>, observed: &ObservedState) {
        let now = self.context.clock.now();
        tracing::info!(
            credential = %self.references.key,
            expires_at = %time::to_rfc3339(expires_at),
            "the authorization server returned the token that the Secret holds"
        );
        self.retry_state.up_to_date(self.references.renew_annotation().map(String::as_str));
        self.retry_state.settled();
        let until = now + schedule::after_same_token(expires_at - now);
        self.retry_state.renewal_waits(until, observed.held(), now);
    }

    /// Nothing is to be done before this renewal; `None` while nothing is to be renewed.
    fn up_to_date(&mut self, renew_at: Option<DateTime<Utc>>, observed: &ObservedState) -> Next {
        self.nothing_left(observed);
        if renew_at.is_some() {
            self.retry_state.up_to_date(self.references.renew_annotation().map(String::as_str));
            // a failure that an earlier process noted may be that of the authority, of which nothing is known yet
            if !matches!(observed.authority, Authority::Pending | Authority::Unanswered { failure: None, .. }) {
                self.retry_state.none_due(observed, self.context.clock.now());
            }
        } else {
            self.retry_state.none_attempted();
        }
        Next::Report { next_attempt: renew_at, wait: None }
    }

    /// Reports that workloads were not restarted. Those that are left have another turn: each try may take long, and there
    /// are others that wait for a worker.
    fn restarts_failed(&mut self, observed: &ObservedState) -> Next {
        // a request that waits is reconciled right after this
        self.keeps_place = true;
        let renew_at = |held| schedule::renew_at(held, &observed.desired.policy, &observed.uid);
        // a better token may be waited for; the report knows a backoff
        let renew_at = observed.held_for_spec().map(renew_at).max(observed.history.renew_not_before);
        let now = self.context.clock.now();
        let is_backing_off = self.retry_state.not_before().is_some_and(|until| until > now);
        Next::Report { next_attempt: renew_at.filter(|_| !is_backing_off), wait: Some(TimeDelta::zero()) }
    }

    /// The Secret was found as it should be: what failed in reading or reverting it is over.
    fn nothing_left(&mut self, observed: &ObservedState) {
        self.retry_state.all_read(observed);
        if !observed.has_drifted() {
            self.retry_state.reverts_mut().all_reverted();
        }
    }

    /// Notes a token that was written.
    fn issued(&mut self, issue_reason: IssueReason, written: Written, observed: &ObservedState, known: &Known) {
        // without a part of the template it is not what the spec asks for
        let refused = self.retry_state.reverts().refused_template().cloned();
        self.outcome = Some(refused.map_or(Attempted::Written(issue_reason), Attempted::Failed));
        if written.is_restored {
            self.reverted(observed, known);
        }
    }
}
