//! The order of the waiting requests of one namespace.
//!
//! The token that is lost first comes first. A first token cannot be lost, nor can one that has expired, and where both
//! wait for longer than they must, no workload loses what it has. A token that is valid for long can wait for them.
//! Requests without a valid token are served in the order in which they joined or lost it, so that those that fail and
//! return are in front of no other.

use std::{collections::BTreeMap, ops::Bound};

use chrono::{DateTime, TimeDelta, Utc};

/// A token that expires within this expires soon: within the default of `minimumValidity`, which workloads count on, and
/// the time that a renewal has before that is broken. With the default alone, one that waited for many first tokens
/// would become urgent only when it is too late.
const EXPIRES_SOON: TimeDelta = TimeDelta::minutes(PROMISED_MINUTES + MARGIN_MINUTES);
/// The default of `minimumValidity`.
const PROMISED_MINUTES: i64 = 5;
/// A namespace has its turn, and an attempt that fails another one, within this.
const MARGIN_MINUTES: i64 = 3;

/// The place of a request within its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// When the token expires or expired in the queue; without one, since when a request waits for it.
    pub at: DateTime<Utc>,
    /// The order of arrival.
    pub number: u64,
    /// Whether there was a valid token when the request arrived.
    pub has_token: bool,
}

/// Which requests may be sent.
#[derive(Clone, Copy, Debug)]
pub struct Sendable {
    /// The time.
    pub now: DateTime<Utc>,
    /// During a wait that the server asked for: only for valid tokens that expire by then.
    pub up_to: Option<DateTime<Utc>>,
}

impl Sendable {
    /// Whether the request at this place may be sent.
    #[must_use]
    pub fn contains(&self, place: Place) -> bool {
        self.up_to.is_none_or(|latest| place.is_valid(self.now) && place.at <= latest)
    }
}

/// How urgent a request is; the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// The token is valid and expires soon.
    ExpiresSoon,
    /// There is no valid token.
    NoValidToken,
    /// The token is valid for longer.
    Valid,
}

impl Place {
    /// Whether there is a valid token.
    #[must_use]
    pub fn is_valid(self, now: DateTime<Utc>) -> bool {
        self.has_token && self.at > now
    }

    /// What orders requests at this time, the first one first: how urgent each is, then its time, then its arrival.
    #[must_use]
    pub fn rank(self, now: DateTime<Utc>) -> (Urgency, DateTime<Utc>, u64) {
        let urgency = if !self.is_valid(now) {
            Urgency::NoValidToken
        } else if self.at <= now + EXPIRES_SOON {
            Urgency::ExpiresSoon
        } else {
            Urgency::Valid
        };
        (urgency, self.at, self.number)
    }
}

/// What orders the requests of one of the two sets: time and arrival.
type Position = (DateTime<Utc>, u64);

/// The waiting requests of one namespace. Two ordered sets, so that the first one is found without reading all of them.
#[derive(Debug)]
pub struct Places<K> {
    /// Requests of credentials that had a valid token when they arrived, by its expiry.
    with_token: BTreeMap<Position, K>,
    /// Requests of the other credentials, by their arrival.
    without_token: BTreeMap<Position, K>,
}

impl<K> Default for Places<K> {
    fn default() -> Self {
        Self { with_token: BTreeMap::new(), without_token: BTreeMap::new() }
    }
}

impl<K> Places<K> {
    /// Whether no request waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.with_token.is_empty() && self.without_token.is_empty()
    }

    /// Adds a request.
    pub fn insert(&mut self, place: Place, key: K) {
        self.set(place.has_token).insert((place.at, place.number), key);
    }

    /// Removes a request. Returns whether it was there.
    pub fn remove(&mut self, place: Place) -> bool {
        self.set(place.has_token).remove(&(place.at, place.number)).is_some()
    }

    /// Removes the first request that may be sent.
    pub fn pop(&mut self, sendable: &Sendable) -> Option<K> {
        let place = self.first(sendable)?;
        self.set(place.has_token).remove(&(place.at, place.number))
    }

    /// The place of the first request that may be sent.
    #[must_use]
    pub fn first(&self, sendable: &Sendable) -> Option<Place> {
        let now = sendable.now;
        let mut later = self.with_token.range((Bound::Excluded((now, u64::MAX)), Bound::Unbounded));
        let valid = later.next().map(|(position, _)| place(*position, true));
        if sendable.up_to.is_some() {
            // the valid one that expires first is the first to be allowed
            return valid.filter(|place| sendable.contains(*place));
        }
        // the one that has expired first, if any has
        let oldest = self.with_token.first_key_value().map(|(position, _)| place(*position, true));
        let missing = self.without_token.first_key_value().map(|(position, _)| place(*position, false));
        [valid, oldest, missing].into_iter().flatten().min_by_key(|place| place.rank(now))
    }

    fn set(&mut self, has_token: bool) -> &mut BTreeMap<Position, K> {
        if has_token { &mut self.with_token } else { &mut self.without_token }
    }
}

fn place((at, number): Position, has_token: bool) -> Place {
    Place { at, number, has_token }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    /// All requests may be sent at this second.
    fn all(second: i64) -> Sendable {
        Sendable { now: at(second), up_to: None }
    }

    /// The order at second 0 of requests, each given as time, whether there is a token, and name.
    fn order(requests: &[(i64, bool, &'static str)]) -> Vec<&'static str> {
        let mut places = Places::default();
        for (number, (second, has_token, name)) in requests.iter().enumerate() {
            places.insert(place((at(*second), number as u64), *has_token), *name);
        }
        std::iter::from_fn(|| places.pop(&all(0))).collect()
    }

    #[test]
    fn token_that_expires_soon_comes_before_a_missing_one_and_that_before_a_token_that_is_valid_for_long() {
        let order = order(&[
            (3600, true, "next hour"),
            (481, true, "later"),
            (-5, false, "missing for 5 s"),
            (480, true, "in eight minutes"),
            (300, true, "in five minutes"),
            (-60, false, "missing for a minute"),
            (-30, true, "expired half a minute ago"),
            (0, true, "expires now"),
            (1, true, "in a second"),
        ]);
        let expected = [
            "in a second",
            "in five minutes",
            "in eight minutes",
            "missing for a minute",
            "expired half a minute ago",
            "missing for 5 s",
            "expires now",
            "later",
            "next hour",
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn order_follows_the_time() {
        let mut places = Places::default();
        places.insert(place((at(580), 0), true), "token");
        places.insert(place((at(0), 1), false), "missing");
        assert_eq!(places.first(&all(99)).map(|place| place.has_token), Some(false), "it is valid for long");
        assert_eq!(places.first(&all(100)).map(|place| place.has_token), Some(true));
        assert_eq!(places.first(&all(580)).map(|place| place.has_token), Some(false), "it has expired, and later");
        assert!(places.remove(place((at(0), 1), false)) && !places.remove(place((at(0), 1), false)));
        assert_eq!((places.pop(&all(580)), places.is_empty()), (Some("token"), true));
    }

    proptest! {
        #[test]
        fn first_one_is_that_of_the_lowest_rank(
            requests in proptest::collection::vec((-600_i64..600, any::<bool>()), 1..40),
            up_to in proptest::option::of(-600_i64..600)
        ) {
            let requests: Vec<Place> = requests
                .into_iter()
                .enumerate()
                .map(|(number, (second, has_token))| place((at(second), number as u64), has_token))
                .collect();
            let mut places = Places::default();
            requests.iter().for_each(|place| places.insert(*place, ()));
            let sendable = Sendable { now: at(0), up_to: up_to.map(at) };
            let lowest = requests.iter().copied().filter(|place| sendable.contains(*place));
            prop_assert_eq!(places.first(&sendable), lowest.min_by_key(|place| place.rank(at(0))));
        }
    }
}
