//! One credential: observe, decide and act until there is nothing more to do now; then report and requeue.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use futures::{FutureExt, future::join_all};
use itwin_api::{credential::ITwinServiceCredential, time};
use itwin_core::{
    action::{Action, Fetch, IssueReason},
    decide::decide,
    failure::Failure,
    messages,
    object::ObjectKey,
    observed::{Authority, ObservedState, Target},
    retry_state::RetryState,
    schedule,
    token::Content,
};
use kube::ResourceExt;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    RequeueAfter,
    action_error::ActionError,
    admission::NotQueued,
    attempt::Written,
    context::Context,
    fetched::{self, FetchedSecrets},
    observation,
    reconciler::{AWAIT_AUTHORITY, Attempted, Reconciler, Restarted, requeue},
    references::{References, requester},
    report::RESYNC_UNWATCHED,
};
use crate::{cluster::CallError, observe::index::Known};

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

/// What follows a step.
enum Next {
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
pub async fn reconcile(key: &Arc<ObjectKey>, worker: Option<OwnedSemaphorePermit>, context: &Context) -> RequeueAfter {
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
    worker: Option<OwnedSemaphorePermit>,
    context: &Context,
) -> Result<RequeueAfter, RequeueAfter> {
    let references = References::new(credential);
    let is_going = references.deletion().is_some();
    if is_going {
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
        queue.take_up(&credential.spec.authority_ref.name, key, &requester(&references))
    };
    let mut reconciler = Reconciler {
        references,
        key,
        context,
        retry_state,
        fetched: FetchedSecrets::default(),
        outcome: None,
        slot,
        // what is shown of an attempt that waits stays
        waits: only_reports && !is_going,
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
    if !reconciler.waits && !reconciler.keeps_place && result.is_ok() {
        queue.leave(key);
    }
    // what is due does not wait for a status that cannot be written
    let again = if only_reports {
        Ok(result.unwrap_or_else(|error| {
            tracing::warn!(credential = %key, %error, "a status could not be written");
            let again = context.clock.now() + LATE_RETRY;
            reconciler.retry_state.set_ready_changes_at(Some(again));
            requeue(TimeDelta::zero())
        }))
    } else {
        reconciler.ended(result)
    };
    if let Some(registry) = registry {
        let References { key, uid, .. } = &reconciler.references;
        registry.put_retry_state(key, uid, reconciler.retry_state, incarnation);
    }
    again
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

    async fn run(&mut self, only_reports: bool) -> Result<RequeueAfter, CallError> {
        if self.references.deletion().is_some() {
            return self.report_deletion(only_reports).await;
        }
        if only_reports {
            return self.report_time().await;
        }
        self.retry_state.follow_spec(self.references.credential, self.context.clock.now());
        let waits_unread = self.slot.is_none() && observation::is_new(&self.references, &self.retry_state);
        self.recheck_namespace().await;
        if !self.is_watched() && !waits_unread && self.is_metadata_due() {
            self.fetch_secret_metadata().await;
            self.follow_news();
        }
        for _ in 0..STEPS_MAX {
            let (known, observed) = self.observe_and_remember();
            self.follow_time(&observed);
            let action = decide(&observed, self.context.clock.now());
            match self.step(action, &observed, &known).await? {
                Next::Decide => {}
                Next::Report { next_attempt, wait } => return self.report(next_attempt, wait).await,
                Next::AwaitAdmission { waited } => return self.await_admission(waited).await,
                Next::End { again } => return Ok(again),
            }
        }
        // the Secret is changed as fast as it is reconciled
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

    /// Carries out one action, and says what follows it.
    async fn step(&mut self, action: Action, observed: &ObservedState, known: &Known) -> Result<Next, CallError> {
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
                self.same_token(expires_at);
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
    fn same_token(&mut self, expires_at: DateTime<Utc>) {
        let now = self.context.clock.now();
        tracing::info!(
            credential = %self.references.key,
            expires_at = %time::to_rfc3339(expires_at),
            "the authorization server returned the token that the Secret holds"
        );
        self.retry_state.up_to_date(self.references.renew_annotation().map(String::as_str));
        self.retry_state.settled();
        self.retry_state.renewal_waits(now + schedule::after_same_token(expires_at - now), now);
    }

    /// Nothing is to be done before this renewal; `None` while nothing is to be renewed.
    fn up_to_date(&mut self, renew_at: Option<DateTime<Utc>>, observed: &ObservedState) -> Next {
        self.nothing_left(observed);
        if renew_at.is_some() {
            self.retry_state.up_to_date(self.references.renew_annotation().map(String::as_str));
            // a failure that an earlier process noted may be that of the authority, of which nothing is known yet
            if !matches!(observed.authority, Authority::Pending) {
                self.retry_state.none_due(observed, self.context.clock.now());
            }
        } else {
            self.retry_state.none_attempted();
        }
        Next::Report { next_attempt: renew_at, wait: None }
    }

    /// Has what failed be reported while the next call is in flight.
    pub(super) fn follow_news(&mut self) {
        let observed = self.observe();
        self.follow_time(&observed);
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

    /// Whether the Secrets are to be read where they are not watched: for a request that was admitted, for an attempt that
    /// is due, after an edit of the credential, and now and then. What only waits costs no call. What a watch showed just
    /// before it failed need not be read at once.
    fn is_metadata_due(&self) -> bool {
        let renew_annotation = self.references.renew_annotation().map(String::as_str);
        let now = self.context.clock.now();
        let retries_now = self.retry_state.retries_now(now) && !self.context.authorities.requests.waits(self.key);
        let is_read = self.retry_state.has_metadata(renew_annotation, RESYNC_UNWATCHED, now);
        self.slot.is_some() || retries_now || !(is_read || self.shown_until(now).is_some())
    }

    /// Where Secrets are not watched, reads what a watch would have shown, unless the last reads failed and the next ones
    /// wait.
    async fn fetch_secret_metadata(&mut self) {
        let Context { cluster, index, clock, .. } = self.context;
        let keys = [&self.references.target, &self.references.client].map(Clone::clone);
        let waits = self.retry_state.reads_not_before(clock.now());
        let due = [Fetch::Target, Fetch::Client].into_iter().zip(&keys).filter(|(what, _)| waits.of(*what).is_none());
        // at the same time: where both hang, that is known as soon as of one
        let reads = due.map(async |(what, key)| {
            index.invalidate(key);
            (what, fetched::read_metadata(cluster, index, key).await.map_err(|error| read_failed(key, &error)))
        });
        let results = join_all(reads).await;
        if results.len() == keys.len() && results.iter().all(|(_, result)| result.is_ok()) {
            self.retry_state.metadata_read(self.references.renew_annotation().map(String::as_str), clock.now());
        }
        for (what, result) in results {
            if let Err(failure) = &result {
                tracing::warn!(credential = %self.references.key, "{}", failure.message);
                self.outcome = Some(Attempted::Failed(failure.clone()));
            }
            let left = self.observe().left(clock.now());
            self.retry_state.read(what, result, left, &self.references.uid, clock.now());
        }
    }

    /// Reads what is missing. Where that fails, it is reported, and the next read of its kind waits.
    pub(super) async fn fetch(&mut self, what: Fetch, observed: &ObservedState) {
        let Context { cluster, index, clock, .. } = self.context;
        let (result, key) = match what {
            Fetch::Target if self.is_target_presumed_absent() => {
                self.fetched.target_is_presumed_absent = true;
                (Ok(()), &self.references.target)
            }
            Fetch::Target => {
                (fetched::read_metadata(cluster, index, &self.references.target).await, &self.references.target)
            }
            Fetch::TargetData => (self.read_target().await, &self.references.target),
            Fetch::Client => (self.read_client().await, &self.references.client),
        };
        let (result, now) = (result.map_err(|error| read_failed(key, &error)), clock.now());
        if let Err(failure) = &result {
            tracing::warn!(credential = %self.references.key, "{}", failure.message);
            self.outcome = Some(Attempted::Failed(failure.clone()));
            if observed.is_asked_for(now) {
                self.retry_state.renewal_attempted(self.references.renew_annotation().map(String::as_str));
            }
        }
        self.retry_state.read(what, result, observed.left(now), &self.references.uid, now);
    }

    async fn read_client(&mut self) -> Result<(), CallError> {
        let Context { cluster, index, authorities, .. } = self.context;
        let authority = authorities.get(&self.references.credential.spec.authority_ref.name);
        // without an authority nothing is requested, and the method means nothing
        let method = authority.map(|authority| authority.config.client_authentication).unwrap_or_default();
        let held = (self.fetched.target.as_ref(), method);
        // in this order: an answer of the version that is asked for must not be older than what was known before
        let known = index.read_begins(&self.references.client);
        let known = (known, self.known_of_client());
        let read = fetched::read_client(cluster, index, &self.references, held, known).await?;
        if let Some(read) = read.as_ref().filter(|read| read.same_as_held == Some(true)) {
            self.retry_state.client_verified(read.version.clone());
        }
        if let Some(read) = &read {
            let digest = read.content.is_ok().then(|| read.material.digest(&self.references.uid));
            self.retry_state.client_read(read.version.clone(), digest);
        }
        self.retry_state.client_expiry_read(read.as_ref().and_then(|read| read.material.expires()));
        self.fetched.client_is_missing = read.is_none();
        self.fetched.client = read;
        Ok(())
    }
}

/// A Secret could not be read.
pub(super) fn read_failed(secret: &ObjectKey, error: &CallError) -> Failure {
    messages::secret_read_failed(&secret.to_string(), error, error.why())
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
