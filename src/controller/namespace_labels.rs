//! The labels of namespaces that were just read.
//!
//! Those of a namespace that an authority does not allow are read again every few seconds. However many credentials wait
//! for that, few namespaces are read at a time, and each of them once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Labels that were read this recently are not read again: a namespace can have thousands of credentials.
const FRESH: Duration = Duration::from_secs(2);
/// At most 20 namespaces a second are read, however many are not allowed.
const INTERVAL: Duration = Duration::from_millis(50);

/// Labels of a namespace.
pub(super) type Labels = Arc<BTreeMap<String, String>>;

/// Labels of namespaces that were just read.
#[derive(Default)]
pub struct NamespaceLabels(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    labels: HashMap<String, (Instant, Labels)>,
    last_read: Option<Instant>,
}

impl NamespaceLabels {
    /// The labels of a namespace, if they were just read.
    pub(super) fn fresh(&self, namespace: &str, now: Instant) -> Option<Labels> {
        let mut recent = self.recent();
        recent.labels.retain(|_, (at, _)| now.saturating_duration_since(*at) < FRESH);
        recent.labels.get(namespace).map(|(_, labels)| labels.clone())
    }

    /// Whether a namespace may be read now; it counts as read then.
    pub(super) fn may_read(&self, now: Instant) -> bool {
        let mut recent = self.recent();
        let may = recent.last_read.is_none_or(|last| now.saturating_duration_since(last) >= INTERVAL);
        if may {
            recent.last_read = Some(now);
        }
        may
    }

    /// Keeps the labels of a namespace for a moment.
    pub(super) fn keep(&self, namespace: &str, labels: Labels, now: Instant) {
        self.recent().labels.insert(namespace.to_owned(), (now, labels));
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn namespace_is_read_again_after_a_while_and_few_are_read_at_a_time() {
        let known = NamespaceLabels::default();
        let start = Instant::now();
        assert!(known.may_read(start));
        assert!(!known.may_read(start + INTERVAL / 2), "another one is too much");
        assert!(known.may_read(start + INTERVAL));
        known.keep("team", Labels::default(), start);
        assert!(known.fresh("team", start + FRESH / 2).is_some());
        assert!(known.fresh("other", start).is_none());
        assert!(known.fresh("team", start + FRESH).is_none());
        assert!(known.recent().labels.is_empty(), "nothing is kept for longer");
    }
}
