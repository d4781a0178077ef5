//! Watches the Secrets of all credentials: once it is there, a Secret always holds a token that has not expired.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use futures::StreamExt;
use itwin_credential_operator::clock::Clock;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    runtime::watcher::{self, Event},
};
use serde_json::Value;

/// The Secrets that the operator writes.
const SELECTOR: &str = "app.kubernetes.io/managed-by=itwin-credential-operator";
/// How often the expiry of every token is compared with the clock, besides at every change.
const EVERY: Duration = Duration::from_millis(250);
/// Of a test that fails, this many messages are enough.
const MOST: usize = 20;

/// The token of a Secret.
struct Token {
    text: String,
    /// Its `exp`, in seconds since the start of Unix time.
    expires_at: i64,
}

#[derive(Default)]
struct Observed {
    /// By `namespace/name` of the Secret.
    tokens: BTreeMap<String, Token>,
    /// Secrets whose expired token was reported.
    expired: Vec<String>,
    wrong: Vec<String>,
}

impl Observed {
    fn note(&mut self, what: String) {
        if self.wrong.len() < MOST {
            self.wrong.push(what);
        }
    }

    fn apply(&mut self, secret: &Secret) {
        let key = key(secret);
        let token = match token(secret) {
            Ok(token) => token,
            Err(error) => return self.note(format!("{key}: {error:#}")),
        };
        let before = self.tokens.get(&key).map(|token| token.expires_at);
        if before.is_some_and(|before| before > token.expires_at) {
            self.note(format!("{key}: the token was replaced by one that expires earlier"));
        }
        self.tokens.insert(key, token);
        self.check_expiry();
    }

    /// Notes each token that expired, once.
    fn check_expiry(&mut self) {
        let now = Clock::system().now().timestamp();
        let expired = self.tokens.iter().filter(|(_, token)| token.expires_at <= now);
        let expired: Vec<String> = expired.map(|(key, _)| key.clone()).collect();
        for key in expired {
            if !self.expired.contains(&key) {
                self.note(format!("{key}: the token has expired"));
                self.expired.push(key);
            }
        }
    }

    fn take(&mut self, event: watcher::Result<Event<Secret>>) {
        match event {
            Ok(Event::Apply(secret) | Event::InitApply(secret)) => self.apply(&secret),
            Ok(Event::Delete(secret)) => self.note(format!("{}: the Secret was deleted", key(&secret))),
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => self.note(format!("the watch failed: {error}")),
        }
    }
}

fn key(secret: &Secret) -> String {
    format!("{}/{}", secret.namespace().unwrap_or_default(), secret.name_any())
}

/// The token in a Secret. No error contains it.
fn token(secret: &Secret) -> Result<Token> {
    let bytes = secret.data.as_ref().and_then(|data| data.get("access_token")).context("there is no access_token")?;
    let text = String::from_utf8(bytes.0.clone()).ok().context("the access_token is no text")?;
    let claims = text.split('.').nth(1).context("the access_token is no JWT")?;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).context("the JWT has no claims")?;
    let claims: Value = serde_json::from_slice(&claims).context("the claims are no JSON")?;
    let expires_at = claims["exp"].as_i64().context("the JWT has no exp")?;
    Ok(Token { text, expires_at })
}

/// The watch, which ends when this is dropped.
pub struct Observer {
    observed: Arc<Mutex<Observed>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Observer {
    /// Observes all Secrets of the cluster that have the label of the operator.
    pub fn start(client: kube::Client) -> Self {
        let observed = Arc::new(Mutex::new(Observed::default()));
        let task = tokio::spawn(observe(Api::all(client), observed.clone()));
        Self { observed, task }
    }

    fn lock(&self) -> MutexGuard<'_, Observed> {
        lock(&self.observed)
    }

    /// The tokens of now, by `namespace/name` of their Secret.
    pub fn tokens(&self) -> BTreeMap<String, String> {
        self.lock().tokens.iter().map(|(key, token)| (key.clone(), token.text.clone())).collect()
    }

    /// Fails if a Secret was without a valid token at any time up to now, or was not observed.
    pub fn check(&self) -> Result<()> {
        let observed = self.lock();
        ensure!(observed.wrong.is_empty(), "{}", observed.wrong.join("\n"));
        ensure!(!self.task.is_finished(), "the Secrets are not observed any more");
        Ok(())
    }
}

fn lock(observed: &Mutex<Observed>) -> MutexGuard<'_, Observed> {
    observed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends with the first failure of the watch, which [`Observer::check`] reports.
async fn observe(secrets: Api<Secret>, observed: Arc<Mutex<Observed>>) {
    let mut events = std::pin::pin!(watcher::watcher(secrets, watcher::Config::default().labels(SELECTOR)));
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else { return };
                let is_failure = event.is_err();
                lock(&observed).take(event);
                if is_failure {
                    return;
                }
            }
            _ = ticks.tick() => {
                lock(&observed).check_expiry();
            }
        }
    }
}
