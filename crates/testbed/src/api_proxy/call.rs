//! One call to the API server, named as RBAC names it.

use hyper::{HeaderMap, Method, Uri, header};
use serde_json::Value;

/// A call to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Verb, resource with subresource, and whether only metadata is requested: `get secrets (metadata)`,
    /// `patch itwinservicecredentials/status`, `watch itwinauthorities`.
    pub kind: String,
    /// Namespace; empty for cluster-scoped objects and for calls across all namespaces.
    pub namespace: String,
    /// The object's name; empty for lists and watches. For an event, the name of the object that it is about:
    /// its own name is generated.
    pub object: String,
}

impl Call {
    /// Reads the call from a request.
    pub(super) fn read(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Self {
        let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
        // /api/v1/..., /apis/<group>/<version>/...
        let group_parts = if parts.next() == Some("apis") { 2 } else { 1 };
        let mut parts: Vec<&str> = parts.skip(group_parts).collect();
        let mut namespace = String::new();
        // namespaces/<name> alone is the object itself
        if parts.len() > 2 && parts[0] == "namespaces" && !matches!(parts[2], "status" | "finalize") {
            namespace = parts[1].to_owned();
            parts.drain(..2);
        }
        let mut parts = parts.into_iter();
        let mut resource = parts.next().unwrap_or_default().to_owned();
        let named = parts.next();
        if let Some(subresource) = parts.next() {
            resource = format!("{resource}/{subresource}");
        }
        let watch =
            uri.query().is_some_and(|query| query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1")));
        let verb = match *method {
            Method::GET if watch => "watch",
            Method::GET if named.is_some() => "get",
            Method::GET => "list",
            Method::POST => "create",
            Method::PATCH => "patch",
            Method::PUT => "update",
            Method::DELETE => "delete",
            _ => "other",
        };
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        // a patch may return metadata or the whole object: that does not make it another call
        let metadata = if verb == "get" && accept.contains("PartialObjectMetadata") { " (metadata)" } else { "" };
        let created = || {
            let object: Value = serde_json::from_slice(body).unwrap_or_default();
            object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
        };
        let mut object = named.map_or_else(created, str::to_owned);
        if resource == "events" {
            // <object>.<number>
            object = object.rsplit_once('.').map_or(object.clone(), |(regarding, _)| regarding.to_owned());
        }
        Self { kind: format!("{verb} {resource}{metadata}"), namespace, object }
    }

    /// The resource with its subresource.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.kind.split(' ').nth(1).unwrap_or_default()
    }

    /// Whether the call changes something.
    #[must_use]
    pub fn writes(&self) -> bool {
        ["create", "patch", "update", "delete"].iter().any(|verb| self.kind.starts_with(verb))
    }

    /// Whether it is a watch, whose response never ends by itself.
    #[must_use]
    pub fn is_watch(&self) -> bool {
        self.kind.starts_with("watch ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: Method, uri: &str, accept: &str, body: &str) -> (String, String, String) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().expect("a header"));
        let call = Call::read(&method, &uri.parse().expect("a URI"), &headers, body.as_bytes());
        (call.kind, call.namespace, call.object)
    }

    #[test]
    fn calls_are_named_as_rbac_names_them() {
        let partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        let expect = |kind: &str, namespace: &str, object: &str| (kind.into(), namespace.into(), object.into());
        assert_eq!(
            call(Method::GET, "/api/v1/namespaces/a/secrets/b?", partial, ""),
            expect("get secrets (metadata)", "a", "b")
        );
        assert_eq!(
            call(Method::GET, "/api/v1/namespaces/a?", partial, ""),
            expect("get namespaces (metadata)", "", "a")
        );
        assert_eq!(
            call(Method::GET, "/api/v1/namespaces/a/secrets?watch=true&timeoutSeconds=1", "", ""),
            expect("watch secrets", "a", "")
        );
        assert_eq!(
            call(Method::GET, "/apis/credentials.itwin.dev/v1alpha1/itwinauthorities?limit=500", "", ""),
            expect("list itwinauthorities", "", "")
        );
        assert_eq!(
            call(
                Method::PATCH,
                "/apis/credentials.itwin.dev/v1alpha1/namespaces/a/itwinservicecredentials/b/status",
                "",
                "{}"
            ),
            expect("patch itwinservicecredentials/status", "a", "b")
        );
        assert_eq!(
            call(
                Method::POST,
                "/apis/events.k8s.io/v1/namespaces/a/events?",
                "",
                r#"{"metadata": {"name": "agent.17"}}"#
            ),
            expect("create events", "a", "agent")
        );
    }
}
