//! The authorities: each ITwinAuthority with its client, and what is known of it.

mod bundle;
mod entry;
mod refresh;
mod reports;
mod rules;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use itwin_api::{
    authority::{AuthorityStatus, ITwinAuthority},
    conditions::Reason,
    credential::CredentialSpec,
    digest,
};
use itwin_core::{
    authority_status, events::Transition, failure::Failure, messages, observed, retry_key::AuthorityRevision,
};
use kube::{Resource, ResourceExt};
use tokio::sync::watch;

use self::entry::{Entry, server};
pub(super) use self::reports::KnownStatus;
use super::{invalid_objects::InvalidObjects, requests::Requests};
use crate::{
    clock::Clock,
    config::authority::{AuthorityConfig, roots},
    liveness::{Listing, Liveness},
    metrics::Metrics,
    oauth::authority::{Authority, Connect},
};

/// The revision of an authority that failed to decode: another one than that of an authority that does not exist.
const NOT_DECODED: AuthorityRevision = AuthorityRevision { revision: u32::MAX, recoveries: 0 };

/// The same of one that the watch has not shown, and may not have been able to.
const NOT_LISTED: AuthorityRevision = AuthorityRevision { revision: u32::MAX - 1, recoveries: 0 };

/// A list of authorities that takes longer is reported by those who name one that it has not shown.
pub const LISTING: Duration = Duration::from_secs(5);

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
    /// Changes when the watch has shown an authority, after it can be read.
    shown: watch::Sender<()>,
    /// Objects that failed to decode, authorities among them.
    invalid_objects: Arc<InvalidObjects>,
    /// Whether the watch works.
    liveness: Arc<Liveness>,
}

impl Authorities {
    /// None yet.
    #[must_use]
    pub fn new(
        metrics: Arc<Metrics>,
        clock: Clock,
        connect: Connect,
        invalid_objects: Arc<InvalidObjects>,
        liveness: Arc<Liveness>,
    ) -> Self {
        let requests = Arc::new(Requests::new(metrics.clone(), clock.clone()));
        let (entries, announced, shown) = Default::default();
        Self { metrics, clock, connect, requests, entries, announced, shown, invalid_objects, liveness }
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
            return self.unknown(name);
        };
        let not_ready = |failure: &Failure| messages::authority_not_ready(name, failure);
        let state = match &entry.authority {
            Err(failure) => observed::Authority::Unavailable(not_ready(failure)),
            Ok(authority) => match authority.config.permits(name, spec) {
                Ok(()) if authority.metadata().is_some() => {
                    observed::Authority::Ready { issuer: authority.config.issuer.clone() }
                }
                Ok(()) => observed::Authority::Unanswered {
                    issuer: authority.config.issuer.clone(),
                    failure: entry.failure.as_ref().map(not_ready),
                },
                Err(failure) => observed::Authority::Forbids(failure),
            },
        };
        let recoveries = self.requests.recoveries(name);
        (state, AuthorityRevision { revision: entry.revision, recoveries })
    }

    /// What is known of an authority that the watch has not shown.
    fn unknown(&self, name: &str) -> (observed::Authority, AuthorityRevision) {
        let unavailable = |failure, revision| (observed::Authority::Unavailable(failure), revision);
        if let Some(error) = self.invalid_objects.error::<ITwinAuthority>(None, name) {
            return unavailable(messages::authority_not_decoded(name, &error), NOT_DECODED);
        }
        match self.liveness.listing(&ITwinAuthority::url_path(&(), None), LISTING) {
            Listing::Complete => unavailable(messages::authority_not_found(name), AuthorityRevision::default()),
            Listing::Pending => (observed::Authority::Pending, AuthorityRevision::default()),
            Listing::Incomplete(trouble) => {
                let trouble = trouble.as_ref().map(|trouble| (trouble.message.as_str(), trouble.is_forbidden));
                (observed::Authority::Unlisted(messages::authorities_unlisted(name, trouble)), NOT_LISTED)
            }
        }
    }

    /// Whether the first list may still come in time: until then, no credential reports that its authority is not listed.
    #[must_use]
    pub fn may_be_listed_in_time(&self) -> bool {
        self.liveness.listing(&ITwinAuthority::url_path(&(), None), LISTING) == Listing::Pending
    }

    /// Whether there are no others than those that the watch has shown.
    #[must_use]
    pub fn are_complete(&self) -> bool {
        self.liveness.listing(&ITwinAuthority::url_path(&(), None), LISTING) == Listing::Complete
    }

    /// Whether the watch has shown an authority of this name.
    #[must_use]
    pub fn is_announced(&self, name: &str) -> bool {
        self.announced().contains(name)
    }

    /// There is an authority of this name: until it is reconciled, no one may say that there is none.
    pub fn announce(&self, name: &str) {
        self.announced().insert(name.to_owned());
    }

    /// The watch has shown authorities, which can be read: what rests on an earlier version of one ends.
    pub fn show(&self) {
        self.shown.send_replace(());
    }

    /// Waits until `is_edited`, which is asked each time that the watch has shown an authority.
    pub async fn until_edited(&self, is_edited: impl Fn() -> bool) {
        let mut shown = self.shown.subscribe();
        while !is_edited() {
            if shown.changed().await.is_err() {
                // the sender lives as long as this
                std::future::pending::<()>().await;
            }
        }
    }

    /// Forgets an authority that is gone. A reconcile of it that is still under way changes nothing from here on.
    pub fn forget(&self, name: &str) {
        let mut entries = self.entries();
        self.announced().remove(name);
        entries.remove(name);
        self.requests.forget(name);
        self.metrics.authorities.forget_authority(name);
    }

    fn announced(&self) -> MutexGuard<'_, HashSet<String>> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry for the current spec of an authority. One that still names the same server keeps what is known of it:
    /// endpoints, keys and circuit breakers. The limits of what was sent before hold in any case.
    ///
    /// `bundle` holds the CA certificates that the spec refers to. Those of before stay where they cannot be read; where
    /// they changed, endpoints and keys are asked for again.
    /// Says whether the spec or the certificates were edited. `None` if the authority is gone by now.
    pub(super) fn ensure(
        &self,
        object: &ITwinAuthority,
        bundle: &Result<Option<Vec<u8>>, Failure>,
    ) -> Option<(Result<Arc<Authority>, Failure>, bool)> {
        let name = object.name_any();
        let spec = serde_json::to_string(&object.spec).unwrap_or_default();
        let made_from = (
            object.uid().unwrap_or_default(),
            object.metadata.generation.unwrap_or_default(),
            digest::sha256_hex([&*spec]),
        );
        let mut entries = self.entries();
        if !self.announced().contains(&name) {
            return None;
        }
        let pem = bundle.as_ref().map(Option::as_deref);
        let digest = pem.map(|pem| pem.map(|pem| digest::sha256_hex([&*String::from_utf8_lossy(pem)])));
        if let Some(entry) = entries.get(&name)
            && entry.is_made_from(&made_from, &digest)
        {
            return Some((entry.authority.clone(), false));
        }
        let server = server(&object.spec);
        let before = entries.remove(&name);
        let revision = before.as_ref().map_or(1, |entry| entry.revision + 1);
        let same = before.filter(|entry| entry.server == server);
        let known = same.as_ref().and_then(|entry| entry.authority.as_ref().ok()?.metadata());
        // certificates that cannot be read now are the ones that were read before, where the spec refers to the same
        let kept = same.as_ref().filter(|entry| pem.is_err() && entry.bundle.is_some());
        let kept_roots = kept.and_then(|entry| entry.authority.as_ref().ok()?.config.roots.clone());
        let kept_bundle = kept.filter(|_| kept_roots.is_some()).and_then(|entry| entry.bundle.clone());
        let unread = pem.err().filter(|_| kept_roots.is_none());
        let made = AuthorityConfig::new(&object.spec)
            .and_then(|config| match (pem, kept_roots) {
                (Ok(Some(pem)), _) => Ok(config.trusting(roots("caBundleRef", pem)?)),
                (_, Some(roots)) => Ok(config.trusting(roots)),
                _ => Ok(config),
            })
            .and_then(|config| {
                Authority::new(name.clone(), config, self.metrics.clone(), self.clock.clone(), &self.connect)
            })
            .map(|authority| Arc::new(authority.knowing(known)))
            .map_err(|error| Failure::new(Reason::ConfigurationInvalid, format!("spec.{error}")));
        let authority = unread.map_or(made, |failure| Err(failure.clone()));
        let bundle = digest.unwrap_or(kept_bundle);
        let trusts_others = same.as_ref().is_none_or(|entry| entry.bundle != bundle);
        if trusts_others {
            self.requests.reset_breaker(&name);
        }
        if let Ok(authority) = &authority {
            let config = &authority.config;
            self.requests.set_limits(&name, config.max_concurrent_requests, config.requests_per_minute);
        }
        let now = self.clock.monotonic();
        let entry = match same {
            Some(entry) if entry.authority.is_ok() => {
                // an edit may correct what failed, and ends a wait
                let due = if trusts_others || entry.failure.is_some() { now } else { entry.due };
                Entry { made_from, bundle, authority: authority.clone(), revision, due, ..entry }
            }
            _ => Entry::fresh(made_from, bundle, server, authority.clone(), revision, now),
        };
        entries.insert(name, entry);
        Some((authority, true))
    }

    /// Sets the metrics of an authority, unless it is gone by now.
    pub(super) fn gauge(&self, name: &str, is_ready: bool, last_refresh: Option<DateTime<Utc>>) {
        if self.entries().contains_key(name) {
            self.metrics.authorities.authority(name, is_ready, last_refresh.map(|at| at.timestamp()));
        }
    }

    /// The event that a status is worth. Each is returned once, whether the status could be written or not.
    pub(super) fn transition(&self, object: &ITwinAuthority, status: &AuthorityStatus) -> Option<Transition> {
        let mut entries = self.entries();
        let entry = entries.get_mut(&object.name_any())?;
        let before = entry.published.or_else(|| object.status.as_ref().and_then(authority_status::is_ready));
        entry.published = authority_status::is_ready(status);
        authority_status::transition(before, status)
    }
}

#[cfg(test)]
mod tests;
