//! The request queue with a simulated clock: order, fairness, rate limit, circuit breakers and single flight.

mod backlog;
mod cost;
mod equal;
mod order;
mod probes;
mod waits;

use std::time::Duration;

use chrono::TimeDelta;
use itwin_api::conditions::Reason;

use super::{admission::TAKE_UP_WITHIN, *};
use crate::failure::Failure;

type Queue = RequestQueue<String>;

/// A queue with a clock, and what happened.
struct Scene {
    queue: Queue,
    start: Instant,
    passed: Duration,
    /// How far the wall clock was set.
    set: TimeDelta,
    /// Admitted requests, each with its time in milliseconds.
    admitted: Vec<(String, u128)>,
    /// Requests to enqueue again after a failure.
    again: Vec<(String, Request)>,
}

fn request(namespace: &str, secret: &str, expires_at: Option<DateTime<Utc>>) -> Request {
    Request {
        requester: Requester { namespace: namespace.into(), secret: secret.into() },
        client_version: Some("1".into()),
        content: format!("{namespace}/{secret}/{expires_at:?}").into(),
        expires_at,
        is_retry: false,
    }
}

fn failed(reason: Reason) -> Outcome {
    let is_outage = matches!(reason, Reason::Timeout | Reason::ServerError);
    Outcome::Failed { failure: Failure::new(reason, "because"), server_wait: None, is_outage }
}

impl Scene {
    fn new(max_in_flight: u16, per_minute: u32) -> Self {
        let queue = Queue::new(max_in_flight, per_minute);
        let (start, passed, set) = (Instant::now(), Duration::ZERO, TimeDelta::zero());
        Self { queue, start, passed, set, admitted: Vec::new(), again: Vec::new() }
    }

    fn now(&self) -> Now {
        let wall = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        Now { wall: wall + self.passed + self.set, monotonic: self.start + self.passed }
    }

    fn wall(&self, seconds: i64) -> DateTime<Utc> {
        self.now().wall + TimeDelta::seconds(seconds)
    }

    /// The wall clock this many seconds after the start.
    fn start_wall(&self, seconds: i64) -> DateTime<Utc> {
        self.now().wall - self.passed + TimeDelta::seconds(seconds)
    }

    /// Enqueues a request of a credential whose token expires in this many seconds.
    fn enqueue(&mut self, namespace: &str, name: &str, expires_in: i64) {
        let request = request(namespace, name, Some(self.wall(expires_in)));
        let now = self.now();
        self.queue.enqueue(format!("{namespace}/{name}"), request, now);
    }

    fn retry(&mut self, namespace: &str, name: &str) {
        let request = Request { is_retry: true, ..request(namespace, name, None) };
        let now = self.now();
        self.queue.enqueue(format!("{namespace}/{name}"), request, now);
    }

    /// Admits what may be sent now, and takes it up.
    fn admit(&mut self) -> Vec<String> {
        self.admit_until().0
    }

    /// The same, with the time until something else may be sent.
    fn admit_until(&mut self) -> (Vec<String>, Option<Duration>) {
        let now = self.now();
        let Admissions { admitted, again, .. } = self.queue.admit(now);
        let names: Vec<String> = admitted.into_iter().map(|(name, _)| name).collect();
        for name in &names {
            let (namespace, secret) = name.split_once('/').expect("namespace/name");
            let requester = Requester { namespace: namespace.into(), secret: secret.into() };
            assert!(self.queue.take_up(name, &requester));
            self.admitted.push((name.clone(), self.passed.as_millis()));
        }
        (names, again.map(|again| again.saturating_duration_since(now.monotonic)))
    }

    fn settle(&mut self, name: &str, outcome: &Outcome) -> (Change, Vec<String>) {
        let now = self.now();
        self.queue.settle(&name.to_owned(), None, outcome, now)
    }

    /// Lets time pass. Each admitted request completes immediately with the outcome that `answer` returns.
    fn run(&mut self, limit: Duration, mut answer: impl FnMut(&mut Self, &str) -> Outcome) {
        let end = self.passed + limit;
        loop {
            let (names, again) = self.admit_until();
            for name in &names {
                let outcome = answer(self, name);
                self.settle(name, &outcome);
            }
            let now = self.now();
            std::mem::take(&mut self.again).into_iter().for_each(|(name, again)| self.queue.enqueue(name, again, now));
            if !names.is_empty() {
                // a completed request may let others pass
                continue;
            }
            let longest = Duration::from_millis(100);
            let step = again.map_or(longest, |again| again.clamp(Duration::from_millis(1), longest));
            self.passed += step;
            if self.passed > end {
                return;
            }
        }
    }
}

#[test]
fn ten_thousand_requests_after_an_outage_are_served_round_robin_and_valid_tokens_first() {
    const NAMESPACES: i64 = 10;
    const EACH: i64 = 1000;
    let mut scene = Scene::new(8, 300);
    let order = |number: i64| (number * 7919) % EACH;
    for number in 0..EACH {
        for namespace in 0..NAMESPACES {
            // not in the order of expiry: half of them expire during the outage, half of them later
            let expires_at = scene.wall(order(number) - EACH / 2);
            let (namespace, name) = (format!("n{namespace}"), format!("c{number}"));
            let retry = Request { is_retry: true, ..request(&namespace, &name, Some(expires_at)) };
            let now = scene.now();
            scene.queue.enqueue(format!("{namespace}/{name}"), retry, now);
        }
    }
    // while the server is down it gets half-open probes only, and failed requests are queued again
    let mut probes = 0;
    let mut requeued = HashMap::new();
    scene.run(Duration::from_secs(300), |scene, name| {
        probes += 1;
        let (namespace, secret) = name.split_once('/').expect("namespace/name");
        let number: i64 = secret[1..].parse().expect("a number");
        let expires_at = scene.start_wall(order(number) - EACH / 2);
        let again = Request { is_retry: true, ..request(namespace, secret, Some(expires_at)) };
        scene.again.push((name.to_owned(), again));
        requeued.insert(name.to_owned(), scene.passed.as_millis() as i128);
        failed(Reason::Timeout)
    });
    assert!(scene.queue.is_open() && (10..=25).contains(&probes), "{probes} requests in five minutes");
    let (began, admitted_before) = (scene.passed.as_millis(), scene.admitted.len());
    let spent = Instant::now();
    scene.run(Duration::from_secs(2150), |_, _| Outcome::Succeeded);
    // for information; the build is not optimized
    eprintln!("{:?} of a processor for {:?} of the queue", spent.elapsed(), Duration::from_secs(2150));
    scene.admitted.drain(..admitted_before);
    // the first one is the probe that closes the circuit
    scene.admitted.remove(0);
    assert_eq!(scene.admitted.len(), 9_999);
    let last = scene.admitted.last().map(|(_, at)| *at - began).unwrap_or_default();
    assert!((1_995_000..2_035_000).contains(&last), "10,000 at 300 a minute take 2,000 s: {last} ms");
    for served in scene.admitted.chunks(10).take(990) {
        let mut namespaces: Vec<&str> = served.iter().filter_map(|(name, _)| name.split('/').next()).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        assert!(namespaces.len() >= 9, "each namespace is served in each round");
    }
    let mut served: HashMap<&str, Vec<(i128, i128, i128)>> = HashMap::new();
    for (name, at) in &scene.admitted {
        let (namespace, number) = name.split_once("/c").expect("namespace/number");
        let expires_in = order(number.parse().expect("a number")) - EACH / 2;
        let arrived = requeued.get(name).copied().unwrap_or_default();
        served.entry(namespace).or_default().push((i128::from(expires_in) * 1000, arrived, *at as i128));
    }
    for served in served.values() {
        for (place, (expires_at, arrived, now)) in served.iter().enumerate() {
            // all that are valid expire soon, and the others come by when they arrived or expired since
            let rank = |expires_at: i128, arrived: i128| (expires_at <= *now, expires_at.max(arrived));
            let first = served[place..].iter().map(|(expires_at, arrived, _)| rank(*expires_at, *arrived)).min();
            assert_eq!(first, Some(rank(*expires_at, *arrived)), "at {now} ms");
        }
    }
}

#[test]
fn namespace_is_served_in_the_next_round_regardless_of_the_requests_of_another() {
    let mut scene = Scene::new(8, 60);
    (0..1000).for_each(|number| scene.enqueue("noisy", &format!("c{number}"), 1));
    scene.run(Duration::from_secs(10), |_, _| Outcome::Succeeded);
    scene.enqueue("quiet", "only", 10);
    let before = scene.passed;
    scene.run(Duration::from_secs(5), |_, _| Outcome::Succeeded);
    let (_, at) = scene.admitted.iter().find(|(name, _)| name == "quiet/only").expect("it was served");
    assert!(*at <= (before + Duration::from_millis(2000)).as_millis(), "{at}");
}

#[test]
fn failing_clients_of_one_namespace_leave_three_quarters_of_the_rate_to_others() {
    let mut scene = Scene::new(8, 60);
    (0..400).for_each(|number| scene.retry("noisy", &format!("c{number}")));
    (0..60).for_each(|number| scene.enqueue("quiet", &format!("c{number}"), 600));
    scene.run(Duration::from_secs(60), |scene, name| {
        if name.starts_with("noisy") {
            scene.passed += Duration::from_millis(1);
            failed(Reason::InvalidClient)
        } else {
            Outcome::Succeeded
        }
    });
    let quiet = scene.admitted.iter().filter(|(name, _)| name.starts_with("quiet")).count();
    assert!((44..=46).contains(&quiet), "{quiet} of 60");
}

#[test]
fn one_namespace_leaves_room_in_flight_for_the_others() {
    let mut scene = Scene::new(8, 60_000);
    (0..300).for_each(|number| scene.enqueue("slow", &format!("c{number}"), 60));
    assert_eq!(scene.admit().len(), 6);
    scene.enqueue("quick", "only", 60);
    assert_eq!(scene.admit(), ["quick/only"]);
}

#[test]
fn request_that_was_not_sent_does_not_count_towards_the_rate() {
    let mut scene = Scene::new(8, 60);
    ["1", "2"].iter().for_each(|name| scene.enqueue("a", name, 60));
    assert_eq!(scene.admit(), ["a/1"]);
    scene.settle("a/1", &Outcome::NotSent);
    assert_eq!(scene.admit(), ["a/2"], "immediately");
}

#[test]
fn change_of_the_limits_keeps_waiting_requests_and_counts_those_sent() {
    let mut scene = Scene::new(8, 60);
    ["1", "2", "3"].iter().for_each(|name| scene.enqueue("a", name, 60));
    assert_eq!(scene.admit().len(), 1);
    scene.queue.set_limits(8, 60);
    assert!(scene.admit().is_empty(), "an edit allows no new burst");
    assert_eq!(scene.queue.len(), 2);
}

#[test]
fn server_wait_applies_to_all_except_for_tokens_that_would_expire() {
    let mut scene = Scene::new(8, 6000);
    scene.enqueue("a", "limited", 600);
    scene.admit();
    let failure = Failure::new(Reason::RateLimited, "because");
    let server_wait = Some(TimeDelta::seconds(100));
    scene.settle("a/limited", &Outcome::Failed { failure, server_wait, is_outage: false });
    scene.enqueue("b", "soon", 60);
    scene.passed += Duration::from_secs(1);
    let (missing, now) = (request("b", "missing", None), scene.now());
    scene.queue.enqueue("b/missing".into(), missing, now);
    scene.enqueue("b", "expired", -5);
    scene.enqueue("b", "late", 3600);
    scene.run(Duration::from_secs(110), |_, _| Outcome::Succeeded);
    let at = |name: &str| scene.admitted.iter().find(|(other, _)| other == name).map(|(_, at)| *at / 1000);
    assert_eq!(at("b/soon"), Some(30), "half of its remaining validity");
    for name in ["b/missing", "b/expired", "b/late"] {
        assert_eq!(at(name), Some(100), "{name}");
    }
}

#[test]
fn admitted_request_that_no_worker_takes_up_is_queued_again() {
    let mut scene = Scene::new(1, 60_000);
    scene.enqueue("a", "lost", 600);
    let now = scene.now();
    assert_eq!(scene.queue.admit(now).admitted.len(), 1);
    assert!(scene.queue.is_admitted(&"a/lost".to_owned()));
    scene.passed += TAKE_UP_WITHIN;
    assert_eq!(scene.admit(), ["a/lost"]);
}

#[test]
fn changed_request_keeps_its_time_of_arrival_and_an_unchanged_one_its_place() {
    let mut scene = Scene::new(1, 60);
    let (first, second) = (request("a", "1", None), request("a", "2", None));
    for (key, request) in [("1", &first), ("2", &second)] {
        let now = scene.now();
        scene.queue.enqueue(key.into(), request.clone(), now);
        scene.passed += Duration::from_secs(5);
    }
    let now = scene.now();
    scene.queue.enqueue("1".into(), first.clone(), now);
    assert_eq!(scene.queue.waits_since(&"1".to_owned()), Some(scene.start));
    let retry = Request { content: "changed".into(), ..first };
    scene.queue.enqueue("1".into(), retry, now);
    assert_eq!(scene.queue.waits_since(&"1".to_owned()), Some(scene.start));
    assert_eq!(scene.queue.admit(now).admitted.first().map(|(key, _)| key.as_str()), Some("1"), "missing for longer");
}
