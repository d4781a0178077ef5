//! The calls to the API server, with the permissions of the user: each has a deadline, and lists are read in pages.
//!
//! The client bounds the body of each answer as that of the operator does: a page that is too long is requested again
//! with fewer objects.

mod call_failed;
pub mod path;

use std::{future::Future, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use http::Request;
use itwin_credential_operator::{
    clock::Clock,
    config::proxy::Proxies,
    runtime::client::{observed, unbuilt},
};
use kube::{Client, client::ClientBuilder};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use self::path::encoded;
pub use self::{call_failed::CallFailed, path::checked};
use crate::{
    connection::{Connection, DEADLINE},
    problem::Problem,
    workloads::nullable,
};

/// The number of objects of a page: as many as kubectl asks for.
const PAGE: usize = 500;
/// The most pages of a list: a million objects, more than a cluster holds; fewer if they are large.
const PAGES: usize = 2000;
/// The field manager of what this program writes.
pub const MANAGER: &str = "kubectl-itcred";
/// The deadline of TCP and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const AS_OBJECTS: &str = "application/json";
/// Kubernetes API concepts, "Receiving resources as `PartialObjectMetadataList`".
const AS_METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// A connection to a cluster.
pub struct Session {
    client: Client,
    deadline: Duration,
    /// The namespace that the user chose.
    pub namespace: String,
    /// The proxies of the environment.
    pub proxies: Proxies,
    /// The clock of this machine.
    pub clock: Clock,
}

/// A page of a list.
#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMetadata,
    /// null if a list of metadata is empty
    #[serde(deserialize_with = "nullable", bound(deserialize = "T: Deserialize<'de>"))]
    items: Vec<T>,
}

#[derive(Default, Deserialize)]
struct PageMetadata {
    #[serde(rename = "continue")]
    next: Option<String>,
}

impl Session {
    /// Connects to the cluster that the user chose. Nothing is sent yet.
    ///
    /// # Errors
    /// What is wrong with the kubeconfig or the environment.
    pub fn new(connection: &Connection) -> Result<Self, Problem> {
        let proxies = Proxies::from_env()?;
        let mut config = connection.config(&proxies)?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.default_retry = false;
        let namespace = connection.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        checked(&namespace)?;
        let client = ClientBuilder::try_from(config).map(|builder| observed(builder, Arc::default()));
        let client = client.map_err(|error| Problem::new(unbuilt(&error)))?;
        let deadline = connection.request_timeout.unwrap_or(DEADLINE);
        Ok(Self { client, deadline, namespace, proxies, clock: Clock::system() })
    }

    /// The time on this machine.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    async fn within<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, CallFailed> {
        match tokio::time::timeout(self.deadline, call).await {
            Ok(result) => result.map_err(CallFailed::from),
            Err(_) => Err(CallFailed::Timeout(self.deadline)),
        }
    }

    /// Reads the object at a path.
    ///
    /// # Errors
    /// [`CallFailed`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallFailed> {
        self.within(self.client.request(request("GET", path, Vec::new())?)).await
    }

    /// The same, `None` where there is none.
    ///
    /// # Errors
    /// [`CallFailed`].
    pub async fn get_if_any<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, CallFailed> {
        match self.get(path).await {
            Err(error) if error.is_not_found() => Ok(None),
            result => result.map(Some),
        }
    }

    /// Reads a list in pages. `query` holds selectors, such as `labelSelector=...`.
    ///
    /// # Errors
    /// [`CallFailed`].
    pub async fn list<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<T>, CallFailed> {
        self.list_as(path, query, AS_OBJECTS).await
    }

    /// The same for the metadata of the objects alone, as of Secrets, whose data is not sent then.
    ///
    /// # Errors
    /// [`CallFailed`].
    pub async fn list_metadata<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<T>, CallFailed> {
        self.list_as(path, query, AS_METADATA).await
    }

    async fn list_as<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        accept: &'static str,
    ) -> Result<Vec<T>, CallFailed> {
        match self.pages(path, query, accept).await {
            // the pages took longer than the API server keeps a version: once more, from the beginning
            Err(error) if error.is_expired() => self.pages(path, query, accept).await,
            result => result,
        }
    }

    async fn pages<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        accept: &'static str,
    ) -> Result<Vec<T>, CallFailed> {
        let (mut items, mut next) = (Vec::new(), None::<String>);
        for _ in 0..PAGES {
            let limit = PAGE.to_string();
            let pairs = query.iter().copied().chain([("limit", limit.as_str())]);
            let pairs = pairs.chain(next.iter().map(|next| ("continue", next.as_str())));
            let query: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
            let mut request = request("GET", &format!("{path}?{}", query.join("&")), Vec::new())?;
            request.headers_mut().insert(http::header::ACCEPT, http::HeaderValue::from_static(accept));
            let page: Page<T> = self.within(self.client.request(request)).await?;
            items.extend(page.items);
            next = page.metadata.next.filter(|next| !next.is_empty());
            if next.is_none() {
                return Ok(items);
            }
        }
        Err(CallFailed::NoAnswer("the list of the API server does not end".to_owned()))
    }

    /// Changes an object by a merge patch, and returns what the API server has now.
    ///
    /// # Errors
    /// [`CallFailed`].
    pub async fn patch<T: DeserializeOwned>(&self, path: &str, patch: &Value) -> Result<T, CallFailed> {
        self.patch_at(&format!("{path}?fieldManager={MANAGER}"), patch).await
    }

    /// Whether the same would be allowed and accepted. Nothing is changed.
    ///
    /// # Errors
    /// [`CallFailed`].
    pub async fn try_patch(&self, path: &str, patch: &Value) -> Result<(), CallFailed> {
        let tried = self.patch_at::<Value>(&format!("{path}?fieldManager={MANAGER}&dryRun=All"), patch).await;
        tried.map(drop)
    }

    async fn patch_at<T: DeserializeOwned>(&self, path: &str, patch: &Value) -> Result<T, CallFailed> {
        let body = patch.to_string().into_bytes();
        self.within(self.client.request(request("PATCH", path, body)?)).await
    }
}

fn request(method: &str, path: &str, body: Vec<u8>) -> Result<Request<Vec<u8>>, CallFailed> {
    let mut request = Request::builder().method(method).uri(path);
    if method == "PATCH" {
        request = request.header(http::header::CONTENT_TYPE, "application/merge-patch+json");
    }
    request.body(body).map_err(|error| CallFailed::NoAnswer(format!("no request can be made: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake;

    #[tokio::test]
    async fn answer_that_is_too_long_is_not_read() {
        const LONG: usize = 21 << 20;
        let session = fake::session(|asked| {
            let status = if asked.path.starts_with("/failing") { 500 } else { 200 };
            (status, vec![b' '; LONG])
        });
        for path in ["/api/v1/namespaces/a", "/failing"] {
            let error = session.get::<Value>(path).await.expect_err("too long").to_string();
            assert_eq!(error, "a response of the API server has more than 20 MiB");
        }
        assert!(session.list::<Value>("/api/v1/pods", &[]).await.is_err(), "no page is short enough");
    }

    #[tokio::test]
    async fn page_that_is_too_long_is_requested_again_with_fewer_objects() {
        let session = fake::session(|asked| {
            let limit = asked.path.rsplit("limit=").next().and_then(|limit| limit.parse().ok()).unwrap_or(1);
            fake::object(&json!({"metadata": {}, "items": vec!["x".repeat(30_000); limit]}))
        });
        let items: Vec<String> = session.list("/api/v1/pods", &[]).await.expect("a list");
        assert_eq!(items.len(), 31, "500, 125, 31");
    }

    #[test]
    fn page_is_decoded_with_and_without_a_continuation() {
        let page: Page<u8> = serde_json::from_str(r#"{"metadata": {"continue": "x"}, "items": [1]}"#).expect("a page");
        assert_eq!((page.items, page.metadata.next.as_deref()), (vec![1], Some("x")));
        let last: Page<u8> = serde_json::from_str(r#"{"items": []}"#).expect("a page");
        assert!(last.metadata.next.is_none());
        let empty: Page<u8> = serde_json::from_str(r#"{"metadata": {}, "items": null}"#).expect("a page");
        assert!(empty.items.is_empty());
        assert!(serde_json::from_str::<Page<u8>>(r#"{"kind": "Status"}"#).is_err(), "no list");
    }
}
