//! The labels of the namespaces that an authority does not allow, which are read again every few seconds until they
//! change: one read for a namespace, however many of its credentials wait for that, and few at a time.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use tokio::{sync::Notify, time::Instant};

use crate::{
    clock::{Clock, until},
    cluster::{CallError, Cluster, Step, identified},
};

/// The labels of a namespace are read again after this.
const AGAIN: Duration = Duration::from_millis(2500);
/// At most 20 namespaces a second are read, however many are not allowed.
const INTERVAL: Duration = Duration::from_millis(50);
/// Reads at the same time: one that hangs does not hold up the others.
const AT_ONCE: usize = 8;
/// A namespace is read for this long after a credential was found to wait for it. Each that waits is reconciled within
/// ten minutes.
const AWAITED: Duration = Duration::from_secs(15 * 60);
/// The same after the labels changed: each that goes on waiting was reconciled by then.
const AWAITED_AFTER_CHANGE: Duration = Duration::from_secs(60);
/// Labels that were read longer ago than this are not used: the reads fail.
const USED: Duration = Duration::from_secs(15);

/// Labels of a namespace.
pub(super) type Labels = Arc<BTreeMap<String, String>>;

/// The namespaces whose labels are read.
#[derive(Default)]
pub struct NamespaceLabels {
    state: Mutex<State>,
    added: Notify,
}

#[derive(Default)]
struct State {
    /// One for each namespace with a credential that is not allowed.
    awaited: HashMap<Arc<str>, Awaited>,
    last_read: Option<Instant>,
}

struct Awaited {
    /// What was read last.
    labels: Option<Labels>,
    /// When that was; `None` if a read failed since, or an attempt that they allow.
    read_at: Option<Instant>,
    /// Whether the next labels are news also if they are the same, since something failed because they were not read.
    is_awaited_again: bool,
    /// When it is read next; `None` while it is.
    due: Option<Instant>,
    until: Instant,
}

/// Reads the labels of a namespace.
///
/// # Errors
/// Those of the call.
pub(super) async fn read(cluster: &Cluster, namespace: &str) -> Result<BTreeMap<String, String>, CallError> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let read = async { identified(api.get_metadata(namespace).await?, |found| &found.metadata, None, namespace) };
    Ok(cluster.call(Step::GetNamespace, read).await?.metadata.labels.unwrap_or_default())
}

impl NamespaceLabels {
    /// A credential of this namespace waits for other labels of it.
    pub(super) fn expect(&self, namespace: &str, now: Instant) {
        let until = now + AWAITED;
        let mut state = self.state();
        if let Some(awaited) = state.awaited.get_mut(namespace) {
            awaited.until = until;
            return;
        }
        let (labels, read_at, due) = (None, None, Some(now + AGAIN));
        state.awaited.insert(namespace.into(), Awaited { labels, read_at, is_awaited_again: false, due, until });
        drop(state);
        self.added.notify_one();
    }

    /// The labels of a namespace, if they were just read, and neither a read nor an attempt failed since.
    pub(super) fn known(&self, namespace: &str, now: Instant) -> Option<Labels> {
        let state = self.state();
        let awaited = state.awaited.get(namespace)?;
        let read_at = awaited.read_at?;
        let is_used = now.saturating_duration_since(read_at) < USED;
        awaited.labels.as_ref().filter(|_| is_used).cloned()
    }

    /// An attempt that read the labels itself, from `began`, failed for them, although those that are known allow it. If
    /// those were read before, they would have it made again without its backoff, and are not used any more. The next
    /// ones are news.
    pub(super) fn attempt_failed(&self, namespace: &str, began: Instant) {
        let mut state = self.state();
        let Some(awaited) = state.awaited.get_mut(namespace) else { return };
        if awaited.read_at.is_some_and(|read_at| read_at <= began) {
            (awaited.read_at, awaited.is_awaited_again) = (None, true);
        }
    }

    /// Reads labels with `read` for as long as the process leads. `changed` receives each namespace whose labels are other
    /// ones than before, or are known for the first time, or again after a failure.
    pub(super) async fn follow<R: Future<Output = Option<Labels>>>(
        &self,
        clock: &Clock,
        read: impl Fn(Arc<str>) -> R,
        changed: impl Fn(&str),
    ) -> Infallible {
        let mut reads = FuturesUnordered::new();
        loop {
            let next = if reads.len() < AT_ONCE { self.next(clock.monotonic()) } else { Err(None) };
            let again = match next {
                Ok(namespace) => {
                    let labels = read(namespace.clone());
                    reads.push(async move { (labels.await, namespace) });
                    continue;
                }
                Err(again) => again,
            };
            tokio::select! {
                biased;
                Some((labels, namespace)) = reads.next() => {
                    if self.ended(&namespace, labels, clock.monotonic()) {
                        changed(&namespace);
                    }
                }
                () = self.added.notified() => {}
                () = until(again) => {}
            }
        }
    }

    /// Begins the next read, or says when one is to begin if none is added.
    fn next(&self, now: Instant) -> Result<Arc<str>, Option<Instant>> {
        let mut state = self.state();
        state.awaited.retain(|_, awaited| awaited.until > now || awaited.due.is_none());
        let waiting = state.awaited.iter().filter_map(|(namespace, awaited)| Some((awaited.due?, namespace)));
        let first = waiting.min().map(|(due, namespace)| (due, namespace.clone()));
        let Some((due, namespace)) = first else { return Err(None) };
        let at = state.last_read.map_or(due, |last| due.max(last + INTERVAL));
        if at > now {
            return Err(Some(at));
        }
        state.last_read = Some(now);
        if let Some(awaited) = state.awaited.get_mut(&namespace) {
            awaited.due = None;
        }
        Ok(namespace)
    }

    /// A read ended, without labels if it failed. Returns whether attempts may fail for them no longer: they are other
    /// ones than before, or could not be read before.
    fn ended(&self, namespace: &str, labels: Option<Labels>, now: Instant) -> bool {
        let mut state = self.state();
        let Some(awaited) = state.awaited.get_mut(namespace) else { return false };
        awaited.due = Some(now + AGAIN);
        awaited.read_at = labels.is_some().then_some(now);
        let is_again = std::mem::replace(&mut awaited.is_awaited_again, labels.is_none());
        let Some(labels) = labels else { return false };
        let before = awaited.labels.replace(labels.clone());
        let is_other = before.as_ref().is_some_and(|before| *before != labels);
        if is_other {
            awaited.until = awaited.until.min(now + AWAITED_AFTER_CHANGE);
        }
        is_other || is_again || before.is_none()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // every change is complete before anything can panic
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::time::timeout;

    use super::*;

    /// What was read and found to have changed, while reads return these labels.
    #[derive(Default)]
    struct Played {
        labels: Cell<&'static str>,
        fails: Cell<bool>,
        reads: RefCell<Vec<String>>,
        changed: RefCell<Vec<String>>,
    }

    impl Played {
        async fn run(&self, known: &NamespaceLabels, seconds: u64) {
            let read = |namespace: Arc<str>| async move {
                self.reads.borrow_mut().push(namespace.to_string());
                if *namespace == *"hangs" {
                    std::future::pending::<()>().await;
                }
                let labels = BTreeMap::from([("allowed".to_owned(), self.labels.get().to_owned())]);
                (!self.fails.get()).then(|| Arc::new(labels))
            };
            let changed = |namespace: &str| self.changed.borrow_mut().push(namespace.to_owned());
            let clock = Clock::system();
            assert!(
                timeout(Duration::from_secs(seconds), known.follow(&clock, read, changed)).await.is_err(),
                "it goes on"
            );
        }

        /// How many reads there were, and the namespaces that changed, since the last call.
        fn take(&self) -> (usize, Vec<String>) {
            (self.reads.take().len(), self.changed.take())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_are_reconciled_when_labels_change_and_not_each_time_that_they_are_read() {
        let (known, played) = (NamespaceLabels::default(), Played::default());
        // thousands of credentials wait
        (0..20_000).for_each(|_| known.expect("team", Instant::now()));
        played.run(&known, 60).await;
        let (reads, changed) = played.take();
        assert!((22..=24).contains(&reads), "{reads} in a minute");
        assert_eq!(changed, ["team"], "once, since the labels may have changed after the last attempt");
        played.fails.set(true);
        played.run(&known, 10).await;
        assert_eq!(played.take().1, [""; 0], "a read that fails changes nothing");
        assert!(
            known.known("team", Instant::now()).is_none(),
            "attempts fail too, so that none is to be made for these"
        );
        played.fails.set(false);
        played.run(&known, 10).await;
        assert_eq!(played.take().1, ["team"], "once: attempts failed since the labels could not be read");
        assert!(known.known("team", Instant::now()).is_some());
        let began = Instant::now();
        known.attempt_failed("team", began);
        assert!(known.known("team", Instant::now()).is_none(), "they would have it made again immediately");
        played.run(&known, 10).await;
        assert_eq!(played.take().1, ["team"], "once");
        known.attempt_failed("team", began);
        assert!(known.known("team", Instant::now()).is_some(), "they were read after those of the attempt");
        played.run(&known, 10).await;
        assert_eq!(played.take().1, [""; 0], "so they are no news");
        played.labels.set("yes");
        played.run(&known, 3).await;
        assert_eq!(played.take().1, ["team"], "within seconds");
        assert!(known.known("team", Instant::now()).is_some_and(|labels| labels["allowed"] == "yes"));
        played.run(&known, 120).await;
        let (reads, changed) = played.take();
        assert!(changed.is_empty() && reads < 30, "none waits for the namespace any more: {reads}");
        assert!(known.known("team", Instant::now()).is_none());
        assert!(known.state().awaited.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn few_namespaces_are_read_at_a_time_and_one_that_hangs_holds_up_no_other() {
        let (known, played) = (NamespaceLabels::default(), Played::default());
        known.expect("hangs", Instant::now());
        (0..100).for_each(|number| known.expect(&format!("team-{number}"), Instant::now()));
        played.run(&known, 10).await;
        let (reads, changed) = played.take();
        assert!((140..=151).contains(&reads), "20 a second: {reads}");
        assert_eq!(changed.len(), 100, "each once");
    }
}
