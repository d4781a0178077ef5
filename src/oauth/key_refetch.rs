//! When the keys of an authority are fetched again for a token that no known key verifies.
//!
//! A forged token must not become a way to make the operator call the authority, and the tokens of one client must not
//! use up what another client needs after a rotation. So each client has a limit of its own, and the authority has a
//! floor, which all clients share as they share what is fetched. A fetch that failed shows nothing about a token: it is
//! tried again soon, and less often while it goes on failing, and until then it is the answer.
//!
//! A server that asks for a wait gets no token request during it (`itwin_core::requests`), except for tokens that would
//! expire. Their keys are fetched in spite of it, so a longer wait than the ceiling is not obeyed here a second time.

use std::{collections::HashMap, time::Duration};

use itwin_core::request_error::MetadataError;
use tokio::time::Instant;

/// Keys are fetched for the authority at most this often, for whichever client.
pub const AUTHORITY_FLOOR: Duration = Duration::from_secs(5);
/// Keys that could not be fetched are fetched again after this, as a token request is repeated after a failure, and after
/// twice as long each time that they still cannot.
pub const RETRY: Duration = Duration::from_secs(1);
/// The longest wait before they are: a token that is issued meanwhile is thrown away, and the one before it may be about
/// to expire.
pub const RETRY_CEILING: Duration = Duration::from_secs(10);
/// Keys are fetched a second time for a client after this, and then after twice as long each time: a key set that is
/// served from a cache may show a key seconds after the server signs with it, or a minute after that.
pub const LAG: Duration = Duration::from_secs(5);
/// The longest wait before keys are fetched for the same client again.
pub const CLIENT_INTERVAL: Duration = Duration::from_secs(60);
/// How often keys were fetched for a client is forgotten after this: it is longer than any wait, so that tokens that no key
/// will ever verify cost one fetch in [`CLIENT_INTERVAL`].
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// What to do for a token that no known key verifies.
#[derive(Debug)]
pub enum Decision {
    /// Fetch the keys.
    Fetch,
    /// Verify the token with the keys that are known: they were fetched since, or lately enough.
    UseKnown,
    /// The keys could not be fetched: whether the token is signed by one of them is not known.
    Failed(MetadataError),
}

/// The last fetch, and what was fetched for each client.
#[derive(Default)]
pub struct KeyRefetch {
    last: Option<Ended>,
    /// Consecutive fetches that failed.
    failures: u32,
    /// Fetches that succeeded. The floor of the authority bounds how many there are within [`FORGOTTEN_AFTER`], and older
    /// ones are forgotten.
    clients: HashMap<String, Fetched>,
}

/// How the last fetch ended.
struct Ended {
    at: Instant,
    failure: Option<MetadataError>,
}

/// What was fetched for one client.
struct Fetched {
    /// When it was last.
    at: Instant,
    /// How long after that it is again.
    wait: Duration,
}

impl KeyRefetch {
    /// Notes when everything about the authority was fetched last, whatever for: failures of before are over.
    pub fn refreshed(&mut self, at: Option<Instant>) {
        let Some(at) = at.filter(|at| self.last.as_ref().is_some_and(|last| last.at < *at)) else { return };
        self.failures = 0;
        self.last = Some(Ended { at, failure: None });
    }

    /// What to do now for a token of this client, which was `received` before it waited for the end of other fetches.
    #[must_use]
    pub fn decide(&self, client: &str, received: Instant, now: Instant) -> Decision {
        if let Some(Ended { at, failure }) = &self.last {
            let is_shared = *at >= received;
            let passed = now.saturating_duration_since(*at);
            match failure {
                Some(failure) if is_shared || passed < self.retry(failure) => {
                    return Decision::Failed(failure.clone().after(passed));
                }
                None if is_shared || passed < AUTHORITY_FLOOR => return Decision::UseKnown,
                _ => {}
            }
        }
        let is_limited = |fetched: &Fetched| now.saturating_duration_since(fetched.at) < fetched.wait;
        if self.clients.get(client).is_some_and(is_limited) { Decision::UseKnown } else { Decision::Fetch }
    }

    /// How long after this failure, which was the last one, keys are fetched again.
    fn retry(&self, failure: &MetadataError) -> Duration {
        // more than the ceiling after a few
        let doubled = RETRY * 2_u32.pow(self.failures.saturating_sub(1).min(10));
        let asked = failure.server_wait().and_then(|wait| wait.to_std().ok()).unwrap_or_default();
        doubled.max(asked).min(RETRY_CEILING)
    }

    /// Notes how a fetch for this client ended. One that failed counts for no client.
    pub fn note(&mut self, client: &str, failure: Option<MetadataError>, now: Instant) {
        self.failures = if failure.is_some() { self.failures.saturating_add(1) } else { 0 };
        if failure.is_none() {
            self.clients.retain(|_, fetched| now.saturating_duration_since(fetched.at) < FORGOTTEN_AFTER);
            let wait = self.clients.get(client).map_or(LAG, |before| (before.wait * 2).min(CLIENT_INTERVAL));
            self.clients.insert(client.to_owned(), Fetched { at: now, wait });
        }
        self.last = Some(Ended { at: now, failure });
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use itwin_core::request_error::Document;
    use itwin_oauth::transport::TransportError;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn failure() -> Option<MetadataError> {
        Some(MetadataError::Transport(Document::KeySet, TransportError::Server(500, None, Vec::new())))
    }

    /// The decision for a token that was received just now.
    fn decided(refetch: &KeyRefetch, client: &str, now: Instant) -> Decision {
        // what ended in the same instant ended before it was received
        refetch.decide(client, now + Duration::from_nanos(1), now + Duration::from_nanos(1))
    }

    #[test]
    fn fetch_that_failed_is_the_answer_until_it_is_tried_again_a_second_later() {
        let mut refetch = KeyRefetch::default();
        let start = Instant::now();
        assert!(matches!(decided(&refetch, "a", start), Decision::Fetch));
        refetch.note("a", failure(), start);
        for client in ["a", "b"] {
            assert!(matches!(decided(&refetch, client, start), Decision::Failed(_)), "{client}");
            assert!(matches!(decided(&refetch, client, start + RETRY), Decision::Fetch), "{client}");
        }
        // those that waited for it, however long
        assert!(matches!(refetch.decide("b", start, start + CLIENT_INTERVAL), Decision::Failed(_)));
    }

    #[test]
    fn fetches_that_go_on_failing_are_tried_again_less_and_less_often() {
        let mut refetch = KeyRefetch::default();
        let mut now = Instant::now();
        for seconds in [1, 2, 4, 8, 10, 10] {
            refetch.note("a", failure(), now);
            now += Duration::from_secs(seconds) - Duration::from_millis(1);
            assert!(matches!(decided(&refetch, "b", now), Decision::Failed(_)), "before {seconds} s");
            now += Duration::from_millis(1);
            assert!(matches!(decided(&refetch, "b", now), Decision::Fetch), "after {seconds} s");
        }
        refetch.note("a", None, now);
        now += CLIENT_INTERVAL;
        refetch.note("a", failure(), now);
        assert!(matches!(decided(&refetch, "b", now + RETRY), Decision::Fetch), "one succeeded");
    }

    #[test]
    fn wait_that_the_server_asks_for_delays_the_next_fetch_up_to_the_ceiling() {
        let limited = |seconds| {
            let wait = Some(TimeDelta::seconds(seconds));
            Some(MetadataError::Transport(Document::KeySet, TransportError::RateLimited(wait, Vec::new())))
        };
        for (asked, expected) in [(5, Duration::from_secs(5)), (3600, RETRY_CEILING)] {
            let mut refetch = KeyRefetch::default();
            let start = Instant::now();
            refetch.note("a", limited(asked), start);
            let Decision::Failed(failure) = decided(&refetch, "b", start + expected - SECOND) else {
                unreachable!("it asked for {asked} s")
            };
            let left = failure.server_wait().expect("a wait").num_seconds();
            assert!(left <= asked - 4, "the wait does not begin again: {left} s");
            assert!(matches!(decided(&refetch, "b", start + expected), Decision::Fetch), "{asked} s");
        }
    }

    #[test]
    fn refresh_for_another_reason_ends_failures_and_is_what_is_known() {
        let mut refetch = KeyRefetch::default();
        let start = Instant::now();
        for second in 0..4 {
            refetch.note("a", failure(), start + SECOND * second);
        }
        let refreshed = start + SECOND * 4;
        refetch.refreshed(Some(refreshed - SECOND * 2));
        assert!(matches!(decided(&refetch, "a", refreshed), Decision::Failed(_)), "that was before");
        refetch.refreshed(Some(refreshed));
        assert!(matches!(decided(&refetch, "a", refreshed), Decision::UseKnown));
        let later = refreshed + AUTHORITY_FLOOR;
        assert!(matches!(decided(&refetch, "a", later), Decision::Fetch));
        refetch.note("a", failure(), later);
        assert!(matches!(decided(&refetch, "a", later + RETRY), Decision::Fetch), "it is the first one");
    }

    #[test]
    fn keys_are_fetched_again_soon_and_then_less_often_down_to_once_a_minute_for_a_client() {
        let mut refetch = KeyRefetch::default();
        let mut now = Instant::now();
        for seconds in [5, 10, 20, 40, 60, 60, 60] {
            refetch.note("a", None, now);
            now += Duration::from_secs(seconds) - SECOND;
            assert!(matches!(decided(&refetch, "a", now), Decision::UseKnown), "before {seconds} s");
            now += SECOND;
            assert!(matches!(decided(&refetch, "a", now), Decision::Fetch), "after {seconds} s");
        }
        refetch.note("a", None, now);
        now += FORGOTTEN_AFTER;
        refetch.note("a", None, now);
        assert!(
            matches!(decided(&refetch, "a", now + LAG), Decision::Fetch),
            "the next rotation is the first one again"
        );
    }

    #[test]
    fn two_clients_without_end_leave_a_third_one_keys_that_are_seconds_old_or_its_own_fetch() {
        let mut refetch = KeyRefetch::default();
        let start = Instant::now();
        let mut fetched = start;
        for second in 0..600 {
            let now = start + SECOND * second;
            for client in ["a", "b"] {
                if matches!(decided(&refetch, client, now), Decision::Fetch) {
                    refetch.note(client, None, now);
                    fetched = now;
                }
            }
            let is_fresh = now.saturating_duration_since(fetched) < AUTHORITY_FLOOR;
            assert_eq!(matches!(decided(&refetch, "c", now), Decision::UseKnown), is_fresh, "at {second} s");
        }
    }

    #[test]
    fn client_that_uses_up_its_fetches_leaves_those_of_another() {
        let mut refetch = KeyRefetch::default();
        let start = Instant::now();
        refetch.note("a", None, start);
        refetch.note("a", None, start + LAG);
        let last = start + LAG;
        assert!(matches!(decided(&refetch, "b", last), Decision::UseKnown), "they were fetched just now");
        assert!(matches!(decided(&refetch, "a", last + AUTHORITY_FLOOR), Decision::UseKnown));
        assert!(matches!(decided(&refetch, "b", last + AUTHORITY_FLOOR), Decision::Fetch));
    }

    #[test]
    fn those_who_waited_for_a_fetch_share_it() {
        let mut refetch = KeyRefetch::default();
        let start = Instant::now();
        refetch.note("a", None, start + SECOND);
        assert!(matches!(refetch.decide("b", start, start + CLIENT_INTERVAL), Decision::UseKnown));
        assert!(matches!(decided(&refetch, "b", start + CLIENT_INTERVAL), Decision::Fetch));
    }

    #[test]
    fn as_many_clients_are_remembered_as_the_floor_lets_through_in_an_interval() {
        let mut refetch = KeyRefetch::default();
        let mut now = Instant::now();
        for client in 0..1000 {
            let name = client.to_string();
            assert!(matches!(decided(&refetch, &name, now), Decision::Fetch), "{client}");
            refetch.note(&name, None, now);
            now += AUTHORITY_FLOOR;
        }
        assert!(refetch.clients.len() <= 24, "{}", refetch.clients.len());
    }
}
