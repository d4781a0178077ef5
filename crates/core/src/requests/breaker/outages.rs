//! Requests that failed since the last response of the server, and whether they show that the server is down.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::requests::request::Requester;

/// The outages since the last response of the server.
#[derive(Debug, Default)]
pub(super) struct Outages {
    failures: u32,
    clients: HashSet<Requester>,
}

impl Outages {
    /// Records an outage. Returns how many there were.
    pub(super) fn record(&mut self, requester: &Requester) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.clients.insert(requester.clone());
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

    /// Whether the clients are all of one tenant.
    pub(super) fn are_of_one_tenant(&self) -> bool {
        let mut namespaces = self.clients.iter().map(|client| &client.namespace);
        let first = namespaces.next();
        namespaces.all(|namespace| Some(namespace) == first)
    }

    /// Whether the failures show that the server is down, and not only some clients: all known clients fail, or two
    /// clients that succeeded before (any two, if none ever did). The two must be of different tenants, unless all
    /// known clients are of one tenant. Known are those that wait, and those that succeeded.
    pub(super) fn affect_the_server(
        &self,
        waiting: &HashMap<Requester, usize>,
        succeeded: &VecDeque<Requester>,
    ) -> bool {
        let failing = &self.clients;
        let known = || waiting.keys().chain(succeeded);
        if known().all(|client| failing.contains(client)) {
            return true;
        }
        let has_succeeded = |client: &&Requester| succeeded.is_empty() || succeeded.contains(client);
        let namespaces: HashSet<&str> = failing.iter().filter(has_succeeded).map(|client| &*client.namespace).collect();
        let one_tenant = || known().all(|client| namespaces.contains(&*client.namespace));
        namespaces.len() >= 2 || (one_tenant() && failing.iter().filter(has_succeeded).count() >= 2)
    }
}
