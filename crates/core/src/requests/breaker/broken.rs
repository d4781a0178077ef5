//! Clients that are known to fail by themselves, so that their failures say nothing about the server.

use std::collections::HashSet;

use super::bounds::{FAILING_MAX, most_frequent};
use crate::requests::request::Requester;

/// The clients that failed while the server responded to others, each until its next success.
#[derive(Debug, Default)]
pub(super) struct Broken {
    /// Bounded by [`FAILING_MAX`], since a tenant may create any number.
    clients: HashSet<Requester>,
}

impl Broken {
    /// Adds a client. If there are too many, those of the namespace with most of them are forgotten: no tenant makes
    /// clients of others count again.
    pub(super) fn insert(&mut self, client: Requester) {
        if self.clients.len() >= FAILING_MAX && !self.clients.contains(&client) {
            let largest = most_frequent(self.clients.iter());
            self.clients.retain(|other| Some(&other.namespace) != largest.as_ref());
        }
        self.clients.insert(client);
    }

    /// A client succeeded.
    pub(super) fn remove(&mut self, client: &Requester) {
        self.clients.remove(client);
    }

    /// Whether the failures of this client say nothing about the server.
    pub(super) fn contains(&self, client: &Requester) -> bool {
        self.clients.contains(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(namespace: &str, number: usize) -> Requester {
        Requester { namespace: namespace.into(), secret: number.to_string().into() }
    }

    #[test]
    fn tenant_with_too_many_broken_clients_makes_only_its_own_forgotten() {
        let mut broken = Broken::default();
        broken.insert(client("b", 0));
        for number in 0..FAILING_MAX * 2 {
            broken.insert(client("a", number));
            assert!(broken.clients.len() <= FAILING_MAX && broken.contains(&client("b", 0)));
        }
        assert!(broken.contains(&client("a", FAILING_MAX * 2 - 1)), "the last one");
        broken.remove(&client("b", 0));
        assert!(!broken.contains(&client("b", 0)), "it succeeded");
    }
}
