//! The token requests that wait for their authorization servers, outside the workers, and the task that admits them.
//!
//! `decide::requests` says what may be sent; this module holds one such queue for each authority, hands a [`Slot`] to
//! the reconcile whose request was admitted, and has credentials reconciled when their turn comes.

mod slot;
mod state;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use itwin_core::{
    object::ObjectKey,
    requests::{Blocked, Now, Outcome, Request, Requester, breaker::Change},
    token::Content,
};
use tokio::sync::Notify;

pub use self::slot::Slot;
use self::state::{Queue, State};
use crate::{
    clock::{Clock, until},
    metrics::Metrics,
};

/// The queues of all authorities.
pub struct Requests {
    state: Mutex<State>,
    changed: Notify,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// How a request waits.
pub struct Place {
    /// Since when.
    pub since: Instant,
    /// Why it is not sent at all for now.
    pub blocked: Option<Blocked>,
}

/// What the dispatcher has to do.
struct Work {
    enqueued: Vec<Arc<ObjectKey>>,
    recovered: Vec<Arc<str>>,
    again: Option<Instant>,
}

impl Requests {
    /// No queue yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), metrics, clock }
    }

    /// How long a request has waited, on the clock that the queue uses.
    #[must_use]
    pub fn waited(&self, since: Instant) -> Duration {
        self.now().monotonic.saturating_duration_since(since)
    }

    fn now(&self) -> Now {
        Now { wall: self.clock.now(), monotonic: self.clock.monotonic().into_std() }
    }

    /// Sets the limits of an authority. What waits and what was sent stays.
    pub fn set_limits(&self, authority: &str, max_in_flight: u16, per_minute: u32) {
        let mut state = self.state();
        let queue = state.queue(authority);
        queue.queue.set_limits(max_in_flight, per_minute);
        queue.sends.set_limit(per_minute);
        drop(state);
        self.changed.notify_one();
    }

    /// Forgets what is known of the server behind an authority, which is another one now.
    pub fn reset_breaker(&self, authority: &str) {
        self.state().queue(authority).queue.reset_breaker();
        self.changed.notify_one();
    }

    /// Forgets an authority that is gone, with all that waits for it.
    pub fn forget(&self, authority: &str) {
        let mut state = self.state();
        state.queues.remove(authority);
        state.places.retain(|_, place| **place != *authority);
        // while the lock is held: the dispatcher sets the gauges of the queues that it finds
        self.metrics.authorities.forget_queue(authority);
    }

    /// How often an authority came back after an outage.
    #[must_use]
    pub fn recoveries(&self, authority: &str) -> u32 {
        self.state().queues.get(authority).map_or(0, |queue| queue.recoveries)
    }

    /// Until when an authority asked all clients to wait, in response to a token request; at most an hour.
    #[must_use]
    pub fn server_waits_until(&self, authority: &str) -> Option<Instant> {
        let (state, now) = (self.state(), self.now().monotonic);
        state.queues.get(authority)?.queue.server_waits_until(now)
    }

    /// Has a request wait, if it does not yet.
    pub fn enqueue(&self, authority: &str, key: &Arc<ObjectKey>, request: Request) -> Place {
        let now = self.now();
        let mut state = self.state();
        if state.places.get(key).is_some_and(|place| **place != *authority) {
            state.leave(key, self.now());
        }
        let requester = request.requester.clone();
        let Some(Queue { queue, .. }) = state.queues.get_mut(authority) else {
            // the authority went away since the decision, and with that its users are reconciled
            return Place { since: now.monotonic, blocked: None };
        };
        queue.enqueue(key.clone(), request, now);
        let place = Place {
            since: queue.waits_since(key).unwrap_or(now.monotonic),
            blocked: queue.blocked(&requester, now.monotonic),
        };
        let name = state.name(authority);
        state.places.insert(key.clone(), name);
        drop(state);
        self.changed.notify_one();
        place
    }

    /// The right to send the request of this credential, if it was admitted.
    #[must_use]
    pub fn take_up(self: &Arc<Self>, authority: &str, key: &Arc<ObjectKey>, requester: &Requester) -> Option<Slot> {
        let mut state = self.state();
        let place = state.places.get(key)?.clone();
        let queue = &mut state.queues.get_mut(&place)?.queue;
        if *place == *authority && queue.take_up(key, requester) {
            let (requests, key, requester) = (self.clone(), key.clone(), requester.clone());
            return Some(Slot { requests, authority: place, key, requester, paced: None, ended: None });
        }
        if queue.is_admitted(key) {
            // for another authority or client than the spec names by now
            queue.settle(key, None, &Outcome::NotSent, self.now());
            state.places.remove(key);
            drop(state);
            self.changed.notify_one();
        }
        None
    }

    /// Whether a request of this credential was admitted and waits for a worker.
    #[must_use]
    pub fn is_admitted(&self, key: &Arc<ObjectKey>) -> bool {
        let state = self.state();
        let queue = state.places.get(key).and_then(|place| state.queues.get(place));
        queue.is_some_and(|queue| queue.queue.is_admitted(key))
    }

    /// How a request of this credential waits, if it does.
    #[must_use]
    pub fn place(&self, key: &ObjectKey, requester: &Requester) -> Option<Place> {
        let (state, now) = (self.state(), self.now().monotonic);
        let (key, place) = state.places.get_key_value(key)?;
        let queue = &state.queues.get(place)?.queue;
        Some(Place { since: queue.waits_since(key)?, blocked: queue.blocked(requester, now) })
    }

    /// Whether a request of this credential waits in a queue.
    #[must_use]
    pub fn waits(&self, key: &ObjectKey) -> bool {
        self.state().places.contains_key(key)
    }

    /// The token that was issued to an equal request while this credential's waited.
    #[must_use]
    pub fn take_shared(&self, key: &ObjectKey) -> Option<Box<Content>> {
        self.state().shared.remove(key)
    }

    /// Forgets the tokens that were issued to equal requests and not taken yet: whether the client is still the same is
    /// not known.
    pub fn forget_shared(&self) {
        self.state().shared.clear();
    }

    /// Takes a credential's request out: it needs none now.
    pub fn leave(&self, key: &ObjectKey) {
        let mut state = self.state();
        if state.places.contains_key(key) {
            state.leave(key, self.now());
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Forgets a credential that is gone.
    pub fn forget_credential(&self, key: &ObjectKey) {
        self.state().shared.remove(key);
        self.leave(key);
    }

    /// Admits requests for as long as the process leads. `enqueue` has a credential reconciled and returns whether there is
    /// one, `enqueue_users_of` has all reconciled that use an authority.
    pub async fn dispatch(&self, enqueue: impl Fn(&ObjectKey) -> bool, enqueue_users_of: impl Fn(&str)) {
        loop {
            let Work { enqueued, recovered, again } = self.work();
            // one that was deleted while its reconcile was under way may have joined the queue after it was forgotten
            enqueued.iter().filter(|key| !enqueue(key)).for_each(|key| self.forget_credential(key));
            recovered.iter().for_each(|authority| enqueue_users_of(authority));
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = until(again.map(Into::into)) => {}
            }
        }
    }

    fn work(&self) -> Work {
        let now = self.now();
        let mut state = self.state();
        let State { queues, enqueued, .. } = &mut *state;
        let mut again: Option<Instant> = None;
        for (authority, Queue { queue, .. }) in queues {
            let admissions = queue.admit(now);
            for (key, waited) in admissions.admitted {
                self.metrics.authorities.request_waited(authority, waited);
                enqueued.push(key);
            }
            if admissions.reports {
                enqueued.extend(queue.blocked_keys(None, now.monotonic));
            }
            self.metrics.authorities.queue(authority, queue.backlog(), queue.is_open());
            again = [again, admissions.again].into_iter().flatten().min();
        }
        Work { enqueued: std::mem::take(&mut state.enqueued), recovered: std::mem::take(&mut state.recovered), again }
    }

    fn settle(&self, slot: &mut Slot) {
        let (outcome, version, content) = match slot.ended.take() {
            Some((outcome, version, content)) => (outcome, Some(version), content),
            None => (Outcome::NotSent, None, None),
        };
        let mut state = self.state();
        let Some(queue) = state.queues.get_mut(&slot.authority) else { return };
        // a turn before others that were given since is lost: two at the same time would be more than the pace allows
        if matches!(outcome, Outcome::NotSent) && slot.paced.as_ref() == Some(&queue.sends) {
            queue.sends.give_back();
        }
        let (change, sharing) = queue.queue.settle(&slot.key, version.as_ref(), &outcome, self.now());
        let blocked = match change {
            Change::None => Vec::new(),
            Change::Closed => {
                queue.recoveries = queue.recoveries.wrapping_add(1);
                Vec::new()
            }
            // what does not go on for now is reported once
            Change::Opened => queue.queue.blocked_keys(None, self.now().monotonic),
            Change::ClientOpened => queue.queue.blocked_keys(Some(&slot.requester), self.now().monotonic),
        };
        if change == Change::Closed {
            state.recovered.push(slot.authority.clone());
        }
        state.enqueued.extend(blocked);
        state.places.remove(&slot.key);
        for key in sharing {
            state.places.remove(&key);
            if let Some(content) = &content {
                state.shared.insert(key.clone(), content.clone());
            }
            state.enqueued.push(key);
        }
        drop(state);
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // every change is complete before anything can panic
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
