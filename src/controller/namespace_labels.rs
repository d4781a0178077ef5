//! The labels of namespaces that were just read.
//!
//! Those of a namespace that an authority does not allow are read again every few seconds. However many credentials wait
//! for that, few namespaces are read at a time, and each of them once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use tokio::time::Instant;

use crate::cluster::{CallError, Cluster, Step, identified};

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
    /// The namespaces that are being read.
    under_way: HashSet<String>,
}

/// A read of the labels of a namespace, until it is dropped.
pub(super) struct LabelsRead<'a> {
    known: &'a NamespaceLabels,
    namespace: &'a str,
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

impl LabelsRead<'_> {
    /// Keeps the labels for a moment.
    pub(super) fn keep(self, labels: Labels, now: Instant) {
        self.known.recent().labels.insert(self.namespace.to_owned(), (now, labels));
    }
}

impl Drop for LabelsRead<'_> {
    fn drop(&mut self) {
        self.known.recent().under_way.remove(self.namespace);
    }
}

impl NamespaceLabels {
    /// The labels of a namespace, if they were just read.
    pub(super) fn fresh(&self, namespace: &str, now: Instant) -> Option<Labels> {
        let mut recent = self.recent();
        recent.labels.retain(|_, (at, _)| now.saturating_duration_since(*at) < FRESH);
        recent.labels.get(namespace).map(|(_, labels)| labels.clone())
    }

    /// Begins to read a namespace; `None` where it is being read, or others were read just now. A read that hangs takes one
    /// worker, not that of every credential that waits for it.
    pub(super) fn begin<'a>(&'a self, namespace: &'a str, now: Instant) -> Option<LabelsRead<'a>> {
        let mut recent = self.recent();
        let is_soon = recent.last_read.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL);
        if is_soon || recent.under_way.contains(namespace) {
            return None;
        }
        recent.last_read = Some(now);
        recent.under_way.insert(namespace.to_owned());
        Some(LabelsRead { known: self, namespace })
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn namespace_is_read_once_at_a_time_and_again_after_a_while_and_few_are_read_at_a_time() {
        let known = NamespaceLabels::default();
        let start = Instant::now();
        let read = known.begin("team", start).expect("nothing was read");
        assert!(known.begin("other", start + INTERVAL / 2).is_none(), "another one is too much");
        assert!(known.begin("other", start + INTERVAL).is_some());
        assert!(known.begin("team", start + INTERVAL * 2).is_none(), "it is being read");
        drop(read);
        let read = known.begin("team", start + INTERVAL * 2).expect("that one failed");
        read.keep(Labels::default(), start);
        assert!(known.recent().under_way.is_empty(), "a read that has ended holds up no other");
        assert!(known.fresh("team", start + FRESH / 2).is_some());
        assert!(known.fresh("other", start).is_none());
        assert!(known.fresh("team", start + FRESH).is_none());
        assert!(known.recent().labels.is_empty(), "nothing is kept for longer");
    }
}
