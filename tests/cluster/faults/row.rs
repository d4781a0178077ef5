//! One row of the fault table, from a valid token through the fault to the recovery.

use std::{
    ops::Deref,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use itwin_api::{credential::CredentialStatus, secret_keys};
use serde_json::{Value, json};
use testbed::{eventually, namespace::Namespace, objects};

use crate::fixture::Fixture;

/// Limit of the contract for reporting the cause.
const REPORTED: Duration = Duration::from_secs(10);
/// One backoff step after that many failures, and a probe of the breaker.
const RECOVERED: Duration = Duration::from_secs(40);
/// First tokens of all rows together, on a busy machine.
const FIRST: Duration = Duration::from_secs(60);

/// Text that the server puts wherever a careless client might show it.
pub const ATTACKER: &str = "ATTACKER";

/// One row.
pub struct Row {
    pub name: &'static str,
    /// What the server does with token requests.
    pub behaviour: Value,
    /// What the administrator changes, for faults on the way to the server.
    pub authority: Value,
    /// The reason of the condition; `None` if the response is acceptable.
    pub reason: Option<&'static str>,
    /// What its message contains; of an acceptable response, the scopes in the status, if anything is expected of them.
    pub text: &'static str,
}

/// A fixture whose credentials have each a client of the faulty server.
pub struct RowFixture(Fixture);

impl Deref for RowFixture {
    type Target = Fixture;

    fn deref(&self) -> &Fixture {
        &self.0
    }
}

impl RowFixture {
    pub async fn new(prefix: &str) -> Result<Self> {
        Ok(Self(Fixture::on(Namespace::new(prefix).await?, &["--concurrency", "64"]).await?))
    }

    /// With an operator that was started in its own way.
    pub fn of(fixture: Fixture) -> Self {
        Self(fixture)
    }

    pub fn client_id(&self, name: &str) -> String {
        self.namespace.unique(name)
    }

    /// The client secret of a row, easy to find where it must not be.
    fn client_secret(&self, name: &str) -> Result<String> {
        let secret = self.namespace.faulty_client_secret(name);
        Ok(secret["stringData"]["client_secret"].as_str().context("no client secret")?.to_owned())
    }

    /// An ITwinAuthority whose server may take 2 s.
    pub async fn create_authority(&self, name: &str, spec: &Value) -> Result<String> {
        let mut full = json!({"requestTimeout": "2s"});
        objects::merge(&mut full, spec);
        self.0.create_authority(name, &full).await
    }

    pub async fn create_credential(&self, name: &str, authority: &str, client: &str, spec: &Value) -> Result<()> {
        self.namespace.create(objects::credential(name, authority, &format!("{client}-client"), spec)).await
    }

    pub async fn status(&self, name: &str) -> Result<CredentialStatus> {
        Ok(self.credentials().get_status(name).await?.status.unwrap_or_default())
    }

    /// Waits for a condition; returns its message.
    pub async fn wait(&self, name: &str, kind: &str, holds: bool, reason: &str, limit: Duration) -> Result<String> {
        let status = if holds { "True" } else { "False" };
        let what = format!("{name}: {kind}={status} {reason}");
        let mut last = String::new();
        let result = eventually(&what, limit, async || {
            let now = self.status(name).await.ok()?;
            let condition = now.conditions.iter().find(|condition| condition.type_ == kind)?;
            last = format!("{} {}: {}", condition.status, condition.reason, condition.message);
            (condition.status == status && condition.reason == reason).then(|| condition.message.clone())
        });
        result.await.with_context(|| format!("last status: {last}"))
    }

    /// Fails if a secret, or a text of the server, is in the log, the metrics, an event or a status.
    pub async fn assert_nothing_leaked(&self, names: &[&str]) -> Result<()> {
        let log = std::fs::read_to_string(self.operator.process.log())?;
        let metrics = self.operator.get("/metrics").await?;
        let events = self.namespace.kubectl(&["get", "events", "-o", "json"]).await?;
        let statuses = self.namespace.kubectl(&["get", "itcred", "-o", "json"]).await?;
        ensure!(log.contains("token written"), "the log is the right one");
        for (place, text) in [("log", &log), ("metrics", &metrics), ("events", &events), ("statuses", &statuses)] {
            ensure!(!text.contains(ATTACKER), "the server's own words are in the {place}");
            for name in names {
                ensure!(!text.contains(&self.client_secret(name)?), "the client secret of {name} is in the {place}");
                let token = self.secrets().get(name).await?.data.unwrap_or_default().remove("access_token");
                let token = String::from_utf8(token.context("no token")?.0)?;
                ensure!(
                    !text.contains(token.rsplit('.').next().unwrap_or(&token)),
                    "the token of {name} is in the {place}"
                );
            }
        }
        Ok(())
    }
}

/// Waits until the operator uses this spec of an authority: it sees a change of a credential through another watch, and
/// may see it earlier.
pub async fn observed(fixture: &RowFixture, authority: &str) -> Result<()> {
    eventually("the spec of the authority in use", REPORTED, async || {
        let now = fixture.authorities().get(authority).await.ok()?;
        (now.status?.observed_generation == now.metadata.generation).then_some(())
    })
    .await
}

impl Row {
    pub fn new(name: &'static str, behaviour: Value, reason: &'static str) -> Self {
        Self { name, behaviour, authority: json!({}), reason: Some(reason), text: "" }
    }

    /// An unusual response that is acceptable.
    pub fn harmless(name: &'static str, behaviour: Value) -> Self {
        Self { name, behaviour, authority: json!({}), reason: None, text: "" }
    }

    /// A fault on the way to the server.
    pub fn way(name: &'static str, authority: Value, reason: &'static str) -> Self {
        Self { name, behaviour: json!({"name": "good"}), authority, reason: Some(reason), text: "" }
    }

    /// The same, with a message that contains this.
    pub fn with_text(self, text: &'static str) -> Self {
        Self { text, ..self }
    }

    /// The same, with these fields changed in the ITwinAuthority.
    pub fn with_authority(self, authority: Value) -> Self {
        Self { authority, ..self }
    }

    /// Waits until the status and the annotation of the Secret show the scopes that are expected.
    async fn shows_scopes(&self, fixture: &RowFixture) -> Result<()> {
        eventually("the scopes in the status", REPORTED, async || {
            let scope = fixture.status(self.name).await.ok()?.scope?;
            (scope == self.text).then_some(())
        })
        .await?;
        let annotations = fixture.secrets().get(self.name).await?.metadata.annotations.unwrap_or_default();
        let granted = annotations.get(secret_keys::GRANTED).map(String::as_str);
        ensure!(granted == Some(self.text), "the annotation is {granted:?}");
        Ok(())
    }

    /// Plays the row.
    pub async fn play(&self, fixture: &RowFixture) -> Result<()> {
        self.played(fixture).await.with_context(|| format!("row '{}'", self.name))
    }

    async fn played(&self, fixture: &RowFixture) -> Result<()> {
        let faults = fixture.namespace.testbed.faults.clone();
        let client_id = fixture.client_id(self.name);
        let authority = fixture.create_authority(self.name, &json!({"audiences": ["https://api.example.com"]})).await?;
        fixture.create_client_secret(self.name).await?;
        fixture.create_credential(self.name, &authority, self.name, &json!({})).await?;
        fixture.wait(self.name, "Ready", true, "TokenValid", FIRST).await?;
        let before = fixture.secrets().get(self.name).await?;

        faults.behave(&client_id, &self.behaviour).await?;
        if self.authority != json!({}) {
            fixture.patch_authority(&authority, &self.authority).await?;
            observed(fixture, &authority).await?;
        }
        let since = Instant::now();
        fixture.renew_now(self.name, "1").await?;
        let Some(reason) = self.reason else {
            eventually("another token", REPORTED, async || {
                let now = fixture.secrets().get(self.name).await.ok()?;
                (now.data != before.data).then_some(())
            })
            .await?;
            if !self.text.is_empty() {
                self.shows_scopes(fixture).await?;
            }
            return fixture.delete_authority(&authority).await;
        };
        let message = fixture.wait(self.name, "Renewed", false, reason, REPORTED).await?;
        ensure!(!message.contains(ATTACKER), "the server's own words are in: {message}");
        ensure!(message.contains(self.text), "{:?} is not in: {message}", self.text);
        ensure!(message.contains(&authority) || message.contains("Secret"), "no object is named in: {message}");

        // the next attempt after a token that expires earlier comes when a new one would expire later
        let waits = reason == "ShorterThanCurrent";
        if !waits {
            eventually("three failed attempts", RECOVERED, async || {
                fixture.status(self.name).await.ok().filter(|status| status.consecutive_failures >= 3)
            })
            .await?;
        }
        let after = fixture.secrets().get(self.name).await?;
        ensure!(after == before, "the Secret was touched");
        let status = fixture.status(self.name).await?;
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").context("Ready")?;
        ensure!(ready.status == "True", "the token is valid, and Ready says {}", ready.reason);
        // the first token, and at most one request a second since; the last one may have come in the same second
        let requests = faults.requests(&client_id).await?.len();
        let allowed = if waits { 2 } else { 2 + usize::try_from(since.elapsed().as_secs())? };
        ensure!(requests <= allowed, "{requests} requests where {allowed} are allowed");

        faults.behave(&client_id, &json!({"name": "good"})).await?;
        if self.authority != json!({}) {
            let undo: serde_json::Map<String, Value> = self
                .authority
                .as_object()
                .into_iter()
                .flatten()
                .map(|(field, _)| (field.clone(), Value::Null))
                .collect();
            let mut undo = Value::Object(undo);
            if undo.get("caBundle").is_some() {
                undo["caBundle"] = json!(faults.ca_bundle());
            }
            fixture.patch_authority(&authority, &undo).await?;
        }
        if waits {
            fixture.renew_now(self.name, "2").await?;
        }
        fixture.wait(self.name, "Renewed", true, "TokenIssued", RECOVERED).await?;
        ensure!(fixture.secrets().get(self.name).await?.data != before.data, "the new token is in the Secret");
        fixture.delete_authority(&authority).await
    }
}
