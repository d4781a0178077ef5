//! One credential: observe, decide, act, until there is nothing more to do now; then report, and say when to look
//! again.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use futures::FutureExt;
use kube::ResourceExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    RequeueAfter,
    attempt::Minted,
    authorities::Authorities,
    gather::{self, Sources, Subject},
    memory::Memory,
    others::Registered,
    reading::{self, Reading},
    requests::Slot,
    scopes::Scopes,
    turn::Vain,
    unreadable::Unreadable,
};
use crate::{
    api::{conditions::Reason, credential::ITwinServiceCredential},
    clock,
    cluster::{CallError, Cluster},
    decide::{
        backoff,
        facts::{Client, Facts, Refusal},
        next,
        plan::{Inspect, Need, Plan},
    },
    journal::Journal,
    metrics::Metrics,
    observe::index::{Key, SecretIndex},
    progress::Progress,
    report::publisher::Events,
};

/// Steps of one look at a credential: reading three Secrets, asking, writing, and twice again after conflicts.
const STEPS_MAX: usize = 12;
/// Wait for an authority that was not looked at yet; its first answer wakes the credential before that.
pub(super) const AWAIT_AUTHORITY: TimeDelta = TimeDelta::seconds(5);
/// Never look again sooner than this: a bound on what any mistake in the schedule can cost.
const LOOK_AGAIN_FLOOR: TimeDelta = TimeDelta::milliseconds(10);
/// One look ends within this, whatever hangs: all its steps with their deadlines, and a token request.
const LOOK_DEADLINE: Duration = Duration::from_secs(180);
/// The longest wait after calls to the Kubernetes API that failed.
const API_RETRY_CEILING: TimeDelta = TimeDelta::seconds(30);

/// What every reconcile shares.
pub struct Context {
    /// The Kubernetes API.
    pub cluster: Cluster,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The authorities.
    pub authorities: Authorities,
    /// The Secrets that somebody cares for.
    pub index: SecretIndex,
    /// The publisher of events.
    pub events: Events,
    /// The namespaces we act in.
    pub scopes: Scopes,
    /// Objects that this version cannot understand.
    pub unreadable: Unreadable,
    /// What must go on, for the liveness probe.
    pub progress: Arc<Progress>,
    /// What is being reconciled, for the process after a crash.
    pub journal: Journal,
    /// A watch keeps the index up to date.
    pub watch_secrets: bool,
    /// The workers of the process. A reconcile holds one, except while a token request is under way.
    pub workers: Arc<Semaphore>,
}

impl Context {
    /// A worker, once one is free.
    pub(super) async fn worker(&self) -> Option<OwnedSemaphorePermit> {
        // it is never closed
        self.workers.clone().acquire_owned().await.ok()
    }

    /// Has these credentials reconciled soon: another one may be out of their way.
    pub fn wake_all_of(&self, credentials: Vec<Arc<Key>>) {
        for credential in &credentials {
            self.scopes.wake(credential);
        }
    }
}

/// Looks at one credential. A panic is caught and counted: it neither stops the others nor hides.
pub async fn reconcile(key: &Arc<Key>, worker: OwnedSemaphorePermit, context: &Context) -> RequeueAfter {
    // gone since it was woken
    let credential = context.scopes.get(key)?;
    let _under_way = match context.journal.begin(key, credential.uid().as_deref().unwrap_or_default()) {
        Ok(under_way) => under_way,
        Err(wait) => return Some(wait),
    };
    let started = Instant::now();
    let (result, again) = contained(Box::pin(look(&credential, key, worker, context))).await;
    if matches!(result, "panic" | "deadline") {
        tracing::error!(
            namespace = credential.namespace(),
            credential = credential.name_any(),
            "a look at this credential ended with: {result}; it is looked at again in {} s, please report this as a bug",
            API_RETRY_CEILING.num_seconds()
        );
    }
    context.metrics.reconciled(result, started.elapsed());
    again
}

/// A look that ends, whatever happens in it, and how: nobody else waits for it, nor ends with it.
async fn contained(look: impl Future<Output = Result<RequeueAfter, RequeueAfter>>) -> (&'static str, RequeueAfter) {
    match tokio::time::timeout(LOOK_DEADLINE, AssertUnwindSafe(look).catch_unwind()).await {
        Ok(Ok(Ok(again))) => ("success", again),
        Ok(Ok(Err(again))) => ("api_error", again),
        Ok(Err(_)) => ("panic", requeue(API_RETRY_CEILING)),
        Err(_) => ("deadline", requeue(API_RETRY_CEILING)),
    }
}

pub(super) fn requeue(wait: TimeDelta) -> RequeueAfter {
    Some(wait.max(LOOK_AGAIN_FLOOR).to_std().unwrap_or_default())
}

async fn look(
    credential: &ITwinServiceCredential,
    key: &Arc<Key>,
    worker: OwnedSemaphorePermit,
    context: &Context,
) -> Result<RequeueAfter, RequeueAfter> {
    let subject = Subject::new(credential);
    if credential.metadata.deletion_timestamp.is_some() {
        context.authorities.requests.forget_credential(key);
        context.wake_all_of(context.index.in_the_way_of(&subject.key));
        return Ok(None);
    }
    let registry = context.scopes.of(&subject.key).map(|scope| &scope.credentials).next();
    let memory = registry.and_then(|registry| registry.take_memory(&subject.key, &subject.uid));
    let mut memory = memory.unwrap_or_else(|| Box::new(Memory::recall(credential, clock::now())));
    let queue = &context.authorities.requests;
    if let Some(shared) = queue.take_shared(key) {
        memory.unwritten = Some(shared);
    }
    let slot = queue.take_up(&credential.spec.authority_ref.name, key, &gather::requester(&subject));
    let mut visit = Visit {
        subject,
        key,
        context,
        memory,
        reading: Reading::default(),
        outcome: None,
        slot,
        waits: false,
        waits_long: false,
        is_blocked: false,
        worker: Some(worker),
    };
    let result = visit.run().await;
    // what failed to be read may still be needed
    if !visit.waits && result.is_ok() {
        queue.leave(key);
    }
    let again = match result {
        Ok(again) => {
            visit.memory.api_failures = 0;
            Ok(again)
        }
        Err(error) => {
            visit.memory.api_failures += 1;
            let wait = backoff::delay(
                visit.memory.api_failures,
                TimeDelta::zero(),
                Reason::ServerError,
                None,
                &visit.subject.uid,
            );
            tracing::warn!(credential = %visit.subject.key, %error, "a call to the Kubernetes API failed");
            Err(requeue(wait.min(API_RETRY_CEILING)))
        }
    };
    if let Some(registry) = registry {
        registry.put_memory(&visit.subject.key, &visit.subject.uid, visit.memory);
    }
    again
}

/// One look at one credential.
pub(super) struct Visit<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) key: &'a Arc<Key>,
    pub(super) context: &'a Context,
    pub(super) memory: Box<Memory>,
    pub(super) reading: Reading,
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

pub(super) enum Attempted {
    Written(Need),
    Failed(Refusal),
}

impl Visit<'_> {
    async fn run(&mut self) -> Result<RequeueAfter, CallError> {
        self.report_long_renewal().await;
        let waits_unread = self.slot.is_none() && gather::is_new(&self.subject, &self.memory);
        if !self.context.watch_secrets && !waits_unread {
            self.look_at_secrets().await?;
        }
        for _ in 0..STEPS_MAX {
            // taken before the facts: a write is guarded by what was decided on, not by what a watch told meanwhile
            let known = self.context.index.get(&self.subject.target);
            let (facts, inputs) = self.facts();
            match next::next(&facts, clock::now()) {
                Plan::Inspect(what) => {
                    if let Err(refusal) = self.inspect(what, &facts).await? {
                        self.failed(&facts, inputs, refusal.into());
                        return self.report(None, None).await;
                    }
                }
                Plan::Mint(need) => match Box::pin(self.mint(need, &facts, &known)).await? {
                    Minted::Written { is_restored } => {
                        self.outcome = Some(Attempted::Written(need));
                        if is_restored {
                            self.reverted(&facts, inputs, &known);
                        }
                    }
                    Minted::Again => self.forget_target(),
                    Minted::NotAdmitted => {}
                    Minted::NotYet(wait) => return self.report(None, Some(wait)).await,
                    Minted::Failed(failure) => self.failed(&facts, inputs, failure),
                },
                Plan::Repair => match self.repair(&known).await? {
                    Ok(true) => self.reverted(&facts, inputs, &known),
                    Ok(false) => {}
                    Err(refusal) => self.failed(&facts, inputs, refusal.into()),
                },
                Plan::Restart { issued_at } => self.restart_workloads(issued_at).await,
                Plan::Refuse(refusal) => self.failed(&facts, inputs, refusal.into()),
                Plan::Keep { renew_at } => {
                    if renew_at.is_some() {
                        // It was written after all, or another was: a later need is not met with an old token.
                        self.memory.unwritten = None;
                        self.memory.unfulfilled_request = None;
                        if let Some(request) = self.subject.renew_annotation() {
                            self.memory.attempts.renew_request = Some(request.clone());
                        }
                    }
                    let now = clock::now();
                    let conflict = self.memory.reverts.conflict_until(now);
                    if renew_at.is_some() && conflict.is_none() {
                        self.nothing_is_wrong();
                    }
                    return self.report(renew_at, conflict.map(|until| until - now)).await;
                }
                Plan::BackOff { until } => return self.report(Some(until), None).await,
                Plan::AwaitAdmission => match self.enqueue(&facts, inputs) {
                    Ok(waited) => return self.await_admission(waited).await,
                    Err(Vain::Invalid(refusal)) => self.failed(&facts, inputs, refusal.into()),
                    Err(Vain::Blocked { refusal, by_others }) => {
                        let had_failed = self.memory.attempts.failures > 0 && !self.memory.failed_by_others;
                        self.failed(&facts, inputs, refusal.into());
                        self.memory.failed_by_others = by_others && !had_failed;
                    }
                },
                Plan::AwaitAuthority => return self.report(None, Some(AWAIT_AUTHORITY)).await,
            }
        }
        // somebody changes the Secret as fast as we look at it
        let (facts, inputs) = self.facts();
        let message = format!(
            "Secret {} is changed again and again by somebody else: look at its metadata.managedFields",
            self.subject.target
        );
        self.failed(&facts, inputs, Refusal::new(Reason::SecretConflict, message).into());
        self.report(self.memory.not_before, None).await
    }

    pub(super) fn facts(&self) -> (Facts, u32) {
        let Context { index, scopes, authorities, .. } = self.context;
        let others = &Registered { index, scopes };
        let sources = Sources { index, others, authorities, is_admitted: self.slot.is_some() };
        gather::facts(&self.subject, &self.memory, &self.reading, &sources, clock::now())
    }

    async fn look_at_secrets(&self) -> Result<(), CallError> {
        let Context { cluster, index, .. } = self.context;
        index.doubt(&self.subject.target);
        index.doubt(&self.subject.client);
        reading::read_metadata(cluster, index, &self.subject.target).await?;
        reading::read_metadata(cluster, index, &self.subject.client).await
    }

    pub(super) fn forget_target(&mut self) {
        self.context.index.doubt(&self.subject.target);
        // whether the client is the same was told of the token that was there
        self.reading = Reading::default();
    }

    /// Reads what is missing. Being forbidden to read is told like any other refusal; other errors are the caller's.
    async fn inspect(&mut self, what: Inspect, facts: &Facts) -> Result<Result<(), Refusal>, CallError> {
        let Context { cluster, index, .. } = self.context;
        let (result, key, reason) = match what {
            Inspect::Target => {
                let result = reading::read_metadata(cluster, index, &self.subject.target).await;
                (result, &self.subject.target, Reason::SecretWriteFailed)
            }
            Inspect::TargetData => (self.read_target().await, &self.subject.target, Reason::SecretWriteFailed),
            Inspect::Client => (self.read_client(facts).await, &self.subject.client, Reason::ClientCredentialsNotFound),
        };
        match result {
            Err(CallError::Forbidden(why)) => Ok(Err(Refusal::new(
                reason,
                format!(
                    "Secret {key} may not be read ({why}): allow the operator's service account to get Secrets in this namespace"
                ),
            ))),
            other => other.map(Ok),
        }
    }

    pub(super) async fn read_target(&mut self) -> Result<(), CallError> {
        let read = reading::read_target(&self.context.cluster, &self.context.index, &self.subject).await?;
        if let Some(read) = read.as_ref().filter(|read| read.is_ours) {
            self.memory.proven_target = Some(read.version.clone());
        }
        self.reading.target = read;
        Ok(())
    }

    async fn read_client(&mut self, facts: &Facts) -> Result<(), CallError> {
        // with what the held token was asked for stands in it, and matters only where the client may have changed
        let may_differ = facts.held_for_spec().is_some_and(|held| match &facts.client {
            Client::Unread { version: Some(version) } => *version != held.client_version,
            _ => false,
        });
        if may_differ && self.reading.target.is_none() {
            self.read_target().await?;
        }
        let Context { cluster, index, authorities, .. } = self.context;
        let authority = authorities.get(&self.subject.credential.spec.authority_ref.name);
        // without an authority nothing is asked, and the method means nothing
        let method = authority.map(|authority| authority.config.client_authentication).unwrap_or_default();
        let read = reading::read_client(cluster, index, &self.subject, self.reading.target.as_ref(), method).await?;
        if let Some(read) = read.as_ref().filter(|read| read.same_as_held == Some(true)) {
            self.memory.proven_client = Some(read.version.clone());
        }
        self.reading.client_is_missing = read.is_none();
        self.reading.client = read;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(clippy::panic, reason = "what is contained here")]
    async fn panic_in_one_look_ends_nothing_else_and_is_told() {
        let broken = contained(async { panic!("a mistake of ours") });
        let good = contained(async { Ok(requeue(TimeDelta::seconds(1))) });
        let (broken, good) = tokio::join!(broken, good);
        assert_eq!(broken, ("panic", requeue(API_RETRY_CEILING)));
        assert_eq!(good, ("success", requeue(TimeDelta::seconds(1))));
    }

    #[tokio::test(start_paused = true)]
    async fn look_that_hangs_is_given_up() {
        let (result, action) = contained(std::future::pending()).await;
        assert_eq!((result, action), ("deadline", requeue(API_RETRY_CEILING)));
    }
}
