//! The signs of life of the watches: what the API server answers each, and for how long it fails.

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::Liveness;

pub(super) struct Watch {
    resource: &'static str,
    /// When it was started.
    started: Instant,
    /// The last sign of life, or the start.
    last_sign: Instant,
    /// Its first list was complete.
    is_listed: bool,
    /// Since when its requests fail, if the last one did, and how that one failed.
    failing: Option<(Instant, Trouble)>,
    /// How it was interrupted, if it is not watched since.
    interruption: Option<Interruption>,
    /// How often what failed was over.
    progress: u64,
    /// A watch was accepted once.
    opened: watch::Sender<bool>,
}

/// How a request of a watch failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// For users.
    pub message: String,
    /// The API server does not allow it.
    pub is_forbidden: bool,
}

/// That nothing is watched: requests failed, and no watch is known to work since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interruption {
    /// How many requests failed without progress in between.
    pub failures: u32,
    /// How often there was progress up to now: failures before and after it do not belong together.
    pub progress: u64,
    /// How the last one failed.
    pub trouble: Trouble,
    /// The API server answered the last one.
    pub is_answer: bool,
}

/// What the objects that a watch showed are worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// There are no others.
    Complete,
    /// There may be others: the watch began only just now.
    Pending,
    /// There may be others, and that has been so for a while; how the last request failed, if it was answered.
    Incomplete(Option<Trouble>),
}

impl Liveness {
    /// From now on, `path` is watched. Unlike a heartbeat, which shows that this process works, a sign of life of a
    /// watch is one of the API server: an event, or a list or watch that it accepted.
    pub fn expect_watch(&self, path: &str, resource: &'static str) {
        let now = Instant::now();
        let watch = Watch {
            resource,
            started: now,
            last_sign: now,
            is_listed: false,
            failing: None,
            interruption: None,
            progress: 0,
            opened: watch::Sender::new(false),
        };
        self.watches().insert(path.to_owned(), watch);
    }

    /// A request of the watch of `path` failed.
    pub fn watch_failed(&self, path: &str, trouble: Trouble) {
        if let Some(watch) = self.watches().get_mut(path) {
            let since = watch.failing.take().map_or_else(Instant::now, |(since, _)| since);
            watch.failing = Some((since, trouble));
        }
    }

    /// A request of the watch of `path` was accepted: a page of a list, or a watch.
    pub fn watch_accepted(&self, path: &str) {
        if let Some(watch) = self.watches().get_mut(path) {
            watch.failing = None;
        }
    }

    /// What the requests of the watch of `path` failed for before is over.
    pub fn watch_progressed(&self, path: &str) {
        if let Some(watch) = self.watches().get_mut(path) {
            watch.progress = watch.progress.saturating_add(1);
            let progress = watch.progress;
            if let Some(interruption) = &mut watch.interruption {
                (interruption.failures, interruption.progress) = (0, progress);
                self.interrupted.notify_one();
            }
        }
    }

    /// A request failed, and the watch of `path` is not open; `is_answer` where the API server said why.
    pub fn watch_interrupted(&self, path: &str, trouble: Trouble, is_answer: bool) {
        if let Some(watch) = self.watches().get_mut(path) {
            let failures = watch.interruption.take().map_or(0, |interruption| interruption.failures);
            let (failures, progress) = (failures.saturating_add(1), watch.progress);
            watch.interruption = Some(Interruption { failures, progress, trouble, is_answer });
            self.interrupted.notify_one();
        }
    }

    /// A watch of `path` was accepted.
    pub fn watch_opened(&self, path: &str) {
        if let Some(watch) = self.watches().get(path) {
            watch.opened.send_replace(true);
        }
    }

    /// Waits until a watch of `path` was accepted, also where that was before.
    pub async fn opened(&self, path: &str) {
        let opened = self.watches().get(path).map(|watch| watch.opened.subscribe());
        if let Some(mut opened) = opened {
            // the sender is never dropped
            let _ = opened.wait_for(|opened| *opened).await;
        }
    }

    /// The watch of `path` works: it showed anything, or was open for long.
    pub fn watch_resumed(&self, path: &str) {
        let before = self.watches().get_mut(path).and_then(|watch| watch.interruption.take());
        if before.is_some() {
            self.interrupted.notify_one();
        }
    }

    /// How the watch of `path` was interrupted, if it was and is not known to work since.
    #[must_use]
    pub fn interruption(&self, path: &str) -> Option<Interruption> {
        self.watches().get(path)?.interruption.clone()
    }

    /// Whether no watch of another resource than that of `path` fails.
    #[must_use]
    pub fn is_alone(&self, path: &str) -> bool {
        let watches = self.watches();
        let resource = watches.get(path).map(|watch| watch.resource);
        let fails = |watch: &Watch| watch.interruption.as_ref().is_some_and(|interruption| interruption.failures > 0);
        watches.values().all(|watch| Some(watch.resource) == resource || !fails(watch))
    }

    /// Whether another watch than that of `path` had a sign of life after that one had failed for `grace`. Of two
    /// that end together, one may be a moment later.
    #[must_use]
    pub fn fails_while_others_are_answered(&self, path: &str, grace: Duration) -> bool {
        let watches = self.watches();
        let since = watches.get(path).and_then(|watch| watch.failing.as_ref()).map(|(since, _)| *since);
        since.is_some_and(|since| {
            watches.iter().any(|(other, watch)| other.as_str() != path && watch.last_sign > since + grace)
        })
    }

    /// Waits until a watch was interrupted or works again, also where that was before. For one who waits.
    pub async fn interruptions(&self) {
        self.interrupted.notified().await;
    }

    /// The first list of the watch of `path` is complete.
    pub fn listed(&self, path: &str) {
        if let Some(watch) = self.watches().get_mut(path) {
            watch.is_listed = true;
        }
    }

    /// What the objects are worth that the watch of `path` showed. A start and a failure count after `grace`.
    #[must_use]
    pub fn listing(&self, path: &str, grace: Duration) -> Listing {
        let watches = self.watches();
        let Some(watch) = watches.get(path) else { return Listing::Pending };
        let trouble = || watch.failing.as_ref().map(|(_, trouble)| trouble.clone());
        match &watch.failing {
            _ if !watch.is_listed && watch.started.elapsed() < grace => Listing::Pending,
            _ if !watch.is_listed => Listing::Incomplete(trouble()),
            Some((since, _)) if since.elapsed() >= grace => Listing::Incomplete(trouble()),
            _ => Listing::Complete,
        }
    }

    /// The watches whose first list is not complete, by path, with how their last request failed.
    #[must_use]
    pub fn unlisted(&self) -> Vec<(String, Option<Trouble>)> {
        let watches = self.watches();
        let unlisted = watches.iter().filter(|(_, watch)| !watch.is_listed);
        let trouble = |watch: &Watch| watch.failing.as_ref().map(|(_, trouble)| trouble.clone());
        unlisted.map(|(path, watch)| (path.clone(), trouble(watch))).collect()
    }

    /// Records a sign of life of the watch of `path`, if there is one.
    pub fn sign_of_life(&self, path: &str) {
        if let Some(watch) = self.watches().get_mut(path) {
            watch.last_sign = Instant::now();
        }
    }

    /// For how long there was no sign of life of the watches, by resource: the longest time of all its watches.
    #[must_use]
    pub fn silence(&self) -> BTreeMap<&'static str, Duration> {
        let now = Instant::now();
        let mut silence = BTreeMap::new();
        for watch in self.watches().values() {
            let longest: &mut Duration = silence.entry(watch.resource).or_default();
            *longest = (*longest).max(now.saturating_duration_since(watch.last_sign));
        }
        silence
    }

    fn watches(&self) -> MutexGuard<'_, BTreeMap<String, Watch>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
