//! The fixture: two namespaces, one operator for both, and the faulty authorization server.

use std::path::Path;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use itwin_api::{authority::ITwinAuthority, credential::ITwinServiceCredential};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use testbed::{Testbed, faults::Faults, namespace::Namespace, operator::Operator};

const PROGRAM: &str = env!("CARGO_BIN_EXE_itwin-credential-operator");
/// Objects that are created at the same time.
const AT_ONCE: usize = 16;

pub struct Fixture {
    pub noisy: Namespace,
    pub quiet: Namespace,
    pub faults: Faults,
    pub operator: Operator,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // every operator requests the keys of every authority in the cluster: those of finished tests would add up
        let testbed = &self.quiet.testbed;
        let mut kubectl = std::process::Command::new(&testbed.kubectl);
        kubectl.arg("--kubeconfig").arg(&testbed.kubeconfig).arg("--cache-dir").arg(testbed.directory.join("kubectl"));
        kubectl.args(["delete", "itauth", "--selector", &format!("test={}", self.quiet.name), "--wait=false"]);
        // a testbed that stops needs no cleanup
        let _ = kubectl.output();
    }
}

impl Fixture {
    /// Creates two namespaces whose names begin with `prefix`, and an operator that watches both.
    pub async fn new(prefix: &str) -> Result<Self> {
        let testbed = Testbed::current()?;
        let noisy = Namespace::on(testbed.clone(), &format!("{prefix}-noisy")).await?;
        let quiet = Namespace::on(testbed.clone(), &format!("{prefix}-quiet")).await?;
        let namespaces = format!("{},{}", noisy.name, quiet.name);
        let operator = Operator::start(&testbed, Path::new(PROGRAM), &namespaces, &[]).await?;
        Ok(Self { noisy, quiet, faults: testbed.faults, operator })
    }

    /// Creates an authority of this name for the faulty server.
    pub async fn authority(&self, name: &str, spec: &Value) -> Result<String> {
        let name = format!("{}-{name}", self.quiet.name);
        let mut full = json!({"issuer": self.faults.issuer, "caBundle": self.faults.ca_bundle()});
        testbed::namespace::merge(&mut full, spec);
        let object = json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinAuthority",
            "metadata": {"name": name, "labels": {"test": self.quiet.name}},
            "spec": full,
        });
        let authorities: Api<ITwinAuthority> = Api::all(self.quiet.client.clone());
        authorities.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(name)
    }

    /// Sets what happens to the token requests of a client of this namespace from now on.
    pub async fn behave(&self, namespace: &Namespace, client: &str, behaviour: &Value) -> Result<()> {
        self.faults.behave(&client_id(namespace, client), behaviour).await
    }

    /// How many token requests of a client the server received.
    pub async fn requests(&self, namespace: &Namespace, client: &str) -> Result<usize> {
        Ok(self.faults.requests(&client_id(namespace, client)).await?.len())
    }

    /// The sum of a metric's series that start with this.
    pub async fn metric(&self, series: &str) -> Result<f64> {
        let text = self.operator.get("/metrics").await?;
        let values = text.lines().filter(|line| line.starts_with(series)).filter_map(|line| line.rsplit(' ').next());
        Ok(values.filter_map(|value| value.parse::<f64>().ok()).sum())
    }
}

pub fn client_id(namespace: &Namespace, client: &str) -> String {
    format!("{}-{client}", namespace.name)
}

/// Creates the Secret of a client, `<client>-client`.
pub async fn client_secret(namespace: &Namespace, client: &str) -> Result<()> {
    let text = |text: String| ByteString(text.into_bytes());
    let id = client_id(namespace, client);
    let data = [("client_id", text(id.clone())), ("client_secret", text(format!("client-secret-of-{id}")))];
    let secret = Secret {
        metadata: kube::core::ObjectMeta { name: Some(format!("{client}-client")), ..Default::default() },
        data: Some(data.map(|(key, value)| (key.to_owned(), value)).into()),
        ..Secret::default()
    };
    let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), &namespace.name);
    secrets.create(&PostParams::default(), &secret).await.map(drop).context("client Secret")
}

/// Creates credentials `<client>-0` to `<client>-<count>` with one client. Each has its own scopes, so that no request
/// equals another one.
pub async fn credentials(namespace: &Namespace, authority: &str, client: &str, count: usize) -> Result<()> {
    let api: Api<ITwinServiceCredential> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let create = async |number: usize| {
        let spec = json!({
            "authorityRef": {"name": authority},
            "clientCredentialsRef": {"name": format!("{client}-client")},
            "scopes": [format!("scope-{number}")],
            "minimumValidity": "1s",
        });
        let object = namespace.credential(&format!("{client}-{number}"), &spec);
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        anyhow::Ok(())
    };
    stream::iter(0..count).map(create).buffer_unordered(AT_ONCE).try_collect().await
}
