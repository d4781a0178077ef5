//! The workers of the process: how many objects are reconciled at the same time, and how many of one namespace.
//!
//! A write that hangs holds its worker for seconds. One namespace with hundreds of such writes must not hold all workers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// A namespace that holds workers takes another one only if it then holds at most so many for each one that is free.
/// Alone it holds three quarters, and with each further namespace that takes all it may, each holds less: two leave some
/// to a third.
const HELD_FOR_EACH_FREE: usize = 3;

/// The workers of a process.
pub struct Workers {
    state: Mutex<State>,
    returned: Notify,
}

struct State {
    free: usize,
    /// How many each namespace holds, if it holds any.
    held: HashMap<Arc<str>, usize>,
}

/// A worker, until it is dropped.
pub struct Worker {
    workers: Arc<Workers>,
    namespace: Arc<str>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut state = self.workers.state();
        state.free += 1;
        if let Some(held) = state.held.get_mut(&self.namespace) {
            *held -= 1;
            if *held == 0 {
                state.held.remove(&self.namespace);
            }
        }
        drop(state);
        self.workers.returned.notify_waiters();
    }
}

impl Workers {
    /// So many workers, all of them free.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { state: Mutex::new(State { free: count, held: HashMap::new() }), returned: Notify::new() }
    }

    /// The number of workers that no one holds.
    #[must_use]
    pub fn free(&self) -> usize {
        self.state().free
    }

    /// A worker for an object of this namespace, if one is free that the namespace may take.
    #[must_use]
    pub fn try_take(self: &Arc<Self>, namespace: &str) -> Option<Worker> {
        let mut state = self.state();
        let held = state.held.get(namespace).copied().unwrap_or_default();
        if !may_take(held, state.free) {
            return None;
        }
        state.free -= 1;
        let namespace = state
            .held
            .get_key_value(namespace)
            .map_or_else(|| Arc::from(namespace), |(namespace, _)| namespace.clone());
        state.held.insert(namespace.clone(), held + 1);
        drop(state);
        Some(Worker { workers: self.clone(), namespace })
    }

    /// A worker for an object of this namespace, once the namespace may take one.
    pub async fn take(self: &Arc<Self>, namespace: &str) -> Worker {
        self.until(|| self.try_take(namespace)).await
    }

    /// What `take` returns, which is called again each time that a worker is returned.
    pub async fn until<T>(&self, mut take: impl FnMut() -> Option<T>) -> T {
        loop {
            // before the call, so that no worker that is returned after it is missed
            let returned = self.returned.notified();
            if let Some(taken) = take() {
                return taken;
            }
            returned.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // every change is complete before anything can panic
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a namespace that holds so many workers may take one of those that are free. One that holds none may, so that
/// it never waits for workers that are free.
fn may_take(held: usize, free: usize) -> bool {
    free > 0 && (held == 0 || held < HELD_FOR_EACH_FREE * (free - 1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Takes all that namespaces may take, in turn. Returns how many each of them holds.
    fn take_all(workers: &Arc<Workers>, namespaces: &[&str]) -> (Vec<Worker>, Vec<usize>) {
        let (mut taken, mut counts) = (Vec::new(), vec![0; namespaces.len()]);
        loop {
            let before = taken.len();
            for (namespace, count) in namespaces.iter().zip(&mut counts) {
                let worker = workers.try_take(namespace);
                *count += usize::from(worker.is_some());
                taken.extend(worker);
            }
            if taken.len() == before {
                return (taken, counts);
            }
        }
    }

    #[test]
    fn namespace_leaves_a_quarter_of_the_workers_to_others_and_at_least_one() {
        for (count, most) in [(1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (16, 12), (256, 192)] {
            let workers = Arc::new(Workers::new(count));
            let (taken, counts) = take_all(&workers, &["noisy"]);
            assert_eq!(counts, [most], "of {count}");
            assert_eq!(workers.try_take("quiet").is_some(), count > 1, "one of {count} for another namespace");
            drop(taken);
            assert!(workers.free() == count && workers.state().held.is_empty(), "all of {count} are returned");
        }
    }

    #[test]
    fn namespaces_that_take_all_they_may_leave_workers_to_another_one() {
        let workers = Arc::new(Workers::new(16));
        let (_taken, counts) = take_all(&workers, &["noisy", "loud"]);
        assert_eq!(counts, [7, 6]);
        let (_quiet, counts) = take_all(&workers, &["quiet"]);
        assert_eq!((counts, workers.free()), (vec![2], 1), "and one to a further namespace");
    }

    #[tokio::test(start_paused = true)]
    async fn worker_that_is_returned_goes_to_a_namespace_that_waits_for_it() {
        let workers = Arc::new(Workers::new(4));
        let (mut taken, _) = take_all(&workers, &["noisy"]);
        let waits = async |namespace: &'static str| timeout(Duration::from_secs(1), workers.take(namespace)).await.ok();
        assert!(waits("noisy").await.is_none(), "the last one is left to others");
        let (worker, ()) = tokio::join!(waits("noisy"), async { drop(taken.pop()) });
        assert!(worker.is_some(), "its own");
        let quiet = waits("quiet").await;
        assert!(quiet.is_some() && waits("other").await.is_none(), "none is left");
        let (other, ()) = tokio::join!(waits("other"), async { drop(taken.pop()) });
        assert!(other.is_some(), "that of another namespace");
    }
}
