//! What controllers make of owner references and deletions, on both servers.
//!
//! They act when they get to it, so that only where they end is compared. Owners are of built-in kinds, which garbage
//! collection knows from the start.

use std::time::Duration;

use anyhow::{Context, Result};
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use simulated_api::ApiServer;
use testbed::eventually;

/// The longest that real controllers take.
const LIMIT: Duration = Duration::from_secs(60);
/// Owners, named by the propagation policy with which they are deleted.
const OWNERS: [(&str, &str); 3] = [("background", "Background"), ("foreground", "Foreground"), ("orphan", "Orphan")];

/// One server with a namespace of this test's own.
struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<(u16, Value)> {
        let path = if path.starts_with('/') {
            format!("/api/v1/namespaces{path}")
        } else {
            format!("/api/v1/namespaces/{}/secrets/{path}", self.namespace)
        };
        let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path.trim_end_matches('/')).header("content-type", media);
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string().into_bytes()) };
        let answer = self.client.send(request.body(body)?).await?;
        let code = answer.status().as_u16();
        Ok((code, serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?))
    }

    /// Creates a Secret; gives a reference to it.
    async fn create(&self, name: &str, owners: &[Value]) -> Result<Value> {
        let metadata = json!({"name": name, "ownerReferences": owners});
        let (_, object) = self.send(Method::POST, "", &json!({"metadata": metadata})).await?;
        let uid = object["metadata"]["uid"].as_str().with_context(|| format!("{name}: {object}"))?;
        Ok(json!({"apiVersion": "v1", "kind": "Secret", "name": name, "uid": uid}))
    }

    /// The Secrets that are there, with the names of their owners.
    async fn secrets(&self) -> Result<Vec<String>> {
        let (_, list) = self.send(Method::GET, "", &Value::Null).await?;
        let line = |object: &Value| {
            let metadata = &object["metadata"];
            let owners =
                metadata["ownerReferences"].as_array().into_iter().flatten().map(|owner| owner["name"].clone());
            format!("{} of {}", metadata["name"], Value::from_iter(owners))
        };
        Ok(list["items"].as_array().into_iter().flatten().map(line).collect())
    }

    async fn prepare(&self) -> Result<()> {
        self.send(Method::POST, "/", &json!({"metadata": {"name": self.namespace}})).await?;
        let mut owners = Vec::new();
        for (name, _) in OWNERS {
            owners.push(self.create(name, &[]).await?);
        }
        let kept = self.create("kept", &[]).await?;
        for owner in &owners {
            let name = owner["name"].as_str().unwrap_or_default();
            self.create(&format!("dependent-of-{name}"), std::slice::from_ref(owner)).await?;
            self.create(&format!("dependent-of-{name}-and-kept"), &[owner.clone(), kept.clone()]).await?;
            let mut other = owner.clone();
            other["uid"] = json!("11111111-2222-4333-8444-555555555555");
            self.create(&format!("dependent-of-another-{name}"), &[other]).await?;
        }
        Ok(())
    }
}

/// Plays on both; `simulated` is the server behind the first.
pub async fn compare(server: &ApiServer, simulated: Client, real: Client) -> Result<()> {
    let namespace = format!("differential-{}-controllers", std::process::id());
    let [simulated, real] = [simulated, real].map(|client| Cluster { client, namespace: namespace.clone() });
    for cluster in [&simulated, &real] {
        cluster.prepare().await?;
    }
    settle(server, &simulated, &real).await?;
    for (name, policy) in OWNERS {
        for cluster in [&simulated, &real] {
            cluster.send(Method::DELETE, name, &json!({"propagationPolicy": policy})).await?;
        }
        settle(server, &simulated, &real).await?;
    }
    end_namespace(server, &simulated, &real).await
}

async fn settle(server: &ApiServer, simulated: &Cluster, real: &Cluster) -> Result<()> {
    server.run_controllers_once();
    let expected = simulated.secrets().await?;
    let mut last = Vec::new();
    let same = eventually("what the simulated controllers leave", LIMIT, async || {
        last = real.secrets().await.ok()?;
        (last == expected).then_some(())
    });
    let result = same.await;
    result.with_context(|| format!("simulated: {expected:#?}\nreal: {last:#?}"))
}

/// A namespace that cannot end, since a finalizer holds a Secret, takes nothing new; then it goes.
async fn end_namespace(server: &ApiServer, simulated: &Cluster, real: &Cluster) -> Result<()> {
    let mut answers = Vec::new();
    for cluster in [simulated, real] {
        let held = json!({"metadata": {"finalizers": ["example.com/f"]}});
        cluster.send(Method::PATCH, "kept", &held).await?;
        let path = format!("/{}", cluster.namespace);
        let (code, object) = cluster.send(Method::DELETE, &path, &Value::Null).await?;
        let refused = cluster.send(Method::POST, "", &json!({"metadata": {"name": "late"}})).await?;
        answers.push((code, object["status"]["phase"].clone(), refused));
    }
    assert_eq!(answers[0], answers[1]);
    settle(server, simulated, real).await?;
    let gone = json!({"metadata": {"finalizers": null}});
    for cluster in [simulated, real] {
        cluster.send(Method::PATCH, "kept", &gone).await?;
    }
    server.run_controllers_once();
    eventually("the end of the namespace", LIMIT, async || {
        let (code, _) = real.send(Method::GET, &format!("/{}", real.namespace), &Value::Null).await.ok()?;
        (code == 404).then_some(())
    })
    .await?;
    let late = json!({"metadata": {"name": "late"}});
    assert_eq!(simulated.send(Method::POST, "", &late).await?, real.send(Method::POST, "", &late).await?);
    Ok(())
}
