//! What all reconciles of the process share.

use std::sync::Arc;

use itwin_core::{
    events::{EventReason, Transition},
    object::ObjectKey,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{authorities::Authorities, invalid_objects::InvalidObjects, namespaces::WatchedNamespaces};
use crate::{
    clock::Clock,
    cluster::Cluster,
    journal::Journal,
    liveness::Liveness,
    metrics::Metrics,
    observe::{index::SecretIndex, restores::Restores},
    report::publisher::Events,
};

/// What every reconcile shares.
pub struct Context {
    /// The clocks.
    pub clock: Clock,
    /// The Kubernetes API.
    pub cluster: Cluster,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The authorities.
    pub authorities: Authorities,
    /// The Secrets that credentials reference.
    pub index: SecretIndex,
    /// Restores of the cluster from a backup.
    pub restores: Arc<Restores>,
    /// The publisher of events.
    pub events: Events,
    /// The watched namespaces.
    pub namespaces: WatchedNamespaces,
    /// Objects that failed to decode.
    pub invalid_objects: InvalidObjects,
    /// Heartbeats, for the liveness probe.
    pub liveness: Arc<Liveness>,
    /// What is being reconciled, for the process after a crash.
    pub journal: Journal,
    /// A watch keeps the index up to date.
    pub watch_secrets: bool,
    /// The workers of the process. A reconcile holds one, except while a token request is under way.
    pub workers: Arc<Semaphore>,
}

impl Context {
    /// A worker, once one is free.
    pub(super) async fn worker(&self) -> Option<OwnedSemaphorePermit> {
        // it is never closed
        self.workers.clone().acquire_owned().await.ok()
    }

    /// Enqueues these credentials: another one may no longer contend with them.
    pub fn enqueue_credentials(&self, credentials: Vec<Arc<ObjectKey>>) {
        for credential in &credentials {
            self.namespaces.enqueue(credential);
        }
    }

    /// Publishes one event for each invalid object that was not reported yet. Only the leader does.
    pub async fn report_invalid_objects(&self) {
        self.metrics.invalid_objects(self.invalid_objects.count());
        if !self.cluster.fence.holds() {
            return;
        }
        for (about, what) in self.invalid_objects.unreported() {
            let note = format!(
                "this object cannot be understood and is left as it was: {what}; apply it again with the CRDs of this version"
            );
            self.events.publish(&about, Transition::warning(EventReason::InvalidObject, note)).await;
        }
    }
}
