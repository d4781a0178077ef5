//! The rate limit of an authorization server: the generic cell rate algorithm (a token bucket without a timer).
//!
//! A burst is at most one second's share of the limit. A bucket with a whole minute's share would allow twice the limit
//! within a minute, and a server that allows one request per second would respond to such a burst with 429.

use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
const SECONDS_IN_A_MINUTE: u32 = 60;

/// A rate limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pacer {
    interval: Duration,
    /// How much earlier than at even intervals a request may be sent.
    tolerance: Duration,
    /// When the next request would be sent at even intervals: the theoretical arrival time of the algorithm.
    even: Option<Instant>,
}

impl Pacer {
    /// A limit in requests per minute, at least 1.
    #[must_use]
    pub fn new(per_minute: u32) -> Self {
        let per_minute = per_minute.max(1);
        let interval = MINUTE / per_minute;
        let burst = (per_minute / SECONDS_IN_A_MINUTE).max(1);
        Self { interval, tolerance: interval * (burst - 1), even: None }
    }

    /// Changes the limit. Requests sent before still count.
    pub fn set_limit(&mut self, per_minute: u32) {
        *self = Self { even: self.even, ..Self::new(per_minute) };
    }

    /// The earliest instant at which a request may be sent.
    #[must_use]
    pub fn ready_at(&self, now: Instant) -> Instant {
        let earliest = self.even.and_then(|even| even.checked_sub(self.tolerance));
        earliest.map_or(now, |earliest| earliest.max(now))
    }

    /// Counts a request that is sent at this instant.
    pub fn take(&mut self, at: Instant) {
        self.even = Some(self.even.map_or(at, |even| even.max(at)) + self.interval);
    }

    /// Refunds a request that was counted but not sent.
    pub fn give_back(&mut self) {
        self.even = self.even.and_then(|even| even.checked_sub(self.interval));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The instants at which requests are sent if each is sent as early as possible, in milliseconds within `limit`.
    fn sent(pacer: &mut Pacer, start: Instant, limit: Duration) -> Vec<u128> {
        let mut at = start;
        let mut all = Vec::new();
        loop {
            at = pacer.ready_at(at);
            if at > start + limit {
                return all;
            }
            pacer.take(at);
            all.push((at - start).as_millis());
        }
    }

    #[test]
    fn one_request_per_second_is_sent_if_the_limit_is_sixty_per_minute() {
        let sent = sent(&mut Pacer::new(60), Instant::now(), Duration::from_secs(5));
        assert_eq!(sent, [0, 1000, 2000, 3000, 4000, 5000]);
    }

    #[test]
    fn burst_is_one_seconds_share() {
        let sent = sent(&mut Pacer::new(300), Instant::now(), Duration::from_secs(2));
        assert_eq!(sent.iter().filter(|at| **at == 0).count(), 5);
        assert_eq!(sent.len(), 5 + 10, "and then one every 200 ms");
    }

    #[test]
    fn requests_still_count_after_a_change_of_the_limit() {
        let (mut pacer, start) = (Pacer::new(60), Instant::now());
        pacer.take(start);
        pacer.set_limit(60);
        assert_eq!(pacer.ready_at(start), start + Duration::from_secs(1));
        pacer.give_back();
        assert_eq!(pacer.ready_at(start), start, "a request that was not sent does not count");
    }

    proptest! {
        #[test]
        fn no_minute_has_more_requests_than_the_limit_and_a_seconds_share(per_minute in 1_u32..5000) {
            let sent = sent(&mut Pacer::new(per_minute), Instant::now(), Duration::from_secs(130));
            let mut from = 0;
            let within_a_minute = sent.iter().enumerate().map(|(to, at)| {
                while sent[from] + 60_000 <= *at {
                    from += 1;
                }
                to - from + 1
            });
            let most = within_a_minute.max().unwrap_or_default();
            prop_assert!(most as u32 <= per_minute + (per_minute / 60).max(1), "{most} in a minute");
        }
    }
}
