//! When circuits open and close, and what a server may ask of all its clients.

mod joins;
mod many;

use std::time::Duration;

use chrono::DateTime;

use super::*;
use crate::requests::request::Now;

fn client(namespace: &str, secret: &str) -> Requester {
    Requester { namespace: namespace.into(), secret: secret.into() }
}

struct Scene {
    breaker: Breaker,
    start: Instant,
    waiting: HashMap<Requester, usize>,
}

impl Scene {
    fn with(clients: &[&Requester]) -> Self {
        let waiting = clients.iter().map(|client| ((*client).clone(), 1)).collect();
        Self { breaker: Breaker::default(), start: Instant::now(), waiting }
    }

    fn at(&self, millisecond: u64) -> Now {
        let wall = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        let passed = Duration::from_millis(millisecond);
        Now { wall: wall + passed, monotonic: self.start + passed }
    }

    fn record(&mut self, client: &Requester, outcome: &Outcome, millisecond: u64) -> Change {
        let now = self.at(millisecond);
        // a request that is sent while a circuit is open is a probe
        let ended = Ended { requester: client, version: None, is_probe: true, admitted_at: now.monotonic };
        self.breaker.record(ended, outcome, now.monotonic, &self.waiting)
    }

    /// The response to a request that was admitted earlier.
    fn record_late(&mut self, client: &Requester, outcome: &Outcome, admitted: u64, millisecond: u64) -> Change {
        let (admitted_at, now) = (self.at(admitted).monotonic, self.at(millisecond).monotonic);
        let ended = Ended { requester: client, version: None, is_probe: false, admitted_at };
        self.breaker.record(ended, outcome, now, &self.waiting)
    }

    fn fail(&mut self, client: &Requester, reason: Reason, times: u32) {
        for _ in 0..times {
            self.record(client, &failed(reason), 0);
        }
    }

    /// Another client asks for a request. Returns whether that closes the circuit of the server.
    fn joins(&mut self, client: &Requester) -> bool {
        *self.waiting.entry(client.clone()).or_default() += 1;
        self.breaker.joined(client)
    }

    /// A client asks for a request that is not sent in the end, and leaves. Returns whether that closed the circuit of
    /// the server.
    fn joins_and_leaves(&mut self, client: &Requester) -> bool {
        let closes = self.joins(client);
        self.record(client, &Outcome::NotSent, 0);
        self.waiting.remove(client);
        closes
    }

    fn is_open(&self) -> bool {
        self.breaker.open_reason().is_some()
    }
}

fn failed(reason: Reason) -> Outcome {
    let is_outage = matches!(reason, Reason::Timeout | Reason::ConnectionFailed | Reason::ServerError);
    Outcome::Failed { failure: Failure::new(reason, "because"), server_wait: None, is_outage }
}

#[test]
fn failures_of_one_client_open_only_its_own_circuit() {
    let (bad, good) = (client("a", "bad"), client("b", "good"));
    let mut scene = Scene::with(&[&bad, &good]);
    scene.record(&good, &Outcome::Succeeded, 0);
    scene.fail(&bad, Reason::ServerError, 100);
    assert!(!scene.is_open());
    assert!(scene.breaker.client_open_until(&bad, scene.at(1).monotonic).is_some());
    assert!(scene.breaker.client_open_until(&good, scene.at(1).monotonic).is_none());
}

#[test]
fn failing_clients_of_one_namespace_do_not_open_the_circuit_for_others() {
    let clients: Vec<_> = (0..50).map(|n| client("a", &format!("bad-{n}"))).collect();
    let good = client("b", "good");
    let mut all: Vec<&Requester> = clients.iter().collect();
    all.push(&good);
    let mut scene = Scene::with(&all);
    clients.iter().for_each(|bad| scene.fail(bad, Reason::Timeout, 3));
    assert!(!scene.is_open(), "the neighbor requested nothing yet");
    scene.record(&good, &Outcome::Succeeded, 0);
    clients.iter().for_each(|bad| scene.fail(bad, Reason::Timeout, 3));
    assert!(!scene.is_open(), "nor after its success");
}

#[test]
fn circuit_of_the_server_opens_if_two_successful_clients_fail_or_the_only_one() {
    let (one, other) = (client("a", "one"), client("a", "other"));
    let mut scene = Scene::with(&[&one, &other]);
    scene.record(&one, &Outcome::Succeeded, 0);
    scene.record(&other, &Outcome::Succeeded, 0);
    scene.fail(&one, Reason::ConnectionFailed, 4);
    assert!(!scene.is_open());
    scene.fail(&other, Reason::ConnectionFailed, 1);
    assert!(scene.is_open());

    let mut scene = Scene::with(&[&one]);
    scene.fail(&one, Reason::ConnectionFailed, 5);
    assert!(scene.is_open(), "the only client");
}

#[test]
fn successful_clients_of_one_tenant_that_start_to_fail_do_not_open_the_circuit_for_others() {
    let (one, other, neighbor) = (client("a", "one"), client("a", "other"), client("b", "neighbor"));
    let mut scene = Scene::with(&[&one, &other, &neighbor]);
    scene.record(&one, &Outcome::Succeeded, 0);
    scene.fail(&one, Reason::ServerError, 50);
    assert!(!scene.is_open(), "the neighbor waits, so this client is not the only one");
    let mut scene = Scene::with(&[&one, &other, &neighbor]);
    for client in [&one, &other, &neighbor] {
        scene.record(client, &Outcome::Succeeded, 0);
    }
    scene.fail(&one, Reason::ServerError, 50);
    scene.fail(&other, Reason::ServerError, 50);
    assert!(!scene.is_open(), "both belong to one tenant");
    scene.fail(&neighbor, Reason::ServerError, 1);
    assert!(scene.is_open());
}

#[test]
fn circuits_of_clients_that_opened_during_an_outage_close_with_the_circuit_of_the_server() {
    let (one, other) = (client("a", "one"), client("b", "other"));
    let mut scene = Scene::with(&[&one, &other]);
    scene.fail(&one, Reason::Timeout, 5);
    scene.fail(&other, Reason::Timeout, 5);
    assert!(scene.is_open() && scene.breaker.client_open_until(&other, scene.start).is_some());
    assert_eq!(scene.record(&one, &Outcome::Succeeded, 3000), Change::Closed);
    let now = scene.at(3000).monotonic;
    assert!(scene.breaker.client_open_until(&other, now).is_none());
    scene.record(&other, &failed(Reason::Timeout), 3000);
    assert!(scene.breaker.client_open_until(&other, now).is_some(), "one failure of its own is enough");
}

#[test]
fn consecutive_server_waits_last_at_most_an_hour_in_total() {
    let one = client("a", "one");
    let mut scene = Scene::with(&[&one]);
    let asked = Outcome::Failed {
        failure: Failure::new(Reason::RateLimited, "because"),
        server_wait: Some(TimeDelta::hours(1)),
        is_outage: false,
    };
    for minute in 0..59 {
        scene.record(&one, &asked, minute * 60_000);
    }
    let wait = scene.breaker.server_wait_until(scene.at(59 * 60_000).monotonic).expect("a wait");
    assert_eq!(wait.until, scene.at(3_600_000).monotonic);
}

#[test]
fn wait_that_is_asked_for_again_and_again_is_seldom_reported() {
    let one = client("a", "one");
    let asked = |seconds| Outcome::Failed {
        failure: Failure::new(Reason::RateLimited, "because"),
        server_wait: Some(TimeDelta::seconds(seconds)),
        is_outage: false,
    };
    let reported = |seconds| {
        let mut scene = Scene::with(&[&one]);
        (0..60_u64).filter(|second| scene.record(&one, &asked(seconds), second * 1000) == Change::Opened).count()
    };
    assert_eq!(reported(60), 1, "all that wait know of it");
    assert_eq!(reported(11), 6, "those that joined when it had nearly ended report it after 10 s");
    assert_eq!(reported(5), 0, "it is short");
    let mut scene = Scene::with(&[&one]);
    let changes = [20, 60].map(|seconds| scene.record(&one, &asked(seconds), 0));
    assert_eq!(changes, [Change::Opened, Change::None], "a longer one at the same instant is known too");
}

#[test]
fn circuit_of_a_client_that_opens_is_reported_by_its_own_requests_alone() {
    let (bad, good) = (client("a", "bad"), client("b", "good"));
    let mut scene = Scene::with(&[&bad, &good]);
    let changes: Vec<Change> = (0..6).map(|_| scene.record(&bad, &failed(Reason::InvalidClient), 0)).collect();
    let (none, opened) = (Change::None, Change::ClientOpened);
    assert_eq!(changes, [none, none, none, none, opened, none]);
}

#[test]
fn response_to_a_request_of_a_wait_begins_no_other_wait_after_an_hour() {
    const HOUR: u64 = 3_600_000;
    let one = client("a", "one");
    let mut scene = Scene::with(&[&one]);
    let asked = Outcome::Failed {
        failure: Failure::new(Reason::RateLimited, "because"),
        server_wait: Some(TimeDelta::minutes(59)),
        is_outage: false,
    };
    scene.record(&one, &asked, 0);
    // in flight when the first wait ends, and within the hour
    assert_eq!(scene.record_late(&one, &asked, HOUR - 61_000, HOUR - 59_000), Change::Opened);
    let until = |scene: &Scene, at: u64| scene.breaker.server_wait_until(scene.at(at).monotonic).map(|wait| wait.until);
    assert_eq!(until(&scene, HOUR - 59_000), Some(scene.at(HOUR).monotonic));
    // in flight at the end of the hour
    assert_eq!(scene.record_late(&one, &asked, HOUR - 1, HOUR + 100), Change::None);
    assert_eq!(until(&scene, HOUR + 100), None, "others have their turn");
    assert_eq!(scene.record_late(&one, &asked, HOUR, HOUR + 200), Change::Opened);
    assert!(until(&scene, HOUR + 200).is_some());
}

#[test]
fn client_that_fails_while_others_succeed_no_longer_counts_as_successful() {
    let (one, other, good) = (client("a", "one"), client("c", "other"), client("b", "good"));
    let mut scene = Scene::with(&[&one, &other, &good]);
    for client in [&one, &other, &good] {
        scene.record(client, &Outcome::Succeeded, 0);
    }
    scene.fail(&one, Reason::ServerError, 4);
    scene.fail(&other, Reason::ServerError, 1);
    assert!(scene.is_open(), "two successful clients fail");
    assert_eq!(scene.record(&good, &Outcome::Succeeded, 1), Change::Closed);
    scene.fail(&one, Reason::ServerError, 50);
    scene.fail(&other, Reason::ServerError, 50);
    assert!(!scene.is_open(), "they have not succeeded since");
}

#[test]
fn rejections_never_open_the_circuit_of_the_server_and_that_of_a_client_only_if_they_affect_the_client() {
    let one = client("a", "one");
    let mut scene = Scene::with(&[&one]);
    scene.fail(&one, Reason::InvalidScope, 50);
    assert!(scene.breaker.client_open_until(&one, scene.start).is_none());
    scene.fail(&one, Reason::InvalidClient, 5);
    assert!(!scene.is_open());
    let (_, failure) = scene.breaker.client_open_until(&one, scene.start).expect("its circuit is open");
    assert_eq!(failure.reason, Reason::InvalidClient);
    assert!(scene.breaker.client_changed(&one, Some(&"another version".into())));
    assert!(scene.breaker.client_open_until(&one, scene.start).is_none(), "another client");
}

#[test]
fn server_error_with_an_oauth_error_opens_only_the_circuit_of_the_client() {
    let one = client("a", "one");
    let mut scene = Scene::with(&[&one]);
    let failure = Failure::new(Reason::ServerError, "because");
    for _ in 0..10 {
        scene.record(&one, &Outcome::Failed { failure: failure.clone(), server_wait: None, is_outage: false }, 0);
    }
    assert!(!scene.is_open() && scene.breaker.client_open_until(&one, scene.start).is_some());
}

#[test]
fn probes_pass_one_at_a_time_and_open_intervals_grow_to_their_limit() {
    let one = client("a", "one");
    let mut scene = Scene::with(&[&one]);
    scene.fail(&one, Reason::Timeout, 5);
    let (mut now, mut last, mut gaps) = (0, 0, Vec::new());
    while gaps.len() < 8 {
        now += 1000;
        if scene.breaker.gate(scene.at(now).monotonic) == Gate::HalfOpen {
            scene.breaker.admitted(&one, scene.at(now).monotonic);
            assert_eq!(
                scene.breaker.gate(scene.at(now).monotonic),
                Gate::Open { until: None, urgent_from: None },
                "one at a time"
            );
            scene.record(&one, &failed(Reason::Timeout), now);
            gaps.push((now - last) / 1000);
            last = now;
        }
    }
    assert_eq!(gaps, [2, 4, 8, 16, 30, 30, 30, 30]);
    assert_eq!(scene.record(&one, &Outcome::Succeeded, now), Change::Closed);
    assert_eq!(scene.record(&one, &Outcome::Succeeded, now), Change::None, "once");
}

#[test]
fn probe_that_was_not_sent_leaves_the_circuit_half_open() {
    let one = client("a", "one");
    let mut scene = Scene::with(&[&one]);
    scene.fail(&one, Reason::Timeout, 5);
    let later = scene.at(3000).monotonic;
    scene.breaker.admitted(&one, later);
    scene.record(&one, &Outcome::NotSent, 3000);
    assert_eq!(scene.breaker.gate(later), Gate::HalfOpen);
    assert!(scene.breaker.client_open_until(&one, later).is_none());
}

#[test]
fn retry_after_applies_to_all_clients_up_to_half_of_the_remaining_validity_and_an_hour() {
    let one = client("a", "one");
    let mut scene = Scene::with(&[&one]);
    let asked = |hours| Outcome::Failed {
        failure: Failure::new(Reason::RateLimited, "because"),
        server_wait: Some(TimeDelta::hours(hours)),
        is_outage: false,
    };
    scene.record(&one, &asked(400), 0);
    let now = scene.at(0);
    let wait = *scene.breaker.server_wait_until(now.monotonic).expect("a wait");
    assert_eq!(wait.until, now.monotonic + Duration::from_secs(3600));
    assert_eq!(wait.allows(now.wall + TimeDelta::seconds(60), now), now.monotonic + Duration::from_secs(30));
    assert_eq!(wait.allows(now.wall, now), wait.until, "its token has expired");
    assert_eq!(wait.allows(now.wall + TimeDelta::days(1), now), wait.until);
    assert!(scene.breaker.server_wait_until(wait.until).is_none());
    assert!(!scene.is_open(), "a server that asks to wait is available");
}
