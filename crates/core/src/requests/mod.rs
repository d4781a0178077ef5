//! The queue of one authorization server: which of the requests that wait for it may be sent now.
//!
//! It stands outside the workers and before anything is read, so that a credential that waits costs neither an API call
//! nor a worker. It is a state machine over the time that it is given; `controller::requests` drives it.

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
use itwin_api::{conditions::Reason, failure::Failure};

use self::{
    breaker::{Breaker, Change, Ended, Gate},
    lanes::Lanes,
    pacer::Pacer,
};

use crate::object::ObjectVersion;

/// A token that is lost within this after the end of an open interval may be probed for before it ends.
const URGENT_MARGIN: TimeDelta = TimeDelta::seconds(5);
/// A request that was admitted and that no worker has taken up for so long waits again.
const TAKE_UP_WITHIN: Duration = Duration::from_secs(60);
/// A wait that the server asks for is reported where it is longer: a moment is no failure of those that wait.
const SERVER_WAIT_REPORTED: Duration = Duration::from_secs(10);
/// Of the requests in flight one namespace leaves at least this part to the others: one that hangs must not take all.
const OTHERS_SHARE: u16 = 4;

/// The time on both clocks: the monotonic one for intervals, the wall clock for what is compared with tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock.
    pub wall: DateTime<Utc>,
    /// The monotonic clock.
    pub monotonic: Instant,
}

/// A client, as it is known before anything is read: by the Secret that holds its credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requester {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The client Secret.
    pub secret: Arc<str>,
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub requester: Requester,
    /// Version of the client Secret; `None` where nobody watches it.
    pub client_version: Option<ObjectVersion>,
    /// What is asked for. Requests of one requester, version and content are equal, and share one.
    pub content: Arc<str>,
    /// When the token in the Secret expires, or has expired; `None` where there is none.
    pub expires_at: Option<DateTime<Utc>>,
    /// It follows a failed attempt.
    pub is_retry: bool,
}

/// How a request that was admitted ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A token was issued.
    Succeeded,
    /// It failed.
    Failed {
        /// Why.
        failure: Failure,
        /// The wait that the server asked all its clients for (`Retry-After` of 429 and 503).
        server_wait: Option<TimeDelta>,
        /// The server did not answer, or with a 5xx that carries no OAuth `error`.
        is_outage: bool,
    },
    /// Nothing was sent: it was not needed any more, or could not be made.
    NotSent,
}

/// Why requests are not sent for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// The circuit of the client is open, for this failure.
    Client(Failure),
    /// The circuit of the server is open.
    Server(Reason),
    /// The server asked all its clients to wait.
    ServerWait(Reason),
}

/// What may be sent now, and when to ask again.
#[derive(Debug)]
pub struct Admissions<K> {
    /// Requests that may be sent, with how long each has waited.
    pub admitted: Vec<(K, Duration)>,
    /// When to ask again where nothing else happens; `None` where only that can change anything.
    pub again: Option<Instant>,
}

/// The queue of one authorization server.
#[derive(Debug)]
pub struct RequestQueue<K> {
    max_in_flight: u16,
    pacer: Pacer,
    breaker: Breaker,
    /// One for each credential that waits.
    waiting: HashMap<K, Waiting>,
    lanes: Lanes<K>,
    /// Requests of clients whose circuit is open, by when it is tried.
    parked: BTreeMap<(Instant, u64), K>,
    /// Requests with a token, by when it is lost; what has expired already is among them.
    by_loss: BTreeMap<(DateTime<Utc>, u64), K>,
    /// Namespaces that had an urgent probe since the circuit opened.
    urgent_turns: HashSet<Arc<str>>,
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
    /// When its token expires, or since when it has been missing.
    lost_at: DateTime<Utc>,
    number: u64,
    since: Instant,
    stand: Stand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Lane,
    Parked(Instant),
    /// An equal request is in flight: it is answered with that one.
    Shares,
}

#[derive(Debug)]
struct Flight {
    request: Request,
    since: Instant,
    /// It is a probe of an open circuit.
    is_probe: bool,
    /// Until when a worker must have taken it up; `None` once one has.
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
            by_loss: BTreeMap::new(),
            urgent_turns: HashSet::new(),
            in_flight: HashMap::new(),
            requesters: HashMap::new(),
            namespaces: HashMap::new(),
            arrivals: 0,
        }
    }

    /// Changes the limits. What waits, what was sent and what is known of the server stays.
    pub fn set_limits(&mut self, max_in_flight: u16, per_minute: u32) {
        self.max_in_flight = max_in_flight.max(1);
        self.pacer.set_limit(per_minute);
    }

    /// Forgets what is known of the server: it is another one.
    pub fn reset_breaker(&mut self) {
        self.breaker = Breaker::default();
        self.unpark(|_| true);
    }

    /// How many requests wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the circuit of the server is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.breaker.open_reason().is_some()
    }

    /// Since when this credential's request waits.
    #[must_use]
    pub fn waits_since(&self, key: &K) -> Option<Instant> {
        self.waiting.get(key).map(|waiting| waiting.since)
    }

    /// Why the requests of a client are not sent for now, apart from the limits.
    #[must_use]
    pub fn blocked(&self, requester: &Requester, now: Instant) -> Option<Blocked> {
        let client = self.breaker.client_wait(requester, now).map(|(_, failure)| Blocked::Client(failure.clone()));
        let server = || self.breaker.open_reason().map(Blocked::Server);
        let wait = || {
            let wait = self.breaker.server_wait_until(now)?;
            (wait.until - now > SERVER_WAIT_REPORTED).then_some(Blocked::ServerWait(wait.reason))
        };
        client.or_else(server).or_else(wait)
    }

    /// What waits behind an open circuit.
    #[must_use]
    pub fn blocked_keys(&self, now: Instant) -> Vec<K> {
        let is_blocked = |waiting: &Waiting| self.blocked(&waiting.request.requester, now).is_some();
        self.waiting.iter().filter(|(_, waiting)| is_blocked(waiting)).map(|(key, _)| key.clone()).collect()
    }

    /// Has a request wait. One that waits already keeps its place unless something about it changed.
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
            Some(waiting) => (waiting.since, waiting.request.expires_at.is_none().then_some(waiting.lost_at)),
            None => (now.monotonic, None),
        };
        let lost_at = request.expires_at.or(missing_since).unwrap_or(now.wall);
        self.leave(&key);
        self.arrivals += 1;
        *self.requesters.entry(request.requester.clone()).or_default() += 1;
        let number = self.arrivals;
        if let Some(expires_at) = request.expires_at {
            self.by_loss.insert((expires_at, number), key.clone());
        }
        let shares = self.in_flight.values().any(|flight| flight.request.is_equal(&request));
        self.waiting.insert(key.clone(), Waiting { request, lost_at, number, since, stand: Stand::Shares });
        if !shares {
            self.stand_in_lane(&key);
        }
    }

    /// Takes a request out that waits, as nothing is needed any more.
    pub fn leave(&mut self, key: &K) {
        if let Some(waiting) = self.take_out(key) {
            self.forget(&waiting.request.requester);
        }
    }

    /// A worker takes up what was admitted. Returns whether it was.
    pub fn take_up(&mut self, key: &K, requester: &Requester) -> bool {
        match self.in_flight.get_mut(key) {
            Some(flight) if flight.request.requester == *requester && flight.take_up_by.is_some() => {
                flight.take_up_by = None;
                true
            }
            _ => false,
        }
    }

    /// Whether a request was admitted and no worker has taken it up.
    #[must_use]
    pub fn is_admitted(&self, key: &K) -> bool {
        self.in_flight.get(key).is_some_and(|flight| flight.take_up_by.is_some())
    }

    /// Notes how a request that was admitted ended. `version` is that of the client Secret that was used. Returns how
    /// the circuit changed, and the credentials whose equal requests wait: after a success it is theirs too, and they
    /// wait no longer; otherwise they wait for a turn of their own.
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
        let change = self.breaker.note(ended, outcome, now, &self.requesters);
        if change == Change::Closed {
            self.urgent_turns.clear();
            self.unpark(|_| true);
        }
        let requester = &request.requester;
        if matches!(outcome, Outcome::Succeeded) {
            self.unpark(|waiting| waiting.requester == *requester);
        }
        let shares = |waiting: &Waiting| waiting.stand == Stand::Shares && waiting.request.is_equal(&request);
        let sharing: Vec<K> =
            self.waiting.iter().filter(|(_, waiting)| shares(waiting)).map(|(key, _)| key.clone()).collect();
        let is_shared = matches!(outcome, Outcome::Succeeded) && version == request.client_version.as_ref();
        for key in &sharing {
            if is_shared { self.leave(key) } else { self.stand_in_lane(key) }
        }
        self.forget(requester);
        (change, if is_shared { sharing } else { Vec::new() })
    }

    /// Admits what may be sent now.
    pub fn admit(&mut self, now: Now) -> Admissions<K> {
        self.unpark_due(now.monotonic);
        self.take_back(now);
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
        let taken_back = self.in_flight.values().filter_map(|flight| flight.take_up_by).min();
        Admissions { admitted, again: [again, parked, taken_back].into_iter().flatten().min() }
    }

    /// The next request to send, or when to ask again.
    fn next(&mut self, now: Now) -> Result<K, Option<Instant>> {
        if self.in_flight.len() >= usize::from(self.max_in_flight) || self.waiting.is_empty() {
            return Err(None);
        }
        let ready_at = self.pacer.ready_at(now.monotonic);
        if ready_at > now.monotonic {
            return Err(Some(ready_at));
        }
        if let Some(wait) = self.breaker.server_wait_until(now.monotonic).copied() {
            // the token that is lost first is the first to be allowed
            let Some((lost_at, key)) = self.in_lane_after(wait.since.wall).next() else {
                return Err(Some(wait.until));
            };
            let allowed = wait.allows(lost_at);
            return if allowed <= now.monotonic { Ok(key.clone()) } else { Err(Some(allowed)) };
        }
        match self.breaker.gate(now.monotonic) {
            Gate::Closed => self.next_in_rotation(now.monotonic).ok_or(None),
            Gate::HalfOpen => {
                let may_probe = |client: &&Requester| self.breaker.is_unsuspected(client);
                let good = self.breaker.succeeded().filter(may_probe).find_map(|client| self.waits_for(client));
                good.or_else(|| self.next_in_rotation(now.monotonic)).ok_or(None)
            }
            Gate::Open { until, urgent_from } => {
                let key = self.urgent(until, urgent_from, now).map_err(|at| at.or(until))?;
                let namespace = self.waiting.get(&key).map(|waiting| waiting.request.requester.namespace.clone());
                self.urgent_turns.extend(namespace);
                Ok(key)
            }
        }
    }

    /// Requests in the lanes whose tokens are lost later than this, the one that is lost first in front.
    fn in_lane_after(&self, time: DateTime<Utc>) -> impl Iterator<Item = (DateTime<Utc>, &K)> {
        let later = self.by_loss.range((Bound::Excluded((time, u64::MAX)), Bound::Unbounded));
        let in_lane = |key: &K| self.waiting.get(key).is_some_and(|waiting| waiting.stand == Stand::Lane);
        later.filter(move |(_, key)| in_lane(key)).map(|((lost_at, _), key)| (*lost_at, key))
    }

    /// While the circuit is open: a request whose token would be lost before it is half open, of a client that nothing
    /// is known against, or when there may be one.
    fn urgent(&self, until: Option<Instant>, from: Option<Instant>, now: Now) -> Result<K, Option<Instant>> {
        let (Some(until), Some(from)) = (until, from) else { return Err(None) };
        let end = now.wall + TimeDelta::from_std(until - now.monotonic).unwrap_or_default() + URGENT_MARGIN;
        let may_probe = |request: &Request| !request.is_retry && self.breaker.is_unsuspected(&request.requester);
        let candidates = || {
            let soon = self.in_lane_after(now.wall).take_while(|(lost_at, _)| *lost_at <= end);
            soon.filter_map(|(_, key)| Some((key, &self.waiting.get(key)?.request)))
                .filter(|(_, request)| may_probe(request))
        };
        // namespaces that had no probe since the circuit opened come first
        let is_new = |request: &Request| !self.urgent_turns.contains(&request.requester.namespace);
        let urgent = candidates().find(|(_, request)| is_new(request)).or_else(|| candidates().next());
        match urgent {
            Some((key, _)) if from <= now.monotonic => Ok(key.clone()),
            Some(_) => Err(Some(from)),
            None => Err(None),
        }
    }

    /// The request whose turn it is. Those of clients whose circuit is open are put off on the way.
    fn next_in_rotation(&mut self, now: Instant) -> Option<K> {
        let most = self.max_in_flight - (self.max_in_flight / OTHERS_SHARE).max(u16::from(self.max_in_flight > 1));
        loop {
            let namespaces = &self.namespaces;
            let has_room = |namespace: &str| namespaces.get(namespace).is_none_or(|count| *count < most);
            let key = self.lanes.pop(has_room)?;
            let Some(waiting) = self.waiting.get_mut(&key) else { continue };
            match self.breaker.client_wait(&waiting.request.requester, now) {
                None => return Some(key),
                Some((until, _)) => {
                    waiting.stand = Stand::Parked(until);
                    self.parked.insert((until, waiting.number), key);
                }
            }
        }
    }

    /// A request of this client that waits for its turn.
    fn waits_for(&self, requester: &Requester) -> Option<K> {
        self.requesters.get(requester)?;
        let mut all = self.waiting.iter();
        all.find(|(_, waiting)| waiting.stand == Stand::Lane && waiting.request.requester == *requester)
            .map(|(key, _)| key.clone())
    }

    /// Counts a request as sent, and has equal ones wait for its answer. Returns how long it has waited.
    fn start(&mut self, key: &K, now: Instant) -> Option<Duration> {
        let Waiting { request, since, .. } = self.take_out(key)?;
        let equal = |waiting: &Waiting| waiting.stand == Stand::Lane && waiting.request.is_equal(&request);
        let sharing: Vec<K> =
            self.waiting.iter().filter(|(_, waiting)| equal(waiting)).map(|(key, _)| key.clone()).collect();
        for other in sharing {
            self.leave_stand(&other);
            if let Some(waiting) = self.waiting.get_mut(&other) {
                waiting.stand = Stand::Shares;
            }
        }
        self.pacer.take(now);
        let is_probe = self.breaker.admitted(&request.requester, now);
        self.lanes.admitted(request.is_retry);
        *self.namespaces.entry(request.requester.namespace.clone()).or_default() += 1;
        self.in_flight.insert(key.clone(), Flight { request, since, is_probe, take_up_by: Some(now + TAKE_UP_WITHIN) });
        Some(now.saturating_duration_since(since))
    }

    /// What no worker took up in time waits again.
    fn take_back(&mut self, now: Now) {
        let late = |flight: &Flight| flight.take_up_by.is_some_and(|by| by <= now.monotonic);
        let late: Vec<K> =
            self.in_flight.iter().filter(|(_, flight)| late(flight)).map(|(key, _)| key.clone()).collect();
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

    fn stand_in_lane(&mut self, key: &K) {
        if let Some(waiting) = self.waiting.get_mut(key) {
            waiting.stand = Stand::Lane;
            let Request { requester, is_retry, .. } = &waiting.request;
            self.lanes.insert(&requester.namespace, (waiting.lost_at, waiting.number, key.clone()), *is_retry);
        }
    }

    fn leave_stand(&mut self, key: &K) {
        let Some(waiting) = self.waiting.get(key) else { return };
        match waiting.stand {
            Stand::Lane => {
                let Request { requester, is_retry, .. } = &waiting.request;
                let place = (waiting.lost_at, waiting.number, key.clone());
                self.lanes.remove(&requester.namespace, &place, *is_retry);
            }
            Stand::Parked(until) => drop(self.parked.remove(&(until, waiting.number))),
            Stand::Shares => {}
        }
    }

    fn take_out(&mut self, key: &K) -> Option<Waiting> {
        self.leave_stand(key);
        let waiting = self.waiting.remove(key)?;
        self.by_loss.remove(&(waiting.lost_at, waiting.number));
        Some(waiting)
    }

    /// Counts one request of a client less; a client without any is forgotten.
    fn forget(&mut self, requester: &Requester) {
        if let Some(count) = self.requesters.get_mut(requester) {
            *count -= 1;
            if *count == 0 {
                self.requesters.remove(requester);
            }
        }
    }

    /// Puts requests back into their lanes whose clients may be tried again.
    fn unpark_due(&mut self, now: Instant) {
        while let Some(first) = self.parked.first_entry().filter(|first| first.key().0 <= now) {
            let key = first.remove();
            self.stand_in_lane(&key);
        }
    }

    /// Puts requests that wait for an open circuit back into their lanes.
    fn unpark(&mut self, which: impl Fn(&Request) -> bool) {
        let mut back = Vec::new();
        self.parked.retain(|_, key| {
            let goes = self.waiting.get(key).is_none_or(|waiting| which(&waiting.request));
            if goes {
                back.push(key.clone());
            }
            !goes
        });
        back.iter().for_each(|key| self.stand_in_lane(key));
    }
}

impl Request {
    /// Whether both ask for the same with the same client, so that one answer serves both.
    fn is_equal(&self, other: &Self) -> bool {
        self.client_version.is_some()
            && self.client_version == other.client_version
            && self.requester == other.requester
            && self.content == other.content
    }
}

#[cfg(test)]
mod tests;
