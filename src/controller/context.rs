//! What all reconciles of the process share.

use std::sync::Arc;

use itwin_core::{kept_tokens::KeptTokens, object::ObjectKey};

use super::{
    authorities::Authorities, invalid_objects::InvalidObjects, namespace_labels::NamespaceLabels,
    namespaces::WatchedNamespaces,
};
use crate::{
    clock::Clock, cluster::Cluster, journal::Journal, liveness::Liveness, metrics::Metrics,
    observe::index::SecretIndex, report::publisher::Events, restores::Restores, workers::Workers,
};

/// What every reconcile shares.
pub struct Context {
    /// The namespace that the process runs in.
    pub own_namespace: String,
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
    /// The tokens that were issued and not written yet.
    pub kept_tokens: Arc<KeptTokens>,
    /// The watched namespaces.
    pub namespaces: WatchedNamespaces,
    /// Labels of namespaces that were just read.
    pub namespace_labels: NamespaceLabels,
    /// Objects that failed to decode.
    pub invalid_objects: Arc<InvalidObjects>,
    /// Heartbeats, for the liveness probe.
    pub liveness: Arc<Liveness>,
    /// What is being reconciled, for the process after a crash.
    pub journal: Journal,
    /// A watch keeps the index up to date.
    pub watch_secrets: bool,
    /// The workers of the process. A reconcile holds one, except while a token request is under way.
    pub workers: Arc<Workers>,
}

impl Context {
    /// Voids what was concluded before the cluster was restored, once for each restore. The watches do it before they
    /// record a list, since a list that shows the restored cluster must not be voided with what was known before it.
    pub fn follow_restore(&self) {
        if self.index.begin_incarnation(self.restores.incarnation()) {
            self.authorities.requests.forget_shared();
            self.authorities.forget_reported();
        }
    }

    /// Enqueues these credentials: another one may no longer contend with them.
    pub fn enqueue_credentials(&self, credentials: Vec<Arc<ObjectKey>>) {
        for credential in &credentials {
            self.namespaces.enqueue(credential);
        }
    }
}
