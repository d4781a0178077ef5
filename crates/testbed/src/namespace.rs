//! A namespace for one test, and the objects that a user would create in it.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use base64::Engine;
use serde_json::{Value, json};

use crate::{Testbed, authority::Client, eventually};

/// Limit for garbage collection: its controller discovers new resources every 30 s, and knows the CRDs only then.
pub const COLLECTED: Duration = Duration::from_secs(75);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A namespace for one test, with an ITwinAuthority of the same name.
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// The testbed of this namespace.
    pub testbed: Testbed,
    /// The administrator's client.
    pub client: kube::Client,
}

impl Namespace {
    /// Creates a namespace whose name begins with `prefix`.
    ///
    /// # Errors
    /// Fails if the API server rejects it.
    pub async fn new(prefix: &str) -> Result<Self> {
        Self::on(Testbed::current()?, prefix).await
    }

    /// Like [`Self::new`], on another testbed than that of the test.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub async fn on(testbed: Testbed, prefix: &str) -> Result<Self> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{}-{number}", std::process::id());
        testbed.kubectl(&["create", "namespace", &name]).await?;
        Ok(Self { client: testbed.client().await?, testbed, name })
    }

    /// Runs kubectl in this namespace.
    ///
    /// # Errors
    /// Fails if the command fails; the error holds its output.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.testbed.kubectl(&[&["--namespace", &self.name], arguments].concat()).await
    }

    /// Applies an object in this namespace.
    ///
    /// # Errors
    /// Fails if the API server rejects it; the error holds its output.
    pub async fn apply(&self, object: &Value) -> Result<String> {
        self.testbed.kubectl_with(&["--namespace", &self.name, "apply", "-f", "-"], Some(&object.to_string())).await
    }

    /// The object of this kind and name as JSON; `None` if it does not exist.
    ///
    /// # Errors
    /// Fails if the output cannot be parsed.
    pub async fn get(&self, kind: &str, name: &str) -> Result<Option<Value>> {
        let text = self.kubectl(&["get", kind, name, "--ignore-not-found", "-o", "json"]).await?;
        if text.trim().is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&text)?)) }
    }

    /// Deletes a credential and orphans its Secret, once garbage collection knows the owner of the Secret: before that
    /// it finds nothing to orphan, and collects the Secret.
    ///
    /// # Errors
    /// Fails if the collector does not act in time, or the API server rejects it.
    pub async fn orphan(&self, credential: &str) -> Result<()> {
        // Secrets reach the collector in the order in which they were written, so all before this one were processed
        let sentinel = format!("{credential}-sentinel");
        let owner = json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinServiceCredential",
            "name": credential,
            "uid": "there-is-none",
        });
        let metadata = json!({"name": sentinel, "ownerReferences": [owner]});
        self.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})).await?;
        eventually("garbage collection of a Secret", COLLECTED, async || {
            self.get("secret", &sentinel).await.ok()?.is_none().then_some(())
        })
        .await?;
        self.kubectl(&["delete", "itcred", credential, "--cascade=orphan", "--timeout=60s"]).await.map(drop)
    }

    /// An ITwinAuthority for the authorization server of the testbed; `spec` is merged into its spec.
    #[must_use]
    pub fn authority(&self, spec: &Value) -> Value {
        let mut full = json!({"issuer": self.testbed.authority.issuer, "caBundle": self.testbed.authority.ca_bundle()});
        merge(&mut full, spec);
        json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinAuthority",
            "metadata": {"name": self.name},
            "spec": full,
        })
    }

    /// An ITwinServiceCredential that uses that authority and the Secret `<name>-client`.
    #[must_use]
    pub fn credential(&self, name: &str, spec: &Value) -> Value {
        let mut full = json!({
            "authorityRef": {"name": self.name},
            "clientCredentialsRef": {"name": format!("{name}-client")},
        });
        merge(&mut full, spec);
        json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinServiceCredential",
            "metadata": {"name": name},
            "spec": full,
        })
    }

    /// The client Secret of the credential `name`.
    #[must_use]
    pub fn client_secret(&self, name: &str, client: &Client) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": format!("{name}-client")},
            "stringData": {"client_id": client.client_id, "client_secret": client.client_secret},
        })
    }

    /// A client of the testbed's authorization server for this namespace. It is not yet registered.
    #[must_use]
    pub fn new_client(&self) -> Client {
        Client::new(&format!("service-{}", self.name))
    }
}

/// A Secret's data as text.
///
/// # Errors
/// Fails if it has none, or a value is not base64 of text.
pub fn data(secret: &Value) -> Result<BTreeMap<String, String>> {
    let data = secret["data"].as_object().context("the Secret has no data")?;
    data.iter()
        .map(|(key, value)| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default())?;
            Ok((key.clone(), String::from_utf8(bytes)?))
        })
        .collect()
}

/// Merges `patch` into `value` (RFC 7396).
pub fn merge(value: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    let Value::Object(fields) = value else { return };
    for (key, patched) in patch {
        if patched.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), patched);
        }
    }
}
