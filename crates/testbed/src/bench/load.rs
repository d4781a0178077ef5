//! The load: the objects that the operator reconciles.

pub mod bare;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use testbed::{Testbed, eventually, objects};

use super::{paths::NAMESPACE, patience, token_server::TokenServer};

/// Requests of the load generator at the same time.
const AT_ONCE: usize = 32;
const NAMESPACES: usize = 50;
/// The client that requests tokens.
pub const CLIENT: &str = "bench";
/// Its secret, which the token server does not check.
pub const CLIENT_SECRET: &str = "the-secret-of-the-benchmark";
const LONG: u32 = 86_400;
/// Of more credentials than this, only so many get short-lived tokens: all others stay valid, and to give each another
/// token would take longer than everything else. The rate of renewals stays the same.
const SAMPLED: usize = 10_000;

/// How many of so many credentials get short-lived tokens.
pub fn renewed(count: usize) -> usize {
    count.min(SAMPLED)
}

/// Namespaces, an authority and credentials.
pub struct Load {
    pub client: Client,
    /// The authorization server that issues the tokens.
    pub tokens: TokenServer,
    count: usize,
    lifetime: u32,
}

impl Load {
    /// Creates namespaces with a client Secret each, and the authority.
    pub async fn new(testbed: &Testbed, count: usize, lifetime: u32) -> Result<Self> {
        let load = Self { client: testbed.client().await?, tokens: TokenServer::start()?, count, lifetime };
        load.tokens.tokens_live(LONG);
        let server = json!({"issuer": load.tokens.issuer, "caBundle": load.tokens.ca_bundle()});
        let pace = json!({"requestsPerMinute": 60000, "maxConcurrentRequests": 64});
        let authority = objects::authority("bench", server, &pace);
        testbed.kubectl_with(&["apply", "-f", "-"], Some(&authority.to_string())).await?;
        let namespaces: Api<Namespace> = Api::all(load.client.clone());
        for number in 0..load.namespaces() {
            let name = namespace(number);
            let object = json!({"metadata": {"name": name}});
            namespaces.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
            let secret = objects::client_secret("client", CLIENT, CLIENT_SECRET);
            load.secrets(&name).create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
        }
        Ok(load)
    }

    pub fn namespaces(&self) -> usize {
        NAMESPACES.min(self.count)
    }

    /// How many credentials get short-lived tokens.
    pub fn renewed(&self) -> usize {
        renewed(self.count)
    }

    fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn credentials(&self, namespace: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("credentials.itwin.dev", "v1alpha1", "ITwinServiceCredential");
        let resource = ApiResource::from_gvk_with_plural(&kind, "itwinservicecredentials");
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    /// Creates all credentials; returns how long that took.
    pub async fn create_credentials(&self) -> Result<Duration> {
        let began = Instant::now();
        let create = async |number: usize| {
            let name = format!("agent-{number}");
            // its own scope, so that no request is shared
            let object = credential(&name, &json!({"scopes": [name]}))?;
            let namespace = namespace(number % self.namespaces());
            self.credentials(&namespace).create(&PostParams::default(), &object).await.map(drop)?;
            anyhow::Ok(())
        };
        stream::iter(0..self.count).map(create).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(began.elapsed())
    }

    /// Waits until a watch has shown this many Secrets of the operator.
    pub async fn watch_secrets(&self, count: usize) -> Result<()> {
        let secrets: Api<Secret> = Api::all(self.client.clone());
        let params =
            WatchParams::default().labels("app.kubernetes.io/managed-by=itwin-credential-operator").timeout(290);
        let mut seen = HashSet::new();
        let deadline = Instant::now() + patience(self.count);
        while Instant::now() < deadline {
            let mut events = secrets.watch_metadata(&params, "0").await?.boxed();
            while let Some(event) = events.next().await {
                if let WatchEvent::Added(secret) | WatchEvent::Modified(secret) = event? {
                    seen.insert((secret.namespace(), secret.name_any()));
                }
                if seen.len() >= count {
                    return Ok(());
                }
            }
        }
        bail!("only {} of {count} Secrets appeared", seen.len())
    }

    /// Creates one credential while nothing else happens.
    pub async fn create_alone(&self, name: &str) -> Result<Duration> {
        let secrets = self.secrets(NAMESPACE);
        let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(60);
        let mut events = secrets.watch_metadata(&params, "0").await?.boxed();
        let object = credential(name, &json!({"scopes": [name]}))?;
        let began = Instant::now();
        self.credentials(NAMESPACE).create(&PostParams::default(), &object).await?;
        while let Some(event) = events.next().await {
            if matches!(event?, WatchEvent::Added(_)) {
                return Ok(began.elapsed());
            }
        }
        bail!("no Secret {name} came")
    }

    /// Makes all tokens short-lived from now on, and replaces the token of each credential.
    pub async fn shorten(&self) -> Result<()> {
        // a short-lived token replaces no long-lived one: all are requested again, spread over the lifetime of a token
        let span = Duration::from_secs(u64::from(self.lifetime)) * 2 / 3;
        self.change_all(self.lifetime, "short", &json!({}), span).await
    }

    /// Gives each credential a token of this lifetime, in seconds, that is renewed at half of it; takes at least
    /// `span`.
    pub async fn renew_at_half(&self, lifetime: u32, span: Duration) -> Result<()> {
        self.change_all(lifetime, "half", &json!({"renewBefore": format!("{}s", lifetime / 2)}), span).await
    }

    async fn change_all(&self, lifetime: u32, scope: &str, spec: &Value, span: Duration) -> Result<()> {
        self.tokens.tokens_live(lifetime);
        let wanted = self.tokens.tokens() + self.renewed();
        let pause = span.div_f64(self.renewed() as f64);
        let mut next = tokio::time::Instant::now();
        for number in 0..self.renewed() {
            let mut spec = spec.clone();
            objects::merge(&mut spec, &json!({"scopes": [format!("{scope}-{number}")], "minimumValidity": "1s"}));
            let (namespace, name) = (namespace(number % self.namespaces()), format!("agent-{number}"));
            let patch = Patch::Merge(json!({"spec": spec}));
            self.credentials(&namespace).patch(&name, &PatchParams::default(), &patch).await?;
            next += pause;
            tokio::time::sleep_until(next).await;
        }
        self.tokens_reach(wanted).await
    }

    /// Waits until this many tokens were issued.
    pub async fn tokens_reach(&self, count: usize) -> Result<()> {
        eventually("tokens", patience(self.count), async || (self.tokens.tokens() >= count).then_some(())).await
    }

    /// Creates Secrets of 2 KB that no credential references.
    pub async fn create_unrelated(&self, count: usize) -> Result<Duration> {
        let began = Instant::now();
        let content = "x".repeat(2048);
        let create = async |number: usize| -> Result<()> {
            let object =
                json!({"metadata": {"name": format!("unrelated-{number}")}, "stringData": {"content": content}});
            let namespace = namespace(number % self.namespaces());
            let secret = serde_json::from_value(object)?;
            self.secrets(&namespace).create(&PostParams::default(), &secret).await.context("an unrelated Secret")?;
            Ok(())
        };
        stream::iter(0..count).map(create).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(began.elapsed())
    }
}

fn namespace(number: usize) -> String {
    format!("bench-{number}")
}

fn credential(name: &str, spec: &Value) -> Result<DynamicObject> {
    Ok(serde_json::from_value(objects::credential(name, "bench", "client", spec))?)
}
