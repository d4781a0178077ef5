//! Circuit breakers: one for each failing client, and one for the authorization server.
//!
//! If a client is misconfigured, or the server fails for this client, only the circuit of the client opens, and other
//! clients are not affected. The circuit of the server opens only if clients of several tenants fail that are not known
//! to fail by themselves, so that no tenant can open it for others. Where no other tenant asks, as after a start, the
//! failures of one are enough, until another one asks. If clients that were never seen to work open it by mistake, they
//! need more failures the next time. Without it, ten thousand credentials would overload a server that is down, despite a
//! backoff each (external-secrets/external-secrets#6728).

mod bounds;
mod broken;
mod circuit;
mod newcomers;
mod outages;
mod server_wait;
mod succeeded;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, time::Instant};

use chrono::TimeDelta;
use itwin_api::conditions::Reason;

pub use self::server_wait::ServerWait;
use self::{
    bounds::{FAILING_MAX, THRESHOLD, most_frequent},
    broken::Broken,
    circuit::{Circuit, OPEN},
    newcomers::Newcomers,
    outages::{Evidence, Known, Outages},
    succeeded::Succeeded,
};
use super::request::{Outcome, Requester};
use crate::{failure::Failure, object::ObjectVersion};

/// The circuit breakers of one authorization server.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Clients whose last request failed; bounded by [`FAILING_MAX`], since a tenant may create any number.
    failing: HashMap<Requester, Failing>,
    succeeded: Succeeded,
    /// Clients whose failures say nothing about the server.
    broken: Broken,
    newcomers: Newcomers,
    /// Outages since the last response of the server.
    outages: Outages,
    circuit: Option<Circuit>,
    server_wait_until: Option<ServerWait>,
}

#[derive(Debug)]
struct Failing {
    failures: u32,
    failure: Failure,
    /// Whether the last failure was an outage.
    is_outage: bool,
    /// Version of the client Secret that was used. With another version, the client starts without failures.
    version: Option<ObjectVersion>,
    circuit: Option<Circuit>,
}

/// A completed request.
#[derive(Clone, Copy)]
pub struct Ended<'a> {
    /// The client.
    pub requester: &'a Requester,
    /// Version of the client Secret that was used.
    pub version: Option<&'a ObjectVersion>,
    /// Whether it was a probe of an open circuit.
    pub is_probe: bool,
    /// When it was admitted.
    pub admitted_at: Instant,
}

/// The state of the server's circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// All requests pass.
    Closed,
    /// One request passes, as a half-open probe.
    HalfOpen,
    /// No request passes, except for urgent probes.
    Open {
        /// The end of the open interval; `None` while a probe is in flight.
        until: Option<Instant>,
        /// The earliest time of an urgent probe, for a token that would expire before `until`.
        urgent_from: Option<Instant>,
    },
}

/// How a circuit changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// No circuit changed.
    None,
    /// The circuit of the server opened, or the server asked for a long wait: all waiting requests must be reported.
    Opened,
    /// The circuit of this client opened: its waiting requests must be reported.
    ClientOpened,
    /// The circuit of the server closed.
    Closed,
}

impl Breaker {
    /// When the open interval of a client's circuit ends, and the last failure. `None` if the circuit is closed, or
    /// half-open without a probe in flight.
    #[must_use]
    pub fn client_open_until(&self, requester: &Requester, now: Instant) -> Option<(Instant, &Failure)> {
        let failing = self.failing.get(requester)?;
        let circuit = failing.circuit.as_ref()?;
        let until = if circuit.is_probing { now + (circuit.interval * 2).min(OPEN.1) } else { circuit.until };
        (now < until).then_some((until, &failing.failure))
    }

    /// Forgets the failures of a client whose Secret changed, if its version is known. Returns whether the circuit of
    /// the client was reset.
    pub fn client_changed(&mut self, requester: &Requester, version: Option<&ObjectVersion>) -> bool {
        let is_known = |failing: &Failing| version.is_some() && failing.version.as_ref() != version;
        let is_other = self.failing.get(requester).is_some_and(is_known);
        if is_other {
            self.failing.remove(requester);
        }
        is_other
    }

    /// The state of the server's circuit.
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

    /// Why the circuit of the server is open; `None` if it is closed.
    #[must_use]
    pub fn open_reason(&self) -> Option<Reason> {
        self.circuit.as_ref().map(|circuit| circuit.reason)
    }

    /// Whether no request of this client failed since the last response of the server.
    #[must_use]
    pub fn is_healthy(&self, requester: &Requester) -> bool {
        !self.outages.clients().contains(requester) && !self.failing.contains_key(requester)
    }

    /// Clients that succeeded, the most recent first. Probes are chosen from them.
    pub fn succeeded(&self) -> impl Iterator<Item = &Requester> {
        self.succeeded.iter()
    }

    /// Clients that get probes only, since their own requests fail.
    pub fn held_up(&self) -> impl Iterator<Item = &Requester> {
        self.failing.iter().filter(|(_, failing)| failing.circuit.is_some()).map(|(client, _)| client)
    }

    /// Whether this client is one of them.
    #[must_use]
    pub fn is_held_up(&self, requester: &Requester) -> bool {
        self.failing.get(requester).is_some_and(|failing| failing.circuit.is_some())
    }

    /// The wait that the server asked for; `None` once it has passed.
    #[must_use]
    pub fn server_wait_until(&self, now: Instant) -> Option<&ServerWait> {
        self.server_wait_until.as_ref().filter(|wait| now < wait.until)
    }

    /// Whether the requests that wait are to be reported now, since some joined before the wait was prolonged.
    pub fn give_report(&mut self, now: Instant) -> bool {
        self.server_wait_until.as_mut().is_some_and(|wait| wait.give_report(now))
    }

    /// When [`Self::give_report`] is to be called.
    #[must_use]
    pub fn report_due(&self) -> Option<Instant> {
        self.server_wait_until.as_ref().and_then(ServerWait::report_due)
    }

    /// A client asks for a request. Failures of one tenant alone may no longer show that the server is down, since this
    /// client may succeed. Then the circuit of the server closes, and those of the failing clients stay open. Returns
    /// whether it closed.
    pub fn joined(&mut self, requester: &Requester) -> bool {
        let closes = self.circuit.is_some_and(|circuit| self.outages.closes(requester, circuit.interval));
        if closes {
            self.circuit = None;
        }
        closes
    }

    /// Records that a request of this client is sent. Returns whether it is a probe of an open circuit.
    pub fn admitted(&mut self, requester: &Requester, now: Instant) -> bool {
        let client = self.failing.get_mut(requester).and_then(|failing| failing.circuit.as_mut());
        let mut is_probe = false;
        for circuit in client.into_iter().chain(&mut self.circuit) {
            (circuit.is_probing, circuit.last_probe, is_probe) = (true, now, true);
        }
        is_probe
    }

    /// Records the outcome of a request. `waiting` are the clients that have requests in the queue.
    pub fn record(
        &mut self,
        Ended { requester, version, is_probe, admitted_at }: Ended<'_>,
        outcome: &Outcome,
        now: Instant,
        waiting: &HashMap<Requester, usize>,
    ) -> Change {
        match outcome {
            Outcome::NotSent => {
                if is_probe {
                    let client = self.failing.get_mut(requester).and_then(|failing| failing.circuit.as_mut());
                    client.into_iter().chain(&mut self.circuit).for_each(|circuit| circuit.is_probing = false);
                    // so that the next probe is of another client
                    self.succeeded.make_oldest(requester);
                }
                Change::None
            }
            Outcome::Succeeded => {
                self.failing.remove(requester);
                self.broken.remove(requester);
                self.succeeded.push(requester);
                let change = self.answered(requester);
                self.newcomers.succeeded(requester);
                change
            }
            Outcome::Failed { failure, server_wait, is_outage } => {
                let waits = self.record_server_wait((failure.reason, *server_wait), admitted_at, now);
                let change = |server: bool, client: bool| match (server || waits, client) {
                    (true, _) => Change::Opened,
                    (false, true) => Change::ClientOpened,
                    (false, false) => Change::None,
                };
                if *is_outage {
                    let client = self.client_failed((requester, version), (failure, true), is_probe, now);
                    let server = self.outage((requester, failure.reason), is_probe, now, waiting);
                    return change(server, client);
                }
                let opened = if affects_the_client(failure.reason) {
                    self.client_failed((requester, version), (failure, false), is_probe, now)
                } else {
                    self.failing.remove(requester);
                    false
                };
                match self.answered(requester) {
                    Change::None => change(false, opened),
                    closed => closed,
                }
            }
        }
    }

    /// The server responded to a client, so it is available. Clients whose requests failed meanwhile fail by themselves,
    /// until their next success.
    fn answered(&mut self, requester: &Requester) -> Change {
        let failed = self.outages.end();
        for client in failed.iter().filter(|client| *client != requester) {
            self.succeeded.remove(client);
            self.broken.insert(client.clone());
        }
        if self.circuit.take().is_none() {
            return Change::None;
        }
        self.newcomers.ended(failed);
        // clients that failed during the outage are retried; one more failure opens their own circuit again
        for failing in self.failing.values_mut().filter(|failing| failing.is_outage) {
            (failing.circuit, failing.failures) = (None, failing.failures.min(THRESHOLD - 1));
        }
        Change::Closed
    }

    /// Records a failure of a client. Returns whether its circuit was closed and opened.
    fn client_failed(
        &mut self,
        (requester, version): (&Requester, Option<&ObjectVersion>),
        (failure, is_outage): (&Failure, bool),
        is_probe: bool,
        now: Instant,
    ) -> bool {
        if self.failing.len() >= FAILING_MAX && !self.failing.contains_key(requester) {
            // evicts the clients of the namespace with most clients
            let largest = most_frequent(self.failing.keys());
            self.failing.retain(|client, _| Some(&client.namespace) != largest.as_ref());
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
                failing.circuit = circuit.after_failure(is_probe, true, now, failure.reason).or(Some(circuit));
                false
            }
        }
    }

    /// Records an outage. Returns whether the circuit of the server was closed and opened.
    fn outage(
        &mut self,
        (requester, reason): (&Requester, Reason),
        is_probe: bool,
        now: Instant,
        waiting: &HashMap<Requester, usize>,
    ) -> bool {
        let known = Known { waiting, succeeded: &self.succeeded, broken: &self.broken };
        let evidence = known.evidence(requester);
        self.outages.record(requester, evidence);
        if evidence == Evidence::Newcomer {
            self.newcomers.failed(now);
        }
        if let Some(circuit) = self.circuit {
            // a probe of a client that fails anyway does not show that the outage goes on
            let is_longer = evidence != Evidence::Nothing;
            self.circuit = circuit.after_failure(is_probe, is_longer, now, reason).or(Some(circuit));
            return false;
        }
        let is_open_by_working = self.outages.show_by_working(THRESHOLD, &known);
        let is_open = is_open_by_working || self.outages.show_by_all(self.newcomers.needed(), &known);
        if is_open {
            self.newcomers.opened(!is_open_by_working);
            self.circuit = Some(Circuit::open(now, self.outages.interval(), reason));
        }
        is_open
    }

    /// Records a wait that the server asks for, in response to a request that was admitted at `admitted_at`. Returns
    /// whether the requests that wait are to be reported.
    fn record_server_wait(
        &mut self,
        (reason, wait): (Reason, Option<TimeDelta>),
        admitted_at: Instant,
        now: Instant,
    ) -> bool {
        let Some(wait) = wait.filter(|wait| *wait > TimeDelta::zero()) else { return false };
        // a response to a request that was sent despite a wait may arrive after its end, and must not begin another one
        // before the next request is sent
        let before = self.server_wait_until.filter(|before| admitted_at < before.until);
        let Some((wait, is_reported)) = ServerWait::asked(before, reason, wait, now) else { return false };
        self.server_wait_until = Some(wait);
        is_reported
    }
}

/// Whether a response with this reason affects all requests of the client, regardless of what they request.
fn affects_the_client(reason: Reason) -> bool {
    matches!(reason, Reason::InvalidClient | Reason::UnauthorizedClient | Reason::ServerError)
}
