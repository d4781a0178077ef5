//! The fixture of most tests: an environment with an authority, a client and an operator, and short names for what
//! tests read of the credential `agent`.

use std::{collections::BTreeMap, ops::Deref, time::Duration};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::{
    Testbed,
    authority::{Client, TokenRequest},
    eventually,
    namespace::{Namespace, data},
    operator::Operator,
};

use crate::environment::TestEnvironment;
pub use crate::environment::{PATIENCE, PROGRAM, SOON, condition};

/// The credential of most tests.
pub const NAME: &str = "agent";

/// An environment with a client of the authorization server and an operator.
pub struct Fixture {
    // stopped before what it uses
    pub operator: Operator,
    pub client: Client,
    pub environment: TestEnvironment,
}

impl Deref for Fixture {
    type Target = TestEnvironment;

    fn deref(&self) -> &TestEnvironment {
        &self.environment
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
        let mut fixture = Self::spawn(TestEnvironment::on(namespace)?, arguments)?;
        fixture.operator.wait_ready().await?;
        Ok(fixture)
    }

    /// The same without waiting for its readiness.
    pub fn spawn(environment: TestEnvironment, arguments: &[&str]) -> Result<Self> {
        let operator = environment.spawn_operator(arguments)?;
        Ok(Self { client: environment.namespace.new_client(), environment, operator })
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
        self.start_with(&[]).await
    }

    pub async fn start_with(&mut self, arguments: &[&str]) -> Result<()> {
        self.operator = self.environment.start_operator(arguments).await?;
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

    pub async fn secret(&self) -> Result<Option<Value>> {
        self.secret_of(NAME).await
    }

    /// The sum of a metric's series that start with this.
    pub async fn metric(&self, series: &str) -> Result<f64> {
        let text = self.operator.get("/metrics").await?;
        let values = text.lines().filter(|line| line.starts_with(series)).filter_map(|line| line.rsplit(' ').next());
        Ok(values.filter_map(|value| value.parse::<f64>().ok()).sum())
    }

    /// Causes a reconciliation of the credential and waits for it. It ends after whatever the operator was doing.
    pub async fn reconcile(&self) -> Result<()> {
        let reconciles = self.metric("itwin_reconciles_total").await?;
        let annotation = format!("reconcile={}", testbed::control_plane::random_token());
        self.namespace.kubectl(&["annotate", "itcred", NAME, "--overwrite", &annotation]).await?;
        let another = async || self.metric("itwin_reconciles_total").await.ok().filter(|now| *now > reconciles);
        self.eventually("another reconciliation", PATIENCE, another).await.map(drop)
    }

    /// Waits for something; the error holds the end of the operator's log.
    pub async fn eventually<T>(
        &self,
        what: &str,
        limit: Duration,
        condition: impl AsyncFnMut() -> Option<T>,
    ) -> Result<T> {
        eventually(what, limit, condition).await.with_context(|| self.operator.process.log_tail())
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

    /// Waits until the condition of this type, for the current spec, has this status and reason; returns its message.
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
        let mut last = Value::Null;
        let result = self.eventually(&what, limit, async || {
            last = self.current_status_of(name).await.ok()??;
            condition(&last, kind).filter(|(s, r, _)| s == status && r == reason).map(|(_, _, message)| message)
        });
        result.await.with_context(|| format!("last status for the current spec: {last}"))
    }

    /// Waits until the token in the Secret is another one.
    pub async fn wait_token_other_than(&self, old: &str, limit: Duration) -> Result<String> {
        let other = async || self.token().await.ok().filter(|token| token != old);
        self.eventually("another token in the Secret", limit, other).await
    }
}

/// A key pair generated by Node: PEM and JSON Web Key Set.
pub async fn key_pair(testbed: &Testbed) -> Result<(String, Value)> {
    const MAKE: &str = "
import { exportJWK, exportPKCS8, generateKeyPair } from 'jose';
const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
const jwk = { ...(await exportJWK(publicKey)), use: 'sig', alg: 'ES256', kid: 'client' };
console.log(JSON.stringify({ pem: await exportPKCS8(privateKey), jwks: { keys: [jwk] } }));
";
    let mut made: Value = serde_json::from_str(&testbed::node(testbed, MAKE, &[]).await?)?;
    Ok((made["pem"].as_str().context("a PEM")?.to_owned(), made["jwks"].take()))
}
