//! A valid token is not lost to first tokens of its namespace.

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
