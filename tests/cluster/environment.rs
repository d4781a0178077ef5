//! The environment of a test: a namespace, the way of its operators to the API server, and what tests read there.

use std::{path::Path, time::Duration};

use anyhow::Result;
use itwin_api::{authority::ITwinAuthority, credential::ITwinServiceCredential};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use testbed::{
    Testbed,
    api_proxy::ApiProxy,
    faults::Faults,
    namespace::{Namespace, TEST_LABEL},
    operator::Operator,
};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_itwin-credential-operator");
/// Limit of the contract for acting upon a change.
pub const SOON: Duration = Duration::from_secs(5);
/// Limit for what includes the start of a process on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A namespace whose operators see only the authorities of this test. Those are cluster-scoped: without this, every
/// operator would send requests to the authorities of all other tests, and write their statuses.
pub struct TestEnvironment {
    pub namespace: Namespace,
    /// Whether other tests use the control plane too.
    is_shared: bool,
    proxy: Option<ApiProxy>,
}

impl Drop for TestEnvironment {
    fn drop(&mut self) {
        // a control plane of the test's own stops
        if !self.is_shared {
            return;
        }
        let testbed = &self.namespace.testbed;
        let mut kubectl = std::process::Command::new(&testbed.kubectl);
        kubectl.arg("--kubeconfig").arg(&testbed.kubeconfig).arg("--cache-dir").arg(testbed.directory.join("kubectl"));
        let selector = format!("{TEST_LABEL}={}", self.namespace.name);
        kubectl.args(["delete", "itauth", "--selector", &selector, "--wait=false"]);
        // a testbed that stops needs no cleanup
        let _ = kubectl.output();
    }
}

impl TestEnvironment {
    /// Creates a namespace whose name begins with `prefix`.
    pub async fn new(prefix: &str) -> Result<Self> {
        Self::on(Namespace::new(prefix).await?)
    }

    /// The environment of an existing namespace.
    pub fn on(namespace: Namespace) -> Result<Self> {
        let mut environment = Self::without_proxy(namespace)?;
        if environment.is_shared {
            environment.proxy = Some(ApiProxy::start(&environment.namespace.testbed, &environment.namespace.name)?);
        }
        Ok(environment)
    }

    /// An environment for measurements: its operators call the API server themselves, and see the authorities of all tests.
    pub fn without_proxy(namespace: Namespace) -> Result<Self> {
        let is_shared = namespace.testbed.directory == Testbed::current()?.directory;
        Ok(Self { namespace, is_shared, proxy: None })
    }

    /// What the operators call instead of the API server of all tests.
    pub fn proxy(&self) -> &ApiProxy {
        self.proxy.as_ref().expect("an environment with a proxy")
    }

    /// Starts an operator of this namespace and waits until it is ready.
    pub async fn start_operator(&self, arguments: &[&str]) -> Result<Operator> {
        let mut operator = self.spawn_operator(arguments)?;
        operator.wait_ready().await?;
        Ok(operator)
    }

    /// Starts an operator of this namespace without waiting for its readiness.
    pub fn spawn_operator(&self, arguments: &[&str]) -> Result<Operator> {
        self.spawn_operator_of(&self.namespace.name, arguments, &[])
    }

    /// The same for these namespaces, with environment variables.
    pub fn spawn_operator_of(
        &self,
        namespaces: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Operator> {
        let mut all: Vec<_> = self.proxy.iter().flat_map(ApiProxy::variables).collect();
        all.extend(variables);
        Operator::spawn(&self.namespace.testbed, Path::new(PROGRAM), namespaces, arguments, &all)
    }

    pub fn faults(&self) -> &Faults {
        &self.namespace.testbed.faults
    }

    pub fn credentials(&self) -> Api<ITwinServiceCredential> {
        Api::namespaced(self.namespace.client.clone(), &self.namespace.name)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.namespace.client.clone(), &self.namespace.name)
    }

    pub fn authorities(&self) -> Api<ITwinAuthority> {
        Api::all(self.namespace.client.clone())
    }

    /// Creates an ITwinAuthority for the faulty server; returns its name.
    pub async fn create_authority(&self, name: &str, spec: &Value) -> Result<String> {
        self.namespace.create(self.namespace.faulty_authority(name, spec)).await?;
        Ok(self.namespace.unique(name))
    }

    pub async fn patch_authority(&self, name: &str, spec: &Value) -> Result<()> {
        let patch = json!({"spec": spec});
        self.authorities().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    pub async fn delete_authority(&self, name: &str) -> Result<()> {
        self.authorities().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Creates the Secret `<client>-client` of a client of the faulty server.
    pub async fn create_client_secret(&self, client: &str) -> Result<()> {
        self.namespace.create(self.namespace.faulty_client_secret(client)).await
    }

    /// Creates credentials with these names and this spec.
    pub async fn create_credentials(&self, names: impl IntoIterator<Item = String>, spec: &Value) -> Result<()> {
        let objects = names.into_iter().map(|name| self.namespace.credential(&name, spec));
        self.namespace.create_all(objects, AT_ONCE).await
    }

    /// Requests a renewal, as a user does; each value renews once.
    pub async fn renew_now(&self, name: &str, value: &str) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {itwin_api::secret_keys::RENEW: value}}});
        self.credentials().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// How many token requests of a client the faulty server received.
    pub async fn faulty_requests(&self, client: &str) -> Result<usize> {
        Ok(self.faults().requests(&self.namespace.unique(client)).await?.len())
    }

    pub async fn status_of(&self, name: &str) -> Result<Value> {
        let credential = self.namespace.get("itcred", name).await?;
        Ok(credential.map(|mut credential| credential["status"].take()).unwrap_or_default())
    }

    /// The status that the operator wrote for the current spec; `None` before that.
    pub async fn current_status_of(&self, name: &str) -> Result<Option<Value>> {
        let credential = self.namespace.get("itcred", name).await?.unwrap_or_default();
        let is_current = credential["status"]["observedGeneration"] == credential["metadata"]["generation"];
        Ok(is_current.then(|| credential["status"].clone()))
    }

    pub async fn secret_of(&self, name: &str) -> Result<Option<Value>> {
        self.namespace.get("secret", name).await
    }

    pub async fn events(&self) -> Result<Vec<String>> {
        let text =
            self.namespace.kubectl(&["get", "events.events.k8s.io", "-o", "jsonpath={.items[*].reason}"]).await?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }
}

/// Calls to the API server at the same time.
pub const AT_ONCE: usize = 32;

/// Status, reason and message of a condition.
pub fn condition(status: &Value, kind: &str) -> Option<(String, String, String)> {
    let condition = status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)?;
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}
