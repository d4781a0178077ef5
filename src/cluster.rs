//! Calls to the Kubernetes API: each is a named step with a deadline, counted, and its error is classified.
//!
//! The kube client has no deadline for a call, so one lost response would block an object indefinitely. Its errors are
//! not passed on: their messages can contain parts of a response body, and the body of a Secret is a secret.

mod answer;
mod error;
mod step;
mod storage;

use std::sync::{Arc, Mutex, PoisonError};

use kube::Client;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

pub use self::{
    answer::identified,
    error::{CallError, DEADLINE},
    step::Step,
};
use self::{
    answer::unidentified,
    storage::{ANSWERS_FOR, Storage},
};
use crate::{leadership::fence::LeadershipFence, metrics::Metrics};

/// Requests only the metadata of an object (Kubernetes API concepts, "Receiving resources as `PartialObjectMetadata`").
const AS_METADATA: http::HeaderValue =
    http::HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

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

impl Cluster {
    /// Wraps a client.
    #[must_use]
    pub fn new(client: Client, fence: LeadershipFence, metrics: Arc<Metrics>) -> Self {
        Self { client, fence, metrics, storage: Arc::default() }
    }

    /// Makes one of several calls that have a deadline together. Its response contains only the metadata of the object, so
    /// that the API server does not return what was sent, such as a token. One that is not `expected` is no response.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_for_metadata_until<T: DeserializeOwned>(
        &self,
        deadline: Instant,
        step: Step,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
        expected: impl FnOnce(&T) -> bool,
    ) -> Result<T, CallError> {
        let send = async {
            let mut request = request.map_err(kube::Error::BuildRequest)?;
            request.headers_mut().insert(http::header::ACCEPT, AS_METADATA);
            let answer = self.client.request(request).await?;
            if expected(&answer) { Ok(answer) } else { Err(unidentified()) }
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
