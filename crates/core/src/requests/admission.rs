//! Which waiting requests are sent now, and when the queue is to be asked again.

use std::{
    hash::Hash,
    ops::Bound,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Flight, Now, Outcome, Position, Request, RequestQueue, Requester, Waiting,
    breaker::Gate,
    places::{Held, Place, Sendable},
};

/// If a token expires during an open interval, or at most this long after it, an urgent probe may be sent before the
/// interval ends.
const URGENT_MARGIN: TimeDelta = TimeDelta::seconds(5);
/// An admitted request that no worker takes up within this time is queued again.
pub(super) const TAKE_UP_WITHIN: Duration = Duration::from_secs(60);
/// The fraction of the requests in flight that one namespace leaves to the others: 1/4. Requests of one namespace that
/// hang must not block everyone.
const OTHERS_SHARE: u16 = 4;

/// The requests that may be sent now, and when to call [`RequestQueue::admit`] again.
#[derive(Debug)]
pub struct Admissions<K> {
    /// Admitted requests, each with the time that it waited.
    pub admitted: Vec<(K, Duration)>,
    /// When to call again if nothing else happens; `None` if only another event can change the result.
    pub again: Option<Instant>,
    /// Whether all requests that are blocked are to be reported now.
    pub reports: bool,
}

impl<K: Clone + Eq + Hash + Ord> RequestQueue<K> {
    /// Admits the requests that may be sent now.
    pub fn admit(&mut self, now: Now) -> Admissions<K> {
        self.unpark_due(now.monotonic);
        self.requeue_late(now);
        let reports = self.breaker.give_report(now.monotonic);
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
        let report = self.breaker.report_due();
        Admissions { admitted, again: [again, parked, requeued, report].into_iter().flatten().min(), reports }
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
        let Some(wait) = self.breaker.server_wait_until(now.monotonic).copied() else {
            return self.next_sendable(&Sendable { now, up_to: None });
        };
        // turns, shares and circuits are as ever: only fewer requests may be sent
        let up_to = wait.allows_up_to(now);
        let is_any_allowed = self.in_lane_after(now.wall).next().is_some_and(|(deadline, _)| deadline <= up_to);
        let next = if is_any_allowed { self.next_sendable(&Sendable { now, up_to: Some(up_to) }) } else { Err(None) };
        next.map_err(|again| {
            let later = self.in_lane_after(up_to.max(now.wall)).next();
            let allowed = later.map_or(wait.until, |(deadline, _)| wait.allows(deadline, now));
            Some(again.map_or(allowed, |again| again.min(allowed)))
        })
    }

    /// The next of the requests that may be sent despite a wait, or when to call again if that changes.
    fn next_sendable(&mut self, sendable: &Sendable) -> Result<K, Option<Instant>> {
        match self.breaker.gate(sendable.now.monotonic) {
            Gate::Closed => self.next_in_rotation(sendable).ok_or(None),
            Gate::HalfOpen => {
                let probe = self.half_open(sendable);
                let key = probe.or_else(|| self.next_in_rotation(sendable)).ok_or(None)?;
                self.note_probe(&key);
                Ok(key)
            }
            Gate::Open { until, urgent_from } => {
                let key = self.urgent(until, urgent_from, sendable).map_err(|at| at.or(until))?;
                self.note_probe(&key);
                Ok(key)
            }
        }
    }

    /// Notes that a namespace sends a probe. If it had its turn, no other had a request to send, and a new round begins.
    fn note_probe(&mut self, key: &K) {
        let Some(waiting) = self.waiting.get(key) else { return };
        let namespace = waiting.request.requester.namespace.clone();
        if self.probed.contains(&namespace) {
            self.probed.clear();
        }
        self.probed.insert(namespace);
    }

    /// A half-open probe: a request of the client that succeeded last and has not failed since, of a namespace that has
    /// not had its turn. With a probe of each such client in turn, one namespace with many of them could delay for long
    /// that a server is noticed to be back.
    fn half_open(&self, sendable: &Sendable) -> Option<K> {
        let healthy = self.breaker.succeeded().filter(|client| self.breaker.is_healthy(client));
        let (probed, others): (Vec<&Requester>, Vec<&Requester>) =
            healthy.partition(|client| self.probed.contains(&client.namespace));
        others.into_iter().chain(probed).find_map(|client| self.waits_for(client, sendable))
    }

    /// Requests in the lanes whose tokens expire after `time`, the earliest expiry first.
    fn in_lane_after(&self, time: DateTime<Utc>) -> impl Iterator<Item = (DateTime<Utc>, &K)> {
        let later = self.by_expiry.range((Bound::Excluded((time, u64::MAX)), Bound::Unbounded));
        later.map(|((deadline, _), key)| (*deadline, key))
    }

    /// While the circuit is open: an urgent probe, which is a request of a healthy client whose token would expire
    /// before the circuit is half-open; or when such a probe may be sent.
    fn urgent(&self, until: Option<Instant>, from: Option<Instant>, sendable: &Sendable) -> Result<K, Option<Instant>> {
        let now = sendable.now;
        let (Some(until), Some(from)) = (until, from) else { return Err(None) };
        let end = now.wall + TimeDelta::from_std(until - now.monotonic).unwrap_or_default() + URGENT_MARGIN;
        let end = sendable.up_to.map_or(end, |up_to| up_to.min(end));
        let may_probe = |request: &Request| !request.is_retry && self.breaker.is_healthy(&request.requester);
        let candidates = || {
            let soon = self.in_lane_after(now.wall).take_while(|(deadline, _)| *deadline <= end);
            soon.filter_map(|(_, key)| Some((key, &self.waiting.get(key)?.request)))
                .filter(|(_, request)| may_probe(request))
        };
        // namespaces that had no turn come first
        let is_new = |request: &Request| !self.probed.contains(&request.requester.namespace);
        let urgent = candidates().find(|(_, request)| is_new(request)).or_else(|| candidates().next());
        match urgent {
            Some((key, _)) if from <= now.monotonic => Ok(key.clone()),
            Some(_) => Err(Some(from)),
            None => Err(None),
        }
    }

    /// The next request in fair queueing order. Requests of clients whose circuit is open are parked, which costs their
    /// namespaces no turn.
    fn next_in_rotation(&mut self, sendable: &Sendable) -> Option<K> {
        let most = self.max_in_flight - (self.max_in_flight / OTHERS_SHARE).max(u16::from(self.max_in_flight > 1));
        loop {
            let namespaces = &self.namespaces;
            let has_room = |namespace: &str| namespaces.get(namespace).is_none_or(|count| *count < most);
            let key = self.lanes.pop(sendable, has_room)?;
            let Some(waiting) = self.waiting.get_mut(&key) else { continue };
            match self.breaker.client_open_until(&waiting.request.requester, sendable.now.monotonic) {
                None => return Some(key),
                Some((until, _)) => {
                    waiting.position = Position::Parked(until);
                    let Request { requester, is_retry, .. } = &waiting.request;
                    self.lanes.give_turn_back(&requester.namespace, *is_retry);
                    if let Place { token: Held::Until(expires_at), number } = waiting.place {
                        self.by_expiry.remove(&(expires_at, number));
                    }
                    self.parked.insert((until, waiting.place.number), key);
                }
            }
        }
    }

    /// The first request of this client that may be sent.
    fn waits_for(&self, requester: &Requester, sendable: &Sendable) -> Option<K> {
        let all = self.alike.of_client(requester).filter_map(|key| Some((key, self.waiting.get(key)?)));
        let may_be_sent = |waiting: &Waiting| waiting.position == Position::Lane && sendable.contains(waiting.place);
        let all = all.filter(|(_, waiting)| may_be_sent(waiting));
        all.min_by_key(|(_, waiting)| waiting.place.rank(sendable.now)).map(|(key, _)| key.clone())
    }

    /// Counts a request as sent and lets equal ones share its response. Returns how long it waited.
    fn start(&mut self, key: &K, now: Instant) -> Option<Duration> {
        let Waiting { request, since, .. } = self.take_out(key)?;
        let equal = |waiting: &Waiting| waiting.position == Position::Lane && waiting.request.is_equal(&request);
        let is_equal = |key: &&K| self.waiting.get(*key).is_some_and(equal);
        let joined: Vec<K> = self.alike.of(&request).filter(is_equal).cloned().collect();
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
        let take_up_by = Some(now + TAKE_UP_WITHIN);
        self.in_flight.insert(key.clone(), Flight { request, since, admitted_at: now, is_probe, take_up_by });
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
}
