//! The clients that succeeded last: their failures show most, and probes are chosen from them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::requests::request::Requester;

/// The number of clients that are remembered as successful: as many as are remembered as failing, and so all clients of
/// most installations. Without them, only failures of clients of which nothing is known could show an outage.
const SUCCEEDED_MAX: usize = 4096;

/// The clients that succeeded last. Each change costs the logarithm of their number at most: there is one with each
/// token.
#[derive(Debug, Default)]
pub(super) struct Succeeded {
    places: HashMap<Requester, i64>,
    /// The most recent at the end.
    order: BTreeMap<i64, Requester>,
    /// The places of the clients of each namespace.
    namespaces: HashMap<Arc<str>, BTreeSet<i64>>,
}

impl Succeeded {
    /// A client succeeded. If there are too many, the oldest client of the namespace with most clients is forgotten: no
    /// tenant evicts those of others.
    pub(super) fn push(&mut self, client: &Requester) {
        let last = self.order.last_key_value().map_or(0, |(place, _)| *place);
        self.put(client, last + 1);
        if self.places.len() > SUCCEEDED_MAX {
            let places = self.namespaces.values();
            let largest = places.max_by_key(|places| (places.len(), Reverse(places.first().copied())));
            let oldest = largest.and_then(BTreeSet::first).and_then(|place| self.order.get(place)).cloned();
            if let Some(oldest) = oldest {
                self.remove(&oldest);
            }
        }
    }

    /// Makes a client the oldest, if it is remembered.
    pub(super) fn make_oldest(&mut self, client: &Requester) {
        if self.contains(client) {
            let first = self.order.first_key_value().map_or(0, |(place, _)| *place);
            self.put(client, first - 1);
        }
    }

    fn put(&mut self, client: &Requester, place: i64) {
        self.remove(client);
        self.places.insert(client.clone(), place);
        self.order.insert(place, client.clone());
        self.namespaces.entry(client.namespace.clone()).or_default().insert(place);
    }

    /// Forgets a client.
    pub(super) fn remove(&mut self, client: &Requester) {
        let Some(place) = self.places.remove(client) else { return };
        self.order.remove(&place);
        if let Some(places) = self.namespaces.get_mut(&client.namespace) {
            places.remove(&place);
            if places.is_empty() {
                self.namespaces.remove(&client.namespace);
            }
        }
    }

    /// Whether this client is remembered.
    pub(super) fn contains(&self, client: &Requester) -> bool {
        self.places.contains_key(client)
    }

    /// Whether none is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The clients, the most recent first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Requester> {
        self.order.values().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(namespace: &str, number: usize) -> Requester {
        Requester { namespace: namespace.into(), secret: number.to_string().into() }
    }

    fn first(succeeded: &Succeeded) -> Option<&Requester> {
        succeeded.iter().next()
    }

    #[test]
    fn tenant_with_too_many_successful_clients_makes_only_its_own_forgotten() {
        let mut succeeded = Succeeded::default();
        succeeded.push(&client("b", 0));
        for number in 0..SUCCEEDED_MAX * 2 {
            succeeded.push(&client("a", number));
        }
        assert!(succeeded.contains(&client("b", 0)), "the other tenant has one");
        assert!(!succeeded.contains(&client("a", SUCCEEDED_MAX)), "the oldest ones of this tenant went");
        assert_eq!(first(&succeeded), Some(&client("a", SUCCEEDED_MAX * 2 - 1)));
        assert_eq!((succeeded.order.len(), succeeded.places.len()), (SUCCEEDED_MAX, SUCCEEDED_MAX));
    }

    #[test]
    fn client_that_succeeds_is_the_most_recent_and_another_one_can_be_made_the_oldest() {
        let mut succeeded = Succeeded::default();
        (0..3).for_each(|number| succeeded.push(&client("a", number)));
        succeeded.push(&client("a", 0));
        succeeded.make_oldest(&client("a", 2));
        succeeded.make_oldest(&client("a", 3));
        let order: Vec<Requester> = succeeded.iter().cloned().collect();
        assert_eq!(order, [0, 1, 2].map(|number| client("a", number)));
        order.iter().for_each(|client| succeeded.remove(client));
        assert!(succeeded.is_empty() && succeeded.order.is_empty() && succeeded.namespaces.is_empty());
    }
}
