//! Follows the Secrets of a namespace, version by version, and checks each: a valid token is never lost.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use futures::StreamExt;
use itwin_api::secret_keys;
use itwin_credential_operator::observe::target;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    runtime::watcher::{self, Event},
};
use serde_json::Value;

use crate::converge::cell::EDITED;

/// Versions of Secrets, in order; `None` if it was deleted.
type History = Vec<(String, Option<Secret>)>;

pub struct Follower {
    history: Arc<Mutex<History>>,
    keys: JwkSet,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    pub fn start(secrets: Api<Secret>, keys: &Value) -> Result<Self> {
        let history = Arc::new(Mutex::new(History::new()));
        let written = history.clone();
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher::watcher(secrets, watcher::Config::default()));
            while let Some(event) = events.next().await {
                let entry = match event {
                    Ok(Event::Apply(secret) | Event::InitApply(secret)) => (secret.name_any(), Some(secret)),
                    Ok(Event::Delete(secret)) => (secret.name_any(), None),
                    _ => continue,
                };
                written.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
            }
        });
        Ok(Self { history, keys: serde_json::from_value(keys.clone())?, task })
    }

    fn versions(&self, name: &str) -> Vec<Option<Secret>> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.iter().filter(|(of, _)| of == name).map(|(_, secret)| secret.clone()).collect()
    }

    /// Whether the follower has received this version of a Secret.
    pub fn has_observed(&self, name: &str, version: Option<String>) -> bool {
        self.versions(name).iter().flatten().any(|secret| secret.resource_version() == version)
    }

    /// Fails if any version of a Secret was worse than the one before. It may have been deleted, and edited
    /// manually, as often as the test did so.
    pub fn assert_never_worse(&self, name: &str, deletions: usize, edits: usize) -> Result<()> {
        let (mut deleted, mut edited, mut good) = (0, 0, 0);
        let mut best: Option<DateTime<Utc>> = None;
        for version in self.versions(name) {
            let Some(secret) = version else {
                deleted += 1;
                continue;
            };
            if text(&secret, secret_keys::ACCESS_TOKEN).is_ok_and(|token| token == EDITED) {
                edited += 1;
                continue;
            }
            let expires_at = self.assert_good(&secret).with_context(|| format!("a version of {name}"))?;
            ensure!(best.is_none_or(|best| expires_at >= best), "the token of {name} was replaced by an older one");
            best = Some(expires_at);
            good += 1;
        }
        ensure!(good > 0, "no valid version was observed of {name}");
        ensure!(deleted == deletions && edited == edits, "{name}: deleted {deleted} times, edited {edited} times");
        Ok(())
    }

    /// Checks the content of a Secret: complete, owned, and a token that the authority signed. Returns its expiry.
    pub fn assert_good(&self, secret: &Secret) -> Result<DateTime<Utc>> {
        ensure!(target::is_what_we_wrote(secret), "data and its fingerprint differ");
        let mut keys = secret_keys::DATA_KEYS;
        keys.sort_unstable();
        let found: Vec<&str> = secret.data.iter().flatten().map(|(key, _)| key.as_str()).collect();
        ensure!(found == keys, "keys are {found:?}");
        let token = text(secret, secret_keys::ACCESS_TOKEN)?;
        ensure!(text(secret, secret_keys::AUTHORIZATION)? == format!("Bearer {token}"), "authorization");
        let expires_at = DateTime::parse_from_rfc3339(&text(secret, secret_keys::EXPIRES_AT)?)?.to_utc();
        let claims = self.verified(&token)?;
        ensure!(claims["exp"].as_i64().is_some_and(|exp| exp >= expires_at.timestamp()), "exp is before expires_at");
        Ok(expires_at)
    }

    fn verified(&self, token: &str) -> Result<Value> {
        let kid = jsonwebtoken::decode_header(token)?.kid.context("no kid")?;
        let Some(key) = self.keys.find(&kid) else { bail!("the key {kid} is unknown") };
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&["https://api.example.com"]);
        Ok(jsonwebtoken::decode::<Value>(token, &DecodingKey::from_jwk(key)?, &validation)?.claims)
    }
}

/// A value of a Secret as text.
pub fn text(secret: &Secret, key: &str) -> Result<String> {
    let value = secret.data.as_ref().and_then(|data| data.get(key)).with_context(|| format!("no {key}"))?;
    Ok(String::from_utf8(value.0.clone())?)
}
