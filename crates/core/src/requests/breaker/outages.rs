//! Requests that failed since the last response of the server, and whether they show that the server is down.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{bounds::FAILING_MAX, broken::Broken, circuit::OPEN};
use crate::requests::request::Requester;

/// The outages since the last response of the server.
#[derive(Debug, Default)]
pub(super) struct Outages {
    failures: u32,
    /// At most [`FAILING_MAX`], and one of each namespace: they show enough.
    clients: HashSet<Requester>,
    /// Namespaces whose clients closed the circuit of the server when they joined: as many as there are namespaces.
    closed_by: HashSet<Arc<str>>,
    /// The open interval of the circuit when it was closed so.
    interval: Option<Duration>,
}

/// What is known of clients, which decides what their failures show.
pub(super) struct Known<'a> {
    /// Those that have requests in the queue or in flight.
    pub(super) waiting: &'a HashMap<Requester, usize>,
    /// Those that succeeded last.
    pub(super) succeeded: &'a VecDeque<Requester>,
    /// Those that fail by themselves.
    pub(super) broken: &'a Broken,
}

impl Known<'_> {
    fn clients(&self) -> impl Iterator<Item = &Requester> {
        self.waiting.keys().chain(self.succeeded)
    }

    /// Whether a failure of this client may be one of the server. A client of which nothing is known counts: of thousands,
    /// those whose tokens are due next did not succeed lately. If no client succeeded, there are none to compare with.
    fn may_show_an_outage(&self, client: &Requester) -> bool {
        self.succeeded.is_empty() || !self.broken.contains(client)
    }
}

impl Outages {
    /// Records an outage. Returns how many there were.
    pub(super) fn record(&mut self, requester: &Requester) -> u32 {
        self.failures = self.failures.saturating_add(1);
        let is_of = |client: &Requester| client.namespace == requester.namespace;
        if self.clients.len() < FAILING_MAX || !self.clients.iter().any(is_of) {
            self.clients.insert(requester.clone());
        }
        self.failures
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
        let is_of_failing = self.clients.iter().any(|client| client.namespace == *namespace);
        let is_news = !self.clients.contains(requester) && (!is_of_failing || self.clients.len() == 1);
        let closes = is_news && self.are_of_one_tenant() && self.closed_by.insert(namespace.clone());
        if closes {
            self.interval = Some(interval);
        }
        closes
    }

    /// The interval of a circuit that opens: that of the one that was closed before without a response of the server.
    pub(super) fn interval(&self) -> Duration {
        self.interval.unwrap_or(OPEN.0)
    }

    /// Whether the clients are all of one tenant.
    fn are_of_one_tenant(&self) -> bool {
        let mut namespaces = self.clients.iter().map(|client| &client.namespace);
        let first = namespaces.next();
        namespaces.all(|namespace| Some(namespace) == first)
    }

    /// Whether the failures show that the server is down, and not only some clients: all known clients fail, or two that
    /// are not known to fail by themselves. The two must be of different tenants, unless no other tenant is known, or only
    /// such whose requests failed and that never succeeded. Known are clients that wait, and those that succeeded.
    pub(super) fn affect_the_server(&self, known: &Known<'_>) -> bool {
        let failing = &self.clients;
        if known.clients().all(|client| failing.contains(client)) {
            return true;
        }
        let counting: Vec<&Requester> = failing.iter().filter(|client| known.may_show_an_outage(client)).collect();
        let tenants: HashSet<&str> = counting.iter().map(|client| &*client.namespace).collect();
        if tenants.len() >= 2 {
            return true;
        }
        let failed: HashSet<&str> = failing.iter().map(|client| &*client.namespace).collect();
        let is_affected = |client: &Requester| {
            let namespace = &*client.namespace;
            tenants.contains(namespace) || (failed.contains(namespace) && !known.succeeded.contains(client))
        };
        counting.len() >= 2 && known.clients().all(is_affected)
    }
}
