//! The reconcile loops of credentials and authorities: they reconcile a limited number of objects at the same time,
//! each object only once at a time, and requeue it as its reconciliation requests.

use std::{collections::HashSet, hash::Hash, sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use itwin_core::object::ObjectKey;
use kube::runtime::reflector::ObjectRef;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior},
};

use super::{jumps, later::Later, ready::Ready};
use crate::{
    clock::until,
    controller::{RequeueAfter, authority, context::Context, reconcile},
    liveness::Liveness,
    workers::{Worker, Workers},
};

/// The number of authorities that are reconciled at the same time. One that does not answer takes a place for its
/// requestTimeout, and each has at most a document of 256 KiB in memory.
const AUTHORITY_CONCURRENCY: usize = 32;
/// The status of an object that waits for a worker is checked this often: time changes it meanwhile.
const LATE: Duration = Duration::from_secs(1);
/// The number of statuses that are written at the same time for objects that wait for a worker.
const LATE_CONCURRENCY: usize = 64;
/// The shortest wait of an object that asks to be reconciled again: one that always asks for none would let nothing else
/// run, and stop the clock of a simulation.
const SOONEST: Duration = Duration::from_millis(1);
/// The interval of a loop's heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A loop without a heartbeat for this long is stalled.
const LIMIT: Duration = Duration::from_secs(120);

/// A work queue.
pub type Queue<T> = mpsc::UnboundedReceiver<T>;

/// Creates a work queue. It is unbounded, since a watch must never wait for reconciliations. It holds one small
/// reference for each event, and the loop that reads it deduplicates those of one object.
#[expect(clippy::disallowed_methods, reason = "the loop drains it immediately")]
pub fn queue<T>() -> (mpsc::UnboundedSender<T>, Queue<T>) {
    mpsc::unbounded_channel()
}

/// The work queues of all loops.
pub struct Queues {
    /// The work queue of the credentials in all namespaces.
    pub credentials: Queue<Arc<ObjectKey>>,
    /// The work queue of the authorities.
    pub authorities: Queue<String>,
}

/// Starts the loops. When `stop` is set, they finish the reconciliations in progress and end.
pub fn start(context: &Arc<Context>, queues: Queues, stop: &watch::Receiver<bool>) -> JoinSet<&'static str> {
    let mut loops = JoinSet::new();
    let heartbeat = Heartbeat::new(&context.liveness, "the reconcile loop of credentials".to_owned());
    let (all, stopped, workers) = (context.clone(), stop.clone(), context.workers.clone());
    loops.spawn(async move {
        let reconcile = |key, worker| reconcile_credential(key, worker, all.clone());
        let placement = |key: &Arc<ObjectKey>| Placement {
            namespace: key.namespace.clone(),
            goes_first: all.authorities.requests.is_admitted(key),
        };
        let is_overdue = |key: &Arc<ObjectKey>| all.namespaces.is_overdue(key, all.clock.now());
        let awaits = |awaits: bool| all.events.set_workers_awaited(awaits);
        run(queues.credentials, workers, stopped, heartbeat, (placement, is_overdue, awaits), reconcile).await;
        "the reconcile loop of credentials"
    });
    let heartbeat = Heartbeat::new(&context.liveness, "the reconcile loop of authorities".to_owned());
    let (all, stopped) = (context.clone(), stop.clone());
    loops.spawn(async move {
        let reconcile = |name, worker| reconcile_authority(name, worker, all.clone());
        let workers = Arc::new(Workers::new(AUTHORITY_CONCURRENCY));
        // they belong to no tenant, so each of them has a place of its own
        let placement = |name: &String| Placement { namespace: name.clone(), goes_first: false };
        let is_overdue = |_: &String| false;
        // events of first tokens do not wait for these
        let awaits = |_: bool| {};
        run(queues.authorities, workers, stopped, heartbeat, (placement, is_overdue, awaits), reconcile).await;
        "the reconcile loop of authorities"
    });
    let (all, mut stopped) = (context.clone(), stop.clone());
    loops.spawn(async move {
        let jumped = |jump: chrono::TimeDelta| {
            tracing::warn!(seconds = jump.num_seconds(), "the clock was set, or the machine slept: all is reconciled");
            all.namespaces.enqueue_everything();
        };
        tokio::select! {
            biased;
            () = jumps::watch(&all.clock, jumped) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        "the watch of the clock"
    });
    let (all, mut stopped) = (context.clone(), stop.clone());
    loops.spawn(async move {
        tokio::select! {
            biased;
            never = all.follow_labels() => match never {},
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        "the labels of namespaces"
    });
    let (context, mut stop) = (context.clone(), stop.clone());
    loops.spawn(async move {
        let (enqueue, enqueue_users_of) =
            (|key: &ObjectKey| context.namespaces.enqueue(key), |name: &str| context.namespaces.enqueue_users_of(name));
        tokio::select! {
            biased;
            () = context.authorities.requests.dispatch(enqueue, enqueue_users_of) => {}
            _ = stop.wait_for(|stopped| *stopped) => {}
        }
        "the request queue"
    });
    loops
}

/// The heartbeat of one loop.
struct Heartbeat {
    liveness: Arc<Liveness>,
    part: String,
}

impl Heartbeat {
    fn new(liveness: &Arc<Liveness>, part: String) -> Self {
        liveness.expect(&part, LIMIT);
        Self { liveness: liveness.clone(), part }
    }
}

/// The place of an object in the work queue.
struct Placement {
    namespace: String,
    goes_first: bool,
}

/// Reconciles the objects of the queue, and requeues them as requested, until `stop` is set. Then it finishes the
/// reconciliations in progress. Unlike `kube::runtime::applier`, it polls only the reconciliation that can make
/// progress, and stores nothing but `T` for each object. A reconciliation gets one of the `workers` and may release it
/// before it ends. One that waits for a worker while its status `is_overdue` is reconciled without a worker, which only
/// brings the status up to date. `awaits` receives whether one waits.
async fn run<T>(
    mut queue: Queue<T>,
    workers: Arc<Workers>,
    mut stop: watch::Receiver<bool>,
    heartbeat: Heartbeat,
    (placement, is_overdue, awaits): (impl Fn(&T) -> Placement, impl Fn(&T) -> bool, impl Fn(bool)),
    reconcile: impl Fn(T, Option<Worker>) -> BoxFuture<'static, RequeueAfter>,
) where
    T: Clone + Eq + Hash,
{
    let (mut running, mut in_progress) = (FuturesUnordered::new(), HashSet::new());
    // those that were enqueued while they were being reconciled
    let mut repeated = HashSet::new();
    let mut later: Later<T> = Later::default();
    let mut heartbeats = tokio::time::interval(HEARTBEAT);
    let (mut late, mut late_running) = (tokio::time::interval(LATE), 0);
    late.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ready: Ready<T> = Ready::default();
    loop {
        while let Some(object) = later.pop_due(Instant::now()) {
            await_worker(object, &placement, &mut ready, &mut late);
        }
        awaits(!ready.is_empty());
        let next_at = later.next_at();
        // in this order, not by chance: a simulation repeats itself, and no branch is ready without end
        tokio::select! {
            biased;
            _ = stop.wait_for(|stopped| *stopped) => break,
            _ = heartbeats.tick() => heartbeat.liveness.heartbeat(&heartbeat.part),
            Some((object, is_late, wait)) = running.next() => {
                late_running -= usize::from(is_late);
                in_progress.remove(&object);
                if repeated.remove(&object) {
                    await_worker(object, &placement, &mut ready, &mut late);
                } else if let Some(wait) = wait {
                    later.set(object, Instant::now() + SOONEST.max(wait));
                }
            }
            // after those that run: one that gave its worker back holds what it requested, and goes on first
            (object, worker) = next(&mut ready, &workers), if !ready.is_empty() => {
                in_progress.insert(object.clone());
                running.push(reconciled(object.clone(), reconcile(object, Some(worker)), false));
            }
            _ = late.tick(), if !ready.is_empty() => {
                for object in ready.take(LATE_CONCURRENCY.saturating_sub(late_running), &is_overdue) {
                    late_running += 1;
                    in_progress.insert(object.clone());
                    running.push(reconciled(object.clone(), reconcile(object, None), true));
                }
            }
            Some(object) = queue.recv() => {
                if in_progress.contains(&object) {
                    repeated.insert(object);
                } else {
                    later.remove(&object);
                    await_worker(object, &placement, &mut ready, &mut late);
                }
            }
            () = until(next_at) => {}
        }
    }
    while running.next().await.is_some() {}
}

/// The next object with its worker, once one is free that its namespace may take.
async fn next<T: Clone + Eq + Hash>(ready: &mut Ready<T>, workers: &Arc<Workers>) -> (T, Worker) {
    // where none is free, no namespace is asked
    let take = || if workers.free() == 0 { None } else { ready.pop(|namespace| workers.try_take(namespace)) };
    workers.until(take).await
}

/// Has an object wait for a worker.
fn await_worker<T>(object: T, placement: &impl Fn(&T) -> Placement, ready: &mut Ready<T>, late: &mut Interval)
where
    T: Clone + Eq + Hash,
{
    let Placement { namespace, goes_first } = placement(&object);
    if ready.is_empty() {
        late.reset();
    }
    ready.push(object, &namespace, goes_first);
}

async fn reconciled<T>(
    object: T,
    reconcile: BoxFuture<'static, RequeueAfter>,
    is_late: bool,
) -> (T, bool, RequeueAfter) {
    (object, is_late, reconcile.await)
}

fn reconcile_credential(
    key: Arc<ObjectKey>,
    worker: Option<Worker>,
    context: Arc<Context>,
) -> BoxFuture<'static, RequeueAfter> {
    Box::pin(async move { reconcile::reconcile(&key, worker, &context).await })
}

fn reconcile_authority(
    name: String,
    worker: Option<Worker>,
    context: Arc<Context>,
) -> BoxFuture<'static, RequeueAfter> {
    Box::pin(async move {
        let _worker = worker;
        // deleted since it was enqueued
        let authority = context.namespaces.authorities.get(&ObjectRef::new(&name))?;
        authority::reconcile(&authority, &context).await
    })
}

#[cfg(test)]
mod tests;
