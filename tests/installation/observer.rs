//! Watches the Secrets of all credentials: once it is there, a Secret always holds a token that has not expired.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
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
/// The pause after an error of the watch, which recovers: it continues, or lists everything again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the watch may take to recover, which the next renewal or a list shows. What happens meanwhile is seen only
/// if it lasts: a Secret that is gone, or a token that has expired.
const BROKEN: Duration = Duration::from_secs(30);
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
    /// The Secrets of a list that has not ended.
    listed: BTreeSet<String>,
    /// Since when it is not known what is there, and why: an error of the watch, or a list that has not ended.
    unknown: Option<(Instant, String)>,
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
    }

    /// Notes each token that expired, once. While it is not known what is there, a token may have been replaced.
    fn check_expiry(&mut self) {
        if self.unknown.is_some() {
            return;
        }
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

    /// Notes each Secret that a list does not show any more.
    fn end_list(&mut self) {
        let listed = std::mem::take(&mut self.listed);
        let gone: Vec<String> = self.tokens.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        for key in gone {
            self.tokens.remove(&key);
            self.note(format!("{key}: the Secret was deleted while it was not observed"));
        }
    }

    fn take(&mut self, event: watcher::Result<Event<Secret>>, now: Instant) {
        let unknown = match event {
            Ok(Event::Apply(secret)) => {
                self.apply(&secret);
                None
            }
            Ok(Event::Delete(secret)) => {
                self.note(format!("{}: the Secret was deleted", key(&secret)));
                None
            }
            Ok(Event::Init) => {
                self.listed.clear();
                Some("a list has not ended".to_owned())
            }
            Ok(Event::InitApply(secret)) => {
                self.listed.insert(key(&secret));
                self.apply(&secret);
                return;
            }
            Ok(Event::InitDone) => {
                self.end_list();
                None
            }
            Err(error) => Some(error.to_string()),
        };
        // from the first error on, with the cause of the last one
        let since = self.unknown.take().map_or(now, |(since, _)| since);
        self.unknown = unknown.map(|why| (since, why));
        self.check_expiry();
    }

    /// Compares every token with the clock. False, which is noted, if the watch does not recover.
    fn tick(&mut self, now: Instant) -> bool {
        self.check_expiry();
        let lost = self.unknown.as_ref().filter(|(since, _)| now.duration_since(*since) > BROKEN);
        let Some(why) = lost.map(|(_, why)| format!("the Secrets were not observed for {BROKEN:?}: {why}")) else {
            return true;
        };
        self.note(why);
        false
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

/// Ends where the watch does not recover, which [`Observer::check`] reports.
async fn observe(secrets: Api<Secret>, observed: Arc<Mutex<Observed>>) {
    let mut events = std::pin::pin!(watcher::watcher(secrets, watcher::Config::default().labels(SELECTOR)));
    let mut ticks = tokio::time::interval(EVERY);
    let mut next = tokio::time::Instant::now();
    loop {
        let event = async {
            tokio::time::sleep_until(next).await;
            events.next().await
        };
        tokio::select! {
            event = event => {
                let Some(event) = event else { return };
                if event.is_err() {
                    next = tokio::time::Instant::now() + PAUSE;
                }
                lock(&observed).take(event, Instant::now());
            }
            _ = ticks.tick() => {
                if !lock(&observed).tick(Instant::now()) {
                    return;
                }
            }
        }
    }
}

#[test]
fn break_of_the_watch_is_no_failure_unless_it_lasts_or_a_secret_is_gone_or_expired_after_it() {
    let secret = |name: &str, seconds: i64| {
        let exp = Clock::system().now().timestamp() + seconds;
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#));
        let data = BTreeMap::from([(
            "access_token".to_owned(),
            k8s_openapi::ByteString(format!("header.{claims}.signature").into_bytes()),
        )]);
        let mut secret = Secret { data: Some(data), ..Secret::default() };
        secret.metadata.name = Some(name.to_owned());
        secret
    };
    let list = |observed: &mut Observed, secrets: &[(&str, i64)], at: Instant| {
        observed.take(Ok(Event::Init), at);
        for (name, seconds) in secrets {
            observed.take(Ok(Event::InitApply(secret(name, *seconds))), at);
        }
        observed.take(Ok(Event::InitDone), at);
    };
    let (mut observed, start) = (Observed::default(), Instant::now());
    list(&mut observed, &[("a", 60), ("b", 60)], start);
    for seconds in [0, 10, 20] {
        observed.take(Err(watcher::Error::NoResourceVersion), start + Duration::from_secs(seconds));
        assert!(observed.tick(start + BROKEN));
    }
    list(&mut observed, &[("a", 61), ("b", 60)], start + BROKEN);
    assert!(observed.tick(start + BROKEN * 3), "it recovered");
    assert_eq!(observed.wrong, Vec::<String>::new());

    list(&mut observed, &[("a", -1)], start);
    let wrong = ["/a: the token was replaced", "/b: the Secret was deleted", "/a: the token has expired"];
    assert!(observed.wrong.iter().zip(wrong).all(|(found, start)| found.starts_with(start)), "{:?}", observed.wrong);
    assert_eq!(observed.wrong.len(), 3);

    observed.take(Err(watcher::Error::NoResourceVersion), start);
    observed.take(Ok(Event::Init), start + BROKEN);
    assert!(!observed.tick(start + BROKEN + EVERY), "a list that does not end is no recovery");
    assert!(observed.wrong.last().is_some_and(|last| last.ends_with("a list has not ended")), "{:?}", observed.wrong);
}
