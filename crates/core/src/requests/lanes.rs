//! The order in which requests that wait for one authorization server are sent.
//!
//! Namespaces take turns, so that no tenant waits for another's thousands; within a namespace the token that is lost
//! first comes first (earliest deadline first). Attempts that follow a failure get at most a quarter of the turns while
//! anything else waits: credentials that cannot succeed must not hold up those that can.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use chrono::{DateTime, Utc};

/// Of so many turns one is for an attempt that follows a failure, while other requests wait.
const RETRY_SHARE: u32 = 4;

/// Where a request stands within its namespace: when the token is lost, then in the order of arrival.
pub type Place<K> = (DateTime<Utc>, u64, K);

/// The requests that may be sent, in two lanes.
#[derive(Debug)]
pub struct Lanes<K> {
    first_attempts: Lane<K>,
    retries: Lane<K>,
    /// First attempts since the last retry.
    since_retry: u32,
}

/// The requests of one lane, by namespace.
#[derive(Debug)]
struct Lane<K> {
    namespaces: HashMap<Arc<str>, BTreeSet<Place<K>>>,
    /// Namespaces with requests, the one whose turn is next in front.
    turns: VecDeque<Arc<str>>,
}

impl<K> Default for Lane<K> {
    fn default() -> Self {
        Self { namespaces: HashMap::new(), turns: VecDeque::new() }
    }
}

impl<K> Default for Lanes<K> {
    fn default() -> Self {
        Self { first_attempts: Lane::default(), retries: Lane::default(), since_retry: 0 }
    }
}

impl<K: Clone + Ord> Lanes<K> {
    /// Adds a request.
    pub fn insert(&mut self, namespace: &Arc<str>, place: Place<K>, is_retry: bool) {
        self.lane(is_retry).insert(namespace, place);
    }

    /// Takes out a request.
    pub fn remove(&mut self, namespace: &str, place: &Place<K>, is_retry: bool) {
        self.lane(is_retry).remove(namespace, place);
    }

    /// Takes out the request whose turn it is, of those whose namespace `has_room`.
    pub fn pop(&mut self, has_room: impl Fn(&str) -> bool) -> Option<K> {
        let retry_first = self.since_retry + 1 >= RETRY_SHARE;
        let (one, other) = if retry_first {
            (&mut self.retries, &mut self.first_attempts)
        } else {
            (&mut self.first_attempts, &mut self.retries)
        };
        one.pop(&has_room).or_else(|| other.pop(&has_room))
    }

    /// Notes that a request was admitted, for the share of retries.
    pub fn admitted(&mut self, is_retry: bool) {
        self.since_retry = if is_retry { 0 } else { (self.since_retry + 1).min(RETRY_SHARE) };
    }

    fn lane(&mut self, is_retry: bool) -> &mut Lane<K> {
        if is_retry { &mut self.retries } else { &mut self.first_attempts }
    }
}

impl<K: Clone + Ord> Lane<K> {
    fn insert(&mut self, namespace: &Arc<str>, place: Place<K>) {
        let places = self.namespaces.entry(namespace.clone()).or_default();
        if places.is_empty() {
            self.turns.push_back(namespace.clone());
        }
        places.insert(place);
    }

    fn remove(&mut self, namespace: &str, place: &Place<K>) {
        let Some(places) = self.namespaces.get_mut(namespace) else { return };
        if places.remove(place) && places.is_empty() {
            self.namespaces.remove(namespace);
            self.turns.retain(|turn| **turn != *namespace);
        }
    }

    fn pop(&mut self, has_room: &impl Fn(&str) -> bool) -> Option<K> {
        let turn = self.turns.iter().position(|namespace| has_room(namespace))?;
        let namespace = self.turns.remove(turn)?;
        let places = self.namespaces.get_mut(&namespace)?;
        let (.., key) = places.pop_first()?;
        if places.is_empty() {
            self.namespaces.remove(&namespace);
        } else {
            self.turns.push_back(namespace);
        }
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    /// Namespace, when the token is lost, name, whether it is a retry.
    fn order(requests: &[(&str, i64, &'static str, bool)]) -> Vec<&'static str> {
        let mut lanes = Lanes::default();
        for (number, (namespace, lost_at, name, is_retry)) in requests.iter().enumerate() {
            lanes.insert(&Arc::from(*namespace), (at(*lost_at), number as u64, *name), *is_retry);
        }
        let is_retry = |name: &str| requests.iter().any(|(.., other, is_retry)| *other == name && *is_retry);
        std::iter::from_fn(|| {
            let name = lanes.pop(|_| true)?;
            lanes.admitted(is_retry(name));
            Some(name)
        })
        .collect()
    }

    #[test]
    fn namespaces_take_turns_and_within_one_the_token_that_is_lost_first_comes_first() {
        let order = order(&[
            ("a", 30, "a-third", false),
            ("a", 10, "a-first", false),
            ("a", 20, "a-second", false),
            ("b", 99, "b-only", false),
        ]);
        assert_eq!(order, ["a-first", "b-only", "a-second", "a-third"]);
    }

    #[test]
    fn retries_get_a_quarter_while_first_attempts_wait_and_all_of_it_afterwards() {
        let names = ["f1", "f2", "f3", "f4", "f5", "f6", "r1", "r2", "r3", "r4"];
        let requests: Vec<_> = names.iter().map(|name| ("a", 0, *name, name.starts_with('r'))).collect();
        assert_eq!(order(&requests), ["f1", "f2", "f3", "r1", "f4", "f5", "f6", "r2", "r3", "r4"]);
    }

    #[test]
    fn namespace_without_room_is_passed_over_and_keeps_its_place() {
        let mut lanes = Lanes::default();
        for (namespace, name) in [("a", "a1"), ("a", "a2"), ("b", "b1")] {
            lanes.insert(&Arc::from(namespace), (at(0), 0, name), false);
        }
        assert_eq!(lanes.pop(|namespace| namespace != "a"), Some("b1"));
        assert_eq!(lanes.pop(|namespace| namespace != "a"), None);
        assert_eq!(lanes.pop(|_| true), Some("a1"));
    }

    #[test]
    fn removed_request_leaves_no_empty_place() {
        let mut lanes = Lanes::default();
        lanes.insert(&Arc::from("a"), (at(0), 0, "a1"), false);
        lanes.remove("a", &(at(0), 0, "a1"), false);
        assert_eq!(lanes.pop(|_| true), None);
        assert!(lanes.first_attempts.turns.is_empty() && lanes.first_attempts.namespaces.is_empty());
    }
}
