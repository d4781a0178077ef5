//! A valid token is not lost to first tokens of its namespace, and no request waits indefinitely for others of it.

use std::collections::VecDeque;

use super::*;

/// Enqueues first tokens of this namespace.
fn crowd(scene: &mut Scene, namespace: &str, count: usize, is_retry: bool) {
    let now = scene.now();
    for number in 0..count {
        let name = format!("new-{number}");
        let first = Request { is_retry, ..request(namespace, &name, None) };
        scene.queue.enqueue(format!("{namespace}/{name}"), first, now);
    }
}

#[test]
fn renewal_of_a_short_token_does_not_wait_for_first_tokens_of_its_namespace() {
    for is_retry in [false, true] {
        let mut scene = Scene::new(8, 60);
        crowd(&mut scene, "a", 150, is_retry);
        scene.run(Duration::from_secs(10), |_, _| Outcome::Succeeded);
        let before = scene.passed.as_millis();
        let old = Request { is_retry, ..request("a", "old", Some(scene.wall(20))) };
        let now = scene.now();
        scene.queue.enqueue("a/old".into(), old, now);
        scene.run(Duration::from_secs(30), |_, _| Outcome::Succeeded);
        let (_, at) = scene.admitted.iter().find(|(name, _)| name == "a/old").expect("it was served");
        assert!(*at <= before + 1_500, "{} ms after it was due", at - before);
        assert!(scene.admitted.len() >= 38, "first tokens have the rest: {}", scene.admitted.len());
    }
}

#[test]
fn token_that_is_valid_for_long_waits_for_first_tokens() {
    let mut scene = Scene::new(8, 60);
    scene.enqueue("a", "other", 20_000);
    assert_eq!(scene.admit(), ["a/other"]);
    scene.settle("a/other", &Outcome::Succeeded);
    scene.enqueue("a", "old", 3600);
    crowd(&mut scene, "a", 5, false);
    scene.run(Duration::from_secs(10), |_, _| Outcome::Succeeded);
    assert_eq!(scene.admitted.last().map(|(name, _)| name.as_str()), Some("a/old"));
}

#[test]
fn promise_of_a_token_that_waits_for_first_tokens_is_kept() {
    let mut scene = Scene::new(8, 60);
    // eight minutes and a half before its expiry it comes last
    let old = Request { content: "old".into(), ..request("a", "old", Some(scene.wall(510))) };
    let now = scene.now();
    scene.queue.enqueue("a/old".into(), old, now);
    crowd(&mut scene, "a", 600, false);
    scene.run(Duration::from_secs(60), |_, _| Outcome::Succeeded);
    let (_, at) = scene.admitted.iter().find(|(name, _)| name == "a/old").expect("it was served");
    assert!((30_000..60_000).contains(at), "five minutes are left at {at} ms");
}

#[test]
fn half_open_probe_is_for_the_token_of_its_client_that_is_lost_first() {
    let mut scene = Scene::new(8, 6000);
    for name in ["one", "two", "three"] {
        scene.enqueue("z", name, 60);
        scene.run(Duration::from_millis(10), |_, _| Outcome::Succeeded);
    }
    for _ in 0..6 {
        ["one", "two"].iter().for_each(|name| scene.retry("z", name));
        scene.run(Duration::from_millis(10), |_, _| failed(Reason::Timeout));
    }
    assert!(scene.queue.is_open());
    for (key, expires_in) in [("z/first", None), ("z/late", Some(3600)), ("z/soon", Some(200)), ("z/other", None)] {
        let expires_at = expires_in.map(|seconds| scene.wall(seconds));
        let wanted = Request { content: key.into(), ..request("z", "three", expires_at) };
        let now = scene.now();
        scene.queue.enqueue(key.into(), wanted, now);
    }
    scene.passed += Duration::from_secs(3);
    let now = scene.now();
    let admitted: Vec<String> = scene.queue.admit(now).admitted.into_iter().map(|(key, _)| key).collect();
    assert_eq!(admitted, ["z/soon"]);
}

#[test]
fn expired_tokens_that_cannot_be_renewed_hold_up_no_first_token() {
    const FAILING: usize = 400;
    const BACKOFF: Duration = Duration::from_secs(225);
    const JOINS_AT: u64 = 300;
    let mut scene = Scene::new(8, 60);
    let expired = scene.wall(-86_400);
    let mut due: VecDeque<(Duration, String)> =
        (0..FAILING).map(|number| (Duration::ZERO, format!("old-{number}"))).collect();
    let mut served_at = None;
    for second in 0..2000 {
        scene.passed = Duration::from_secs(second);
        while due.front().is_some_and(|(at, _)| *at <= scene.passed) {
            let Some((_, name)) = due.pop_front() else { break };
            let (again, now) = (Request { is_retry: true, ..request("a", &name, Some(expired)) }, scene.now());
            scene.queue.enqueue(format!("a/{name}"), again, now);
        }
        if second == JOINS_AT {
            scene.retry("a", "new");
        }
        for name in scene.admit() {
            if name == "a/new" {
                served_at.get_or_insert(second);
                continue;
            }
            scene.settle(&name, &failed(Reason::InvalidScope));
            due.push_back((scene.passed + BACKOFF, name.trim_start_matches("a/").to_owned()));
        }
    }
    // one round of all
    let latest = JOINS_AT + FAILING as u64;
    assert!(served_at.is_some_and(|second| second <= latest), "served at second {served_at:?}, not before {latest}");
}

#[test]
fn token_that_expires_in_the_queue_keeps_its_time_among_requests_without_a_token() {
    let mut scene = Scene::new(1, 6000);
    scene.enqueue("a", "in-flight", 600);
    assert_eq!(scene.admit(), ["a/in-flight"]);
    let add = |scene: &mut Scene, second: u64, name: &str, expires_at: Option<DateTime<Utc>>| {
        scene.passed = Duration::from_secs(second);
        let now = scene.now();
        scene.queue.enqueue(format!("a/{name}"), request("a", name, expires_at), now);
    };
    let expires_at = [Some(scene.wall(5)), Some(scene.wall(-60))];
    add(&mut scene, 1, "expires-at-5", expires_at[0]);
    add(&mut scene, 3, "new-at-3", None);
    add(&mut scene, 7, "expired-before", expires_at[1]);
    add(&mut scene, 9, "new-at-9", None);
    // changed, which costs neither its place
    let mut again = |name: &str, expires_at| {
        let changed = Request { is_retry: false, content: "changed".into(), ..request("a", name, expires_at) };
        let now = scene.now();
        scene.queue.enqueue(format!("a/{name}"), changed, now);
    };
    again("expires-at-5", expires_at[0]);
    again("expired-before", expires_at[1]);
    scene.settle("a/in-flight", &Outcome::Succeeded);
    scene.run(Duration::from_secs(1), |_, _| Outcome::Succeeded);
    let names: Vec<&str> = scene.admitted.iter().skip(1).map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a/new-at-3", "a/expires-at-5", "a/expired-before", "a/new-at-9"]);
}

#[test]
fn request_without_a_token_keeps_its_place_when_the_clock_is_set_back() {
    let mut scene = Scene::new(8, 60);
    crowd(&mut scene, "a", 20, true);
    scene.retry("a", "last");
    for second in 0..60 {
        scene.passed = Duration::from_secs(second);
        if second == 5 {
            scene.set = TimeDelta::hours(-1);
        }
        // as many join as are served
        scene.retry("a", &format!("other-{second}"));
        for name in scene.admit() {
            scene.settle(&name, &failed(Reason::InvalidScope));
        }
    }
    let at = scene.admitted.iter().find(|(name, _)| name == "a/last").map(|(_, at)| *at);
    assert_eq!(at, Some(20_000), "after the twenty that joined before it");
}
