//! One credential: observe, decide and act until there is nothing more to do now; then report and requeue.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use chrono::TimeDelta;
use futures::FutureExt;
use itwin_api::credential::ITwinServiceCredential;
use itwin_core::{
    action::Action, decide::decide, messages, object::ObjectKey, observed::ObservedState, retry_state::RetryState,
    token::Content,
};
use kube::ResourceExt;

use super::{
    RequeueAfter,
    actions::Next,
    context::Context,
    fetched::FetchedSecrets,
    observation,
    reconciler::{Reconciler, Restarted, requeue},
    references::{References, requester},
};
use crate::{cluster::CallError, observe::index::Known, workers::Worker};

/// Steps of one reconcile: four reads, a token request with its write, and twice again after conflicts.
const STEPS_MAX: usize = 16;
/// One reconcile ends within this, whatever hangs: all its steps with their deadlines, and a token request.
const RECONCILE_DEADLINE: Duration = Duration::from_secs(300);
/// The shortest wait for what is due while calls to the Kubernetes API fail.
const DUE_FLOOR: TimeDelta = TimeDelta::seconds(1);
/// The wait before a status is tried again that could not be written while its credential waited for a worker.
const LATE_RETRY: TimeDelta = TimeDelta::seconds(15);
/// The longest wait after calls to the Kubernetes API that failed.
const API_RETRY_CEILING: TimeDelta = TimeDelta::seconds(30);

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReconcileResult {
    Success,
    /// A call to the Kubernetes API failed.
    ApiError,
    Panic,
    /// It did not end in time.
    Deadline,
}

impl ReconcileResult {
    /// The label of the metric.
    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ApiError => "api_error",
            Self::Panic => "panic",
            Self::Deadline => "deadline",
        }
    }
}

/// Reconciles one credential. Without a worker, it only brings the status up to date with the time. A panic is caught and
/// counted: it neither stops the others nor hides.
pub async fn reconcile(key: &Arc<ObjectKey>, worker: Option<Worker>, context: &Context) -> RequeueAfter {
    // gone since it was enqueued
    let credential = context.namespaces.get(key)?;
    let _under_way = match context.journal.begin(key, credential.uid().as_deref().unwrap_or_default()) {
        Ok(under_way) => under_way,
        Err(wait) => return Some(wait),
    };
    let started = context.clock.monotonic();
    let (result, again) = contained(Box::pin(reconcile_object(&credential, key, worker, context))).await;
    if matches!(result, ReconcileResult::Panic | ReconcileResult::Deadline) {
        tracing::error!(
            namespace = credential.namespace(),
            credential = credential.name_any(),
            "the reconcile of this credential ended with: {}; it is retried in {} s, please report this as a bug",
            result.as_str(),
            API_RETRY_CEILING.num_seconds()
        );
    }
    context.metrics.reconciled(result.as_str(), started.elapsed());
    again
}

/// A reconcile that ends, whatever happens in it, and how: no other one waits for it, nor ends with it.
async fn contained(
    reconcile: impl Future<Output = Result<RequeueAfter, RequeueAfter>>,
) -> (ReconcileResult, RequeueAfter) {
    match tokio::time::timeout(RECONCILE_DEADLINE, AssertUnwindSafe(reconcile).catch_unwind()).await {
        Ok(Ok(Ok(again))) => (ReconcileResult::Success, again),
        Ok(Ok(Err(again))) => (ReconcileResult::ApiError, again),
        Ok(Err(_)) => (ReconcileResult::Panic, requeue(API_RETRY_CEILING)),
        Err(_) => (ReconcileResult::Deadline, requeue(API_RETRY_CEILING)),
    }
}

async fn reconcile_object(
    credential: &ITwinServiceCredential,
    key: &Arc<ObjectKey>,
    worker: Option<Worker>,
    context: &Context,
) -> Result<RequeueAfter, RequeueAfter> {
    let references = References::new(credential);
    if references.deletion().is_some() {
        context.authorities.requests.forget_credential(key);
        let contends = |other: &Arc<ObjectKey>| context.namespaces.contender(other).is_some();
        // another one that is being deleted is blocked by nothing
        context.enqueue_credentials(context.index.blocked_by(&references.key).into_iter().filter(contends).collect());
    }
    let registry = context.namespaces.of(&references.key).map(|watched| &watched.credentials).next();
    let incarnation = registry.map(|registry| registry.incarnation()).unwrap_or_default();
    let retry_state = registry.and_then(|registry| registry.take_retry_state(&references.key, &references.uid));
    let mut retry_state = retry_state.unwrap_or_else(|| Box::new(RetryState::recall(credential, context.clock.now())));
    retry_state.set_unwatched(context.namespaces.unwatched(&references.key));
    let only_reports = worker.is_none();
    let mut reconciler = begin(references, key, context, retry_state, worker);
    let interim = reconciler.interim.clone();
    let result = tokio::select! {
        biased;
        result = reconciler.run(only_reports) => result,
        never = interim.follow(context) => match never {},
    };
    let written = interim.take_written().await;
    reconciler.note_interim(written);
    reconciler.publish_restarts();
    reconciler.report_long_renewal();
    // what failed to be read may still be needed
    if !reconciler.waits && !reconciler.keeps_place && (result.is_ok() || reconciler.is_gone()) {
        context.authorities.requests.leave(key);
    }
    let again = if only_reports { Ok(reconciler.reported(result)) } else { reconciler.ended(result) };
    if let Some(registry) = registry {
        let References { key, uid, .. } = &reconciler.references;
        registry.put_retry_state(key, uid, reconciler.retry_state, incarnation);
    }
    again
}

/// Begins a reconcile with what the queue has for the credential: a token that another one received, and a request slot.
/// One without a worker only reports, and takes neither.
fn begin<'a>(
    references: References<'a>,
    key: &'a Arc<ObjectKey>,
    context: &'a Context,
    mut retry_state: Box<RetryState>,
    worker: Option<Worker>,
) -> Reconciler<'a> {
    let queue = &context.authorities.requests;
    // a token that the Secret holds is not new where another credential received it again: its expiry is known since it
    // was issued
    let is_held =
        |shared: &Content| retry_state.last_held().is_some_and(|last| last.expiry_of(&shared.token).is_some());
    let only_reports = worker.is_none();
    if !only_reports && let Some(shared) = queue.take_shared(key).filter(|shared| !is_held(shared)) {
        retry_state.keep(shared);
    }
    let slot = if only_reports {
        None
    } else {
        queue.take_up(&references.credential.spec.authority_ref.name, key, &requester(&references))
    };
    // what is shown of an attempt that waits stays
    let waits = only_reports && references.deletion().is_none();
    let mut reconciler = Reconciler {
        references,
        key,
        context,
        retry_state,
        fetched: FetchedSecrets::default(),
        outcome: None,
        slot,
        waits,
        waits_long: false,
        is_blocked: false,
        counts_at: None,
        restarted: Restarted::default(),
        interim: Arc::default(),
        before_interim: None,
        keeps_place: false,
        due_at: None,
        worker,
    };
    reconciler.restarted.begin(&reconciler.retry_state.restarts);
    reconciler
}

impl Reconciler<'_> {
    /// When to reconcile again: as the reconcile found, or later each time that calls to the Kubernetes API fail.
    fn ended(&mut self, result: Result<RequeueAfter, CallError>) -> Result<RequeueAfter, RequeueAfter> {
        result.inspect(|_| self.retry_state.api_succeeded()).map_err(|error| {
            let wait = self.retry_state.api_failed(&self.references.uid);
            tracing::warn!(credential = %self.references.key, %error, "a call to the Kubernetes API failed");
            // what is due sooner does not wait for a status that cannot be written
            let due = self.due_at.map(|at| (at - self.context.clock.now()).max(DUE_FLOOR));
            requeue(due.into_iter().fold(wait.min(API_RETRY_CEILING), TimeDelta::min))
        })
    }

    /// The same where it only reported: what is due does not wait for a status that cannot be written.
    fn reported(&mut self, result: Result<RequeueAfter, CallError>) -> RequeueAfter {
        result.unwrap_or_else(|error| {
            tracing::warn!(credential = %self.key, %error, "a status could not be written");
            let again = self.context.clock.now() + LATE_RETRY;
            self.retry_state.set_ready_changes_at(Some(again));
            requeue(TimeDelta::zero())
        })
    }

    async fn run(&mut self, only_reports: bool) -> Result<RequeueAfter, CallError> {
        if self.references.deletion().is_some() {
            return self.report_deletion(only_reports).await;
        }
        if only_reports {
            return self.report_time().await;
        }
        self.retry_state.follow_spec(self.references.credential, self.context.clock.now());
        let waits_unread = self.slot.is_none() && observation::is_new(&self.references, &self.retry_state);
        self.recheck_namespace();
        if !self.is_watched() && !waits_unread && self.is_metadata_due() {
            self.fetch_secret_metadata().await;
            self.follow_news();
        }
        for _ in 0..STEPS_MAX {
            let (known, observed) = self.observe_and_remember();
            self.follow_time(&observed);
            let action = decide(&observed, self.context.clock.now());
            if !matches!(action, Action::Fetch(_) | Action::PatchMetadata | Action::RequestToken(_)) {
                // no request follows: others take their turn while a token at hand is written
                self.slot = None;
            }
            let next = self.step(action, &observed, &known).await;
            if !matches!(next, Ok(Next::Decide)) {
                // nor here, while this is reported: it may be the only probe of an open circuit
                self.slot = None;
            }
            match next? {
                Next::Decide => {}
                Next::Report { next_attempt, wait } => return self.report(next_attempt, wait).await,
                Next::AwaitAdmission { waited } => return self.await_admission(waited).await,
                Next::End { again } => return Ok(again),
            }
        }
        // the Secret is changed as fast as it is reconciled
        self.slot = None;
        let observed = self.observe();
        let failure = messages::secret_changes_constantly(&self.references.target.to_string());
        let wait = self.failed_after(self.retry_state.failures(), &observed, failure.clone(), false);
        // reverts wait too, which no attempt holds up
        self.retry_state.reverts_mut().refused(failure, wait, self.context.clock.now());
        self.report(self.retry_state.not_before(), None).await
    }

    /// The Secret to write as it is known, and the observed state, which is remembered.
    pub(super) fn observe_and_remember(&mut self) -> (Known, ObservedState) {
        // taken before the state is observed: a write is guarded by what was decided on, not by a later watch event
        let known = self.fetched.known_target(&self.context.index, &self.references.target);
        let observed = self.observe();
        let version = match &known {
            Known::Present(secret_metadata) => Some(&secret_metadata.version),
            Known::Absent | Known::Unknown => None,
        };
        self.retry_state.remember_observed(&observed, version);
        if let Known::Present(secret_metadata) = &known
            && observed.is_verified()
        {
            self.retry_state.remember_sealed(secret_metadata.token_metadata.as_ref(), || secret_metadata.sealed());
        }
        (known, observed)
    }

    /// Brings the status of a credential that waits for a worker up to date with the time, once for each change. What the
    /// spec says that no reconcile has read yet is not claimed to be observed.
    async fn report_time(&mut self) -> Result<RequeueAfter, CallError> {
        self.retry_state.set_ready_changes_at(None);
        if self.previous_status().observed_generation != self.references.credential.metadata.generation {
            return Ok(requeue(TimeDelta::zero()));
        }
        self.follow_place();
        self.report(None, Some(TimeDelta::zero())).await
    }

    /// Has what failed be reported while the next call is in flight.
    pub(super) fn follow_news(&mut self) {
        let observed = self.observe();
        self.follow_time(&observed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(clippy::panic, reason = "what is contained here")]
    async fn panic_in_one_reconcile_ends_nothing_else_and_is_reported() {
        let broken = contained(async { panic!("a mistake of ours") });
        let good = contained(async { Ok(requeue(TimeDelta::seconds(1))) });
        let (broken, good) = tokio::join!(broken, good);
        assert_eq!(broken, (ReconcileResult::Panic, requeue(API_RETRY_CEILING)));
        assert_eq!(good, (ReconcileResult::Success, requeue(TimeDelta::seconds(1))));
    }

    #[tokio::test(start_paused = true)]
    async fn reconcile_that_hangs_is_given_up() {
        let (result, action) = contained(std::future::pending()).await;
        assert_eq!((result, action), (ReconcileResult::Deadline, requeue(API_RETRY_CEILING)));
    }
}
