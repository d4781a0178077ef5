//! The liveness of the loops and watches that run indefinitely, for the liveness probe.
//!
//! A watch that fails silently while the pod seems healthy (Azure/kars#456, stackabletech/trino-operator#936) is the
//! worst failure of an operator. So each part records heartbeats, and if a part is stalled, the kubelet restarts the
//! container.

mod watched;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use self::watched::Watched;
pub use self::watched::{Interruption, Listing, Trouble};

/// What was accepted within this shows that the API server answers. Shorter than the time after which failures of a
/// watch are reported, so that nothing from before an outage counts then.
const ACCEPTED: Duration = Duration::from_secs(4);
/// A list that is accepted so long after a watch began to fail shows that this is no outage. One that was sent before
/// an outage may be answered a moment after it began.
const MOMENT: Duration = Duration::from_secs(1);
/// And it shows that for so long, and for the time that two watches take to fail: one that fails twice more is
/// reported. Later an outage may have begun.
const LISTED: Duration = Duration::from_secs(10);

/// The parts that must record heartbeats, by name.
#[derive(Default)]
pub struct Liveness {
    parts: Mutex<BTreeMap<String, Part>>,
    /// The watches, by path.
    watches: Mutex<BTreeMap<String, Watched>>,
    /// A watch was interrupted, or works again.
    interrupted: Notify,
}

struct Part {
    limit: Duration,
    last_heartbeat: Instant,
}

impl Liveness {
    /// From now on, `path` is watched. Unlike a heartbeat, which shows that this process works, a sign of life of a
    /// watch is one of the API server: that the watch works.
    pub fn expect_watch(&self, path: &str, resource: &'static str) {
        self.watches().insert(path.to_owned(), Watched::new(resource));
    }

    /// The watch of `path` works: it showed an event or a bookmark, or was open for a while.
    pub fn watch_works(&self, path: &str) {
        if self.watch(path, Watched::works) == Some(true) {
            self.interrupted.notify_one();
        }
    }

    /// A list of `path` failed; `is_answer` where the API server said why.
    pub fn list_failed(&self, path: &str, trouble: Trouble, is_answer: bool) {
        if self.watch(path, |watch| watch.list_failed(trouble, is_answer)).is_some() {
            self.interrupted.notify_one();
        }
    }

    /// A watch of `path` is requested.
    pub fn watch_requested(&self, path: &str) {
        self.watch(path, Watched::requested);
    }

    /// A watch of `path` was refused, or failed; `is_answer` where the API server said why, or broke it immediately.
    pub fn watch_failed(&self, path: &str, trouble: Trouble, is_answer: bool) {
        if self.watch(path, |watch| watch.watch_failed(trouble, is_answer)).is_some() {
            self.interrupted.notify_one();
        }
    }

    /// A page of a list of `path` was accepted.
    pub fn list_accepted(&self, path: &str) {
        self.watch(path, Watched::list_accepted);
    }

    /// What the lists of `path` failed for before is over.
    pub fn list_progressed(&self, path: &str) {
        if self.watch(path, Watched::list_progressed) == Some(true) {
            self.interrupted.notify_one();
        }
    }

    /// A watch of `path` was accepted. It may still break.
    pub fn watch_opened(&self, path: &str) {
        self.watch(path, Watched::opened);
    }

    /// Waits until a watch of `path` was accepted, also where that was before.
    pub async fn opened(&self, path: &str) {
        let opened = self.watch(path, |watch| watch.is_opened());
        if let Some(mut opened) = opened {
            // the sender is never dropped
            let _ = opened.wait_for(|opened| *opened).await;
        }
    }

    /// Changes each time that the watch of `path` is made again, or works, so that [`Listing::Incomplete`] ends without
    /// another list.
    #[must_use]
    pub fn recoveries(&self, path: &str) -> Option<watch::Receiver<u64>> {
        self.watch(path, |watch| watch.recoveries())
    }

    /// How the watch of `path` was interrupted, if it was and does not work since.
    #[must_use]
    pub fn interruption(&self, path: &str) -> Option<Interruption> {
        self.watch(path, |watch| watch.interruption.clone()).flatten()
    }

    /// Whether no watch of another resource than that of `path` fails.
    #[must_use]
    pub fn is_alone(&self, path: &str) -> bool {
        let watches = self.watches();
        let resource = watches.get(path).map(|watch| watch.resource);
        watches.values().all(|watch| Some(watch.resource) == resource || watch.failing.is_none())
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

    /// Whether the API server answers requests of watches while that of `path` fails: it accepted this one, or a list
    /// of any, just before, or a list after this one began to fail, and two watches may not have failed since. No watch
    /// needs to work for that.
    #[must_use]
    pub fn fails_while_requests_are_accepted(&self, path: &str) -> bool {
        let watches = self.watches();
        let Some(watch) = watches.get(path) else { return false };
        let failed = watch.failing.as_ref().map(|(since, _)| *since + MOMENT);
        let listed = LISTED + watch.lasted() * 2;
        let is_after = |other: &Watched| {
            other.list_was_accepted_within(listed) && failed.is_some_and(|failed| other.list_was_accepted_after(failed))
        };
        watch.was_opened_within(ACCEPTED)
            || watches.values().any(|other| other.list_was_accepted_within(ACCEPTED) || is_after(other))
    }

    /// Waits until a watch was interrupted or works again, also where that was before. For one who waits.
    pub async fn interruptions(&self) {
        self.interrupted.notified().await;
    }

    /// The first list of the watch of `path` is complete.
    pub fn listed(&self, path: &str) {
        self.watch(path, |watch| watch.is_listed = true);
    }

    /// What the objects are worth that the watch of `path` showed. A start and a failure count after `grace`.
    #[must_use]
    pub fn listing(&self, path: &str, grace: Duration) -> Listing {
        self.watch(path, |watch| watch.listing(grace)).unwrap_or(Listing::Pending)
    }

    /// The watches whose first list is not complete, by path, with how their last request failed.
    #[must_use]
    pub fn unlisted(&self) -> Vec<(String, Option<Trouble>)> {
        let watches = self.watches();
        let unlisted = watches.iter().filter(|(_, watch)| !watch.is_listed);
        unlisted.map(|(path, watch)| (path.clone(), watch.trouble())).collect()
    }

    /// Whether each watch of this resource worked within `limit` and none failed since; false where it is not watched.
    #[must_use]
    pub fn all_worked_within(&self, resource: &str, limit: Duration) -> bool {
        let watches = self.watches();
        let mut of_resource = watches.values().filter(|watch| watch.resource == resource).peekable();
        of_resource.peek().is_some() && of_resource.all(|watch| watch.worked_within(limit))
    }

    /// For how long the watches did not work, by resource: the longest time of all its watches.
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

    fn watch<T>(&self, path: &str, with: impl FnOnce(&mut Watched) -> T) -> Option<T> {
        self.watches().get_mut(path).map(with)
    }

    fn watches(&self) -> MutexGuard<'_, BTreeMap<String, Watched>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, `part` must record a heartbeat at least once within `limit`.
    pub fn expect(&self, part: &str, limit: Duration) {
        self.parts(|parts| parts.insert(part.to_owned(), Part { limit, last_heartbeat: Instant::now() }));
    }

    /// Records a heartbeat of `part`. It is ignored if none is expected.
    pub fn heartbeat(&self, part: &str) {
        self.parts(|parts| {
            if let Some(part) = parts.get_mut(part) {
                part.last_heartbeat = Instant::now();
            }
        });
    }

    /// A description of a stalled part, if there is one.
    #[must_use]
    pub fn stalled(&self) -> Option<String> {
        self.stalled_at(Instant::now())
    }

    #[cfg(test)]
    pub(crate) fn heartbeat_since(&self, part: &str, instant: Instant) -> bool {
        self.parts(|parts| parts.get(part).is_some_and(|part| part.last_heartbeat >= instant))
    }

    fn stalled_at(&self, now: Instant) -> Option<String> {
        self.parts(|parts| {
            let silence = |part: &Part| now.saturating_duration_since(part.last_heartbeat);
            let (name, part) = parts.iter().find(|(_, part)| silence(part) > part.limit)?;
            Some(format!("{name} has had no heartbeat for {} s", silence(part).as_secs()))
        })
    }

    fn parts<T>(&self, with: impl FnOnce(&mut BTreeMap<String, Part>) -> T) -> T {
        with(&mut self.parts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests;
