//! The loop over due objects, in paused time: its limits, its order and its shutdown.

use std::sync::{Mutex, PoisonError};

use tokio::task::JoinHandle;

use super::*;

/// Reconciliations that wait for permission to end, and what was observed of them.
struct Reconciles {
    observed: Mutex<Observed>,
    may_end: Semaphore,
    again: RequeueAfter,
}

#[derive(Clone, Default, Debug, PartialEq)]
struct Observed {
    started: Vec<&'static str>,
    running: Vec<&'static str>,
    most_running: usize,
    ended: usize,
}

impl Reconciles {
    fn observed(&self) -> Observed {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn reconcile(self: Arc<Self>, name: &'static str) -> RequeueAfter {
        {
            let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(!observed.running.contains(&name), "{name} is reconciled twice at the same time");
            observed.started.push(name);
            observed.running.push(name);
            observed.most_running = observed.most_running.max(observed.running.len());
        }
        self.may_end.acquire().await.expect("never closed").forget();
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        observed.running.retain(|other| *other != name);
        observed.ended += 1;
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
    let reconciles = Arc::new(Reconciles { observed: Mutex::default(), may_end: Semaphore::new(0), again });
    let (sender, receiver) = queue();
    let stop = watch::Sender::new(false);
    let heartbeat = Heartbeat::new(&Arc::default(), "a loop".to_owned());
    let (all, stopped) = (reconciles.clone(), stop.subscribe());
    let task = tokio::spawn(async move {
        let workers = Arc::new(Semaphore::new(concurrency));
        let shared = workers.clone();
        let reconcile = |name, worker: Option<OwnedSemaphorePermit>| -> BoxFuture<'static, RequeueAfter> {
            let (reconcile, workers) = (all.clone().reconcile(name), shared.clone());
            Box::pin(async move {
                // as for the time of a token request
                let gives_back = name == "gives back";
                let worker = worker.filter(|_| !gives_back);
                let again = reconcile.await;
                let _worker = if gives_back { workers.acquire_owned().await.ok() } else { worker };
                again
            })
        };
        let placement = |name: &&str| Placement { namespace: (*name).to_owned(), goes_first: false };
        let is_overdue = |name: &&str| name.starts_with("late");
        run(receiver, workers, stopped, heartbeat, (placement, is_overdue, |_: bool| {}), reconcile).await;
    });
    Loop { reconciles, queue: sender, stop, task }
}

/// Lets all tasks proceed until they wait; the paused clock advances while all wait.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_limited_and_all_objects_are_reconciled() {
    let it = begin(2, None);
    for name in ["a", "b", "c", "d"] {
        it.queue.send(name).expect("it runs");
    }
    settle().await;
    assert_eq!(it.reconciles.observed().started.len(), 2);
    it.reconciles.may_end.add_permits(4);
    settle().await;
    let mut observed = it.reconciles.observed();
    observed.started.sort_unstable();
    assert_eq!((observed.started, observed.most_running, observed.ended), (vec!["a", "b", "c", "d"], 2, 4));
}

#[tokio::test(start_paused = true)]
async fn status_that_is_overdue_waits_for_no_worker() {
    let it = begin(1, None);
    for name in ["a", "b", "late"] {
        it.queue.send(name).expect("it runs");
        settle().await;
    }
    tokio::time::sleep(LATE * 2).await;
    assert_eq!(it.reconciles.observed().started, ["a", "late"]);
    it.reconciles.may_end.add_permits(3);
    settle().await;
    assert_eq!(it.reconciles.observed().ended, 3);
}

#[tokio::test(start_paused = true)]
async fn object_that_is_enqueued_while_it_is_reconciled_is_reconciled_once_more() {
    let it = begin(8, None);
    it.queue.send("a").expect("it runs");
    settle().await;
    for _ in 0..3 {
        it.queue.send("a").expect("it runs");
    }
    settle().await;
    assert_eq!(it.reconciles.observed().started, ["a"]);
    it.reconciles.may_end.add_permits(8);
    settle().await;
    assert_eq!(it.reconciles.observed().started, ["a", "a"]);
}

#[tokio::test(start_paused = true)]
async fn object_is_requeued_as_requested_and_earlier_by_an_event() {
    let it = begin(8, Some(Duration::from_secs(60)));
    it.reconciles.may_end.add_permits(100);
    it.queue.send("a").expect("it runs");
    settle().await;
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(it.reconciles.observed().ended, 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(it.reconciles.observed().ended, 2);
    it.queue.send("a").expect("it runs");
    settle().await;
    assert_eq!(it.reconciles.observed().ended, 3);
}

#[tokio::test(start_paused = true)]
async fn reconciliations_in_progress_end_after_the_signal_and_no_others_start() {
    let it = begin(1, Some(Duration::ZERO));
    it.queue.send("a").expect("it runs");
    it.queue.send("b").expect("it runs");
    settle().await;
    it.stop.send_replace(true);
    settle().await;
    assert!(!it.task.is_finished(), "it is not aborted");
    it.reconciles.may_end.add_permits(8);
    tokio::time::timeout(Duration::from_secs(1), it.task).await.expect("it ends").expect("no panic");
    assert_eq!(it.reconciles.observed().started.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn reconciliation_that_gave_its_worker_back_gets_one_after_the_signal() {
    let it = begin(1, None);
    for name in ["gives back", "b", "c"] {
        it.queue.send(name).expect("it runs");
        settle().await;
    }
    // the loop waits for a worker for the third
    assert_eq!(it.reconciles.observed().running, ["gives back", "b"]);
    it.stop.send_replace(true);
    it.reconciles.may_end.add_permits(2);
    tokio::time::timeout(Duration::from_secs(1), it.task).await.expect("it ends").expect("no panic");
    let observed = it.reconciles.observed();
    assert_eq!((observed.started.len(), observed.ended), (2, 2));
}
