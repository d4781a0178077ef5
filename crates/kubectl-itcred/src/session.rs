//! The calls to the API server, with the permissions of the user: each has a deadline, and lists are read in pages.
//!
//! The client bounds the body of each answer as that of the operator does: a page that is too long is requested again
//! with fewer objects.

use std::{future::Future, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use http::Request;
use itwin_credential_operator::{
    clock::Clock,
    cluster::CallError,
    config::proxy::Proxies,
    runtime::client::{observed, unbuilt},
};
use kube::{
    Client,
    client::{AuthError, ClientBuilder},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    connection::{Connection, DEADLINE},
    plain::plain,
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

/// Why a call gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailed {
    /// The API server answered with an error.
    #[error("{0}")]
    Answered(CallError),
    /// No connection, or no answer that could be read.
    #[error("{0}")]
    NoAnswer(String),
    /// The deadline passed.
    #[error("no answer within {0:?}; --request-timeout sets this deadline")]
    Timeout(Duration),
}

impl CallFailed {
    /// Whether the object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Answered(CallError::NotFound))
    }

    /// Whether the cluster has no such kind of object.
    #[must_use]
    pub fn is_not_served(&self) -> bool {
        matches!(self, Self::Answered(CallError::NotServed))
    }

    /// Whether the user may not do this.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Answered(CallError::Forbidden(_)))
    }

    /// Whether it is not known what became of the call.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::NoAnswer(_) | Self::Timeout(_))
    }

    /// Whether another client changed the object.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Answered(CallError::Conflict))
    }

    fn is_expired(&self) -> bool {
        matches!(self, Self::Answered(CallError::Rejected(410, _)))
    }
}

impl From<kube::Error> for CallFailed {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(_) => Self::Answered(error.into()),
            kube::Error::Auth(_) => Self::NoAnswer(unbuilt(&error)),
            // it says itself what is wrong with the answer: failures of a connection have a cause
            kube::Error::Service(error) if error.source().is_none() => Self::NoAnswer(plain(&error.to_string())),
            // the text of these may repeat parts of an object
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
                Self::NoAnswer("the answer of the API server could not be decoded".to_owned())
            }
            error => Self::NoAnswer(format!("no connection to the API server ({})", causes(&error))),
        }
    }
}

/// The last cause of an error, which says most. What an exec plugin printed is not quoted: it may be a token.
fn causes(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        if cause.is::<AuthError>() {
            return "the credentials of the user of the kubeconfig are not usable".to_owned();
        }
        last = cause;
    }
    plain(&last.to_string())
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

/// A value of a query, percent-encoded (RFC 3986 section 2.1).
fn encoded(value: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    value.bytes().map(one).collect()
}

/// The longest name of an object (RFC 1123 subdomain).
const NAME_MAX: usize = 253;

/// A name of an object or a namespace that may be a part of a path.
///
/// # Errors
/// What a name consists of.
pub fn checked(name: &str) -> Result<&str, Problem> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let is_bounded = (1..=NAME_MAX).contains(&name.len());
    if is_bounded && name.chars().all(legal) && name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(name);
    }
    let shown: String = name.chars().take(NAME_MAX).collect();
    Err(Problem::new(format!(
        "\"{shown}\" is no name of an object: one consists of lowercase letters, digits, '-' and '.'"
    )))
}

/// The paths of objects. Names come from objects too, in which an older schema may have accepted anything.
pub mod path {
    use super::encoded;

    /// A name as one segment of a path, which leads nowhere else.
    fn segment(name: &str) -> String {
        if name.bytes().all(|byte| byte == b'.') { name.replace('.', "%2E") } else { encoded(name) }
    }

    /// The credentials of a namespace, or of all.
    #[must_use]
    pub fn credentials(namespace: Option<&str>) -> String {
        namespaced("apis/credentials.itwin.dev/v1alpha1", namespace, "itwinservicecredentials")
    }

    /// A credential.
    #[must_use]
    pub fn credential(namespace: &str, name: &str) -> String {
        format!("{}/{}", credentials(Some(namespace)), segment(name))
    }

    /// An authority.
    #[must_use]
    pub fn authority(name: &str) -> String {
        format!("/apis/credentials.itwin.dev/v1alpha1/itwinauthorities/{}", segment(name))
    }

    /// A Namespace.
    #[must_use]
    pub fn namespace(name: &str) -> String {
        format!("/api/v1/namespaces/{}", segment(name))
    }

    /// A Secret.
    #[must_use]
    pub fn secret(namespace: &str, name: &str) -> String {
        named("api/v1", namespace, "secrets", name)
    }

    /// An object of a kind in a namespace.
    #[must_use]
    pub fn named(group: &str, namespace: &str, kind: &str, name: &str) -> String {
        format!("{}/{}", namespaced(group, Some(namespace), kind), segment(name))
    }

    /// Objects of a kind in a namespace, or in all.
    #[must_use]
    pub fn namespaced(group: &str, namespace: Option<&str>, kind: &str) -> String {
        match namespace {
            Some(namespace) => format!("/{group}/namespaces/{}/{kind}", segment(namespace)),
            None => format!("/{group}/{kind}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake;

    #[test]
    fn names_cannot_lead_to_another_path() {
        assert_eq!(path::secret("a", "b.c"), "/api/v1/namespaces/a/secrets/b.c");
        assert_eq!(path::secret("a", "../x?y"), "/api/v1/namespaces/a/secrets/..%2Fx%3Fy");
        assert_eq!(path::authority(".."), "/apis/credentials.itwin.dev/v1alpha1/itwinauthorities/%2E%2E");
        for name in ["a", "render-agent", "a.b", "0", &"a".repeat(253)] {
            assert!(checked(name).is_ok(), "{name}");
        }
        for name in ["", "../secrets/x", "a/b", "A", "a b", "a?b", "%2e", ".", "-a", "a\n", "é", &"a".repeat(254)] {
            assert!(checked(name).is_err(), "{name}");
        }
    }

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
    fn values_of_a_query_are_encoded() {
        assert_eq!(encoded("a=b,c in (d)&é"), "a%3Db%2Cc%20in%20%28d%29%26%C3%A9");
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
