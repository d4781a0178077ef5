//! A namespace for one test, and the objects that a user would create in it.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use base64::Engine;
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Api,
    api::PostParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};

use crate::{INSTALLATION, Testbed, authority::Client, eventually, objects};

/// The label of an ITwinAuthority with the namespace of its test.
pub const TEST_LABEL: &str = "test";

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
        let client = testbed.client().await?;
        let object = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &object).await?;
        Ok(Self { client, testbed, name })
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

    /// The object of this kind and name, as `kubectl get -o json` prints it; `None` if it does not exist.
    ///
    /// # Errors
    /// Fails if the API server rejects it.
    pub async fn get(&self, kind: &str, name: &str) -> Result<Option<Value>> {
        // without a process for what tests read again and again
        let kind = match kind {
            "itauth" => "ITwinAuthority",
            "itcred" => "ITwinServiceCredential",
            "secret" => "Secret",
            _ => return self.get_with_kubectl(kind, name).await,
        };
        let Some(mut object) = self.api(kind).get_opt(name).await? else { return Ok(None) };
        object.metadata.managed_fields = None;
        Ok(Some(serde_json::to_value(object)?))
    }

    async fn get_with_kubectl(&self, kind: &str, name: &str) -> Result<Option<Value>> {
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
        let mut owned = objects::secret(&sentinel, &json!({}));
        owned["metadata"]["ownerReferences"] = json!([objects::owner_reference(credential, "there-is-none")]);
        self.apply(&owned).await?;
        eventually("garbage collection of a Secret", COLLECTED, async || {
            self.get("secret", &sentinel).await.ok()?.is_none().then_some(())
        })
        .await?;
        self.kubectl(&["delete", "itcred", credential, "--cascade=orphan", "--timeout=60s"]).await.map(drop)
    }

    /// Lets the account of the operators keep a Lease in this namespace.
    ///
    /// # Errors
    /// Fails if the API server rejects it.
    pub async fn allow_lease(&self) -> Result<()> {
        let verbs = ["--verb=get,create,update,watch", "--resource=leases.coordination.k8s.io"];
        self.kubectl(&[&["create", "role", "lease"], &verbs[..]].concat()).await?;
        let account = format!("--serviceaccount={INSTALLATION}:{INSTALLATION}");
        self.kubectl(&["create", "rolebinding", "lease", "--role=lease", &account]).await.map(drop)
    }

    /// Creates an object in this namespace, or in the cluster if it is an ITwinAuthority.
    ///
    /// # Errors
    /// Fails if the API server rejects it.
    pub async fn create(&self, object: Value) -> Result<()> {
        let object: DynamicObject = serde_json::from_value(object)?;
        let kind = object.types.as_ref().map(|types| types.kind.clone()).unwrap_or_default();
        let api = self.api(&kind);
        api.create(&PostParams::default(), &object).await.map(drop).with_context(|| format!("creating a {kind}"))
    }

    /// Creates objects, as many as `at_once` at the same time.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_all(&self, objects: impl IntoIterator<Item = Value>, at_once: usize) -> Result<()> {
        stream::iter(objects).map(|object| self.create(object)).buffer_unordered(at_once).try_collect().await
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let (group_version, is_global) = match kind {
            "ITwinAuthority" => (objects::API_VERSION, true),
            "ITwinServiceCredential" => (objects::API_VERSION, false),
            _ => ("v1", false),
        };
        let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        if is_global {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), &self.name, &resource)
        }
    }

    /// An ITwinAuthority for the authorization server of the testbed; `spec` is merged into its spec.
    #[must_use]
    pub fn authority(&self, spec: &Value) -> Value {
        self.labeled(objects::authority(&self.name, self.testbed.authority.spec(), spec))
    }

    /// An ITwinAuthority for the faulty server, with the name [`Self::unique`].
    #[must_use]
    pub fn faulty_authority(&self, name: &str, spec: &Value) -> Value {
        self.labeled(objects::authority(&self.unique(name), self.testbed.faults.spec(), spec))
    }

    /// With the label that limits an operator behind [`crate::api_proxy::ApiProxy`] to the authorities of its test.
    fn labeled(&self, mut authority: Value) -> Value {
        authority["metadata"]["labels"] = json!({TEST_LABEL: self.name});
        authority
    }

    /// An ITwinServiceCredential that uses [`Self::authority`] and the Secret `<name>-client`.
    #[must_use]
    pub fn credential(&self, name: &str, spec: &Value) -> Value {
        objects::credential(name, &self.name, &format!("{name}-client"), spec)
    }

    /// The client Secret of the credential `name`.
    #[must_use]
    pub fn client_secret(&self, name: &str, client: &Client) -> Value {
        objects::client_secret(&format!("{name}-client"), &client.client_id, &client.client_secret)
    }

    /// The Secret `<name>-client` of a client of the faulty server, which accepts every client. The client identifier
    /// is [`Self::unique`].
    #[must_use]
    pub fn faulty_client_secret(&self, name: &str) -> Value {
        let client_id = self.unique(name);
        objects::client_secret(&format!("{name}-client"), &client_id, &format!("client-secret-of-{client_id}"))
    }

    /// A name that only this namespace uses, for what all tests share: clients of the servers, and authorities.
    #[must_use]
    pub fn unique(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
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
