//! A label that an authority requires of a namespace, and that is added, ends the backoff of its credentials.
//!
//! There is no watch on namespaces. It would need a permission on all of them, and a namespace whose credentials may use
//! their authorities is read with each token request anyway.

use std::sync::Arc;

use chrono::TimeDelta;
use itwin_api::{conditions::Reason, digest};

use super::{
    namespace_labels::{self, Labels},
    reconciler::Reconciler,
};

/// A credential whose namespace is not allowed is reconciled again after this, ...
const RECHECK: TimeDelta = TimeDelta::milliseconds(2500);
/// ... and up to so much later, which its UID determines.
const RECHECK_SPREAD: TimeDelta = TimeDelta::seconds(1);

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

    /// The labels, unless they are being read, others were read just now or the read fails: another reconcile has them then.
    async fn labels_of(&self, namespace: &str) -> Option<Labels> {
        let (known, clock) = (&self.context.namespace_labels, &self.context.clock);
        if let Some(labels) = known.fresh(namespace, clock.monotonic()) {
            return Some(labels);
        }
        let begun = known.begin(namespace, clock.monotonic())?;
        let labels = Arc::new(namespace_labels::read(&self.context.cluster, namespace).await.ok()?);
        begun.keep(labels.clone(), clock.monotonic());
        Some(labels)
    }
}
