//! The labels of namespaces that an authority does not allow: read again every few seconds, so that a label which was
//! added ends the wait.
//!
//! There is no watch on namespaces. It would need a permission on all of them, and a namespace whose credentials may use
//! their authorities is read with each token request anyway.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use itwin_api::{conditions::Reason, digest};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use tokio::time::Instant;

use super::reconciler::Reconciler;
use crate::cluster::Step;

/// Labels that were read this recently are not read again: a namespace can have thousands of credentials.
const FRESH: Duration = Duration::from_secs(2);
/// At most 20 namespaces a second are read, however many are not allowed.
const INTERVAL: Duration = Duration::from_millis(50);
/// A credential whose namespace is not allowed is reconciled again after this, ...
const RECHECK: TimeDelta = TimeDelta::milliseconds(2500);
/// ... and up to so much later, which its UID determines.
const RECHECK_SPREAD: TimeDelta = TimeDelta::seconds(1);

type Labels = Arc<BTreeMap<String, String>>;

/// Labels of namespaces that were just read.
#[derive(Default)]
pub struct NamespaceLabels(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    labels: HashMap<String, (Instant, Labels)>,
    last_read: Option<Instant>,
}

impl NamespaceLabels {
    fn fresh(&self, namespace: &str, now: Instant) -> Option<Labels> {
        let mut recent = self.recent();
        recent.labels.retain(|_, (at, _)| now.saturating_duration_since(*at) < FRESH);
        recent.labels.get(namespace).map(|(_, labels)| labels.clone())
    }

    /// Whether a namespace may be read now; it counts as read then.
    fn may_read(&self, now: Instant) -> bool {
        let mut recent = self.recent();
        let may = recent.last_read.is_none_or(|last| now.saturating_duration_since(last) >= INTERVAL);
        if may {
            recent.last_read = Some(now);
        }
        may
    }

    fn keep(&self, namespace: &str, labels: Labels, now: Instant) {
        self.recent().labels.insert(namespace.to_owned(), (now, labels));
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reconciler<'_> {
    /// Whether the last attempt failed because the authority does not allow the namespace.
    fn is_not_allowed(&self) -> bool {
        let reason = self.retry_state.last_failure().map(|failure| failure.reason);
        reason == Some(Reason::NamespaceNotAllowed) && !self.references.credential.spec.suspend
    }

    /// When the labels of the namespace are read again, if they are what an attempt waits for.
    pub(super) fn until_labels(&self) -> Option<TimeDelta> {
        let spread = RECHECK_SPREAD.num_milliseconds() as f64 * digest::unit_interval(["labels", &self.references.uid]);
        self.is_not_allowed().then(|| RECHECK + TimeDelta::milliseconds(spread as i64))
    }

    /// Ends the backoff of a credential whose namespace is allowed by now.
    pub(super) async fn recheck_namespace(&mut self) {
        let authority = self.context.authorities.get(&self.references.credential.spec.authority_ref.name);
        let Some(authority) = authority.filter(|_| self.is_not_allowed()) else { return };
        let namespace = &self.references.key.namespace;
        let Some(labels) = self.labels_of(namespace).await else { return };
        if authority.config.permits_namespace(&authority.name, namespace, &labels).is_ok() {
            self.retry_state.retry_now();
        }
    }

    /// The labels, unless too many were read just now or the read fails: then another reconcile reads them.
    async fn labels_of(&self, namespace: &str) -> Option<Labels> {
        let (known, clock) = (&self.context.namespace_labels, &self.context.clock);
        if let Some(labels) = known.fresh(namespace, clock.monotonic()) {
            return Some(labels);
        }
        if !known.may_read(clock.monotonic()) {
            return None;
        }
        let api: Api<Namespace> = Api::all(self.context.cluster.client.clone());
        let read = self.context.cluster.call(Step::GetNamespace, api.get_metadata(namespace)).await.ok()?;
        let labels = Arc::new(read.metadata.labels.unwrap_or_default());
        known.keep(namespace, labels.clone(), clock.monotonic());
        Some(labels)
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
