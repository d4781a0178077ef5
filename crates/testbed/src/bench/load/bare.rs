//! What the requests of the operator cost the API server, and any program that makes them: here a client does that
//! decides and verifies nothing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::DynamicObject,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{AT_ONCE, Load, credential};
use crate::bench::{
    measure,
    pace::{call, drain_watch},
    paths::{ALL_CREDENTIALS, ALL_SECRETS, CREDENTIALS, EVENTS, NAMESPACE, SECRETS},
};

/// Writes at the same time, as the operator makes them.
const LIKE_THE_OPERATOR: usize = 16;
/// What the operator watches, and the load generator once more.
const WATCHED: [&str; 3] = [ALL_SECRETS, ALL_SECRETS, ALL_CREDENTIALS];

/// The requests of so many first tokens.
pub struct Bare {
    /// Credentials.
    pub count: usize,
    /// From the first request to the last answer.
    pub wall: Duration,
    /// CPU seconds by program, before.
    pub before: BTreeMap<String, f64>,
    /// The same afterwards.
    pub after: BTreeMap<String, f64>,
}

impl Load {
    /// Writes Secrets and statuses like those of the operator, as many at the same time as it does. The
    /// credentials exist before; the first duration is that of their creation.
    pub async fn bare_writes(&self, count: usize) -> Result<(Duration, Duration)> {
        let names: Vec<String> = (0..count).map(|number| format!("bare-{number}")).collect();
        let began = Instant::now();
        self.create_bare(&names).await?;
        let created = began.elapsed();
        let began = Instant::now();
        self.write_bare(&names).await?;
        let took = began.elapsed();
        self.delete_bare(&names).await?;
        Ok((created, took))
    }

    /// Creates credentials that no operator reconciles.
    pub async fn create_bare(&self, names: &[String]) -> Result<()> {
        let create = async |name: &String| {
            let object = credential(name, &json!({}))?;
            self.credentials(NAMESPACE).create(&PostParams::default(), &object).await.map(drop)?;
            anyhow::Ok(())
        };
        stream::iter(names).map(create).buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    /// Gives each of them a Secret and a status.
    pub async fn write_bare(&self, names: &[String]) -> Result<()> {
        let token = "x".repeat(1024);
        let write = async |name: &String| -> Result<()> {
            let secret = serde_json::from_value(secret_like_ours(name, &token))?;
            self.secrets(NAMESPACE).create(&PostParams::default(), &secret).await?;
            let status = Patch::Merge(status_like_ours(name, "x"));
            self.credentials(NAMESPACE).patch_status(name, &PatchParams::default(), &status).await?;
            Ok(())
        };
        stream::iter(names).map(write).buffer_unordered(LIKE_THE_OPERATOR).try_collect::<()>().await
    }

    /// Deletes these objects.
    pub async fn delete_bare(&self, names: &[String]) -> Result<()> {
        let delete = async |name: &String| -> Result<()> {
            self.credentials(NAMESPACE).delete(name, &Default::default()).await?;
            self.secrets(NAMESPACE).delete(name, &Default::default()).await?;
            Ok(())
        };
        stream::iter(names).map(delete).buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    /// Makes the requests of first tokens, with the watches that report them: credentials are created, and for each of
    /// them the client Secret is read from the cache, and a Secret, a status and an event are written.
    pub async fn bare_first_tokens(&self, count: usize) -> Result<Bare> {
        let names: Vec<String> = (0..count).map(|number| format!("first-{number}")).collect();
        let watches = futures::future::try_join_all(WATCHED.map(|path| drain_watch(&self.client, path)));
        let before = measure::cpu_by_program()?;
        let began = Instant::now();
        tokio::select! {
            ended = watches => bail!("a watch ended: {:?}", ended.err()),
            made = self.first_tokens(&names) => made?,
        }
        let (wall, after) = (began.elapsed(), measure::cpu_by_program()?);
        self.delete_bare(&names).await?;
        Ok(Bare { count, wall, before, after })
    }

    async fn first_tokens(&self, names: &[String]) -> Result<()> {
        let client_secret = self.secrets(NAMESPACE).get("client").await?;
        let version = client_secret.resource_version().context("a version")?;
        let (created, arrivals) = mpsc::channel(names.len().max(1));
        let create = async |name: &String| -> Result<()> {
            let object = credential(name, &json!({"scopes": [name]}))?;
            let object = self.credentials(NAMESPACE).create(&PostParams::default(), &object).await?;
            created.send(object).await?;
            Ok(())
        };
        let write = async |object: DynamicObject| self.first_token(&object, &version).await;
        let arrivals = stream::unfold(arrivals, |mut arrivals| async move {
            let object: Option<DynamicObject> = arrivals.recv().await;
            object.map(|object| (object, arrivals))
        });
        let creates = stream::iter(names).map(create).buffer_unordered(AT_ONCE).try_collect::<()>();
        let writes = arrivals.take(names.len()).map(write).buffer_unordered(LIKE_THE_OPERATOR).try_collect::<()>();
        tokio::try_join!(creates, writes)?;
        Ok(())
    }

    /// The requests that follow the creation of a credential.
    async fn first_token(&self, credential: &DynamicObject, client_version: &str) -> Result<()> {
        let name = credential.name_any();
        call(&self.client, "GET", &format!("{SECRETS}/client?resourceVersion={client_version}"), None).await?;
        call(&self.client, "POST", SECRETS, Some(&secret_like_ours(&name, &"x".repeat(1024)))).await?;
        let (uid, version) = (credential.uid().unwrap_or_default(), credential.resource_version().unwrap_or_default());
        let status = replacement_like_ours(&name, &uid, &version, "x");
        call(&self.client, "PUT", &format!("{CREDENTIALS}/{name}/status"), Some(&status)).await?;
        call(&self.client, "POST", EVENTS, Some(&event_like_ours(credential))).await.map(drop)
    }
}

/// A Secret as long as those of the operator.
pub fn secret_like_ours(name: &str, token: &str) -> Value {
    let annotations: serde_json::Map<String, Value> =
        (0..9).map(|n| (format!("example.com/annotation-{n}"), json!("x".repeat(64)))).collect();
    json!({
        "metadata": {"name": name, "labels": {"example.com/bare": "yes"}, "annotations": annotations},
        "stringData": {"access_token": token, "authorization": format!("Bearer {token}"), "scope": name},
    })
}

/// A status as long as those of the operator, with one field that can differ.
pub fn status_like_ours(name: &str, client_id: &str) -> Value {
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": "True", "reason": "Bare", "message": "x".repeat(80),
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    json!({"status": {
        "observedGeneration": 1, "secretName": name, "issuer": "x".repeat(64), "clientId": client_id,
        "conditions": [condition("Ready"), condition("Renewed")],
    }})
}

/// The same in the object whose status it replaces at this version.
pub fn replacement_like_ours(name: &str, uid: &str, version: &str, client_id: &str) -> Value {
    let mut object = status_like_ours(name, client_id);
    object["apiVersion"] = json!(testbed::objects::API_VERSION);
    object["kind"] = json!("ITwinServiceCredential");
    object["metadata"] = json!({"name": name, "namespace": NAMESPACE, "uid": uid, "resourceVersion": version});
    object
}

/// An event as long as those of the operator.
fn event_like_ours(credential: &DynamicObject) -> Value {
    let name = credential.name_any();
    json!({
        "metadata": {"name": format!("{name}.bare"), "namespace": NAMESPACE},
        "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Issue", "reason": "Issued", "type": "Normal",
        "note": "x".repeat(80), "reportingController": "example.com/bare", "reportingInstance": "bare",
        "regarding": {
            "apiVersion": testbed::objects::API_VERSION, "kind": "ITwinServiceCredential", "namespace": NAMESPACE,
            "name": name, "uid": credential.uid(),
        },
    })
}
