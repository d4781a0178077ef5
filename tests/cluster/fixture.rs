//! The fixture of a test: a namespace with an authority, a client and an operator; and short names for what tests read.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::{
    authority::{Client, TokenRequest},
    eventually,
    namespace::{Namespace, data},
    operator::Operator,
};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_itwin-credential-operator");
/// Limit of the contract for acting upon a change.
pub const SOON: Duration = Duration::from_secs(5);
/// Limit for what includes the start of a process on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The credential of most tests.
pub const NAME: &str = "agent";

pub struct Fixture {
    pub namespace: Namespace,
    pub client: Client,
    pub operator: Operator,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // every operator requests the keys of every authority in the cluster: those of finished tests would add up
        let testbed = &self.namespace.testbed;
        let mut kubectl = std::process::Command::new(&testbed.kubectl);
        kubectl.arg("--kubeconfig").arg(&testbed.kubeconfig).arg("--cache-dir").arg(testbed.directory.join("kubectl"));
        kubectl.args(["delete", "itauth", &self.namespace.name, "--ignore-not-found", "--wait=false"]);
        // a testbed that stops needs no cleanup
        let _ = kubectl.output();
    }
}

impl Fixture {
    /// Creates a namespace and an operator; no authority, no client Secret, no credential.
    pub async fn bare(prefix: &str) -> Result<Self> {
        Self::bare_with(prefix, &[]).await
    }

    pub async fn bare_with(prefix: &str, arguments: &[&str]) -> Result<Self> {
        Self::on(Namespace::new(prefix).await?, arguments).await
    }

    /// Starts an operator for an existing namespace.
    pub async fn on(namespace: Namespace, arguments: &[&str]) -> Result<Self> {
        let operator = Operator::start(&namespace.testbed, Path::new(PROGRAM), &namespace.name, arguments).await?;
        Ok(Self { client: namespace.new_client(), namespace, operator })
    }

    /// Like [`Self::bare`], with authority, registered client and client Secret; no credential.
    pub async fn new(prefix: &str) -> Result<Self> {
        let fixture = Self::bare(prefix).await?;
        fixture.with_surroundings().await?;
        Ok(fixture)
    }

    /// Like [`Self::new`], with a credential that is Ready.
    pub async fn ready(prefix: &str) -> Result<Self> {
        let fixture = Self::new(prefix).await?;
        fixture.apply_credential(&json!({})).await?;
        fixture.wait_ready().await?;
        Ok(fixture)
    }

    pub async fn with_surroundings(&self) -> Result<()> {
        self.apply_authority(&json!({})).await?;
        self.register().await?;
        self.apply_client_secret().await
    }

    pub async fn apply_authority(&self, spec: &Value) -> Result<()> {
        self.namespace.apply(&self.namespace.authority(spec)).await.map(drop)
    }

    pub async fn register(&self) -> Result<()> {
        self.namespace.testbed.authority.register(&self.client).await
    }

    pub async fn apply_client_secret(&self) -> Result<()> {
        self.namespace.apply(&self.namespace.client_secret(NAME, &self.client)).await.map(drop)
    }

    pub async fn apply_credential(&self, spec: &Value) -> Result<()> {
        self.namespace.apply(&self.namespace.credential(NAME, spec)).await.map(drop)
    }

    /// Replaces the operator by a second one.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop();
        self.start().await
    }

    /// Kills the operator.
    pub fn stop(&mut self) {
        self.operator.process.signal(nix::sys::signal::Signal::SIGKILL);
        self.operator.process.wait(PATIENCE);
    }

    /// Starts an operator after the earlier one was stopped.
    pub async fn start(&mut self) -> Result<()> {
        self.operator = Operator::start(&self.namespace.testbed, Path::new(PROGRAM), &self.namespace.name, &[]).await?;
        Ok(())
    }

    /// Waits as a user would, with kubectl.
    pub async fn wait_ready(&self) -> Result<()> {
        let wait = ["wait", "--for=condition=Ready", "itcred/agent", "--timeout=30s"];
        self.namespace.kubectl(&wait).await.map(drop).with_context(|| self.operator.process.log_tail())
    }

    pub async fn status(&self) -> Result<Value> {
        self.status_of(NAME).await
    }

    pub async fn status_of(&self, name: &str) -> Result<Value> {
        let credential = self.namespace.get("itcred", name).await?;
        Ok(credential.map(|mut credential| credential["status"].take()).unwrap_or_default())
    }

    pub async fn secret(&self) -> Result<Option<Value>> {
        self.namespace.get("secret", NAME).await
    }

    /// The sum of a metric's series that start with this.
    pub async fn metric(&self, series: &str) -> Result<f64> {
        let text = self.operator.get("/metrics").await?;
        let values = text.lines().filter(|line| line.starts_with(series)).filter_map(|line| line.rsplit(' ').next());
        Ok(values.filter_map(|value| value.parse::<f64>().ok()).sum())
    }

    /// The Secret's data as text.
    pub async fn data(&self) -> Result<BTreeMap<String, String>> {
        data(&self.secret().await?.context("there is no Secret")?)
    }

    pub async fn token(&self) -> Result<String> {
        self.data().await?.remove("access_token").context("no access_token")
    }

    pub async fn token_requests(&self) -> Result<Vec<TokenRequest>> {
        self.namespace.testbed.authority.requests(&self.client.client_id).await
    }

    /// Waits until the condition of this type has this status and reason; returns its message.
    pub async fn wait_condition(&self, kind: &str, status: &str, reason: &str, limit: Duration) -> Result<String> {
        self.wait_condition_of(NAME, kind, status, reason, limit).await
    }

    /// The same for the credential `name`.
    pub async fn wait_condition_of(
        &self,
        name: &str,
        kind: &str,
        status: &str,
        reason: &str,
        limit: Duration,
    ) -> Result<String> {
        let what = format!("condition {kind}={status} {reason} of {name}");
        let result = eventually(&what, limit, async || {
            let now = self.status_of(name).await.ok()?;
            condition(&now, kind).filter(|(s, r, _)| s == status && r == reason).map(|(_, _, message)| message)
        });
        let last = async {
            let status = self.status_of(name).await.unwrap_or_default();
            format!("last status: {status}\n{}", self.operator.process.log_tail())
        };
        match result.await {
            Ok(message) => Ok(message),
            Err(error) => Err(error.context(last.await)),
        }
    }

    /// Waits until the token in the Secret is another one.
    pub async fn wait_token_other_than(&self, old: &str, limit: Duration) -> Result<String> {
        let result = eventually("another token in the Secret", limit, async || {
            self.token().await.ok().filter(|token| token != old)
        });
        result.await.with_context(|| self.operator.process.log_tail())
    }

    pub async fn events(&self) -> Result<Vec<String>> {
        let text =
            self.namespace.kubectl(&["get", "events.events.k8s.io", "-o", "jsonpath={.items[*].reason}"]).await?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }
}

/// Status, reason and message of a condition.
pub fn condition(status: &Value, kind: &str) -> Option<(String, String, String)> {
    let condition = status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)?;
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}
