//! Publishes events.
//!
//! kube's recorder keeps each event whole for six minutes and goes through all of them for the next; ten thousand first
//! tokens would cost it as much memory as the credentials themselves, and the square of their number in time. It also
//! refuses objects with long names.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures::{StreamExt, stream::FuturesUnordered};
use itwin_api::{MANAGER, digest, time};
use itwin_core::events::{EventReason, Transition};
use k8s_openapi::api::{
    core::v1::ObjectReference,
    events::v1::{Event, EventSeries},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    core::ObjectMeta,
};
use serde_json::json;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};

use super::backlog::Backlog;
use crate::{
    clock::Clock,
    cluster::{CallError, Cluster, Step},
    metrics::Metrics,
    workers::Workers,
};

/// Events that are remembered, so that an equal one is counted instead of published again.
const REMEMBERED: usize = 512;
/// For so long; as long as client-go remembers.
const EQUAL_WITHIN: Duration = Duration::from_secs(6 * 60);
/// The longest note, in characters; the API server refuses more (`validateEvent`, 1 kB).
const NOTE_MAX: usize = 1000;
/// The longest part of an object's name in its event's: a name has at most 253 characters, a point and 16 digits follow.
const NAME_MAX: usize = 236;
/// How often it is asked whether there is nothing else to do, while events wait for that.
const IDLE_CHECK: Duration = Duration::from_millis(100);

/// An event that waits.
struct Waiting {
    about: ObjectReference,
    transition: Transition,
    /// When it happened.
    at: DateTime<Utc>,
}

/// Publishes events.
pub struct Events {
    cluster: Cluster,
    clock: Clock,
    instance: String,
    metrics: Arc<Metrics>,
    reported: Mutex<Reported>,
    backlog: Mutex<Backlog<Waiting>>,
    /// The workers of the process: while each has something to do, events of first tokens wait.
    workers: Arc<Workers>,
    /// Objects wait for a worker. One that is free for an instant is taken next, and is none that is idle.
    are_workers_awaited: AtomicBool,
    /// The process ends, and nothing waits any more.
    is_ending: AtomicBool,
    /// Something was added to the backlog.
    added: Notify,
    /// Whether nothing is left in it.
    is_empty: watch::Sender<bool>,
}

impl Events {
    /// A publisher; one for the whole process, which `instance` names, since it joins equal events.
    #[must_use]
    pub fn new(cluster: Cluster, instance: String, clock: Clock, metrics: Arc<Metrics>, workers: Arc<Workers>) -> Self {
        Self {
            workers,
            are_workers_awaited: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            cluster,
            clock,
            instance,
            metrics,
            reported: Mutex::default(),
            backlog: Mutex::default(),
            added: Notify::new(),
            is_empty: watch::Sender::new(true),
        }
    }

    /// Has one event be published by [`Self::run`]: no one waits for it. One of too many is dropped, and counted.
    pub fn publish(&self, about: ObjectReference, transition: Transition) {
        let namespace = namespace(&about).to_owned();
        let name = about.name.clone();
        let is_later = transition.reason == EventReason::Issued;
        let waiting = Waiting { about, transition, at: self.clock.now() };
        let now = self.clock.monotonic();
        let mut backlog = self.backlog();
        let is_kept = if is_later {
            backlog.push_later(&namespace, waiting, now)
        } else {
            backlog.push(&namespace, waiting, now)
        };
        self.is_empty.send_replace(backlog.is_empty());
        drop(backlog);
        if is_kept {
            self.added.notify_one();
        } else {
            self.metrics.event_dropped();
            tracing::warn!(namespace, about = name, "an event is dropped, since too many wait to be published");
        }
    }

    /// Publishes what [`Self::publish`] is given, indefinitely. A failure is logged and changes nothing.
    pub async fn run(&self) -> Infallible {
        let mut under_way = FuturesUnordered::new();
        loop {
            while let Some((namespace, Waiting { about, transition, at })) = self.take() {
                under_way.push(async move {
                    if let Err(error) = self.publish_at(&about, &transition, at).await {
                        tracing::warn!(about = about.name, %error, "event could not be published");
                    }
                    namespace
                });
            }
            tokio::select! {
                biased;
                Some(namespace) = under_way.next() => self.backlog().done(&namespace),
                () = self.added.notified() => {}
                () = sleep(IDLE_CHECK), if self.backlog().has_later() => {}
            }
        }
    }

    /// Whether objects wait for a worker from now on.
    pub fn set_workers_awaited(&self, awaited: bool) {
        self.are_workers_awaited.store(awaited, Ordering::Relaxed);
    }

    /// The number of events that are not published yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.backlog().len()
    }

    /// The process ends: from now on no event waits for something else.
    pub fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
        self.added.notify_one();
    }

    /// Waits until all events are published, or were not taken.
    pub async fn published(&self) {
        // the sender lives as long as we do
        let _ = self.is_empty.subscribe().wait_for(|is_empty| *is_empty).await;
    }

    fn take(&self) -> Option<(String, Waiting)> {
        let are_awaited = self.are_workers_awaited.load(Ordering::Relaxed);
        let has_work = are_awaited || self.workers.free() == 0;
        let is_busy = has_work && !self.is_ending.load(Ordering::Relaxed);
        let mut backlog = self.backlog();
        let next = backlog.take(is_busy, self.clock.monotonic());
        self.is_empty.send_if_modified(|is_empty| {
            let changed = *is_empty != backlog.is_empty();
            *is_empty = backlog.is_empty();
            changed
        });
        next
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog<Waiting>> {
        // every change is complete before anything can panic
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes one event.
    ///
    /// # Errors
    /// [`CallError`] if it was not published.
    pub async fn try_publish(&self, about: &ObjectReference, transition: &Transition) -> Result<(), CallError> {
        self.publish_at(about, transition, self.clock.now()).await
    }

    /// The same of what happened at this time.
    async fn publish_at(
        &self,
        about: &ObjectReference,
        transition: &Transition,
        at: DateTime<Utc>,
    ) -> Result<(), CallError> {
        let namespace = namespace(about);
        let api: Api<Event> = Api::namespaced(self.cluster.client.clone(), namespace);
        let uid = about.uid.as_deref().unwrap_or_default();
        let key = digest::sha256_hex([uid, transition.reason.as_str(), &transition.note]);
        let at = time::to_micro_time(at);
        let again = self.reported().again(&key, self.clock.monotonic());
        if let Some((name, count)) = again {
            let series = EventSeries { count, last_observed_time: at.clone() };
            let patch = Patch::Merge(json!({"series": series}));
            let params = PatchParams::default();
            let request = api.patch_metadata(&name, &params, &patch);
            let counted = self.cluster.call(Step::CountEvent, request).await.map(drop);
            if counted.is_err() {
                // it may be gone, and nothing would be published as long as equal events came
                self.reported().forget(&key);
            }
            // it was deleted, or its time to live is over: this is the first one again
            if counted != Err(CallError::NotFound) {
                return counted;
            }
        }
        let name = event_name(about.name.as_deref().unwrap_or_default(), self.clock.now().timestamp_micros());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            action: Some(transition.reason.action().to_owned()),
            event_time: Some(at),
            note: Some(transition.note.chars().take(NOTE_MAX).collect()),
            reason: Some(transition.reason.as_str().to_owned()),
            regarding: Some(about.clone()),
            reporting_controller: Some(MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(if transition.warning { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        };
        let params = PostParams::default();
        self.cluster.call(Step::PublishEvent, api.create(&params, &event)).await?;
        self.reported().first(key, name, self.clock.monotonic());
        Ok(())
    }

    fn reported(&self) -> MutexGuard<'_, Reported> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where an event about an object is published: about one without a namespace, in `default`.
fn namespace(about: &ObjectReference) -> &str {
    about.namespace.as_deref().unwrap_or("default")
}

/// A name for an event about an object: as client-go makes it, and never too long.
fn event_name(about: &str, microseconds: i64) -> String {
    let part: String = about.chars().take(NAME_MAX).collect();
    format!("{}.{microseconds:016x}", part.trim_end_matches(['.', '-']))
}

/// Events that were published lately, the oldest first.
#[derive(Default)]
struct Reported(VecDeque<Entry>);

struct Entry {
    key: String,
    name: String,
    count: i32,
    at: Instant,
}

impl Reported {
    fn first(&mut self, key: String, name: String, now: Instant) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(Entry { key, name, count: 1, at: now });
    }

    fn forget(&mut self, key: &str) {
        self.0.retain(|entry| entry.key != key);
    }

    /// The name of an equal event that was published lately, and how many there are with this one.
    fn again(&mut self, key: &str, now: Instant) -> Option<(String, i32)> {
        self.0.retain(|entry| now.duration_since(entry.at) < EQUAL_WITHIN);
        let entry = self.0.iter_mut().find(|entry| entry.key == key)?;
        entry.count = entry.count.saturating_add(1);
        entry.at = now;
        Some((entry.name.clone(), entry.count))
    }
}

#[cfg(test)]
mod tests;
