//! The order in which waiting requests are sent to an authorization server: fair queueing.
//!
//! Namespaces are served round robin, so that the thousands of requests of one tenant do not delay another tenant.
//! Within a namespace, the token that is lost first comes first (`places`). Retries get at most a quarter of the
//! request slots while first attempts wait, since credentials that cannot succeed must not delay those that can.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::places::{Place, Places, Sendable};

/// One of this many request slots is for a retry while first attempts wait.
const RETRY_SHARE: u32 = 4;

/// The requests that may be sent, in two lanes: first attempts and retries.
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
    namespaces: HashMap<Arc<str>, Places<K>>,
    /// Namespaces with requests in round robin order, the next one at the front.
    rotation: VecDeque<Arc<str>>,
}

impl<K> Default for Lane<K> {
    fn default() -> Self {
        Self { namespaces: HashMap::new(), rotation: VecDeque::new() }
    }
}

impl<K> Default for Lanes<K> {
    fn default() -> Self {
        Self { first_attempts: Lane::default(), retries: Lane::default(), since_retry: 0 }
    }
}

impl<K> Lanes<K> {
    /// Adds a request.
    pub fn insert(&mut self, namespace: &Arc<str>, place: Place, key: K, is_retry: bool) {
        self.lane(is_retry).insert(namespace, place, key);
    }

    /// Removes a request.
    pub fn remove(&mut self, namespace: &str, place: Place, is_retry: bool) {
        self.lane(is_retry).remove(namespace, place);
    }

    /// Removes the next request that may be sent and whose namespace `has_room`.
    pub fn pop(&mut self, sendable: &Sendable, has_room: impl Fn(&str) -> bool) -> Option<K> {
        let retry_first = self.since_retry + 1 >= RETRY_SHARE;
        let (preferred, other) = if retry_first {
            (&mut self.retries, &mut self.first_attempts)
        } else {
            (&mut self.first_attempts, &mut self.retries)
        };
        preferred.pop(sendable, &has_room).or_else(|| other.pop(sendable, &has_room))
    }

    /// Gives the namespace of the request that was just removed its turn back, since that is not sent.
    pub fn give_turn_back(&mut self, namespace: &str, is_retry: bool) {
        let rotation = &mut self.lane(is_retry).rotation;
        // it is at the end, unless no other of its requests waits
        if rotation.back().is_some_and(|last| **last == *namespace) {
            rotation.rotate_right(1);
        }
    }

    /// Records that a request was admitted, for the share of retries.
    pub fn admitted(&mut self, is_retry: bool) {
        self.since_retry = if is_retry { 0 } else { (self.since_retry + 1).min(RETRY_SHARE) };
    }

    fn lane(&mut self, is_retry: bool) -> &mut Lane<K> {
        if is_retry { &mut self.retries } else { &mut self.first_attempts }
    }
}

impl<K> Lane<K> {
    fn insert(&mut self, namespace: &Arc<str>, place: Place, key: K) {
        let places = self.namespaces.entry(namespace.clone()).or_default();
        if places.is_empty() {
            self.rotation.push_back(namespace.clone());
        }
        places.insert(place, key);
    }

    fn remove(&mut self, namespace: &str, place: Place) {
        let Some(places) = self.namespaces.get_mut(namespace) else { return };
        if places.remove(place) && places.is_empty() {
            self.namespaces.remove(namespace);
            self.rotation.retain(|other| **other != *namespace);
        }
    }

    fn pop(&mut self, sendable: &Sendable, has_room: &impl Fn(&str) -> bool) -> Option<K> {
        let has_one = |places: &Places<K>| places.first(sendable).is_some();
        let is_next = |namespace: &Arc<str>| has_room(namespace) && self.namespaces.get(namespace).is_some_and(has_one);
        let next = self.rotation.iter().position(is_next)?;
        let namespace = self.rotation.remove(next)?;
        let places = self.namespaces.get_mut(&namespace)?;
        let key = places.pop(sendable)?;
        if places.is_empty() {
            self.namespaces.remove(&namespace);
        } else {
            self.rotation.push_back(namespace);
        }
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use chrono::{DateTime, Utc};

    use super::*;
    use crate::requests::{places::Held, request::Now};

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    /// All requests may be sent at second 0.
    fn all() -> Sendable {
        Sendable { now: Now { wall: at(0), monotonic: Instant::now() }, up_to: None }
    }

    /// The place of a request for a token that expires at this second.
    fn place(second: i64, number: u64) -> Place {
        Place { token: Held::Until(at(second)), number }
    }

    /// The order of requests, each given as namespace, expiry of the token, name, and whether it is a retry.
    fn order(requests: &[(&str, i64, &'static str, bool)]) -> Vec<&'static str> {
        let mut lanes = Lanes::default();
        for (number, (namespace, expires_at, name, is_retry)) in requests.iter().enumerate() {
            lanes.insert(&Arc::from(*namespace), place(*expires_at, number as u64), *name, *is_retry);
        }
        let is_retry = |name: &str| requests.iter().any(|(.., other, is_retry)| *other == name && *is_retry);
        std::iter::from_fn(|| {
            let name = lanes.pop(&all(), |_| true)?;
            lanes.admitted(is_retry(name));
            Some(name)
        })
        .collect()
    }

    #[test]
    fn namespaces_are_served_round_robin_and_within_one_the_token_that_is_lost_first_is_first() {
        let order = order(&[
            ("a", 30, "a-third", false),
            ("a", 10, "a-first", false),
            ("a", 20, "a-second", false),
            ("b", 99, "b-only", false),
        ]);
        assert_eq!(order, ["a-first", "b-only", "a-second", "a-third"]);
    }

    #[test]
    fn retries_get_a_quarter_of_the_slots_while_first_attempts_wait_and_all_afterwards() {
        let names = ["f1", "f2", "f3", "f4", "f5", "f6", "r1", "r2", "r3", "r4"];
        let requests: Vec<_> = names.iter().map(|name| ("a", 0, *name, name.starts_with('r'))).collect();
        assert_eq!(order(&requests), ["f1", "f2", "f3", "r1", "f4", "f5", "f6", "r2", "r3", "r4"]);
    }

    #[test]
    fn namespace_without_room_is_skipped_and_keeps_its_place() {
        let mut lanes = Lanes::default();
        for (namespace, name) in [("a", "a1"), ("a", "a2"), ("b", "b1")] {
            let number = u64::from(name == "a2");
            lanes.insert(&Arc::from(namespace), place(0, number), name, false);
        }
        assert_eq!(lanes.pop(&all(), |namespace| namespace != "a"), Some("b1"));
        assert_eq!(lanes.pop(&all(), |namespace| namespace != "a"), None);
        assert_eq!(lanes.pop(&all(), |_| true), Some("a1"));
    }

    #[test]
    fn removed_request_leaves_no_empty_place() {
        let mut lanes = Lanes::default();
        lanes.insert(&Arc::from("a"), place(0, 0), "a1", false);
        lanes.remove("a", place(0, 0), false);
        assert_eq!(lanes.pop(&all(), |_| true), None);
        assert!(lanes.first_attempts.rotation.is_empty() && lanes.first_attempts.namespaces.is_empty());
    }
}
