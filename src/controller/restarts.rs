//! Restarts of workloads that read the token once, and the record of them in the Secret.

use chrono::{DateTime, Utc};
use futures::future::join_all;
use itwin_api::{credential::RolloutRestartTarget, time};
use itwin_core::{
    events::{EventReason, Transition},
    messages_restart::{self, Obstacle},
    observed::ObservedState,
    restart::{Obstructed, Order, Recorded, Restart, Restarts, Wanted},
};
use kube::Resource;

use super::{
    action_error::ActionError,
    context::Context,
    reconciler::{Reconciler, Restarted},
};
use crate::{
    act::{
        rollout::{self, Cause},
        secret_writer::{self, Written},
    },
    cluster::CallError,
    observe::index::Known,
};

/// Workloads that are restarted in one step, at the same time. The schema allows 16, each takes at most 8 s. After a step
/// in which one failed, that is reported and others have their turn.
const AT_ONCE: usize = 4;

impl Reconciler<'_> {
    /// What is to be done about workloads for the token that was observed.
    pub(super) fn observe_restarts(&mut self, observed: &ObservedState) -> Restart {
        let Some(held) = observed.held_for_spec() else { return Restart::Done };
        let known = self.context.index.get(&self.references.target);
        let recorded = match &known {
            Known::Present(secret_metadata) => Recorded {
                restarted_for: secret_metadata.restarted_for,
                targets: secret_metadata.restart_targets.as_deref(),
            },
            Known::Absent | Known::Unknown => Recorded::default(),
        };
        let wanted = Wanted::new(&self.references.credential.spec).within(held.lifetime());
        let now = self.context.clock.monotonic().into_std();
        self.retry_state.restarts.observe(held.issued_at, recorded, &wanted, now)
    }

    /// Notes that a token was written for which workloads will be restarted, unless they were.
    pub(super) fn restarts_follow(&mut self, issued_at: DateTime<Utc>, is_new_token: bool) {
        let clock = &self.context.clock;
        let (now, wanted) = (clock.monotonic().into_std(), Wanted::new(&self.references.credential.spec));
        let restarts = &mut self.retry_state.restarts;
        if is_new_token {
            restarts.written(issued_at, &wanted, (now, clock.now()));
        } else {
            restarts.rewritten(issued_at, &wanted, now);
        }
    }

    /// Restarts the workloads that are due. What fails is reported and tried again later; the token is good.
    pub(super) async fn restart_workloads(&mut self, issued_at: DateTime<Utc>) {
        let Context { cluster, clock, .. } = self.context;
        let restarts = &mut self.retry_state.restarts;
        let cause = Cause {
            namespace: &self.references.key.namespace,
            uid: &self.references.uid,
            issued_at,
            written_at: restarts.written_at().unwrap_or(issued_at),
            now: clock.now(),
        };
        let orders = restarts.orders(clock.monotonic().into_std()).into_iter().take(AT_ONCE);
        let results = join_all(orders.map(async |Order { target, was_missing }| {
            let result = rollout::restart(cluster, &target, was_missing, &cause).await;
            (target, result)
        }));
        let results: Vec<(RolloutRestartTarget, Result<bool, CallError>)> = results.await;
        let restarted = results.iter().filter(|(_, result)| *result == Ok(true));
        self.restarted.names.extend(restarted.map(|(target, _)| messages_restart::name(target)));
        self.restarted.issued_at = Some(issued_at);
        let results = results.into_iter().map(|(target, result)| {
            let result = result.map(drop).map_err(|error| obstructed(&target, &error));
            (target, result)
        });
        restarts.ended(results.collect(), cause.uid, clock.monotonic().into_std());
    }

    /// Publishes what became of workloads.
    pub(super) fn publish_restarts(&mut self) {
        let events = &self.context.events;
        let failed = self.restarted.has_failed(&self.retry_state.restarts);
        let Restarted { names, issued_at: Some(issued_at), .. } = std::mem::take(&mut self.restarted) else { return };
        let about = self.references.credential.object_ref(&());
        if !names.is_empty() {
            let note = format!("{} restarted, for the token of {}", names.join(", "), time::to_rfc3339(issued_at));
            tracing::info!(credential = %self.references.key, "{note}");
            events.publish(about.clone(), Transition::normal(EventReason::RolloutRestarted, note));
        }
        if let Some(failure) = self.retry_state.restarts.failure().filter(|_| failed) {
            tracing::warn!(credential = %self.references.key, "workloads were not restarted: {failure}");
            events.publish(about, Transition::warning(EventReason::RolloutRestarted, failure));
        }
    }

    /// Has the Secret, as it is `known`, record that all workloads were restarted.
    pub(super) async fn record_restarts(
        &mut self,
        issued_at: DateTime<Utc>,
        observed: &ObservedState,
        known: &Known,
    ) -> Result<(), ActionError> {
        let Context { cluster, .. } = self.context;
        let Known::Present(secret_metadata) = known else { return Err(ActionError::Changed) };
        let credential = self.references.credential;
        let result = secret_writer::record_restarts(cluster, credential, secret_metadata, issued_at).await;
        self.recorded(result, observed, Restarts::recorded)
    }

    /// Has the Secret record which workloads are left once none of them can be restarted now: a later process must not
    /// restart the others again, whose annotation others may remove. One that fails is tried again after the next try of a
    /// workload.
    pub(super) async fn record_left(&mut self, observed: &ObservedState, known: &Known) -> Result<(), ActionError> {
        let Context { cluster, clock, .. } = self.context;
        let Some(left) = self.retry_state.restarts.obstructed(clock.monotonic().into_std()) else { return Ok(()) };
        let Known::Present(secret_metadata) = known else { return Err(ActionError::Changed) };
        if secret_metadata.restart_targets.as_deref() == Some(&left) {
            return Ok(());
        }
        let credential = self.references.credential;
        let result = secret_writer::record_left(cluster, credential, secret_metadata, &left).await;
        self.recorded(result, observed, Restarts::narrowed)
    }

    /// Notes how the write of a record ended; `note` is what follows one that succeeded.
    fn recorded(
        &mut self,
        result: Result<Written, CallError>,
        observed: &ObservedState,
        note: impl FnOnce(&mut Restarts),
    ) -> Result<(), ActionError> {
        match result {
            Ok(Written { secret_metadata, type_, token, is_what_we_wrote }) => {
                note(&mut self.retry_state.restarts);
                self.retry_state.target_type_observed(&secret_metadata.version, type_.as_deref());
                if !is_what_we_wrote {
                    let recorded = secret_metadata.token_metadata.as_ref();
                    self.retry_state.target_written_otherwise(token.as_ref(), recorded, observed.is_verified());
                } else if observed.is_verified() {
                    self.retry_state.target_verified(secret_metadata.version.clone());
                }
                self.context.index.observe(&self.references.target, secret_metadata);
                self.fetched.target = None;
            }
            Err(CallError::Conflict | CallError::NotFound) => return Err(ActionError::Changed),
            Err(CallError::NotLeading) => return Err(CallError::NotLeading.into()),
            Err(error) => {
                let message = messages_restart::not_recorded(&self.references.target.to_string(), &error);
                tracing::warn!(credential = %self.references.key, "{message}");
                let now = self.context.clock.monotonic().into_std();
                self.retry_state.restarts.record_failed(message, &self.references.uid, now);
            }
        }
        Ok(())
    }
}

fn obstructed(target: &RolloutRestartTarget, error: &CallError) -> Obstructed {
    let obstacle = match error {
        CallError::NotFound => Obstacle::Missing,
        CallError::NotServed => Obstacle::KindMissing,
        error if let Some(advice) = error.why().admission_advice() => Obstacle::Admission(error, advice),
        CallError::Forbidden(why) => Obstacle::Forbidden(why),
        error => Obstacle::Failed(error),
    };
    let is_missing = *error == CallError::NotFound;
    Obstructed { message: messages_restart::not_restarted(target, obstacle), is_missing }
}
