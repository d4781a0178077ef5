//! The calls to the Kubernetes API, each with a name.

use itwin_api::{authority::CaBundleKind, credential::WorkloadKind};

use super::call_error::CallError;

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
    /// Lists one credential, for the version and the conditions of others that it has now.
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

    /// How the call failed. Admission sees what is written, such as the environment of a workload, and may quote it.
    pub(super) fn failed(self, error: kube::Error) -> CallError {
        let error = CallError::from(error);
        if self.writes() { error.without(None) } else { error }
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
    fn what_admission_says_of_any_write_is_quoted_without_what_may_be_a_value() {
        let denied = |code: u16, step: Step| {
            let said =
                "admission webhook \"restarts.example.com\" denied the request: API_KEY=0f8fad5bd9cb469f of web-1";
            let status = kube::core::Status { code, message: said.to_owned(), ..kube::core::Status::default() };
            step.failed(kube::Error::Api(Box::new(status))).to_string()
        };
        for step in [
            Step::CreateSecret,
            Step::PatchSecret,
            Step::PatchWorkload(WorkloadKind::Deployment),
            Step::ReplaceCredentialStatus,
            Step::PatchCredentialStatus,
            Step::PatchAuthorityStatus,
            Step::PublishEvent,
            Step::CountEvent,
        ] {
            for code in [400, 403, 404, 409, 422, 503] {
                let text = denied(code, step);
                assert!(text.contains("\"restarts.example.com\" denied the request: [redacted] of web-1"), "{text}");
            }
        }
        assert!(denied(403, Step::GetTarget).contains("API_KEY="), "no admission sees what is read");
    }

    #[test]
    fn event_that_is_counted_again_is_a_patch() {
        assert_eq!(Step::PublishEvent.labels(), ("create", "events"));
        assert_eq!(Step::CountEvent.labels(), ("patch", "events"));
        assert!(Step::CountEvent.writes());
    }
}
