//! What a request asks for, taken from its method, URL, headers and body.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http::{Method, header, request::Parts};
use serde_json::Value;

use crate::{
    path::{Path, query},
    resources::{Resource, Rules},
    status::Failure,
};

/// Verbs as the API server names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// GET of one object.
    Get,
    /// GET of a collection.
    List,
    /// GET of a collection with `watch`.
    Watch,
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH.
    Patch,
    /// DELETE of one object.
    Delete,
}

impl Verb {
    /// The name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    /// Whether it changes objects.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Patch | Self::Delete)
    }
}

/// How much of an object is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The whole object.
    Whole,
    /// `PartialObjectMetadata`.
    Partial,
    /// `PartialObjectMetadataList`.
    PartialList,
}

/// A request that was understood.
#[derive(Clone, Debug)]
pub struct Call {
    /// Name of the client, as given to [`crate::ApiServer::client_service`].
    pub client: String,
    /// What it does.
    pub verb: Verb,
    /// To what.
    pub resource: Arc<Resource>,
    /// Namespace; `None` for all, or for what is in none.
    pub namespace: Option<String>,
    /// Name; empty for a collection.
    pub name: String,
    /// Subresource; empty for the object itself.
    pub subresource: String,
    /// Query parameters, decoded.
    pub query: BTreeMap<String, String>,
    /// What is answered.
    pub form: Form,
    /// Who owns what is written.
    pub manager: String,
    /// The body's media type.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}

impl Call {
    /// Understands a request.
    ///
    /// # Errors
    /// 404 for a path without resource, 405 for a method that it does not have.
    pub fn parse(resources: &[Arc<Resource>], client: &str, head: &Parts, body: Bytes) -> Result<Self, Failure> {
        let path = Path::parse(head.uri.path()).ok_or_else(Failure::no_such_resource)?;
        let is_it = |resource: &&Arc<Resource>| {
            resource.group == path.group && resource.version == path.version && resource.plural == path.plural
        };
        let resource = resources.iter().find(is_it).ok_or_else(Failure::no_such_resource)?;
        let is_offered = path.subresource.is_empty() || path.subresource == "status" && resource.has_status();
        if !is_offered {
            return Err(match resource.rules {
                Rules::Custom => Failure::not_found(resource, &path.name),
                _ => Failure::no_such_resource(),
            });
        }
        let query = query(head.uri.query().unwrap_or_default());
        let is_watch = query.get("watch").is_some_and(|value| matches!(value.as_str(), "true" | "1"));
        let verb = verb(&head.method, path.name.is_empty(), is_watch).ok_or_else(Failure::no_such_method)?;
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Self {
            client: client.to_owned(),
            verb,
            resource: resource.clone(),
            namespace: resource.namespaced.then_some(path.namespace).flatten(),
            name: path.name,
            subresource: path.subresource,
            form: form(text(header::ACCEPT)),
            manager: manager(&query, text(header::USER_AGENT)),
            query,
            content_type: text(header::CONTENT_TYPE).to_owned(),
            body,
        })
    }

    /// A query parameter; empty where it is absent.
    #[must_use]
    pub fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Whether a query parameter is true.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        matches!(self.parameter(name), "true" | "1")
    }

    /// Plural and subresource, as in `itwinauthorities/status`.
    #[must_use]
    pub fn target(&self) -> String {
        let plural = &self.resource.plural;
        if self.subresource.is_empty() { plural.clone() } else { format!("{plural}/{}", self.subresource) }
    }

    /// Whether this is its target.
    #[must_use]
    pub fn is_to(&self, target: &str) -> bool {
        let (plural, subresource) = target.split_once('/').unwrap_or((target, ""));
        self.resource.plural == plural && self.subresource == subresource
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// 400 where it is none.
    pub fn json(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| Failure::bad_request(format!("invalid body: {error}")))
    }
}

fn verb(method: &Method, is_collection: bool, is_watch: bool) -> Option<Verb> {
    match (method, is_collection) {
        (&Method::GET, _) if is_watch => Some(Verb::Watch),
        (&Method::GET, true) => Some(Verb::List),
        (&Method::GET, false) => Some(Verb::Get),
        (&Method::POST, true) => Some(Verb::Create),
        (&Method::PUT, false) => Some(Verb::Update),
        (&Method::PATCH, false) => Some(Verb::Patch),
        (&Method::DELETE, false) => Some(Verb::Delete),
        _ => None,
    }
}

fn form(accept: &str) -> Form {
    // clients name what they prefer first
    let first = accept.split(',').next().unwrap_or_default();
    let wants = |kind: &str| first.split(';').any(|part| part.trim().strip_prefix("as=") == Some(kind));
    if wants("PartialObjectMetadata") {
        Form::Partial
    } else if wants("PartialObjectMetadataList") {
        Form::PartialList
    } else {
        Form::Whole
    }
}

fn manager(query: &BTreeMap<String, String>, user_agent: &str) -> String {
    let named = query.get("fieldManager").map(String::as_str).filter(|name| !name.is_empty());
    let manager = named.unwrap_or_else(|| user_agent.split('/').next().unwrap_or_default());
    if manager.is_empty() { "unknown" } else { manager }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::table;

    fn parse(method: &str, uri: &str) -> Result<Call, Failure> {
        let resources: Vec<Arc<Resource>> = table().into_iter().map(Arc::new).collect();
        let request = http::Request::builder().method(method).uri(uri).body(()).expect("a request");
        Call::parse(&resources, "test", &request.into_parts().0, Bytes::new())
    }

    #[test]
    fn every_request_of_the_operator_is_understood() {
        for (method, uri, verb, target, namespace, name) in [
            ("GET", "/api/v1/secrets?&limit=100", Verb::List, "secrets", None, ""),
            ("GET", "/api/v1/namespaces/a/secrets?watch=true", Verb::Watch, "secrets", Some("a"), ""),
            ("GET", "/api/v1/namespaces/a", Verb::Get, "namespaces", None, "a"),
            ("POST", "/api/v1/namespaces/a/secrets?&fieldManager=m", Verb::Create, "secrets", Some("a"), ""),
            ("PATCH", "/apis/apps/v1/namespaces/a/deployments/d", Verb::Patch, "deployments", Some("a"), "d"),
            (
                "PATCH",
                "/apis/credentials.itwin.dev/v1alpha1/itwinauthorities/ims/status?",
                Verb::Patch,
                "itwinauthorities/status",
                None,
                "ims",
            ),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/l", Verb::Update, "leases", Some("a"), "l"),
        ] {
            let call = parse(method, uri).expect(uri);
            let found = (call.verb, call.target(), call.namespace.as_deref(), call.name.as_str());
            assert_eq!(found, (verb, target.to_owned(), namespace, name), "{uri}");
        }
    }

    #[test]
    fn paths_and_methods_that_are_not_offered_are_refused() {
        assert_eq!(parse("GET", "/api/v1/pods").expect_err("unknown").code, 404);
        assert_eq!(parse("GET", "/api/v1/namespaces/a/secrets/s/status").expect_err("no subresource").code, 404);
        assert_eq!(parse("POST", "/api/v1/namespaces/a/secrets/s").expect_err("no method").code, 405);
    }

    #[test]
    fn parameters_are_decoded() {
        let call = parse("GET", "/api/v1/secrets?labelSelector=a%3Db%2Cc&continue=x%3D%3D").expect("a list");
        assert_eq!(call.parameter("labelSelector"), "a=b,c");
        assert_eq!(call.parameter("continue"), "x==");
    }
}
