//! A label that an authority requires of a namespace, and that is added, ends the backoff of its credentials.
//!
//! There is no watch on namespaces. It would need a permission on all of them, and a namespace whose credentials may use
//! their authorities is read with each token request anyway.

use std::{convert::Infallible, sync::Arc};

use itwin_api::conditions::Reason;
use tokio::time::Instant;

use super::{
    context::Context,
    namespace_labels::{self, Labels},
    reconciler::Reconciler,
};
use crate::oauth::authority::Authority;

impl Context {
    /// Reads the labels of namespaces that are not allowed, and has their credentials reconciled when those change.
    pub async fn follow_labels(&self) -> Infallible {
        let read = |namespace: Arc<str>| async move {
            // one that fails is tried again
            namespace_labels::read(&self.cluster, &namespace).await.ok().map(Arc::new)
        };
        let changed = |namespace: &str| self.namespaces.enqueue_not_allowed(namespace);
        self.namespace_labels.follow(&self.clock, read, changed).await
    }
}

impl Reconciler<'_> {
    /// Whether the last attempt failed because the authority does not allow the namespace.
    fn is_not_allowed(&self) -> bool {
        let reason = self.retry_state.last_failure().map(|failure| failure.reason);
        let is_attempted = !self.references.credential.spec.suspend && self.references.deletion().is_none();
        reason == Some(Reason::NamespaceNotAllowed) && is_attempted
    }

    /// Has the labels of the namespace read until they change, if they are what an attempt waits for. One that waits for its
    /// turn reads them then.
    pub(super) fn await_labels(&self) {
        if self.is_not_allowed() && !self.waits {
            let now = self.context.clock.monotonic();
            self.context.namespace_labels.expect(&self.references.key.namespace, now);
        }
    }

    /// Ends the backoff of a credential whose namespace is allowed by now.
    pub(super) fn recheck_namespace(&mut self) {
        let authority = self.context.authorities.get(&self.references.credential.spec.authority_ref.name);
        let Some(authority) = authority.filter(|_| self.is_not_allowed()) else { return };
        if self.is_allowed_by_known_labels(&authority) {
            self.retry_state.retry_now();
        }
    }

    /// An attempt that read the labels from `began` failed for them. If those that are known allow it, they must not end
    /// its backoff: it would be made again and again until they are read.
    pub(super) fn failed_for_labels(&self, authority: &Authority, began: Instant) {
        if self.is_allowed_by_known_labels(authority) {
            self.context.namespace_labels.attempt_failed(&self.references.key.namespace, began);
        }
    }

    /// Whether the authority allows the namespace with the labels that were just read.
    fn is_allowed_by_known_labels(&self, authority: &Authority) -> bool {
        let namespace = &self.references.key.namespace;
        let labels = self.context.namespace_labels.known(namespace, self.context.clock.monotonic());
        let allows = |labels: Labels| authority.config.permits_namespace(&authority.name, namespace, &labels).is_ok();
        labels.is_some_and(allows)
    }
}
