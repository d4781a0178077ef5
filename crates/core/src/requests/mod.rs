//! The request queue of one authorization server: decides which waiting token request is sent next, and when.
//!
//! A request waits here before a worker handles it, so that a waiting credential costs neither an API call nor a
//! worker. The queue is a state machine; its caller, `controller::requests`, passes the time in.

pub mod breaker;
mod lanes;
pub mod pacer;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::conditions::Reason;

use self::{
    breaker::{Breaker, Change, Ended, Gate},
    lanes::Lanes,
    pacer::Pacer,
};
use crate::{failure::Failure, object::ObjectVersion};

/// If a token expires during an open interval, or at most this long after it, an urgent probe may be sent before the
/// interval ends.
const URGENT_MARGIN: TimeDelta = TimeDelta::seconds(5);
/// An admitted request that no worker takes up within this time is queued again.
const TAKE_UP_WITHIN: Duration = Duration::from_secs(60);
/// A server wait is reported only if it is longer than this: a short wait does not count as a failure.
const SERVER_WAIT_REPORTED: Duration = Duration::from_secs(10);
/// The fraction of the requests in flight that one namespace leaves to the others: 1/4. Requests of one namespace that
/// hang must not block everyone.
const OTHERS_SHARE: u16 = 4;

/// The time on both clocks: the monotonic clock for intervals, the wall clock for comparison with tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock.
    pub wall: DateTime<Utc>,
    /// The monotonic clock.
    pub monotonic: Instant,
}

/// A client, identified by its client Secret, since the queue knows it before the Secret is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requester {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The client Secret.
    pub secret: Arc<str>,
}

/// A token request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client.
    pub requester: Requester,
    /// Version of the client Secret; `None` if Secrets are not watched.
    pub client_version: Option<ObjectVersion>,
    /// Digest of what is requested. Requests with the same requester, version and content are equal and share one
    /// response (single flight).
    pub content: Arc<str>,
    /// When the token in the Secret expires or expired; `None` if there is no token.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether it follows a failed attempt.
    pub is_retry: bool,
}

/// The outcome of an admitted request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A token was issued.
    Succeeded,
    /// It failed.
    Failed {
        /// Why.
        failure: Failure,
        /// How long the server asked all its clients to wait (`Retry-After` of 429 and 503).
        server_wait: Option<TimeDelta>,
        /// Whether the server did not respond, or responded with a 5xx without an OAuth `error`.
        is_outage: bool,
    },
    /// Nothing was sent: the request was no longer necessary, or could not be built.
    NotSent,
}

/// Why requests are blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// The circuit of the client is open because of this failure.
    Client(Failure),
    /// The circuit of the server is open.
    Server(Reason),
    /// The server asked all its clients to wait.
    ServerWait(Reason),
}

/// The requests that may be sent now, and when to call [`RequestQueue::admit`] again.
#[derive(Debug)]
pub struct Admissions<K> {
    /// Admitted requests, each with the time that it waited.
    pub admitted: Vec<(K, Duration)>,
    /// When to call again if nothing else happens; `None` if only another event can change the result.
    pub again: Option<Instant>,
}

/// The request queue of one authorization server.
#[derive(Debug)]
pub struct RequestQueue<K> {
    max_in_flight: u16,
    pacer: Pacer,
    breaker: Breaker,
    /// Waiting requests, one for each credential.
    waiting: HashMap<K, Waiting>,
    lanes: Lanes<K>,
    /// Requests of clients whose circuit is open, by the end of the open interval.
    parked: BTreeMap<(Instant, u64), K>,
    /// Requests of credentials that have a token, by its expiry, which may have passed.
    by_expiry: BTreeMap<(DateTime<Utc>, u64), K>,
    /// Namespaces that sent an urgent probe since the circuit opened.
    urgently_probed: HashSet<Arc<str>>,
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
    /// Its deadline (earliest deadline first): when its token expires, or since when there is no token.
    deadline: DateTime<Utc>,
    number: u64,
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
            lanes: Lanes::default(),
            parked: BTreeMap::new(),
            by_expiry: BTreeMap::new(),
            urgently_probed: HashSet::new(),
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
        self.unpark(|_| true);
    }

    /// The number of waiting requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
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

    /// Why the requests of a client are blocked, except for the limits.
    #[must_use]
    pub fn blocked(&self, requester: &Requester, now: Instant) -> Option<Blocked> {
        let client =
            self.breaker.client_open_until(requester, now).map(|(_, failure)| Blocked::Client(failure.clone()));
        let server = || self.breaker.open_reason().map(Blocked::Server);
        let wait = || {
            let wait = self.breaker.server_wait_until(now)?;
            (wait.until - now > SERVER_WAIT_REPORTED).then_some(Blocked::ServerWait(wait.reason))
        };
        client.or_else(server).or_else(wait)
    }

    /// The waiting requests that are blocked.
    #[must_use]
    pub fn blocked_keys(&self, now: Instant) -> Vec<K> {
        let is_blocked = |waiting: &Waiting| self.blocked(&waiting.request.requester, now).is_some();
        self.waiting.iter().filter(|(_, waiting)| is_blocked(waiting)).map(|(key, _)| key.clone()).collect()
    }

    /// Enqueues a request. A request that is already waiting keeps its place unless it changed.
    pub fn enqueue(&mut self, key: K, request: Request, now: Now) {
        if self.in_flight.contains_key(&key) {
            return;
        }
        if self.breaker.client_changed(&request.requester, request.client_version.as_ref()) {
            let requester = request.requester.clone();
            self.unpark(|waiting| waiting.requester == requester);
        }
        let (since, missing_since) = match self.waiting.get(&key) {
            Some(waiting) if waiting.request == request => return,
            Some(waiting) => (waiting.since, waiting.request.expires_at.is_none().then_some(waiting.deadline)),
            None => (now.monotonic, None),
        };
        let deadline = request.expires_at.or(missing_since).unwrap_or(now.wall);
        self.leave(&key);
        self.arrivals += 1;
        *self.requesters.entry(request.requester.clone()).or_default() += 1;
        let number = self.arrivals;
        if let Some(expires_at) = request.expires_at {
            self.by_expiry.insert((expires_at, number), key.clone());
        }
        let is_joined = self.in_flight.values().any(|flight| flight.request.is_equal(&request));
        self.waiting.insert(key.clone(), Waiting { request, deadline, number, since, position: Position::Joined });
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
        let request = flight.request;
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
        let ended = Ended { requester: &request.requester, version, is_probe: flight.is_probe };
        let change = self.breaker.record(ended, outcome, now, &self.requesters);
        if change == Change::Closed {
            self.urgently_probed.clear();
            self.unpark(|_| true);
        }
        let requester = &request.requester;
        if matches!(outcome, Outcome::Succeeded) {
            self.unpark(|waiting| waiting.requester == *requester);
        }
        let is_joined = |waiting: &Waiting| waiting.position == Position::Joined && waiting.request.is_equal(&request);
        let joined = self.waiting.iter().filter(|(_, waiting)| is_joined(waiting));
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

    /// Admits the requests that may be sent now.
    pub fn admit(&mut self, now: Now) -> Admissions<K> {
        self.unpark_due(now.monotonic);
        self.requeue_late(now);
        let mut admitted = Vec::new();
        let again = loop {
            match self.next(now) {
                Ok(key) => {
                    if let Some(waited) = self.start(&key, now.monotonic) {
                        admitted.push((key, waited));
                    }
                }
                Err(again) => break again,
            }
        };
        let parked = self.parked.first_key_value().map(|((until, _), _)| *until);
        let requeued = self.in_flight.values().filter_map(|flight| flight.take_up_by).min();
        Admissions { admitted, again: [again, parked, requeued].into_iter().flatten().min() }
    }

    /// The next request to send, or when to call again.
    fn next(&mut self, now: Now) -> Result<K, Option<Instant>> {
        if self.in_flight.len() >= usize::from(self.max_in_flight) || self.waiting.is_empty() {
            return Err(None);
        }
        let ready_at = self.pacer.ready_at(now.monotonic);
        if ready_at > now.monotonic {
            return Err(Some(ready_at));
        }
        if let Some(wait) = self.breaker.server_wait_until(now.monotonic).copied() {
            // the token that expires first is the first to be allowed
            let Some((deadline, key)) = self.in_lane_after(wait.since.wall).next() else {
                return Err(Some(wait.until));
            };
            let allowed = wait.allows(deadline);
            return if allowed <= now.monotonic { Ok(key.clone()) } else { Err(Some(allowed)) };
        }
        match self.breaker.gate(now.monotonic) {
            Gate::Closed => self.next_in_rotation(now.monotonic).ok_or(None),
            Gate::HalfOpen => {
                let may_probe = |client: &&Requester| self.breaker.is_healthy(client);
                let healthy = self.breaker.succeeded().filter(may_probe).find_map(|client| self.waits_for(client));
                healthy.or_else(|| self.next_in_rotation(now.monotonic)).ok_or(None)
            }
            Gate::Open { until, urgent_from } => {
                let key = self.urgent(until, urgent_from, now).map_err(|at| at.or(until))?;
                let namespace = self.waiting.get(&key).map(|waiting| waiting.request.requester.namespace.clone());
                self.urgently_probed.extend(namespace);
                Ok(key)
            }
        }
    }

    /// Requests in the lanes whose tokens expire after `time`, the earliest expiry first.
    fn in_lane_after(&self, time: DateTime<Utc>) -> impl Iterator<Item = (DateTime<Utc>, &K)> {
        let later = self.by_expiry.range((Bound::Excluded((time, u64::MAX)), Bound::Unbounded));
        let in_lane = |key: &K| self.waiting.get(key).is_some_and(|waiting| waiting.position == Position::Lane);
        later.filter(move |(_, key)| in_lane(key)).map(|((deadline, _), key)| (*deadline, key))
    }

    /// While the circuit is open: an urgent probe, which is a request of a healthy client whose token would expire
    /// before the circuit is half-open; or when such a probe may be sent.
    fn urgent(&self, until: Option<Instant>, from: Option<Instant>, now: Now) -> Result<K, Option<Instant>> {
        let (Some(until), Some(from)) = (until, from) else { return Err(None) };
        let end = now.wall + TimeDelta::from_std(until - now.monotonic).unwrap_or_default() + URGENT_MARGIN;
        let may_probe = |request: &Request| !request.is_retry && self.breaker.is_healthy(&request.requester);
        let candidates = || {
            let soon = self.in_lane_after(now.wall).take_while(|(deadline, _)| *deadline <= end);
            soon.filter_map(|(_, key)| Some((key, &self.waiting.get(key)?.request)))
                .filter(|(_, request)| may_probe(request))
        };
        // namespaces that sent no urgent probe since the circuit opened come first
        let is_new = |request: &Request| !self.urgently_probed.contains(&request.requester.namespace);
        let urgent = candidates().find(|(_, request)| is_new(request)).or_else(|| candidates().next());
        match urgent {
            Some((key, _)) if from <= now.monotonic => Ok(key.clone()),
            Some(_) => Err(Some(from)),
            None => Err(None),
        }
    }

    /// The next request in fair queueing order. Requests of clients whose circuit is open are parked.
    fn next_in_rotation(&mut self, now: Instant) -> Option<K> {
        let most = self.max_in_flight - (self.max_in_flight / OTHERS_SHARE).max(u16::from(self.max_in_flight > 1));
        loop {
            let namespaces = &self.namespaces;
            let has_room = |namespace: &str| namespaces.get(namespace).is_none_or(|count| *count < most);
            let key = self.lanes.pop(has_room)?;
            let Some(waiting) = self.waiting.get_mut(&key) else { continue };
            match self.breaker.client_open_until(&waiting.request.requester, now) {
                None => return Some(key),
                Some((until, _)) => {
                    waiting.position = Position::Parked(until);
                    self.parked.insert((until, waiting.number), key);
                }
            }
        }
    }

    /// A request of this client that waits in a lane.
    fn waits_for(&self, requester: &Requester) -> Option<K> {
        self.requesters.get(requester)?;
        let mut all = self.waiting.iter();
        all.find(|(_, waiting)| waiting.position == Position::Lane && waiting.request.requester == *requester)
            .map(|(key, _)| key.clone())
    }

    /// Counts a request as sent and lets equal ones share its response. Returns how long it waited.
    fn start(&mut self, key: &K, now: Instant) -> Option<Duration> {
        let Waiting { request, since, .. } = self.take_out(key)?;
        let equal = |waiting: &Waiting| waiting.position == Position::Lane && waiting.request.is_equal(&request);
        let joined: Vec<K> =
            self.waiting.iter().filter(|(_, waiting)| equal(waiting)).map(|(key, _)| key.clone()).collect();
        for other in joined {
            self.leave_position(&other);
            if let Some(waiting) = self.waiting.get_mut(&other) {
                waiting.position = Position::Joined;
            }
        }
        self.pacer.take(now);
        let is_probe = self.breaker.admitted(&request.requester, now);
        self.lanes.admitted(request.is_retry);
        *self.namespaces.entry(request.requester.namespace.clone()).or_default() += 1;
        self.in_flight.insert(key.clone(), Flight { request, since, is_probe, take_up_by: Some(now + TAKE_UP_WITHIN) });
        Some(now.saturating_duration_since(since))
    }

    /// Queues admitted requests again that no worker took up in time.
    fn requeue_late(&mut self, now: Now) {
        let is_late = |flight: &Flight| flight.take_up_by.is_some_and(|by| by <= now.monotonic);
        let late: Vec<K> =
            self.in_flight.iter().filter(|(_, flight)| is_late(flight)).map(|(key, _)| key.clone()).collect();
        for key in late {
            let again = self.in_flight.get(&key).map(|flight| (flight.request.clone(), flight.since));
            self.settle(&key, None, &Outcome::NotSent, now);
            if let Some((request, since)) = again {
                self.enqueue(key.clone(), request, now);
                if let Some(waiting) = self.waiting.get_mut(&key) {
                    waiting.since = since;
                }
            }
        }
    }

    fn enter_lane(&mut self, key: &K) {
        if let Some(waiting) = self.waiting.get_mut(key) {
            waiting.position = Position::Lane;
            let Request { requester, is_retry, .. } = &waiting.request;
            self.lanes.insert(&requester.namespace, (waiting.deadline, waiting.number, key.clone()), *is_retry);
        }
    }

    fn leave_position(&mut self, key: &K) {
        let Some(waiting) = self.waiting.get(key) else { return };
        match waiting.position {
            Position::Lane => {
                let Request { requester, is_retry, .. } = &waiting.request;
                let place = (waiting.deadline, waiting.number, key.clone());
                self.lanes.remove(&requester.namespace, &place, *is_retry);
            }
            Position::Parked(until) => drop(self.parked.remove(&(until, waiting.number))),
            Position::Joined => {}
        }
    }

    fn take_out(&mut self, key: &K) -> Option<Waiting> {
        self.leave_position(key);
        let waiting = self.waiting.remove(key)?;
        self.by_expiry.remove(&(waiting.deadline, waiting.number));
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

    /// Moves parked requests that match back into their lanes.
    fn unpark(&mut self, which: impl Fn(&Request) -> bool) {
        let mut back = Vec::new();
        self.parked.retain(|_, key| {
            let goes = self.waiting.get(key).is_none_or(|waiting| which(&waiting.request));
            if goes {
                back.push(key.clone());
            }
            !goes
        });
        back.iter().for_each(|key| self.enter_lane(key));
    }
}

impl Request {
    /// Whether both request the same with the same client, as far as is known, so that one waits for the other.
    fn is_equal(&self, other: &Self) -> bool {
        self.is_of(other.client_version.as_ref()) && self.requester == other.requester && self.content == other.content
    }

    /// Whether this version of the client Secret may be the one that it needs.
    fn is_of(&self, version: Option<&ObjectVersion>) -> bool {
        version.is_none() || self.client_version.is_none() || self.client_version.as_ref() == version
    }
}

#[cfg(test)]
mod tests;
