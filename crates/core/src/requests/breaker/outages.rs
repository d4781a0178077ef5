//! Requests that failed since the last response of the server, and whether they show that the server is down.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{bounds::FAILING_MAX, broken::Broken, circuit::OPEN, succeeded::Succeeded};
use crate::requests::request::Requester;

/// The outages since the last response of the server.
#[derive(Debug, Default)]
pub(super) struct Outages {
    /// Bounded by [`FAILING_MAX`]. Failures of others are counted, too, so that no tenant crowds out those of another one.
    clients: HashSet<Requester>,
    /// The namespaces of all clients that failed: as many as there are, as in each tally.
    namespaces: HashSet<Arc<str>>,
    /// Failures of clients that worked.
    working: Tally,
    /// Those and the failures of clients that were never seen to work. Those of clients that are known to fail by
    /// themselves are not among them.
    counting: Tally,
    /// Namespaces whose clients closed the circuit of the server when they joined: as many as there are namespaces.
    closed_by: HashSet<Arc<str>>,
    /// The open interval of the circuit when it was closed so.
    interval: Option<Duration>,
}

/// Failures that may be those of the server.
#[derive(Debug, Default)]
struct Tally {
    failures: u32,
    /// How many clients they are of, among those that are kept.
    clients: usize,
    namespaces: HashSet<Arc<str>>,
}

/// What a failure of a client says about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The client worked: its failure may be one of the server.
    Working,
    /// So may this one: nothing is known of the client.
    Newcomer,
    /// Nothing: the client fails by itself.
    Nothing,
}

/// What is known of clients, which decides what their failures show.
pub(super) struct Known<'a> {
    /// Those that have requests in the queue or in flight.
    pub(super) waiting: &'a HashMap<Requester, usize>,
    /// Those that succeeded last.
    pub(super) succeeded: &'a Succeeded,
    /// Those that fail by themselves.
    pub(super) broken: &'a Broken,
}

impl Known<'_> {
    fn clients(&self) -> impl Iterator<Item = &Requester> {
        self.waiting.keys().chain(self.succeeded.iter())
    }

    /// What a failure of this client says. A client of which nothing is known counts: of thousands, those whose tokens are
    /// due next did not succeed lately. If no client succeeded, there are none to compare with.
    pub(super) fn evidence(&self, client: &Requester) -> Evidence {
        if self.succeeded.contains(client) {
            Evidence::Working
        } else if self.succeeded.is_empty() || !self.broken.contains(client) {
            Evidence::Newcomer
        } else {
            Evidence::Nothing
        }
    }
}

impl Tally {
    fn add(&mut self, client: &Requester, is_new: bool) {
        self.failures = self.failures.saturating_add(1);
        self.clients += usize::from(is_new);
        self.namespaces.insert(client.namespace.clone());
    }
}

impl Outages {
    /// Records an outage.
    pub(super) fn record(&mut self, requester: &Requester, evidence: Evidence) {
        let is_new = self.clients.len() < FAILING_MAX && self.clients.insert(requester.clone());
        self.namespaces.insert(requester.namespace.clone());
        if evidence != Evidence::Nothing {
            self.counting.add(requester, is_new);
        }
        if evidence == Evidence::Working {
            self.working.add(requester, is_new);
        }
    }

    /// The clients whose requests failed.
    pub(super) fn clients(&self) -> &HashSet<Requester> {
        &self.clients
    }

    /// The server responded: there are none. Returns the clients whose requests failed before.
    pub(super) fn end(&mut self) -> HashSet<Requester> {
        std::mem::take(self).clients
    }

    /// A client asks for a request while the circuit of the server is open for `interval`. Returns whether the circuit
    /// closes: only one tenant failed, and this client is of another one, or the second one of this tenant. Each
    /// namespace closes it once, since a request that joins need not be sent: one that returns again and again, such as
    /// that of a namespace that the authority does not allow, would close it each time.
    pub(super) fn closes(&mut self, requester: &Requester, interval: Duration) -> bool {
        let namespace = &requester.namespace;
        let is_of_failing = self.namespaces.contains(namespace);
        let is_news = !self.clients.contains(requester) && (!is_of_failing || self.clients.len() == 1);
        let is_of_one_tenant = self.namespaces.len() <= 1;
        let closes = is_news && is_of_one_tenant && self.closed_by.insert(namespace.clone());
        if closes {
            self.interval = Some(interval);
        }
        closes
    }

    /// The interval of a circuit that opens: that of the one that was closed before without a response of the server.
    pub(super) fn interval(&self) -> Duration {
        self.interval.unwrap_or(OPEN.0)
    }

    /// Whether this many failures of clients that worked show that the server is down.
    pub(super) fn show_by_working(&self, failures: u32, known: &Known<'_>) -> bool {
        self.show(&self.working, failures, known)
    }

    /// Whether this many failures show it, also of clients that were never seen to work.
    pub(super) fn show_by_all(&self, failures: u32, known: &Known<'_>) -> bool {
        self.show(&self.counting, failures, known)
    }

    /// Whether the failures show that the server is down, and not only some clients: all known clients fail, or two of
    /// the tally. The two must be of different tenants, unless no other tenant is known, or only such whose requests failed
    /// and that never succeeded. Known are clients that wait, and those that succeeded.
    fn show(&self, tally: &Tally, failures: u32, known: &Known<'_>) -> bool {
        if tally.failures < failures {
            return false;
        }
        if tally.namespaces.len() >= 2 || known.clients().all(|client| self.clients.contains(client)) {
            return true;
        }
        let is_affected = |client: &Requester| {
            let namespace = &client.namespace;
            let failed = self.namespaces.contains(namespace) && !known.succeeded.contains(client);
            tally.namespaces.contains(namespace) || failed
        };
        tally.clients >= 2 && known.clients().all(is_affected)
    }
}
