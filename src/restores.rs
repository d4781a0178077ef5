//! Notices that the cluster was restored from a backup, and lets every part of the process know: the watches, and who
//! reads the Lease.

use std::sync::{Mutex, MutexGuard, PoisonError};

use itwin_core::revisions::{Incarnation, Revisions, parse};
use tokio::sync::watch;

use crate::clock::Clock;

/// The resourceVersions that the process observed, and the incarnation of the cluster that they belong to.
pub struct Restores {
    clock: Clock,
    revisions: Mutex<Revisions>,
    incarnation: watch::Sender<Incarnation>,
}

impl Restores {
    /// Nothing was observed yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, revisions: Mutex::default(), incarnation: watch::Sender::new(Incarnation::default()) }
    }

    /// The current incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.revisions().incarnation()
    }

    /// The current incarnation, and each later one.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Incarnation> {
        self.incarnation.subscribe()
    }

    /// Records the resourceVersion of an object or a bookmark of a watch.
    pub fn observe(&self, resource: &'static str, resource_version: &str) {
        if let Some(version) = parse(resource_version) {
            self.revisions().observe(resource, version);
        }
    }

    /// The highest resourceVersion that was observed of this resource.
    #[must_use]
    pub fn highest(&self, resource: &'static str) -> Option<u64> {
        self.revisions().highest(resource)
    }

    /// Records the resourceVersion of an answer that shows the latest state; `known` is the highest one of when the request
    /// was sent. Returns whether that began another incarnation.
    pub fn observe_latest(&self, resource: &'static str, resource_version: &str, known: Option<u64>) -> bool {
        let Some(version) = parse(resource_version) else { return false };
        let mut revisions = self.revisions();
        let is_noticed = revisions.observe_latest(resource, version, known, self.clock.monotonic().into_std());
        if is_noticed {
            self.publish(&revisions, resource);
        }
        is_noticed
    }

    /// Something else shows that the cluster was restored, or that what is known of it is to be observed again.
    pub fn notice(&self, reason: &'static str) {
        let mut revisions = self.revisions();
        if revisions.notice(self.clock.monotonic().into_std()) {
            self.publish(&revisions, reason);
        }
    }

    /// Whether a watch of this resource may be one that shows nothing.
    #[must_use]
    pub fn is_behind(&self, resource: &'static str) -> bool {
        self.revisions().is_behind(resource)
    }

    fn publish(&self, revisions: &Revisions, reason: &'static str) {
        tracing::warn!(reason, "the cluster seems to be restored from a backup; everything is listed again");
        self.incarnation.send_replace(revisions.incarnation());
    }

    fn revisions(&self) -> MutexGuard<'_, Revisions> {
        // every change is complete before anything can panic
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this resourceVersion is lower than a known one.
#[must_use]
pub fn is_lower(resource_version: &str, known: Option<u64>) -> bool {
    parse(resource_version).zip(known).is_some_and(|(version, known)| version < known)
}
