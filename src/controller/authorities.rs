//! The authorities: each ITwinAuthority with the client that asks it, kept fresh, and its status.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{
    MANAGER,
    authority::{AuthoritySpec, AuthorityStatus, ITwinAuthority},
    conditions::{READY, Reason, Verdict},
    credential::CredentialSpec,
    digest,
    failure::Failure,
};
use itwin_core::{backoff, messages, observed, retry_key::AuthorityRevision};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::Instant;

use super::{RequeueAfter, namespaces::WatchedNamespaces, requests::Requests};
use crate::{
    clock::Clock,
    cluster::{Cluster, Step},
    config::authority::AuthorityConfig,
    metrics::Metrics,
    oauth::authority::{Authority, Connect, Metadata},
};

/// Endpoints and keys are fetched again after this: keys are rotated days ahead, and an unknown `kid` is asked for at
/// once anyway.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// The longest wait before an authority that never answered is asked again.
const RETRY_CEILING: Duration = Duration::from_secs(60);
/// A status that was replaced by another writer is written again no sooner than this.
const REPORT_AGAIN: Duration = Duration::from_secs(30);
/// Wait after a status that could not be written.
const STATUS_RETRY: Duration = Duration::from_secs(5);

/// The authorities, by name.
pub struct Authorities {
    metrics: Arc<Metrics>,
    clock: Clock,
    connect: Connect,
    /// The token requests that wait for each of them.
    pub requests: Arc<Requests>,
    entries: Mutex<HashMap<String, Entry>>,
    /// Those that the watch has shown, reconciled or not.
    announced: Mutex<HashSet<String>>,
}

struct Entry {
    /// UID, generation and digest of the spec that `authority` was made from. A cluster that was restored from a backup
    /// gives out a generation a second time.
    made_from: (String, i64, String),
    /// Which server it is: an edit of anything else forgets nothing of what is known of it.
    server: String,
    authority: Result<Arc<Authority>, Failure>,
    /// Why it never answered, if it did not.
    unanswered: Option<Failure>,
    /// It was asked, whatever came of it.
    was_asked: bool,
    failures: u32,
    /// When endpoints and keys are asked for next; a look before that, as after each status, asks nobody.
    due: Instant,
    /// Moves with everything that may make a new attempt worth while.
    revision: u32,
    /// What was written into its status last, and when.
    reported: Option<(Instant, AuthorityStatus)>,
}

impl Authorities {
    /// None yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, clock: Clock, connect: Connect) -> Self {
        let requests = Arc::new(Requests::new(metrics.clone(), clock.clone()));
        Self { metrics, clock, connect, requests, entries: Mutex::default(), announced: Mutex::default() }
    }

    /// The authority of this name, if it can be asked.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Authority>> {
        self.entries().get(name)?.authority.as_ref().ok().cloned()
    }

    /// What a decision needs to know of an authority, and its revision, which moves when that may have changed.
    #[must_use]
    pub fn observe(&self, name: &str, spec: &CredentialSpec) -> (observed::Authority, AuthorityRevision) {
        let entries = self.entries();
        let Some(entry) = entries.get(name) else {
            if self.announced().contains(name) {
                // it is there, and is reconciled soon
                return (observed::Authority::Pending, AuthorityRevision::default());
            }
            let failure = messages::authority_not_found(name);
            return (observed::Authority::Unavailable(failure), AuthorityRevision::default());
        };
        let not_ready =
            |failure: &Failure| observed::Authority::Unavailable(messages::authority_not_ready(name, failure));
        let state = match &entry.authority {
            Err(failure) => not_ready(failure),
            Ok(authority) if authority.metadata().is_some() => match authority.config.permits(name, spec) {
                Ok(()) => observed::Authority::Ready { issuer: authority.config.issuer.clone() },
                Err(failure) => observed::Authority::Forbids(failure),
            },
            Ok(_) => entry.unanswered.as_ref().map_or(observed::Authority::Pending, not_ready),
        };
        let recoveries = self.requests.recoveries(name);
        (state, AuthorityRevision { revision: entry.revision, recoveries })
    }

    /// There is an authority of this name: until it is reconciled, no one may say that there is none.
    pub fn announce(&self, name: &str) {
        self.announced().insert(name.to_owned());
    }

    /// Forgets an authority that is gone.
    pub fn forget(&self, name: &str) {
        self.announced().remove(name);
        self.entries().remove(name);
        self.requests.forget(name);
    }

    fn announced(&self) -> MutexGuard<'_, HashSet<String>> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry for the current spec of an authority. One that still names the same server keeps what is known of it:
    /// endpoints, keys and circuit breakers. The limits of what was sent before hold in any case.
    /// Says whether the spec was edited.
    fn ensure(&self, object: &ITwinAuthority) -> (Result<Arc<Authority>, Failure>, bool) {
        let name = object.name_any();
        let spec = serde_json::to_string(&object.spec).unwrap_or_default();
        let made_from = (
            object.uid().unwrap_or_default(),
            object.metadata.generation.unwrap_or_default(),
            digest::sha256_hex([&*spec]),
        );
        let mut entries = self.entries();
        if let Some(entry) = entries.get(&name)
            && entry.made_from == made_from
        {
            return (entry.authority.clone(), false);
        }
        let server = server(&object.spec);
        let before = entries.remove(&name);
        let revision = before.as_ref().map_or(1, |entry| entry.revision + 1);
        let same = before.filter(|entry| entry.server == server);
        let known = same.as_ref().and_then(|entry| entry.authority.as_ref().ok()?.metadata());
        let authority = AuthorityConfig::new(&object.spec)
            .and_then(|config| {
                Authority::new(name.clone(), config, self.metrics.clone(), self.clock.clone(), &self.connect)
            })
            .map(|authority| Arc::new(authority.knowing(known)))
            .map_err(|error| Failure::new(Reason::ConfigurationInvalid, format!("spec.{error}")));
        if same.is_none() {
            self.requests.reset_breaker(&name);
        }
        if let Ok(authority) = &authority {
            let config = &authority.config;
            self.requests.set_limits(&name, config.max_concurrent_requests, config.requests_per_minute);
        }
        let fresh = Entry {
            made_from: made_from.clone(),
            server,
            authority: authority.clone(),
            unanswered: None,
            was_asked: false,
            failures: 0,
            due: self.clock.monotonic(),
            revision,
            reported: None,
        };
        let entry = match same {
            Some(entry) if entry.authority.is_ok() => {
                Entry { made_from, authority: authority.clone(), revision, ..entry }
            }
            _ => fresh,
        };
        entries.insert(name, entry);
        (authority, true)
    }

    /// How long until endpoints and keys should be asked for; zero where that is now.
    fn wait(&self, name: &str) -> Duration {
        self.entries()
            .get(name)
            .map_or(RETRY_CEILING, |entry| entry.due.saturating_duration_since(self.clock.monotonic()))
    }

    /// How long not to write this status again: somebody else, another operator perhaps, has just replaced it, and two
    /// who answer each other's writes at once would be a storm.
    fn reported_lately(&self, name: &str, status: &AuthorityStatus) -> Option<Duration> {
        let entries = self.entries();
        let (at, reported) = entries.get(name)?.reported.as_ref()?;
        let same = |status: &AuthorityStatus| {
            status.conditions.iter().map(|c| (c.status.clone(), c.reason.clone())).collect::<Vec<_>>()
        };
        let left = REPORT_AGAIN.checked_sub(at.elapsed())?;
        (same(reported) == same(status)).then_some(left)
    }

    fn note_reported(&self, name: &str, status: AuthorityStatus) {
        if let Some(entry) = self.entries().get_mut(name) {
            entry.reported = Some((self.clock.monotonic(), status));
        }
    }

    /// Why an authority never answered, if it did not.
    fn unanswered(&self, name: &str) -> Option<Failure> {
        self.entries().get(name).and_then(|entry| entry.unanswered.clone())
    }

    /// Notes how asking `authority` for endpoints and keys ended. Returns whether credentials must look again.
    fn note(&self, authority: &Arc<Authority>, result: Result<(), Failure>) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&authority.name) else { return false };
        if !entry.authority.as_ref().is_ok_and(|current| Arc::ptr_eq(current, authority)) {
            // the spec changed meanwhile; the answer is about another one
            return false;
        }
        let before = entry.unanswered.as_ref().map(|failure| failure.reason);
        let wait = match result {
            Ok(()) => {
                entry.unanswered = None;
                entry.failures = 0;
                REFRESH_INTERVAL
            }
            Err(failure) => {
                entry.failures += 1;
                let wait = backoff::delay(entry.failures, TimeDelta::zero(), failure.reason, None, &authority.name);
                // what it once answered stays good while it does not answer
                entry.unanswered = authority.metadata().is_none().then_some(failure);
                wait.to_std().unwrap_or(RETRY_CEILING).min(RETRY_CEILING)
            }
        };
        entry.due = self.clock.monotonic() + wait;
        let news = !entry.was_asked || before != entry.unanswered.as_ref().map(|failure| failure.reason);
        entry.was_asked = true;
        entry.revision += u32::from(news);
        news
    }
}

/// Reconciles one authority: fetches its endpoints and keys if that is due, and reports how it stands.
pub async fn reconcile(
    object: &ITwinAuthority,
    authorities: &Authorities,
    cluster: &Cluster,
    namespaces: &WatchedNamespaces,
) -> RequeueAfter {
    let name = object.name_any();
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let (authority, is_edited) = authorities.ensure(object);
    if is_edited {
        namespaces.enqueue_users_of(&name);
    }
    let authority = match authority {
        Ok(authority) => authority,
        Err(failure) => {
            return report(object, not_ready(&failure), None, (authorities, cluster), RETRY_CEILING).await;
        }
    };
    if authorities.wait(&name).is_zero() {
        let result = authority.refresh().await;
        if let Err(failure) = &result {
            tracing::warn!(
                authority = name,
                reason = failure.failure.reason.as_str(),
                "authority could not be asked: {}",
                failure.failure.message
            );
        }
        if authorities.note(&authority, result.map(drop).map_err(|failure| failure.failure)) {
            namespaces.enqueue_users_of(&name);
        }
    }
    let metadata = authority.metadata();
    let verdict = match (&metadata, authorities.unanswered(&name)) {
        (Some(metadata), _) => ready(metadata),
        (None, Some(failure)) => not_ready(&failure),
        (None, None) => return Some(STATUS_RETRY),
    };
    report(object, verdict, metadata.as_deref(), (authorities, cluster), authorities.wait(&name)).await
}

/// Writes the status if it is another one, and says when to look again.
async fn report(
    object: &ITwinAuthority,
    verdict: Verdict,
    metadata: Option<&Metadata>,
    (authorities, cluster): (&Authorities, &Cluster),
    wait: Duration,
) -> RequeueAfter {
    let status = status(object, verdict, metadata, authorities.clock.now());
    if object.status.as_ref() != Some(&status) {
        let name = object.name_any();
        if let Some(left) = authorities.reported_lately(&name, &status) {
            return Some(left.min(wait).max(Duration::from_millis(10)));
        }
        if let Err(error) = write_status(cluster, object, &status).await {
            tracing::warn!(authority = name, %error, "status could not be written");
            return Some(STATUS_RETRY.min(wait.max(Duration::from_millis(10))));
        }
        authorities.note_reported(&name, status);
    }
    Some(wait.max(Duration::from_millis(10)))
}

/// What says which server an authority is, and how it is trusted, as a digest.
fn server(spec: &AuthoritySpec) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let format = format!("{:?}", spec.access_token_format);
    let parts = [&spec.issuer, &text(&spec.token_endpoint), &text(&spec.jwks_uri), &text(&spec.ca_bundle), &format];
    digest::sha256_hex(parts.map(String::as_str))
}

fn ready(metadata: &Metadata) -> Verdict {
    let message = match &metadata.keys {
        Some(keys) => format!("endpoints are known, and {} signing keys", keys.len()),
        None => "endpoints are known; tokens are opaque and not verified".to_owned(),
    };
    Verdict { kind: READY, holds: true, reason: Reason::AuthorityReachable, message }
}

fn not_ready(failure: &Failure) -> Verdict {
    Verdict { kind: READY, holds: false, reason: failure.reason, message: failure.message.clone() }
}

fn status(
    object: &ITwinAuthority,
    verdict: Verdict,
    metadata: Option<&Metadata>,
    now: DateTime<Utc>,
) -> AuthorityStatus {
    let no_conditions: Vec<Condition> = Vec::new();
    let previous = object.status.as_ref().map_or(&no_conditions, |status| &status.conditions);
    AuthorityStatus {
        observed_generation: object.metadata.generation,
        conditions: vec![verdict.into_condition(previous, object.metadata.generation, now)],
        token_endpoint: metadata.map(|metadata| metadata.endpoints.token.to_string()),
        jwks_uri: metadata.and_then(|metadata| metadata.endpoints.jwks.as_ref()).map(ToString::to_string),
        signing_keys: metadata
            .and_then(|metadata| metadata.keys.as_ref())
            .and_then(|keys| i32::try_from(keys.len()).ok()),
    }
}

async fn write_status(
    cluster: &Cluster,
    object: &ITwinAuthority,
    status: &AuthorityStatus,
) -> Result<(), crate::cluster::CallError> {
    let patch = json!({
        "metadata": {"uid": object.uid()},
        "status": {
            "observedGeneration": status.observed_generation,
            "conditions": status.conditions,
            "tokenEndpoint": status.token_endpoint,
            "jwksUri": status.jwks_uri,
            "signingKeys": status.signing_keys,
        },
    });
    let api: Api<ITwinAuthority> = Api::all(cluster.client.clone());
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let name = object.name_any();
    let patch = Patch::Merge(&patch);
    cluster.call(Step::PatchAuthorityStatus, api.patch_status(&name, &params, &patch)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_that_was_not_reconciled_yet_is_awaited_and_one_that_is_gone_is_not() {
        let authorities = Authorities::new(
            Arc::new(Metrics::new(true).expect("metrics")),
            Clock::system(),
            crate::oauth::http::Http::connect(Clock::system()),
        );
        let spec: CredentialSpec =
            serde_json::from_value(json!({"clientCredentialsRef": {"name": "client"}})).expect("a valid spec");
        let state = || authorities.observe("ims", &spec).0;
        assert!(
            matches!(state(), observed::Authority::Unavailable(failure) if failure.reason == Reason::AuthorityNotFound)
        );
        authorities.announce("ims");
        assert!(matches!(state(), observed::Authority::Pending));
        authorities.forget("ims");
        assert!(matches!(state(), observed::Authority::Unavailable(_)));
    }
}
