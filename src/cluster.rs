//! Calls to the Kubernetes API: each is a named step with a deadline, counted, and its error is classified.
//!
//! The kube client has no deadline for a call, so one lost response would block an object indefinitely. Its errors are
//! not passed on: their messages can contain parts of a response body, and the body of a Secret is a secret.

mod storage;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use itwin_api::{authority::CaBundleKind, credential::WorkloadKind};
use itwin_core::{call_failure::CallFailure, quote::Quote};
use kube::Client;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use self::storage::{ANSWERS_FOR, Storage};
use crate::{leadership::fence::LeadershipFence, metrics::Metrics};

/// Deadline of one call: less than the 10 s within which a failure must be reported, and more than the API server
/// queues a request under load.
pub const DEADLINE: Duration = Duration::from_secs(8);

/// Requests only the metadata of an object (Kubernetes API concepts, "Receiving resources as `PartialObjectMetadata`").
const AS_METADATA: http::HeaderValue =
    http::HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// What the API server answers where a group has no such kind of object.
const NO_SUCH_KIND: &str = "the server could not find the requested resource";

/// The Kubernetes API.
#[derive(Clone)]
pub struct Cluster {
    /// The client. Calls that are not watches go through [`Cluster::call`].
    pub client: Client,
    /// The leadership fence: without leadership nothing is written, and no token is requested.
    pub fence: LeadershipFence,
    metrics: Arc<Metrics>,
    storage: Arc<Mutex<Storage>>,
}

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
    const fn labels(self) -> (&'static str, &'static str) {
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

    fn writes(self) -> bool {
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

/// How a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// 404.
    #[error("not found")]
    NotFound,
    /// 404: the API server serves no such kind of object.
    #[error("the cluster serves no such kind of object")]
    NotServed,
    /// 409: the object exists already.
    #[error("it exists already")]
    AlreadyExists,
    /// 409: another client changed the object.
    #[error("another client changed it at the same time")]
    Conflict,
    /// 401 or 403, with the message of the API server: RBAC, a quota, a policy, a namespace that is being deleted.
    #[error("forbidden: {0}")]
    Forbidden(Quote),
    /// Any other 4xx, with the message of the API server: 422 for a field that is not valid, and what an admission
    /// webhook chooses.
    #[error("rejected with HTTP {0}: {1}")]
    Rejected(u16, Quote),
    /// 429 and 5xx, with the message of the API server: an admission webhook that does not answer is among them.
    #[error("the API server responded with HTTP {0}: {1}")]
    Unavailable(u16, Quote),
    /// The deadline passed.
    #[error("no response from the API server within {} s", DEADLINE.as_secs())]
    Timeout,
    /// This process does not lead, so nothing was sent.
    #[error("this replica does not hold the Lease")]
    NotLeading,
    /// The connection failed, or the response could not be decoded.
    #[error("no valid response from the API server")]
    Transport,
}

impl CallError {
    /// The label of the metric.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotFound | Self::NotServed => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::Forbidden(_) => "forbidden",
            Self::Rejected(..) => "invalid",
            Self::Unavailable(..) => "unavailable",
            Self::Timeout => "timeout",
            Self::NotLeading => "not_leading",
            Self::Transport => "transport",
        }
    }
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::Transport;
        };
        let said = Quote::new(&status.message);
        match status.code {
            404 if !is_denied(&said) && is_not_served(&status) => Self::NotServed,
            404 if !is_denied(&said) => Self::NotFound,
            409 if !is_denied(&said) && status.reason == "AlreadyExists" => Self::AlreadyExists,
            409 if !is_denied(&said) => Self::Conflict,
            401 | 403 => Self::Forbidden(said),
            429 | 500.. => Self::Unavailable(status.code, said),
            code => Self::Rejected(code, said),
        }
    }
}

/// Whether there is no such kind of object: a group that is not served is answered without a `Status`, a kind with one
/// that names no object.
fn is_not_served(status: &kube::core::Status) -> bool {
    status.reason != "NotFound" || status.message == NO_SUCH_KIND
}

/// Whether an admission webhook or policy denied the request: it may do so with any status code
/// (`AdmissionReview.response.status`), so that a 404 or 409 of it is no news of the object.
fn is_denied(said: &Quote) -> bool {
    said.contains("denied the request") || said.contains("denied request")
}

impl CallError {
    /// Why the call failed, as messages distinguish it.
    #[must_use]
    pub fn why(&self) -> CallFailure<'_> {
        match self {
            Self::Forbidden(said) => CallFailure::Forbidden(said),
            Self::Rejected(_, said) => CallFailure::Refused(said),
            Self::Unavailable(_, said) => CallFailure::Unavailable(said),
            Self::Timeout => CallFailure::Timeout,
            _ => CallFailure::NoAnswer,
        }
    }
}

impl Cluster {
    /// Wraps a client.
    #[must_use]
    pub fn new(client: Client, fence: LeadershipFence, metrics: Arc<Metrics>) -> Self {
        Self { client, fence, metrics, storage: Arc::default() }
    }

    /// Makes one call whose response contains only the metadata of the object, so that the API server does not return
    /// what was sent, such as a token.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_for_metadata<T: DeserializeOwned>(
        &self,
        step: Step,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, CallError> {
        self.call_for_metadata_until(Instant::now() + DEADLINE, step, request).await
    }

    /// The same for one of several calls that have a deadline together.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_for_metadata_until<T: DeserializeOwned>(
        &self,
        deadline: Instant,
        step: Step,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, CallError> {
        let send = async {
            let mut request = request.map_err(kube::Error::BuildRequest)?;
            request.headers_mut().insert(http::header::ACCEPT, AS_METADATA);
            self.client.request(request).await
        };
        self.call_until(deadline, step, send).await
    }

    /// Makes one call.
    ///
    /// # Errors
    /// [`CallError`], which never includes the content of an object.
    pub async fn call<T>(&self, step: Step, request: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
        self.call_until(Instant::now() + DEADLINE, step, request).await
    }

    /// Makes one of several calls that have a deadline together.
    ///
    /// # Errors
    /// As [`Cluster::call`].
    pub async fn call_until<T>(
        &self,
        deadline: Instant,
        step: Step,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, CallError> {
        let result = self.call_cached_until(deadline, step, request).await;
        let mut storage = self.storage.lock().unwrap_or_else(PoisonError::into_inner);
        storage.observe(step, result.as_ref().err(), Instant::now());
        result
    }

    /// Whether the API server lately answered what its caches cannot: so it can probably write what is requested now.
    #[must_use]
    pub fn storage_answers(&self) -> bool {
        let storage = self.storage.lock().unwrap_or_else(PoisonError::into_inner);
        storage.answers(self.fence.was_renewed_within(ANSWERS_FOR), Instant::now())
    }

    /// Whether the API server lately answered a call of whatever kind that its caches cannot.
    #[must_use]
    pub fn answers(&self) -> bool {
        let storage = self.storage.lock().unwrap_or_else(PoisonError::into_inner);
        storage.answered_lately(self.fence.was_renewed_within(ANSWERS_FOR), Instant::now())
    }

    /// Whether the watch cache of the API server may be asked: it did not fail lately.
    #[must_use]
    pub fn may_ask_cache(&self) -> bool {
        self.storage.lock().unwrap_or_else(PoisonError::into_inner).may_ask_cache(Instant::now())
    }

    /// The watch cache of the API server was asked, and answered or failed.
    pub fn cache_answered(&self, answered: bool) {
        self.storage.lock().unwrap_or_else(PoisonError::into_inner).cache_answered(answered, Instant::now());
    }

    /// Makes a call that the API server may answer from a cache, so that the answer shows nothing of the storage.
    ///
    /// # Errors
    /// As [`Cluster::call`].
    pub async fn call_cached_until<T>(
        &self,
        deadline: Instant,
        step: Step,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, CallError> {
        let result = if step.writes() && !self.fence.holds() {
            Err(CallError::NotLeading)
        } else {
            match tokio::time::timeout_at(deadline, request).await {
                Ok(response) => response.map_err(CallError::from),
                Err(_) => Err(CallError::Timeout),
            }
        };
        let (verb, resource) = step.labels();
        self.metrics.kubernetes_request(verb, resource, result.as_ref().map_or_else(CallError::label, |_| "success"));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_admission_says_is_quoted_without_what_may_be_a_value_whatever_its_status_is() {
        for code in [400, 403, 404, 409, 422, 503] {
            let said =
                "admission webhook \"restarts.example.com\" denied the request: API_KEY=0f8fad5bd9cb469f of web-1";
            let status = kube::core::Status { code, message: said.to_owned(), ..kube::core::Status::default() };
            let text = CallError::from(kube::Error::Api(Box::new(status))).to_string();
            assert!(text.contains("\"restarts.example.com\" denied the request: [redacted] of web-1"), "{text}");
        }
    }

    #[test]
    fn event_that_is_counted_again_is_a_patch() {
        assert_eq!(Step::PublishEvent.labels(), ("create", "events"));
        assert_eq!(Step::CountEvent.labels(), ("patch", "events"));
        assert!(Step::CountEvent.writes());
    }
}
