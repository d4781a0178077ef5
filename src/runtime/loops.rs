//! The loops over credentials and authorities: what is due is looked at, so many at the same time and none twice, and
//! looked at again when its look says so.

use std::{collections::HashSet, future::poll_fn, hash::Hash, pin::pin, sync::Arc, time::Duration};

use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use itwin_core::object::ObjectKey;
use kube::runtime::{
    reflector::ObjectRef,
    scheduler::{ScheduleRequest, scheduler},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::ready::Ready;
use crate::{
    controller::{RequeueAfter, authorities, context::Context, reconcile},
    liveness::Liveness,
};

/// Authorities that are looked at, at the same time.
const AUTHORITY_CONCURRENCY: usize = 8;
/// A loop shows this often that it goes on.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A loop that did not for so long stands still.
const LIMIT: Duration = Duration::from_secs(120);

/// What is to be looked at.
pub type Queue<T> = mpsc::UnboundedReceiver<T>;

/// A queue of objects to look at. Without a bound, since a watch must never wait for the work that it causes; what
/// waits is one small reference for each event, and the scheduler behind it joins those of one object.
#[expect(clippy::disallowed_methods, reason = "the scheduler behind it drains it at once")]
pub fn queue<T>() -> (mpsc::UnboundedSender<T>, Queue<T>) {
    mpsc::unbounded_channel()
}

/// The queues of all loops.
pub struct Queues {
    /// The one of the credentials, whatever namespace they are in.
    pub credentials: Queue<Arc<ObjectKey>>,
    /// The one of the authorities.
    pub authorities: Queue<String>,
}

/// Starts the loops. They end with `stop`, and finish what they are doing.
pub fn start(context: &Arc<Context>, queues: Queues, stop: &watch::Receiver<bool>) -> JoinSet<&'static str> {
    let mut loops = JoinSet::new();
    let heartbeat = Heartbeat::new(&context.liveness, "the loop over credentials".to_owned());
    let (all, stopped, workers) = (context.clone(), stop.clone(), context.workers.clone());
    loops.spawn(async move {
        let reconcile = |key, worker| reconcile_credential(key, worker, all.clone());
        let turn = |key: &Arc<ObjectKey>| Turn {
            namespace: key.namespace.clone(),
            goes_first: all.authorities.requests.is_admitted(key),
        };
        run(queues.credentials, workers, stopped, heartbeat, turn, reconcile).await;
        "the loop over credentials"
    });
    let heartbeat = Heartbeat::new(&context.liveness, "the loop over authorities".to_owned());
    let (all, stopped) = (context.clone(), stop.clone());
    loops.spawn(async move {
        let reconcile = |name, worker| reconcile_authority(name, worker, all.clone());
        let workers = Arc::new(Semaphore::new(AUTHORITY_CONCURRENCY));
        let turn = |_: &String| Turn { namespace: String::new(), goes_first: false };
        run(queues.authorities, workers, stopped, heartbeat, turn, reconcile).await;
        "the loop over authorities"
    });
    let (context, mut stop) = (context.clone(), stop.clone());
    loops.spawn(async move {
        let (enqueue, enqueue_users_of) =
            (|key: &ObjectKey| context.namespaces.enqueue(key), |name: &str| context.namespaces.enqueue_users_of(name));
        tokio::select! {
            () = context.authorities.requests.dispatch(enqueue, enqueue_users_of) => {}
            _ = stop.wait_for(|stopped| *stopped) => {}
        }
        "the queue of token requests"
    });
    loops
}

/// The signs of life of one loop.
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

/// When an object has its turn among all that are due.
struct Turn {
    namespace: String,
    goes_first: bool,
}

/// Looks at what comes out of the queue, and again when the look said so, until the signal comes: then it finishes what
/// it is doing. Unlike `kube::runtime::applier`, it wakes only the look that has something to do, and keeps of each
/// object what `T` is and nothing else. A look gets one of the `workers`, and may give it back before it ends.
async fn run<T>(
    queue: Queue<T>,
    workers: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
    heartbeat: Heartbeat,
    turn: impl Fn(&T) -> Turn,
    reconcile: impl Fn(T, OwnedSemaphorePermit) -> BoxFuture<'static, RequeueAfter>,
) where
    T: Clone + Eq + Hash,
{
    let (again, due_again) = self::queue();
    let now = |message| ScheduleRequest { message, run_at: Instant::now() };
    let mut scheduled = pin!(scheduler(stream::select(received(queue).map(now), received(due_again))));
    let (mut running, mut busy) = (FuturesUnordered::new(), HashSet::new());
    let mut signs = tokio::time::interval(HEARTBEAT);
    let mut ready: Ready<T> = Ready::default();
    // at most one, with its place among those that wait for a worker
    let mut hiring = FuturesUnordered::new();
    loop {
        if !ready.is_empty() && hiring.is_empty() {
            hiring.push(workers.clone().acquire_owned());
        }
        // what is worked on is due again only afterwards
        let next =
            poll_fn(|context| scheduled.as_mut().hold_unless(|object| !busy.contains(object)).poll_next_unpin(context));
        tokio::select! {
            _ = stop.wait_for(|stopped| *stopped) => break,
            _ = signs.tick() => heartbeat.liveness.heartbeat(&heartbeat.part),
            Some((object, wait)) = running.next() => {
                busy.remove(&object);
                if let Some(wait) = wait {
                    // the receiver lives as long as this loop
                    let _ = again.send(ScheduleRequest { message: object, run_at: Instant::now() + wait });
                }
            }
            Some(Ok(permit)) = hiring.next() => {
                let Some(object) = ready.pop() else { continue };
                busy.insert(object.clone());
                let reconcile = reconcile(object.clone(), permit);
                running.push(async move { (object, reconcile.await) });
            }
            Some(object) = next => {
                let Turn { namespace, goes_first } = turn(&object);
                ready.push(object, &namespace, goes_first);
            }
        }
    }
    while running.next().await.is_some() {}
}

fn received<T>(queue: Queue<T>) -> impl futures::Stream<Item = T> {
    stream::unfold(queue, async |mut queue| queue.recv().await.map(|object| (object, queue)))
}

fn reconcile_credential(
    key: Arc<ObjectKey>,
    worker: OwnedSemaphorePermit,
    context: Arc<Context>,
) -> BoxFuture<'static, RequeueAfter> {
    Box::pin(async move { reconcile::reconcile(&key, worker, &context).await })
}

fn reconcile_authority(
    name: String,
    worker: OwnedSemaphorePermit,
    context: Arc<Context>,
) -> BoxFuture<'static, RequeueAfter> {
    Box::pin(async move {
        let _worker = worker;
        // gone since it was woken
        let authority = context.namespaces.authorities.get(&ObjectRef::new(&name))?;
        authorities::reconcile(&authority, &context.authorities, &context.cluster, &context.namespaces).await
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use tokio::task::JoinHandle;

    use super::*;

    /// Looks that wait until they are let go, and what was seen of them.
    struct Reconciles {
        seen: Mutex<Seen>,
        may_end: Semaphore,
        again: RequeueAfter,
    }

    #[derive(Clone, Default, Debug, PartialEq)]
    struct Seen {
        begun: Vec<&'static str>,
        running: Vec<&'static str>,
        most_at_once: usize,
        ended: usize,
    }

    impl Reconciles {
        fn seen(&self) -> Seen {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }

        async fn reconcile(self: Arc<Self>, name: &'static str) -> RequeueAfter {
            {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                assert!(!seen.running.contains(&name), "{name} is looked at twice at the same time");
                seen.begun.push(name);
                seen.running.push(name);
                seen.most_at_once = seen.most_at_once.max(seen.running.len());
            }
            self.may_end.acquire().await.expect("never closed").forget();
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.running.retain(|other| *other != name);
            seen.ended += 1;
            self.again
        }
    }

    struct Loop {
        reconciles: Arc<Reconciles>,
        queue: mpsc::UnboundedSender<&'static str>,
        stop: watch::Sender<bool>,
        task: JoinHandle<()>,
    }

    fn begin(concurrency: usize, again: RequeueAfter) -> Loop {
        let reconciles = Arc::new(Reconciles { seen: Mutex::default(), may_end: Semaphore::new(0), again });
        let (sender, receiver) = queue();
        let stop = watch::Sender::new(false);
        let heartbeat = Heartbeat::new(&Arc::default(), "a loop".to_owned());
        let (all, stopped) = (reconciles.clone(), stop.subscribe());
        let task = tokio::spawn(async move {
            let workers = Arc::new(Semaphore::new(concurrency));
            let reconcile = |name, worker| -> BoxFuture<'static, RequeueAfter> {
                let reconcile = all.clone().reconcile(name);
                Box::pin(async move {
                    let _worker = worker;
                    reconcile.await
                })
            };
            let turn = |name: &&str| Turn { namespace: (*name).to_owned(), goes_first: false };
            run(receiver, workers, stopped, heartbeat, turn, reconcile).await;
        });
        Loop { reconciles, queue: sender, stop, task }
    }

    /// Lets everything happen that needs no more than a moment; the clock is paused, and moves while all wait.
    async fn settle() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_at_the_same_time_and_all_in_the_end() {
        let it = begin(2, None);
        for name in ["a", "b", "c", "d"] {
            it.queue.send(name).expect("it runs");
        }
        settle().await;
        assert_eq!(it.reconciles.seen().begun.len(), 2);
        it.reconciles.may_end.add_permits(4);
        settle().await;
        let mut seen = it.reconciles.seen();
        seen.begun.sort_unstable();
        assert_eq!((seen.begun, seen.most_at_once, seen.ended), (vec!["a", "b", "c", "d"], 2, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_enqueued_while_it_is_reconciled_is_reconciled_once_more() {
        let it = begin(8, None);
        it.queue.send("a").expect("it runs");
        settle().await;
        for _ in 0..3 {
            it.queue.send("a").expect("it runs");
        }
        settle().await;
        assert_eq!(it.reconciles.seen().begun, ["a"]);
        it.reconciles.may_end.add_permits(8);
        settle().await;
        assert_eq!(it.reconciles.seen().begun, ["a", "a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn reconcile_sets_the_next_one_and_an_event_comes_before() {
        let it = begin(8, Some(Duration::from_secs(60)));
        it.reconciles.may_end.add_permits(100);
        it.queue.send("a").expect("it runs");
        settle().await;
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_eq!(it.reconciles.seen().ended, 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(it.reconciles.seen().ended, 2);
        it.queue.send("a").expect("it runs");
        settle().await;
        assert_eq!(it.reconciles.seen().ended, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn signal_lets_what_is_begun_end_and_nothing_begin() {
        let it = begin(1, Some(Duration::ZERO));
        it.queue.send("a").expect("it runs");
        it.queue.send("b").expect("it runs");
        settle().await;
        it.stop.send_replace(true);
        settle().await;
        assert!(!it.task.is_finished(), "it is not broken off");
        it.reconciles.may_end.add_permits(8);
        tokio::time::timeout(Duration::from_secs(1), it.task).await.expect("it ends").expect("no panic");
        assert_eq!(it.reconciles.seen().begun.len(), 1);
    }
}
