//! The request queue of one authorization server: decides which waiting token request is sent next, and when.
//!
//! A request waits here before a worker handles it, so that a waiting credential costs neither an API call nor a
//! worker. The queue is a state machine; its caller, `controller::requests`, passes the time in.

mod admission;
mod alike;
pub mod breaker;
mod lanes;
pub mod pacer;
mod places;
mod request;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    sync::Arc,
    time::Instant,
};

use chrono::{DateTime, Utc};

pub use self::{
    admission::Admissions,
    request::{Blocked, Now, Outcome, Request, Requester},
};
use self::{
    alike::Alike,
    breaker::{Breaker, Change, Ended},
    lanes::Lanes,
    pacer::Pacer,
    places::{Held, Place},
};
use crate::object::ObjectVersion;

/// The request queue of one authorization server.
#[derive(Debug)]
pub struct RequestQueue<K> {
    max_in_flight: u16,
    pacer: Pacer,
    breaker: Breaker,
    /// Waiting requests, one for each credential.
    waiting: HashMap<K, Waiting>,
    alike: Alike<K>,
    lanes: Lanes<K>,
    /// Requests of clients whose circuit is open, by the end of the open interval.
    parked: BTreeMap<(Instant, u64), K>,
    /// Requests in the lanes of credentials that had a valid token when they joined, by its expiry, which may have passed.
    by_expiry: BTreeMap<(DateTime<Utc>, u64), K>,
    /// Namespaces that sent a probe of the server's open circuit, since it opened or since all of them had a turn.
    probed: HashSet<Arc<str>>,
    in_flight: HashMap<K, Flight>,
    /// How many requests of each client wait or are in flight.
    requesters: HashMap<Requester, usize>,
    /// How many requests of each namespace are in flight.
    namespaces: HashMap<Arc<str>, u16>,
    arrivals: u64,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    /// Its place within its namespace.
    place: Place,
    since: Instant,
    position: Position,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Lane,
    Parked(Instant),
    /// An equal request is in flight, whose response it shares.
    Joined,
}

#[derive(Debug)]
struct Flight {
    request: Request,
    since: Instant,
    admitted_at: Instant,
    /// Whether it is a probe of an open circuit.
    is_probe: bool,
    /// Until when a worker must take it up; `None` once one did.
    take_up_by: Option<Instant>,
}

impl<K: Clone + Eq + Hash + Ord> RequestQueue<K> {
    /// An empty queue.
    #[must_use]
    pub fn new(max_in_flight: u16, per_minute: u32) -> Self {
        Self {
            max_in_flight: max_in_flight.max(1),
            pacer: Pacer::new(per_minute),
            breaker: Breaker::default(),
            waiting: HashMap::new(),
            alike: Alike::default(),
            lanes: Lanes::default(),
            parked: BTreeMap::new(),
            by_expiry: BTreeMap::new(),
            probed: HashSet::new(),
            in_flight: HashMap::new(),
            requesters: HashMap::new(),
            namespaces: HashMap::new(),
            arrivals: 0,
        }
    }

    /// Changes the limits. Waiting requests, the requests sent so far and the circuit breakers stay.
    pub fn set_limits(&mut self, max_in_flight: u16, per_minute: u32) {
        self.max_in_flight = max_in_flight.max(1);
        self.pacer.set_limit(per_minute);
    }

    /// Resets the circuit breakers, since the queue is now for another server.
    pub fn reset_breaker(&mut self) {
        self.breaker = Breaker::default();
        self.probed.clear();
        self.unpark_all();
    }

    /// The number of waiting requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The number of requests that wait for the server or its limits, and not for an end of the failures of their own
    /// client. While the circuit of the server is open, these are failures of the server.
    #[must_use]
    pub fn backlog(&self) -> usize {
        if self.is_open() {
            return self.len();
        }
        // those in flight and the clients are gone through once each, since all queues are locked meanwhile
        let requests = |client: &Requester| self.requesters.get(client).copied().unwrap_or_default();
        let held_up: usize = self.breaker.held_up().map(requests).sum();
        let flights = self.in_flight.values();
        let in_flight = flights.filter(|flight| self.breaker.is_held_up(&flight.request.requester)).count();
        self.len().saturating_sub(held_up.saturating_sub(in_flight))
    }

    /// Whether no request waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the circuit of the server is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.breaker.open_reason().is_some()
    }

    /// Since when the request of this credential has been waiting.
    #[must_use]
    pub fn waits_since(&self, key: &K) -> Option<Instant> {
        self.waiting.get(key).map(|waiting| waiting.since)
    }

    /// Until when the server asked all clients to wait, if it did.
    #[must_use]
    pub fn server_waits_until(&self, now: Instant) -> Option<Instant> {
        self.breaker.server_wait_until(now).map(|wait| wait.until)
    }

    /// Why the requests of a client are blocked, except for the limits.
    #[must_use]
    pub fn blocked(&self, requester: &Requester, now: Instant) -> Option<Blocked> {
        let client =
            self.breaker.client_open_until(requester, now).map(|(_, failure)| Blocked::Client(failure.clone()));
        let server = || self.breaker.open_reason().map(Blocked::Server);
        let wait = || {
            let wait = self.breaker.server_wait_until(now)?;
            wait.is_long(now).then_some(Blocked::ServerWait(wait.reason))
        };
        client.or_else(server).or_else(wait)
    }

    /// The waiting requests that are blocked: all, or those of one client.
    #[must_use]
    pub fn blocked_keys(&self, client: Option<&Requester>, now: Instant) -> Vec<K> {
        let is_blocked = |key: &&K| {
            let waiting = self.waiting.get(*key);
            waiting.is_some_and(|waiting| self.blocked(&waiting.request.requester, now).is_some())
        };
        match client {
            Some(client) => self.alike.of_client(client).filter(is_blocked).cloned().collect(),
            None => self.waiting.keys().filter(is_blocked).cloned().collect(),
        }
    }

    /// Enqueues a request. A request that is already waiting keeps its place unless it changed.
    pub fn enqueue(&mut self, key: K, request: Request, now: Now) {
        if self.in_flight.contains_key(&key) {
            return;
        }
        if self.breaker.client_changed(&request.requester, request.client_version.as_ref()) {
            self.unpark_client(&request.requester);
        }
        let (since, lacking_since) = match self.waiting.get(&key) {
            Some(waiting) if waiting.request == request => return,
            Some(waiting) => (waiting.since, waiting.place.lacking_since(now)),
            None => (now.monotonic, None),
        };
        self.leave(&key);
        self.arrivals += 1;
        *self.requesters.entry(request.requester.clone()).or_default() += 1;
        if self.breaker.joined(&request.requester) {
            self.probed.clear();
        }
        // a token that has expired is as good as none: by its expiry, one that cannot be renewed would come back in front
        // of all others after each attempt
        let valid_until = request.expires_at.filter(|at| *at > now.wall);
        let token = valid_until.map_or_else(|| Held::NoneSince(lacking_since.unwrap_or(now.monotonic)), Held::Until);
        let place = Place { token, number: self.arrivals };
        let is_joined = self.in_flight.values().any(|flight| flight.request.is_equal(&request));
        self.alike.insert(&request, key.clone());
        self.waiting.insert(key.clone(), Waiting { request, place, since, position: Position::Joined });
        if !is_joined {
            self.enter_lane(&key);
        }
    }

    /// Removes a waiting request that is no longer necessary.
    pub fn leave(&mut self, key: &K) {
        if let Some(waiting) = self.take_out(key) {
            self.forget(&waiting.request.requester);
        }
    }

    /// A worker takes up an admitted request. Returns whether the request was admitted.
    pub fn take_up(&mut self, key: &K, requester: &Requester) -> bool {
        match self.in_flight.get_mut(key) {
            Some(flight) if flight.request.requester == *requester && flight.take_up_by.is_some() => {
                flight.take_up_by = None;
                true
            }
            _ => false,
        }
    }

    /// Whether a request is admitted and no worker has taken it up.
    #[must_use]
    pub fn is_admitted(&self, key: &K) -> bool {
        self.in_flight.get(key).is_some_and(|flight| flight.take_up_by.is_some())
    }

    /// Records the outcome of an admitted request. `version` is the version of the client Secret that was used. Returns
    /// how the circuit changed, and the credentials that share the success, whose equal requests leave the queue. After
    /// a failure, equal requests wait for a request slot of their own.
    pub fn settle(
        &mut self,
        key: &K,
        version: Option<&ObjectVersion>,
        outcome: &Outcome,
        now: Now,
    ) -> (Change, Vec<K>) {
        let Some(flight) = self.in_flight.remove(key) else { return (Change::None, Vec::new()) };
        let Flight { request, is_probe, admitted_at, .. } = flight;
        if let Some(count) = self.namespaces.get_mut(&request.requester.namespace) {
            *count -= 1;
            if *count == 0 {
                self.namespaces.remove(&request.requester.namespace);
            }
        }
        if matches!(outcome, Outcome::NotSent) {
            self.pacer.give_back();
        }
        let version = version.or(request.client_version.as_ref());
        let ended = Ended { requester: &request.requester, version, is_probe, admitted_at };
        let change = self.breaker.record(ended, outcome, now.monotonic, &self.requesters);
        if change == Change::Closed {
            self.probed.clear();
            self.unpark_all();
        }
        let requester = &request.requester;
        if matches!(outcome, Outcome::Succeeded) {
            self.unpark_client(requester);
        }
        let is_joined = |waiting: &Waiting| waiting.position == Position::Joined && waiting.request.is_equal(&request);
        let waiting = self.alike.of(&request).filter_map(|key| Some((key, self.waiting.get(key)?)));
        let joined = waiting.filter(|(_, waiting)| is_joined(waiting));
        let is_shared = |waiting: &Waiting| matches!(outcome, Outcome::Succeeded) && waiting.request.is_of(version);
        let (shared, others): (Vec<_>, Vec<_>) = joined.partition(|(_, waiting)| is_shared(waiting));
        let keys = |waiting: Vec<(&K, &Waiting)>| waiting.into_iter().map(|(key, _)| key.clone()).collect::<Vec<K>>();
        let (shared, mut others) = (keys(shared), keys(others));
        // one that another request may serve, too, goes on waiting for that
        others.retain(|key| {
            let is_served = |own: &Request| self.in_flight.values().any(|flight| flight.request.is_equal(own));
            self.waiting.get(key).is_some_and(|waiting| !is_served(&waiting.request))
        });
        others.iter().for_each(|key| self.enter_lane(key));
        shared.iter().for_each(|key| self.leave(key));
        self.forget(requester);
        (change, shared)
    }

    fn enter_lane(&mut self, key: &K) {
        if let Some(waiting) = self.waiting.get_mut(key) {
            waiting.position = Position::Lane;
            let Request { requester, is_retry, .. } = &waiting.request;
            self.lanes.insert(&requester.namespace, waiting.place, key.clone(), *is_retry);
            if let Place { token: Held::Until(expires_at), number } = waiting.place {
                self.by_expiry.insert((expires_at, number), key.clone());
            }
        }
    }

    fn leave_position(&mut self, key: &K) {
        let Some(waiting) = self.waiting.get(key) else { return };
        match waiting.position {
            Position::Lane => {
                let Request { requester, is_retry, .. } = &waiting.request;
                self.lanes.remove(&requester.namespace, waiting.place, *is_retry);
                if let Place { token: Held::Until(expires_at), number } = waiting.place {
                    self.by_expiry.remove(&(expires_at, number));
                }
            }
            Position::Parked(until) => drop(self.parked.remove(&(until, waiting.place.number))),
            Position::Joined => {}
        }
    }

    fn take_out(&mut self, key: &K) -> Option<Waiting> {
        self.leave_position(key);
        let waiting = self.waiting.remove(key)?;
        self.alike.remove(&waiting.request, key);
        Some(waiting)
    }

    /// Decrements the number of requests of a client, and removes a client that has none.
    fn forget(&mut self, requester: &Requester) {
        if let Some(count) = self.requesters.get_mut(requester) {
            *count -= 1;
            if *count == 0 {
                self.requesters.remove(requester);
            }
        }
    }

    /// Moves requests back into their lanes when the open interval of their client ends.
    fn unpark_due(&mut self, now: Instant) {
        while let Some(first) = self.parked.first_entry().filter(|first| first.key().0 <= now) {
            let key = first.remove();
            self.enter_lane(&key);
        }
    }

    /// Moves the parked requests of a client back into their lanes.
    fn unpark_client(&mut self, requester: &Requester) {
        if self.parked.is_empty() {
            return;
        }
        let is_parked =
            |key: &&K| matches!(self.waiting.get(*key), Some(Waiting { position: Position::Parked(_), .. }));
        let back: Vec<K> = self.alike.of_client(requester).filter(is_parked).cloned().collect();
        for key in &back {
            self.leave_position(key);
            self.enter_lane(key);
        }
    }

    /// Moves all parked requests back into their lanes.
    fn unpark_all(&mut self) {
        let parked = std::mem::take(&mut self.parked);
        parked.values().for_each(|key| self.enter_lane(key));
    }
}
