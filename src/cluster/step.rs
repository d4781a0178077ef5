//! The steps of the operator that call the Kubernetes API.

use itwin_api::{authority::CaBundleKind, credential::WorkloadKind};

/// What a call does, and with which object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reads the client Secret.
    GetClientSecret,
    /// Reads the metadata of a Secret.
    GetSecretMetadata,
    /// Reads the token Secret with its data.
    GetTarget,
    /// Reads the labels of a namespace.
    GetNamespace,
    /// Reads the CA certificates of an authority.
    GetCaBundle(CaBundleKind),
    /// Creates the token Secret.
    CreateSecret,
    /// Patches the token Secret.
    PatchSecret,
    /// Reads a workload to decide whether to restart it.
    GetWorkload(WorkloadKind),
    /// Restarts a workload.
    PatchWorkload(WorkloadKind),
    /// Lists one credential, for the version and the conditions of others that it has now, or since it may be gone.
    FindCredential,
    /// Replaces a credential's status, at a known version of the object.
    ReplaceCredentialStatus,
    /// Patches a credential's status, at whatever version the object has.
    PatchCredentialStatus,
    /// Writes an authority's status.
    PatchAuthorityStatus,
    /// Publishes an event.
    PublishEvent,
    /// Counts an event that equals one that was published.
    CountEvent,
}

impl Step {
    pub(super) const fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::GetClientSecret | Self::GetSecretMetadata | Self::GetTarget => ("get", "secrets"),
            Self::GetNamespace => ("get", "namespaces"),
            Self::GetCaBundle(CaBundleKind::ConfigMap) => ("get", "configmaps"),
            Self::GetCaBundle(CaBundleKind::Secret) => ("get", "secrets"),
            Self::CreateSecret => ("create", "secrets"),
            Self::PatchSecret => ("patch", "secrets"),
            Self::GetWorkload(kind) => ("get", workloads(kind)),
            Self::PatchWorkload(kind) => ("patch", workloads(kind)),
            Self::FindCredential => ("list", "itwinservicecredentials"),
            Self::ReplaceCredentialStatus => ("update", "itwinservicecredentials/status"),
            Self::PatchCredentialStatus => ("patch", "itwinservicecredentials/status"),
            Self::PatchAuthorityStatus => ("patch", "itwinauthorities/status"),
            Self::PublishEvent => ("create", "events"),
            Self::CountEvent => ("patch", "events"),
        }
    }

    pub(super) fn writes(self) -> bool {
        !matches!(self.labels().0, "get" | "list")
    }
}

const fn workloads(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Deployment => "deployments",
        WorkloadKind::StatefulSet => "statefulsets",
        WorkloadKind::DaemonSet => "daemonsets",
        WorkloadKind::Rollout => "rollouts",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_that_is_counted_again_is_a_patch() {
        assert_eq!(Step::PublishEvent.labels(), ("create", "events"));
        assert_eq!(Step::CountEvent.labels(), ("patch", "events"));
        assert!(Step::CountEvent.writes());
    }
}
