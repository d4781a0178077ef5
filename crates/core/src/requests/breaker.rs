//! Circuit breakers: one for each client that fails, and one for the whole authorization server.
//!
//! A client that is broken, or that the server cannot serve, is that client's trouble: its circuit opens, and others
//! notice nothing. The circuit of the server opens only where several clients fail that used to succeed, so that no
//! tenant can open it for his neighbours; without it, ten thousand credentials with a backoff each still make a storm
//! against a server that is down (external-secrets/external-secrets#6728).

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{conditions::Reason, failure::Failure};

use super::{Now, Outcome, Requester};

use crate::object::ObjectVersion;

/// Consecutive failures that open a circuit. More than one credential's bad luck, less than a storm.
const THRESHOLD: u32 = 5;
/// The first open interval, and the longest one; it doubles with each probe that fails.
const OPEN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// A server may ask all its clients to wait for at most this.
const SERVER_WAIT_MAX: TimeDelta = TimeDelta::hours(1);
/// Clients that are remembered as failing. Those whose circuit is closed are forgotten first.
const FAILING_MAX: usize = 4096;
/// Clients that are remembered as good: enough to draw probes from, and bounded.
const SUCCEEDED_MAX: usize = 256;

/// The circuit breakers of one authorization server.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Clients whose last request failed; bounded, since a tenant makes as many as he likes.
    failing: HashMap<Requester, Failing>,
    /// Clients that succeeded, the last one at the end.
    succeeded: VecDeque<Requester>,
    /// Outages since the last answer of the server.
    evidence: Evidence,
    circuit: Option<Circuit>,
    server_wait_until: Option<ServerWait>,
}

#[derive(Debug)]
struct Failing {
    failures: u32,
    failure: Failure,
    /// The last failure was one in which the server did not answer.
    is_outage: bool,
    /// Version of the client Secret that was used: another one is another client.
    version: Option<ObjectVersion>,
    circuit: Option<Circuit>,
}

#[derive(Debug, Default)]
struct Evidence {
    failures: u32,
    clients: HashSet<Requester>,
}

/// An open circuit.
#[derive(Clone, Copy, Debug)]
struct Circuit {
    until: Instant,
    interval: Duration,
    reason: Reason,
    is_probing: bool,
    last_probe: Instant,
}

/// A wait that the server asked all its clients for (RFC 9110 section 10.2.3).
#[derive(Clone, Copy, Debug)]
pub struct ServerWait {
    /// When the first of the waits began that follow each other.
    first: Instant,
    /// When it asked.
    pub since: Now,
    /// The end of the wait.
    pub until: Instant,
    /// Why it asked.
    pub reason: Reason,
}

/// A request that has ended.
#[derive(Clone, Copy)]
pub struct Ended<'a> {
    /// Who asked.
    pub requester: &'a Requester,
    /// Version of the client Secret that was used.
    pub version: Option<&'a ObjectVersion>,
    /// It was a probe of an open circuit.
    pub is_probe: bool,
}

/// What the circuit of the server lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Everything.
    Closed,
    /// One request, which is a probe.
    HalfOpen,
    /// Nothing before this instant; `None` while a probe is under way. A probe for a token that is lost otherwise may be
    /// sent from `urgent_from` on.
    Open {
        /// The end of the open interval.
        until: Option<Instant>,
        /// When an urgent probe may be sent.
        urgent_from: Option<Instant>,
    },
}

/// How the circuit of the server changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Not at all.
    None,
    /// It opened, or this client's did, or the server asks for a wait: what waits is to be reported.
    Opened,
    /// It closed: attempts are worth while again.
    Closed,
}

impl Circuit {
    fn open(now: Instant, interval: Duration, reason: Reason) -> Self {
        Self { until: now + interval, interval, reason, is_probing: false, last_probe: now }
    }

    /// The circuit after a failure with this reason: `None` where it says nothing new, as that of a request that was sent
    /// before it opened.
    fn after_failure(self, is_probe: bool, now: Instant, reason: Reason) -> Option<Self> {
        (is_probe && self.is_probing).then(|| Self::open(now, (self.interval * 2).min(OPEN.1), reason))
    }
}

impl Breaker {
    /// Whether a client's requests wait, until when, and why. `version` is that of the client Secret as it is now.
    #[must_use]
    pub fn client_wait(&self, requester: &Requester, now: Instant) -> Option<(Instant, &Failure)> {
        let failing = self.failing.get(requester)?;
        let circuit = failing.circuit.as_ref()?;
        let until = if circuit.is_probing { now + (circuit.interval * 2).min(OPEN.1) } else { circuit.until };
        (now < until).then_some((until, &failing.failure))
    }

    /// Forgets the failures of a client whose Secret changed, as far as its version is known. Returns whether its requests
    /// may be sent again.
    pub fn client_changed(&mut self, requester: &Requester, version: Option<&ObjectVersion>) -> bool {
        let is_known = |failing: &Failing| version.is_some() && failing.version.as_ref() != version;
        let is_other = self.failing.get(requester).is_some_and(is_known);
        if is_other {
            self.failing.remove(requester);
        }
        is_other
    }

    /// What the circuit of the server lets through.
    #[must_use]
    pub fn gate(&self, now: Instant) -> Gate {
        let Some(circuit) = &self.circuit else { return Gate::Closed };
        if circuit.is_probing {
            Gate::Open { until: None, urgent_from: None }
        } else if now < circuit.until {
            Gate::Open { until: Some(circuit.until), urgent_from: Some(circuit.last_probe + OPEN.0) }
        } else {
            Gate::HalfOpen
        }
    }

    /// Why the circuit of the server is open, if it is.
    #[must_use]
    pub fn open_reason(&self) -> Option<Reason> {
        self.circuit.as_ref().map(|circuit| circuit.reason)
    }

    /// Whether no request of this client failed since the server answered last.
    #[must_use]
    pub fn is_unsuspected(&self, requester: &Requester) -> bool {
        !self.evidence.clients.contains(requester) && !self.failing.contains_key(requester)
    }

    /// Clients that succeeded, the last one first: probes are drawn from them.
    pub fn succeeded(&self) -> impl Iterator<Item = &Requester> {
        self.succeeded.iter().rev()
    }

    /// The wait that the server asked for, if it is not over.
    #[must_use]
    pub fn server_wait_until(&self, now: Instant) -> Option<&ServerWait> {
        self.server_wait_until.as_ref().filter(|wait| now < wait.until)
    }

    /// Notes that a request of this client is sent. Returns whether it is a probe of an open circuit.
    pub fn admitted(&mut self, requester: &Requester, now: Instant) -> bool {
        let client = self.failing.get_mut(requester).and_then(|failing| failing.circuit.as_mut());
        let mut is_probe = false;
        for circuit in client.into_iter().chain(&mut self.circuit) {
            (circuit.is_probing, circuit.last_probe, is_probe) = (true, now, true);
        }
        is_probe
    }

    /// Notes how a request of this client ended. `waiting` are the clients that have requests here.
    pub fn note(
        &mut self,
        Ended { requester, version, is_probe }: Ended<'_>,
        outcome: &Outcome,
        now: Now,
        waiting: &HashMap<Requester, usize>,
    ) -> Change {
        match outcome {
            Outcome::NotSent => {
                if is_probe {
                    let client = self.failing.get_mut(requester).and_then(|failing| failing.circuit.as_mut());
                    client.into_iter().chain(&mut self.circuit).for_each(|circuit| circuit.is_probing = false);
                    // the next probe is another client's
                    if let Some(place) = self.succeeded.iter().position(|client| client == requester) {
                        self.succeeded.remove(place);
                        self.succeeded.push_front(requester.clone());
                    }
                }
                Change::None
            }
            Outcome::Succeeded => {
                self.failing.remove(requester);
                self.succeeded.retain(|other| other != requester);
                self.succeeded.push_back(requester.clone());
                if self.succeeded.len() > SUCCEEDED_MAX {
                    // the oldest of the namespace that has the most: no tenant pushes out the others
                    let crowded = most_frequent(self.succeeded.iter());
                    let oldest = self.succeeded.iter().position(|client| Some(&client.namespace) == crowded.as_ref());
                    oldest.and_then(|oldest| self.succeeded.remove(oldest));
                }
                self.answered(requester)
            }
            Outcome::Failed { failure, server_wait, is_outage } => {
                let waits = self.open_for_server_wait(failure.reason, *server_wait, now);
                if *is_outage {
                    let client = self.client_failed((requester, version), (failure, true), is_probe, now.monotonic);
                    let server = self.outage((requester, failure.reason), is_probe, now.monotonic, waiting);
                    return if client || server || waits { Change::Opened } else { Change::None };
                }
                let opened = if is_about_the_client(failure.reason) {
                    self.client_failed((requester, version), (failure, false), is_probe, now.monotonic)
                } else {
                    self.failing.remove(requester);
                    false
                };
                match self.answered(requester) {
                    Change::None if opened || waits => Change::Opened,
                    change => change,
                }
            }
        }
    }

    /// The server answered a client: it is there. Clients whose requests failed meanwhile count as good no longer.
    fn answered(&mut self, requester: &Requester) -> Change {
        let suspects = std::mem::take(&mut self.evidence).clients;
        self.succeeded.retain(|client| client == requester || !suspects.contains(client));
        if self.circuit.take().is_none() {
            return Change::None;
        }
        // what failed with the server is tried with it; one more failure is the client's own
        for failing in self.failing.values_mut().filter(|failing| failing.is_outage) {
            (failing.circuit, failing.failures) = (None, failing.failures.min(THRESHOLD - 1));
        }
        Change::Closed
    }

    /// Notes a failure of a client; returns whether its circuit opened for the first time.
    fn client_failed(
        &mut self,
        (requester, version): (&Requester, Option<&ObjectVersion>),
        (failure, is_outage): (&Failure, bool),
        is_probe: bool,
        now: Instant,
    ) -> bool {
        if self.failing.len() >= FAILING_MAX && !self.failing.contains_key(requester) {
            // those of the namespace that has the most
            let crowded = most_frequent(self.failing.keys());
            self.failing.retain(|client, _| Some(&client.namespace) != crowded.as_ref());
        }
        let failing = self.failing.entry(requester.clone()).or_insert_with(|| Failing {
            failures: 0,
            failure: failure.clone(),
            is_outage,
            version: version.cloned(),
            circuit: None,
        });
        failing.failures = failing.failures.saturating_add(1);
        (failing.failure, failing.is_outage) = (failure.clone(), is_outage);
        failing.version = version.cloned();
        match failing.circuit {
            None if failing.failures >= THRESHOLD => {
                failing.circuit = Some(Circuit::open(now, OPEN.0, failure.reason));
                true
            }
            None => false,
            Some(circuit) => {
                failing.circuit = circuit.after_failure(is_probe, now, failure.reason).or(Some(circuit));
                false
            }
        }
    }

    /// Notes that a request was not answered; returns whether the circuit of the server opened for the first time.
    fn outage(
        &mut self,
        (requester, reason): (&Requester, Reason),
        is_probe: bool,
        now: Instant,
        waiting: &HashMap<Requester, usize>,
    ) -> bool {
        self.evidence.failures = self.evidence.failures.saturating_add(1);
        self.evidence.clients.insert(requester.clone());
        if let Some(circuit) = self.circuit {
            self.circuit = circuit.after_failure(is_probe, now, reason).or(Some(circuit));
            return false;
        }
        let is_open = self.evidence.failures >= THRESHOLD && self.concerns_all(waiting);
        self.circuit = is_open.then(|| Circuit::open(now, OPEN.0, reason));
        is_open
    }

    /// Whether the failures say that the server is down, not a client: all clients fail that are known, or two that
    /// succeeded before and that no tenant has both. Where none ever succeeded, two that no tenant has both.
    fn concerns_all(&self, waiting: &HashMap<Requester, usize>) -> bool {
        let failing = &self.evidence.clients;
        let known = || waiting.keys().chain(&self.succeeded);
        if known().all(|client| failing.contains(client)) {
            return true;
        }
        let good = |client: &&Requester| self.succeeded.is_empty() || self.succeeded.contains(client);
        let namespaces: HashSet<&str> = failing.iter().filter(good).map(|client| &*client.namespace).collect();
        let one_tenant = || known().all(|client| namespaces.contains(&*client.namespace));
        namespaces.len() >= 2 || (one_tenant() && failing.iter().filter(good).count() >= 2)
    }

    /// Notes the wait that the server asks for. Returns whether it is a longer one than before.
    fn open_for_server_wait(&mut self, reason: Reason, wait: Option<TimeDelta>, now: Now) -> bool {
        let Some(wait) = wait.filter(|wait| *wait > TimeDelta::zero()) else { return false };
        // waits that follow each other together are no longer than one may be
        let first = self.server_wait_until(now.monotonic).map_or(now.monotonic, |wait| wait.first);
        let longest = SERVER_WAIT_MAX.to_std().unwrap_or_default();
        let until = (now.monotonic + wait.min(SERVER_WAIT_MAX).to_std().unwrap_or_default()).min(first + longest);
        if self.server_wait_until(now.monotonic).is_none_or(|wait| wait.until < until) {
            self.server_wait_until = Some(ServerWait { first, since: now, until, reason });
            return true;
        }
        false
    }
}

impl ServerWait {
    /// When a request may be sent in spite of it: once half of what was left of its token has passed.
    #[must_use]
    pub fn allows(&self, lost_at: DateTime<Utc>) -> Instant {
        let left = (lost_at - self.since.wall).max(TimeDelta::zero());
        let half = (left / 2).to_std().unwrap_or_default();
        if half.is_zero() { self.until } else { (self.since.monotonic + half).min(self.until) }
    }
}

/// The namespace of most of these clients.
fn most_frequent<'a>(clients: impl Iterator<Item = &'a Requester>) -> Option<Arc<str>> {
    let mut counts: HashMap<&Arc<str>, usize> = HashMap::new();
    clients.for_each(|client| *counts.entry(&client.namespace).or_default() += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(namespace, _)| namespace.clone())
}

/// Whether an answer with this reason concerns all requests of the client, whatever they ask for.
fn is_about_the_client(reason: Reason) -> bool {
    matches!(reason, Reason::InvalidClient | Reason::UnauthorizedClient | Reason::ServerError)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(namespace: &str, secret: &str) -> Requester {
        Requester { namespace: namespace.into(), secret: secret.into() }
    }

    struct Scene {
        breaker: Breaker,
        start: Instant,
        waiting: HashMap<Requester, usize>,
    }

    impl Scene {
        fn with(clients: &[&Requester]) -> Self {
            let waiting = clients.iter().map(|client| ((*client).clone(), 1)).collect();
            Self { breaker: Breaker::default(), start: Instant::now(), waiting }
        }

        fn at(&self, millisecond: u64) -> Now {
            let wall = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
            let passed = Duration::from_millis(millisecond);
            Now { wall: wall + passed, monotonic: self.start + passed }
        }

        fn note(&mut self, client: &Requester, outcome: &Outcome, millisecond: u64) -> Change {
            let now = self.at(millisecond);
            // what is sent while a circuit is open is a probe
            let ended = Ended { requester: client, version: None, is_probe: true };
            self.breaker.note(ended, outcome, now, &self.waiting)
        }

        fn fail(&mut self, client: &Requester, reason: Reason, times: u32) {
            for _ in 0..times {
                self.note(client, &failed(reason), 0);
            }
        }

        fn is_open(&self) -> bool {
            self.breaker.open_reason().is_some()
        }
    }

    fn failed(reason: Reason) -> Outcome {
        let is_outage = matches!(reason, Reason::Timeout | Reason::ConnectionFailed | Reason::ServerError);
        Outcome::Failed { failure: Failure::new(reason, "because"), server_wait: None, is_outage }
    }

    #[test]
    fn failures_of_one_client_among_good_ones_open_that_clients_circuit_only() {
        let (bad, good) = (client("a", "bad"), client("b", "good"));
        let mut scene = Scene::with(&[&bad, &good]);
        scene.note(&good, &Outcome::Succeeded, 0);
        scene.fail(&bad, Reason::ServerError, 100);
        assert!(!scene.is_open());
        assert!(scene.breaker.client_wait(&bad, scene.at(1).monotonic).is_some());
        assert!(scene.breaker.client_wait(&good, scene.at(1).monotonic).is_none());
    }

    #[test]
    fn many_broken_clients_of_one_namespace_do_not_open_the_circuit_for_their_neighbour() {
        let clients: Vec<_> = (0..50).map(|n| client("a", &format!("bad-{n}"))).collect();
        let good = client("b", "good");
        let mut all: Vec<&Requester> = clients.iter().collect();
        all.push(&good);
        let mut scene = Scene::with(&all);
        clients.iter().for_each(|bad| scene.fail(bad, Reason::Timeout, 3));
        assert!(!scene.is_open(), "the neighbour asked for nothing yet");
        scene.note(&good, &Outcome::Succeeded, 0);
        clients.iter().for_each(|bad| scene.fail(bad, Reason::Timeout, 3));
        assert!(!scene.is_open(), "nor once he did");
    }

    #[test]
    fn circuit_of_the_server_opens_where_two_good_clients_fail_or_the_only_one() {
        let (one, other) = (client("a", "one"), client("a", "other"));
        let mut scene = Scene::with(&[&one, &other]);
        scene.note(&one, &Outcome::Succeeded, 0);
        scene.note(&other, &Outcome::Succeeded, 0);
        scene.fail(&one, Reason::ConnectionFailed, 4);
        assert!(!scene.is_open());
        scene.fail(&other, Reason::ConnectionFailed, 1);
        assert!(scene.is_open());

        let mut scene = Scene::with(&[&one]);
        scene.fail(&one, Reason::ConnectionFailed, 5);
        assert!(scene.is_open(), "the only client");
    }

    #[test]
    fn good_clients_of_one_tenant_that_begin_to_fail_do_not_open_the_circuit_for_others() {
        let (one, other, neighbour) = (client("a", "one"), client("a", "other"), client("b", "neighbour"));
        let mut scene = Scene::with(&[&one, &other, &neighbour]);
        scene.note(&one, &Outcome::Succeeded, 0);
        scene.fail(&one, Reason::ServerError, 50);
        assert!(!scene.is_open(), "the neighbour only waits, and one client is not the only one");
        let mut scene = Scene::with(&[&one, &other, &neighbour]);
        for client in [&one, &other, &neighbour] {
            scene.note(client, &Outcome::Succeeded, 0);
        }
        scene.fail(&one, Reason::ServerError, 50);
        scene.fail(&other, Reason::ServerError, 50);
        assert!(!scene.is_open(), "both are one tenant's");
        scene.fail(&neighbour, Reason::ServerError, 1);
        assert!(scene.is_open());
    }

    #[test]
    fn circuits_of_clients_that_opened_with_that_of_the_server_close_with_it() {
        let (one, other) = (client("a", "one"), client("b", "other"));
        let mut scene = Scene::with(&[&one, &other]);
        scene.fail(&one, Reason::Timeout, 5);
        scene.fail(&other, Reason::Timeout, 5);
        assert!(scene.is_open() && scene.breaker.client_wait(&other, scene.start).is_some());
        assert_eq!(scene.note(&one, &Outcome::Succeeded, 3000), Change::Closed);
        let now = scene.at(3000).monotonic;
        assert!(scene.breaker.client_wait(&other, now).is_none());
        scene.note(&other, &failed(Reason::Timeout), 3000);
        assert!(scene.breaker.client_wait(&other, now).is_some(), "one failure of its own is enough");
    }

    #[test]
    fn waits_that_follow_each_other_are_together_no_longer_than_an_hour() {
        let one = client("a", "one");
        let mut scene = Scene::with(&[&one]);
        let asked = Outcome::Failed {
            failure: Failure::new(Reason::RateLimited, "because"),
            server_wait: Some(TimeDelta::hours(1)),
            is_outage: false,
        };
        for minute in 0..59 {
            scene.note(&one, &asked, minute * 60_000);
        }
        let wait = scene.breaker.server_wait_until(scene.at(59 * 60_000).monotonic).expect("a pause");
        assert_eq!(wait.until, scene.at(3_600_000).monotonic);
    }

    #[test]
    fn client_that_fails_while_others_succeed_is_good_no_longer() {
        let (one, other, good) = (client("a", "one"), client("c", "other"), client("b", "good"));
        let mut scene = Scene::with(&[&one, &other, &good]);
        for client in [&one, &other, &good] {
            scene.note(client, &Outcome::Succeeded, 0);
        }
        scene.fail(&one, Reason::ServerError, 4);
        scene.fail(&other, Reason::ServerError, 1);
        assert!(scene.is_open(), "two good clients fail");
        assert_eq!(scene.note(&good, &Outcome::Succeeded, 1), Change::Closed);
        scene.fail(&one, Reason::ServerError, 50);
        scene.fail(&other, Reason::ServerError, 50);
        assert!(!scene.is_open(), "once: they did not succeed since");
    }

    #[test]
    fn rejections_open_no_circuit_of_the_server_and_that_of_a_client_only_where_they_are_about_it() {
        let one = client("a", "one");
        let mut scene = Scene::with(&[&one]);
        scene.fail(&one, Reason::InvalidScope, 50);
        assert!(scene.breaker.client_wait(&one, scene.start).is_none());
        scene.fail(&one, Reason::InvalidClient, 5);
        assert!(!scene.is_open());
        let (_, failure) = scene.breaker.client_wait(&one, scene.start).expect("it waits");
        assert_eq!(failure.reason, Reason::InvalidClient);
        assert!(scene.breaker.client_changed(&one, Some(&"another version".into())));
        assert!(scene.breaker.client_wait(&one, scene.start).is_none(), "another client");
    }

    #[test]
    fn server_error_with_an_oauth_error_is_an_answer_and_the_clients_trouble() {
        let one = client("a", "one");
        let mut scene = Scene::with(&[&one]);
        let failure = Failure::new(Reason::ServerError, "because");
        for _ in 0..10 {
            scene.note(&one, &Outcome::Failed { failure: failure.clone(), server_wait: None, is_outage: false }, 0);
        }
        assert!(!scene.is_open() && scene.breaker.client_wait(&one, scene.start).is_some());
    }

    #[test]
    fn probes_pass_one_at_a_time_and_open_intervals_grow_to_their_limit() {
        let one = client("a", "one");
        let mut scene = Scene::with(&[&one]);
        scene.fail(&one, Reason::Timeout, 5);
        let (mut now, mut last, mut gaps) = (0, 0, Vec::new());
        while gaps.len() < 8 {
            now += 1000;
            if scene.breaker.gate(scene.at(now).monotonic) == Gate::HalfOpen {
                scene.breaker.admitted(&one, scene.at(now).monotonic);
                assert_eq!(
                    scene.breaker.gate(scene.at(now).monotonic),
                    Gate::Open { until: None, urgent_from: None },
                    "one at a time"
                );
                scene.note(&one, &failed(Reason::Timeout), now);
                gaps.push((now - last) / 1000);
                last = now;
            }
        }
        assert_eq!(gaps, [2, 4, 8, 16, 30, 30, 30, 30]);
        assert_eq!(scene.note(&one, &Outcome::Succeeded, now), Change::Closed);
        assert_eq!(scene.note(&one, &Outcome::Succeeded, now), Change::None, "once");
    }

    #[test]
    fn probe_that_was_not_sent_is_no_end_of_probing() {
        let one = client("a", "one");
        let mut scene = Scene::with(&[&one]);
        scene.fail(&one, Reason::Timeout, 5);
        let later = scene.at(3000).monotonic;
        scene.breaker.admitted(&one, later);
        scene.note(&one, &Outcome::NotSent, 3000);
        assert_eq!(scene.breaker.gate(later), Gate::HalfOpen);
        assert!(scene.breaker.client_wait(&one, later).is_none());
    }

    #[test]
    fn retry_after_holds_for_all_up_to_half_of_what_is_left_and_an_hour() {
        let one = client("a", "one");
        let mut scene = Scene::with(&[&one]);
        let asked = |hours| Outcome::Failed {
            failure: Failure::new(Reason::RateLimited, "because"),
            server_wait: Some(TimeDelta::hours(hours)),
            is_outage: false,
        };
        scene.note(&one, &asked(400), 0);
        let now = scene.at(0);
        let wait = *scene.breaker.server_wait_until(now.monotonic).expect("a pause");
        assert_eq!(wait.until, now.monotonic + Duration::from_secs(3600));
        assert_eq!(wait.allows(now.wall + TimeDelta::seconds(60)), now.monotonic + Duration::from_secs(30));
        assert_eq!(wait.allows(now.wall), wait.until, "nothing is left to lose");
        assert_eq!(wait.allows(now.wall + TimeDelta::days(1)), wait.until);
        assert!(scene.breaker.server_wait_until(wait.until).is_none());
        assert!(!scene.is_open(), "a server that asks to wait is there");
    }
}
