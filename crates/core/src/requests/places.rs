//! The order of the waiting requests of one namespace.
//!
//! The token that is lost first comes first. A first token cannot be lost, nor can one that has expired, and where both
//! wait for longer than they must, no workload loses what it has. A token that is valid for long can wait for them.
//! Requests without a valid token are served in the order in which they joined or lost it, so that those that fail and
//! return are in front of no other, also after the wall clock was set back.

use std::{collections::BTreeMap, ops::Bound, time::Instant};

use chrono::{DateTime, TimeDelta, Utc};

use super::request::Now;

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
    /// The token that the request is to replace.
    pub token: Held,
    /// The order of arrival.
    pub number: u64,
}

/// The token of a credential whose request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It was valid when the request arrived, and expires or expired at this time.
    Until(DateTime<Utc>),
    /// There was no valid one, and the request has waited for one since. That is not measured by the wall clock: after it
    /// was set back, all that join would come before those that wait.
    NoneSince(Instant),
}

/// Which requests may be sent.
#[derive(Clone, Copy, Debug)]
pub struct Sendable {
    /// The time.
    pub now: Now,
    /// During a wait that the server asked for: only for valid tokens that expire by then.
    pub up_to: Option<DateTime<Utc>>,
}

impl Sendable {
    /// Whether the request at this place may be sent.
    #[must_use]
    pub fn contains(&self, place: Place) -> bool {
        self.up_to.is_none_or(|latest| place.valid_until(self.now).is_some_and(|at| at <= latest))
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
    /// When the token expires, if there is a valid one.
    #[must_use]
    pub fn valid_until(self, now: Now) -> Option<DateTime<Utc>> {
        match self.token {
            Held::Until(expires_at) => Some(expires_at).filter(|at| *at > now.wall),
            Held::NoneSince(_) => None,
        }
    }

    /// Since when there is no valid token; `None` if there is one.
    #[must_use]
    pub fn lacking_since(self, now: Now) -> Option<Instant> {
        match self.token {
            Held::Until(expires_at) => {
                // negative, and thus an error, if that is still to come
                let ago = (now.wall - expires_at).to_std().ok()?;
                Some(now.monotonic.checked_sub(ago).unwrap_or(now.monotonic))
            }
            Held::NoneSince(since) => Some(since),
        }
    }

    /// What orders requests at this time, the first one first: how urgent each is, then its time, then its arrival.
    #[must_use]
    pub fn rank(self, now: Now) -> (Urgency, DateTime<Utc>, u64) {
        let (urgency, at) = match self.token {
            Held::Until(at) if at <= now.wall => (Urgency::NoValidToken, at),
            Held::Until(at) if at <= now.wall + EXPIRES_SOON => (Urgency::ExpiresSoon, at),
            Held::Until(at) => (Urgency::Valid, at),
            Held::NoneSince(since) => {
                let waited = now.monotonic.saturating_duration_since(since);
                (Urgency::NoValidToken, now.wall - TimeDelta::from_std(waited).unwrap_or_default())
            }
        };
        (urgency, at, self.number)
    }
}

/// The waiting requests of one namespace. Two ordered sets, so that the first one is found without reading all of them.
#[derive(Debug)]
pub struct Places<K> {
    /// Requests of credentials that had a valid token when they arrived, by its expiry.
    with_token: BTreeMap<(DateTime<Utc>, u64), K>,
    /// Requests of the other credentials, by when they joined.
    without_token: BTreeMap<(Instant, u64), K>,
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
        match place.token {
            Held::Until(at) => self.with_token.insert((at, place.number), key),
            Held::NoneSince(since) => self.without_token.insert((since, place.number), key),
        };
    }

    /// Removes a request. Returns whether it was there.
    pub fn remove(&mut self, place: Place) -> bool {
        self.take(place).is_some()
    }

    /// Removes the first request that may be sent.
    pub fn pop(&mut self, sendable: &Sendable) -> Option<K> {
        let place = self.first(sendable)?;
        self.take(place)
    }

    /// The place of the first request that may be sent.
    #[must_use]
    pub fn first(&self, sendable: &Sendable) -> Option<Place> {
        let now = sendable.now;
        let mut later = self.with_token.range((Bound::Excluded((now.wall, u64::MAX)), Bound::Unbounded));
        let with_token = |(at, number): (DateTime<Utc>, u64)| Place { token: Held::Until(at), number };
        let valid = later.next().map(|(position, _)| with_token(*position));
        if sendable.up_to.is_some() {
            // the valid one that expires first is the first to be allowed
            return valid.filter(|place| sendable.contains(*place));
        }
        // the one that has expired first, if any has
        let oldest = self.with_token.first_key_value().map(|(position, _)| with_token(*position));
        let missing = self.without_token.first_key_value();
        let missing = missing.map(|((since, number), _)| Place { token: Held::NoneSince(*since), number: *number });
        [valid, oldest, missing].into_iter().flatten().min_by_key(|place| place.rank(now))
    }

    fn take(&mut self, place: Place) -> Option<K> {
        match place.token {
            Held::Until(at) => self.with_token.remove(&(at, place.number)),
            Held::NoneSince(since) => self.without_token.remove(&(since, place.number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::LazyLock, time::Duration};

    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    /// This second on both clocks.
    fn now(second: i64) -> Now {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let since_start = Duration::from_secs((1000 + second).unsigned_abs());
        Now { wall: at(second), monotonic: *START + since_start }
    }

    /// All requests may be sent at this second.
    fn all(second: i64) -> Sendable {
        Sendable { now: now(second), up_to: None }
    }

    /// The place of a request whose token expires at this second, or which waits for one since.
    fn place(second: i64, has_token: bool, number: u64) -> Place {
        let token = if has_token { Held::Until(at(second)) } else { Held::NoneSince(now(second).monotonic) };
        Place { token, number }
    }

    /// The order at second 0 of requests, each given as time, whether there is a token, and name.
    fn order(requests: &[(i64, bool, &'static str)]) -> Vec<&'static str> {
        let mut places = Places::default();
        for (number, (second, has_token, name)) in requests.iter().enumerate() {
            places.insert(place(*second, *has_token, number as u64), *name);
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
        let (token, missing) = (place(580, true, 0), place(0, false, 1));
        places.insert(token, "token");
        places.insert(missing, "missing");
        assert_eq!(places.first(&all(99)), Some(missing), "it is valid for long");
        assert_eq!(places.first(&all(100)), Some(token));
        assert_eq!(places.first(&all(580)), Some(missing), "it has expired, and later");
        assert!(places.remove(missing) && !places.remove(missing));
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
                // one that has no token joined in the past
                .map(|(number, (second, has))| place(if has { second } else { -second.abs() }, has, number as u64))
                .collect();
            let mut places = Places::default();
            requests.iter().for_each(|place| places.insert(*place, ()));
            let sendable = Sendable { now: now(0), up_to: up_to.map(at) };
            let lowest = requests.iter().copied().filter(|place| sendable.contains(*place));
            prop_assert_eq!(places.first(&sendable), lowest.min_by_key(|place| place.rank(now(0))));
        }
    }
}
