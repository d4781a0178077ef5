//! Plays operations on one server, and remembers what only that server knows.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use futures::StreamExt;
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::{Client, client::Body, core::WatchEvent};
use serde_json::{Value, json};
use simulated_api::patch::merge;
use tokio::time::timeout;

use crate::{
    normal::Normal,
    operations::{Action, From, Operation},
};

const PARTIAL: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const PARTIAL_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// The longest wait for an event.
const SOON: Duration = Duration::from_secs(20);

/// What is known of an object.
#[derive(Clone, Debug, Default)]
struct Seen {
    uid: String,
    versions: Vec<String>,
    last: Value,
}

/// One server.
pub struct Player {
    client: Client,
    namespace: String,
    seen: BTreeMap<String, Seen>,
    /// Versions of all objects, in the order in which they were seen.
    versions: Vec<String>,
    normal: Normal,
    markers: usize,
}

impl Player {
    pub fn new(client: Client, namespace: &str) -> Self {
        let (namespace, normal) = (namespace.to_owned(), Normal::default());
        Self { client, namespace, seen: BTreeMap::new(), versions: Vec::new(), normal, markers: 0 }
    }

    /// The order of the versions that were seen, which must be the same on both servers.
    pub fn order(&self) -> Vec<usize> {
        self.normal.order()
    }

    /// Plays an operation; the answer in a form that can be compared.
    pub async fn play(&mut self, operation: &Operation) -> Result<Value> {
        let Operation { collection, name, action, manager, partial } = operation;
        let object = format!("{collection}/{name}");
        let accept = if *partial { PARTIAL } else { "application/json" };
        let (method, path, body, media) = match action {
            Action::Get => (Method::GET, object.clone(), None, ""),
            Action::GetNotOlder { comes } => {
                let version = if *comes { self.latest().await? } else { u64::from(u32::MAX).to_string() };
                (Method::GET, format!("{object}?resourceVersion={version}"), None, "")
            }
            Action::Create(body) => (
                Method::POST,
                format!("{collection}?fieldManager={manager}"),
                Some(self.resolved(&object, body)),
                "application/json",
            ),
            Action::Patch { subresource, patch } => {
                let slash = if subresource.is_empty() { "" } else { "/" };
                let path = format!("{object}{slash}{subresource}?fieldManager={manager}");
                (Method::PATCH, path, Some(self.resolved(&object, patch)), "application/merge-patch+json")
            }
            Action::Put { whole, merge } => {
                let body = self.put(&object, name, *whole, merge);
                (Method::PUT, format!("{object}?fieldManager={manager}"), Some(body), "application/json")
            }
            Action::PutStatus { whole, merge } => {
                let mut body = self.put(&object, name, *whole, merge);
                if !whole {
                    // as the operator writes it
                    body.as_object_mut().unwrap().remove("spec");
                }
                (Method::PUT, format!("{object}/status?fieldManager={manager}"), Some(body), "application/json")
            }
            Action::Delete(options) => {
                (Method::DELETE, object.clone(), Some(self.resolved(&object, options)), "application/json")
            }
            Action::Pages { limit, exact, selector } => {
                return self.pages(collection, *limit, *exact, selector, *partial).await;
            }
            Action::Watch { from, selector } => return self.watch(collection, *from, selector, *partial).await,
            Action::Odd { method, path, accept, media, body } => {
                let body = (!body.is_empty()).then(|| (*body).to_owned());
                let (code, answer) = self.send_text(method.parse()?, path, body, accept, media).await?;
                return Ok(json!({"code": code, "answer": self.normal.answer(code, answer)}));
            }
        };
        let (code, answer) = self.send(method, &path, body.as_ref(), accept, media).await?;
        if code < 300 {
            self.remember(&object, &answer);
        }
        Ok(json!({"code": code, "answer": self.normal.answer(code, answer)}))
    }

    fn resolved(&self, object: &str, value: &Value) -> Value {
        let seen = self.seen.get(object).cloned().unwrap_or_default();
        match value {
            Value::String(text) => json!(match text.as_str() {
                "$rv" => seen.versions.last().map_or("1", String::as_str),
                "$stale" => seen.versions.iter().rev().nth(1).map_or("1", String::as_str),
                "$uid" => &seen.uid,
                text => text,
            }),
            Value::Object(fields) => {
                Value::Object(fields.iter().map(|(key, value)| (key.clone(), self.resolved(object, value))).collect())
            }
            Value::Array(items) => items.iter().map(|item| self.resolved(object, item)).collect(),
            other => other.clone(),
        }
    }

    fn put(&self, object: &str, name: &str, whole: bool, change: &Value) -> Value {
        let last = self.seen.get(object).map(|seen| seen.last.clone()).unwrap_or_default();
        let mut body = json!({"metadata": {"name": name}});
        if last.is_object() && whole {
            body = last;
        } else if last.is_object() {
            for part in ["apiVersion", "kind", "spec", "type"] {
                body[part] = last[part].clone();
            }
            body.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        }
        merge(&mut body, &self.resolved(object, change));
        body
    }

    fn remember(&mut self, object: &str, answer: &Value) {
        let metadata = &answer["metadata"];
        let Some(version) = metadata["resourceVersion"].as_str() else { return };
        let seen = self.seen.entry(object.to_owned()).or_default();
        seen.uid = metadata["uid"].as_str().unwrap_or_default().to_owned();
        if seen.versions.last().is_none_or(|last| last != version) {
            seen.versions.push(version.to_owned());
        }
        if answer["kind"] != "PartialObjectMetadata" {
            seen.last = answer.clone();
        }
        // Deployments are also written by their controller
        if !object.contains("/deployments/") {
            self.versions.push(version.to_owned());
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        accept: &str,
        media: &str,
    ) -> Result<(u16, Value)> {
        self.send_text(method, path, body.map(Value::to_string), accept, media).await
    }

    async fn send_text(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        accept: &str,
        media: &str,
    ) -> Result<(u16, Value)> {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.into_bytes()));
        let mut request = Request::builder().method(method).uri(path).header("accept", accept);
        if !media.is_empty() {
            request = request.header("content-type", media);
        }
        let answer = self.client.send(request.body(body)?).await?;
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await?.to_bytes();
        let answer = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        Ok((code, answer))
    }

    async fn pages(
        &mut self,
        collection: &str,
        limit: usize,
        exact: bool,
        selector: &str,
        partial: bool,
    ) -> Result<Value> {
        let accept = if partial { PARTIAL_LIST } else { "application/json" };
        let selector = selector.replace(' ', "%20").replace('=', "%3D");
        let mut query = format!("?limit={limit}&labelSelector={selector}");
        if exact && let Some(version) = self.versions.last() {
            query.push_str(&format!("&resourceVersion={version}&resourceVersionMatch=Exact"));
        }
        let (mut pages, mut next) = (Vec::new(), String::new());
        loop {
            let path = if next.is_empty() {
                format!("{collection}{query}")
            } else {
                format!("{collection}?limit={limit}&labelSelector={selector}&continue={next}")
            };
            let (code, page) = self.send(Method::GET, &path, None, accept, "").await?;
            next = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            pages.push(json!({"code": code, "page": self.normal.answer(code, page)}));
            if next.is_empty() {
                return Ok(json!(pages));
            }
            // what comes later is not in a list that has begun
            self.mark().await?;
        }
    }

    /// The version of a Secret that was just created: whatever is not older shows all that was written before.
    async fn latest(&mut self) -> Result<String> {
        self.markers += 1;
        let name = format!("marker-{}", self.markers);
        let collection = format!("/api/v1/namespaces/{}/secrets", self.namespace);
        let object = json!({"metadata": {"name": name}});
        let (_, created) =
            self.send(Method::POST, &collection, Some(&object), "application/json", "application/json").await?;
        self.send(Method::DELETE, &format!("{collection}/{name}"), None, "application/json", "").await?;
        Ok(created["metadata"]["resourceVersion"].as_str().context("the marker was not created")?.to_owned())
    }

    /// Creates and deletes a Secret, a credential and a Lease of a name that nothing else has.
    async fn mark(&mut self) -> Result<String> {
        self.markers += 1;
        let name = format!("marker-{}", self.markers);
        let itwin = "credentials.itwin.dev/v1alpha1";
        for (path, kind, plural) in [
            ("/api/v1", "Secret", "secrets"),
            ("/apis/coordination.k8s.io/v1", "Lease", "leases"),
            ("/apis/credentials.itwin.dev/v1alpha1", "ITwinServiceCredential", "itwinservicecredentials"),
        ] {
            let mut object = json!({"kind": kind, "apiVersion": path.trim_start_matches("/apis/").trim_start_matches("/api/"), "metadata": {"name": name, "labels": {"colour": "red"}}});
            if object["apiVersion"] == itwin {
                object["spec"] = json!({"clientCredentialsRef": {"name": "client"}});
            }
            let collection = format!("{path}/namespaces/{}/{plural}", self.namespace);
            self.send(Method::POST, &collection, Some(&object), "application/json", "application/json").await?;
            self.send(Method::DELETE, &format!("{collection}/{name}"), None, "application/json", "").await?;
        }
        Ok(name)
    }

    async fn watch(&mut self, collection: &str, from: From, selector: &str, partial: bool) -> Result<Value> {
        let begin = match from {
            From::Back(count) => {
                let Some(version) = self.versions.iter().rev().nth(count) else { return Ok(Value::Null) };
                format!("resourceVersion={version}")
            }
            From::Now => String::new(),
            From::NowWithBookmark => {
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true".to_owned()
            }
        };
        let selector = selector.replace('=', "%3D");
        let path = format!("{collection}?watch=true&{begin}&timeoutSeconds=20&labelSelector={selector}");
        let accept = if partial { PARTIAL } else { "application/json" };
        let request = Request::get(path).header("accept", accept).body(Vec::new())?;
        let mut events = Box::pin(self.client.request_events::<Value>(request).await?);
        let marker = self.mark().await?;
        let mut found: Vec<Value> = Vec::new();
        // where nothing exists, nothing ever comes
        if !collection.contains(&self.namespace) || collection.contains("/events") {
            return Ok(json!(found));
        }
        loop {
            let event = timeout(SOON, events.next()).await.context("no event")?.context("the watch ended")??;
            let (kind, object) = match event {
                WatchEvent::Added(object) => ("ADDED", object),
                WatchEvent::Modified(object) => ("MODIFIED", object),
                WatchEvent::Deleted(object) => ("DELETED", object),
                WatchEvent::Bookmark(mark) if !mark.metadata.annotations.is_empty() => {
                    found.push(json!({"bookmark": mark.metadata.annotations}));
                    continue;
                }
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(status) => return Ok(json!({"error": status.code})),
            };
            let is_marker = object["metadata"]["name"] == marker.as_str() && kind == "DELETED";
            found.push(json!({"type": kind, "object": self.normal.answer(200, object)}));
            if is_marker {
                return Ok(json!(found));
            }
        }
    }
}
