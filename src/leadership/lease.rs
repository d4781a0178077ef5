//! Reads, writes and watches the Lease, each call with a deadline and counted.
//!
//! Its spec is taken as plain JSON: one time that cannot be parsed must not prevent every failover.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures::{
    StreamExt,
    future::ready,
    stream::{self, BoxStream},
};
use itwin_api::MANAGER;
use itwin_core::{
    election::{Change, NewRecord, ObservedLease, Record, Write},
    revisions::parse,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ObjectMeta, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    clock::Clock,
    metrics::Metrics,
    restores::{Restores, is_lower},
};

/// The longest time for one call about the Lease. Shorter than that of other calls: a leader must be able to try again
/// before it has to step down.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);
/// The same for a call that follows one that took so long: an API server that answers each call late, but does, must not
/// leave all replicas without the Lease. Two calls of this length are as long as a leader may go without a renewal, so it
/// goes on where each of its renewals is answered within this.
pub(super) const SLOW_DEADLINE: Duration = Duration::from_secs(5);
/// A watch ends after this, in seconds, as other watches do ([`crate::observe::watch`]).
const WATCH_SECONDS: u32 = 60;
/// How much later than its timeout a watch may end.
const LATE: Duration = Duration::from_secs(5);
/// The resource.
const LEASES: &str = "leases";

/// How a call about the Lease failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeaseError {
    /// 404.
    #[error("not found")]
    NotFound,
    /// 409: it was changed, or exists already.
    #[error("it was changed at the same time")]
    Conflict,
    /// 401 or 403, with the API server's reason.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// 422, with the API server's reason.
    #[error("refused as invalid: {0}")]
    Invalid(String),
    /// Any other answer.
    #[error("the API server answered HTTP {0}")]
    Unavailable(u16),
    /// The deadline passed.
    #[error("no answer from the API server in time")]
    Timeout,
    /// The connection broke, or the answer could not be read.
    #[error("no readable answer from the API server")]
    Transport,
}

impl LeaseError {
    fn label(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Forbidden(_) => "forbidden",
            Self::Invalid(_) => "invalid",
            Self::Unavailable(_) => "unavailable",
            Self::Timeout => "timeout",
            Self::Transport => "transport",
        }
    }
}

impl From<kube::Error> for LeaseError {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::Transport;
        };
        match status.code {
            404 => Self::NotFound,
            409 => Self::Conflict,
            401 | 403 => Self::Forbidden(status.message),
            422 => Self::Invalid(status.message),
            code => Self::Unavailable(code),
        }
    }
}

/// What a watch shows: the Lease, or why it shows no more. A deletion is [`LeaseError::NotFound`].
pub(super) type News = Result<DynamicObject, LeaseError>;

/// The one Lease of the operator's name.
pub struct LeaseApi {
    api: Api<DynamicObject>,
    metrics: Arc<Metrics>,
    clock: Clock,
    /// Reads and writes of the Lease always show the latest state, and one replica makes them one after the other.
    restores: Arc<Restores>,
    /// The Lease as it was last read or written: what an update does not change is sent back as it was.
    last: Option<DynamicObject>,
}

impl LeaseApi {
    /// The Lease of the operator's name in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, metrics: Arc<Metrics>, clock: Clock, restores: Arc<Restores>) -> Self {
        let api = Api::namespaced_with(client, namespace, &ApiResource::erase::<Lease>(&()));
        Self { api, metrics, clock, restores, last: None }
    }

    /// Reads the Lease; `None` where there is none.
    pub(super) async fn read(&mut self, deadline: Instant) -> Result<Option<ObservedLease>, LeaseError> {
        match self.call("get", deadline, self.api.get(MANAGER)).await {
            Ok(object) => Ok(Some(self.keep(object))),
            Err(LeaseError::NotFound) => {
                self.last = None;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The resourceVersion of the Lease as it was last read, written or shown; `None` where there is none.
    pub(super) fn version(&self) -> Option<String> {
        self.last.as_ref()?.metadata.resource_version.clone()
    }

    /// What becomes of the Lease from now on; `None` where there is none.
    pub(super) fn watch(&self) -> Option<BoxStream<'static, News>> {
        let (version, api, metrics) = (self.version()?, self.api.clone(), self.metrics.clone());
        let opened = async move {
            let only = format!("metadata.name={MANAGER}");
            let params = WatchParams::default().fields(&only).timeout(WATCH_SECONDS).disable_bookmarks();
            let answer = match timeout(DEADLINE, api.watch(&params, &version)).await {
                Ok(answer) => answer.map_err(LeaseError::from),
                Err(_) => Err(LeaseError::Timeout),
            };
            metrics.kubernetes_request("watch", LEASES, answer.as_ref().map_or_else(LeaseError::label, |_| "success"));
            match answer {
                Ok(events) => events.filter_map(|event| ready(news(event))).boxed(),
                Err(error) => stream::once(ready(Err(error))).boxed(),
            }
        };
        let end = sleep(Duration::from_secs(WATCH_SECONDS.into()) + LATE);
        Some(stream::once(opened).flatten().take_until(end).boxed())
    }

    /// Whether the Lease has a version that was given out before, as in a cluster that was restored. The watch cache of an
    /// API server that kept running may show what came after that version then, which is no sign of life.
    pub(super) fn is_behind(&self) -> bool {
        let version = self.version().unwrap_or_default();
        self.restores.is_behind(LEASES) || is_lower(&version, self.restores.highest(LEASES))
    }

    /// The Lease as a watch shows it; `None` where that is older than what is known, or a renewal of an earlier time, which
    /// only a read explains.
    pub(super) fn shown(&mut self, mut object: DynamicObject) -> Option<ObservedLease> {
        let number = |object: &DynamicObject| parse(object.metadata.resource_version.as_deref()?);
        object.metadata.managed_fields = None;
        let lease = observed(&object);
        if self.last.as_ref().and_then(number) > number(&object) || self.is_earlier(&object, &lease) {
            return None;
        }
        self.restores.observe(LEASES, &lease.version);
        self.last = Some(object);
        Some(lease)
    }

    /// Writes the Lease; gives what the API server made of it.
    pub(super) async fn write(&mut self, write: &Write, deadline: Instant) -> Result<ObservedLease, LeaseError> {
        let object = self.object(write);
        let params = PostParams::default();
        let written = match write.change {
            Change::Create => self.call("create", deadline, self.api.create(&params, &object)).await,
            _ => self.call("update", deadline, self.api.replace(MANAGER, &params, &object)).await,
        };
        written.map(|object| self.keep(object))
    }

    async fn call(
        &self,
        verb: &'static str,
        deadline: Instant,
        request: impl Future<Output = kube::Result<DynamicObject>>,
    ) -> Result<DynamicObject, LeaseError> {
        let answer = timeout_at(deadline, request).await;
        let result = answer.map_or(Err(LeaseError::Timeout), |answer| identified(answer?));
        self.metrics.kubernetes_request(verb, LEASES, result.as_ref().map_or_else(LeaseError::label, |_| "success"));
        result
    }

    fn keep(&mut self, mut object: DynamicObject) -> ObservedLease {
        // the API server keeps them where an update has none
        object.metadata.managed_fields = None;
        let lease = observed(&object);
        self.notice_restore(&object, &lease);
        self.last = Some(object);
        lease
    }

    /// A resourceVersion that went back shows a restore, and so does the same holder at an earlier time: the revisions of
    /// a small cluster may have caught up. A clock that was set back looks the same, and costs a list.
    fn notice_restore(&self, object: &DynamicObject, lease: &ObservedLease) {
        let known = self.restores.highest(LEASES);
        self.restores.observe_latest(LEASES, &lease.version, known);
        if self.is_earlier(object, lease) {
            self.restores.notice("the Lease of an earlier time");
        }
    }

    /// Whether this is the same Lease as the last one, with the same holder, at an earlier time.
    fn is_earlier(&self, object: &DynamicObject, lease: &ObservedLease) -> bool {
        let last = self.last.as_ref().filter(|last| last.metadata.uid == object.metadata.uid).map(observed);
        last.is_some_and(|last| lease.record.precedes(&last.record))
    }

    /// The metadata as it was read, with uid and resourceVersion: without the uid an update would create the Lease again
    /// where it was deleted, and a request that comes late would make a dead replica its holder.
    fn object(&self, write: &Write) -> DynamicObject {
        let last = self.last.as_ref().filter(|_| write.change != Change::Create);
        let now = renew_time(self.clock.now(), last.and_then(|last| last.data["spec"]["renewTime"].as_str()));
        let resource = ApiResource::erase::<Lease>(&());
        let mut object = last.cloned().unwrap_or_else(|| DynamicObject::new(MANAGER, &resource));
        object.metadata.resource_version.clone_from(&write.version);
        object.data = json!({"spec": spec(&write.record, &now)});
        object
    }
}

#[cfg(test)]
impl LeaseApi {
    /// The Lease of a test, with the system clocks.
    pub(super) fn of(client: Client, metrics: Arc<Metrics>) -> Self {
        let clock = Clock::system();
        Self::new(client, "operator", metrics, clock.clone(), Arc::new(Restores::new(clock)))
    }
}

/// The answer to a call, where it is the Lease. A `Status` decodes as an object without metadata, which would be a Lease
/// without a holder after a read, and a renewal that was carried out after a write.
fn identified(answer: DynamicObject) -> Result<DynamicObject, LeaseError> {
    let ObjectMeta { name, uid, resource_version, .. } = &answer.metadata;
    let has_identity = [uid, resource_version].iter().all(|part| part.as_deref().is_some_and(|part| !part.is_empty()));
    if has_identity && name.as_deref() == Some(MANAGER) { Ok(answer) } else { Err(LeaseError::Transport) }
}

/// What an event of a watch says; `None` for a bookmark.
fn news(event: kube::Result<WatchEvent<DynamicObject>>) -> Option<News> {
    match event {
        Ok(WatchEvent::Added(lease) | WatchEvent::Modified(lease)) => Some(Ok(lease)),
        Ok(WatchEvent::Deleted(_)) => Some(Err(LeaseError::NotFound)),
        Ok(WatchEvent::Bookmark(_)) => None,
        Ok(WatchEvent::Error(status)) => Some(Err(kube::Error::Api(status).into())),
        Err(error) => Some(Err(error.into())),
    }
}

fn spec(record: &NewRecord, now: &str) -> Value {
    json!({
        "holderIdentity": record.holder,
        "leaseDurationSeconds": record.duration.as_secs(),
        "acquireTime": record.acquire_time.as_deref().unwrap_or(now),
        "renewTime": now,
        "leaseTransitions": record.transitions,
    })
}

fn observed(object: &DynamicObject) -> ObservedLease {
    let spec = &object.data["spec"];
    let text = |name: &str| spec[name].as_str().map(str::to_owned);
    ObservedLease {
        version: object.metadata.resource_version.clone().unwrap_or_default(),
        record: Record {
            holder: text("holderIdentity").unwrap_or_default(),
            duration_seconds: spec["leaseDurationSeconds"].as_i64(),
            acquire_time: text("acquireTime"),
            renew_time: text("renewTime"),
            transitions: spec["leaseTransitions"].as_i64(),
        },
    }
}

/// The `renewTime` of a write: never the one before, even where the wall clock does not advance or was set back. A renewal
/// that changes nothing would be none to those who wait.
fn renew_time(now: DateTime<Utc>, last: Option<&str>) -> String {
    let text = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let at = text(now);
    if last == Some(at.as_str()) { text(now + TimeDelta::microseconds(1)) } else { at }
}

#[cfg(test)]
mod tests;
