//! The loop over due objects, in paused time: its limits, its order and its shutdown.

use std::sync::{Mutex, PoisonError};

use tokio::{sync::Semaphore, task::JoinHandle};

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

/// Of the object `noisy/1`: `noisy`.
fn namespace(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

fn begin(concurrency: usize, again: RequeueAfter) -> Loop {
    let reconciles = Arc::new(Reconciles { observed: Mutex::default(), may_end: Semaphore::new(0), again });
    let (sender, receiver) = queue();
    let stop = watch::Sender::new(false);
    let heartbeat = Heartbeat::new(&Arc::default(), "a loop".to_owned());
    let (all, stopped) = (reconciles.clone(), stop.subscribe());
    let task = tokio::spawn(async move {
        let workers = Arc::new(Workers::new(concurrency));
        let shared = workers.clone();
        let reconcile = |name: &'static str, worker: Option<Worker>| -> BoxFuture<'static, RequeueAfter> {
            let (all, workers) = (all.clone(), shared.clone());
            Box::pin(async move {
                if name.ends_with("requests") {
                    // it gives its worker back for the time of a token request, and writes the token
                    drop(worker);
                    all.clone().reconcile(name).await;
                    let _worker = workers.take(namespace(name)).await;
                    return all.reconcile("writes").await;
                }
                let _worker = worker;
                all.reconcile(name).await
            })
        };
        let placement = |name: &&str| Placement { namespace: namespace(name).to_owned(), goes_first: false };
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
    for name in ["requests", "b", "c"] {
        it.queue.send(name).expect("it runs");
        settle().await;
    }
    // the loop waits for a worker for the third
    assert_eq!(it.reconciles.observed().running, ["requests", "b"]);
    it.stop.send_replace(true);
    it.reconciles.may_end.add_permits(3);
    tokio::time::timeout(Duration::from_secs(1), it.task).await.expect("it ends").expect("no panic");
    let observed = it.reconciles.observed();
    assert_eq!((observed.started, observed.ended), (vec!["requests", "b", "writes"], 3));
}

#[tokio::test(start_paused = true)]
async fn namespace_whose_writes_hang_leaves_a_worker_to_others_and_goes_on_when_one_of_its_own_is_returned() {
    let it = begin(4, None);
    for name in ["noisy/requests", "noisy/1", "noisy/2", "noisy/3", "noisy/4"] {
        it.queue.send(name).expect("it runs");
        settle().await;
    }
    assert_eq!(it.reconciles.observed().running, ["noisy/requests", "noisy/1", "noisy/2", "noisy/3"]);
    // the response arrives, and its write has no worker
    it.reconciles.may_end.add_permits(1);
    settle().await;
    it.queue.send("quiet").expect("it runs");
    settle().await;
    assert_eq!(it.reconciles.observed().running, ["noisy/1", "noisy/2", "noisy/3", "quiet"]);
    // while another namespace holds one, it leaves one more
    it.reconciles.may_end.add_permits(2);
    settle().await;
    assert_eq!(it.reconciles.observed().running, ["noisy/3", "quiet", "writes"], "first what was requested");
    it.reconciles.may_end.add_permits(4);
    settle().await;
    let observed = it.reconciles.observed();
    assert_eq!((observed.started.len(), observed.ended), (7, 7), "{observed:?}");
}
