//! A wait that the server asks for holds up no tenant for longer than it must: turns, shares and circuits are as ever.

use super::*;

/// The server responds with 429 and asks for a wait of this many seconds.
fn asked_to_wait(seconds: i64) -> Outcome {
    let failure = Failure::new(Reason::RateLimited, "because");
    Outcome::Failed { failure, server_wait: Some(TimeDelta::seconds(seconds)), is_outage: false }
}

/// The server asks one client for a wait of this many seconds, which applies to all.
fn begin_wait(scene: &mut Scene, seconds: i64) {
    scene.enqueue("limited", "client", 7200);
    assert_eq!(scene.admit(), ["limited/client"]);
    scene.settle("limited/client", &asked_to_wait(seconds));
}

/// When each request of a namespace was admitted, in whole seconds.
fn seconds(scene: &Scene, namespace: &str) -> Vec<u128> {
    let is_of = |name: &str| name.split('/').next() == Some(namespace);
    scene.admitted.iter().filter(|(name, _)| is_of(name)).map(|(_, at)| at / 1000).collect()
}

#[test]
fn namespaces_take_turns_during_a_wait_of_the_server() {
    let mut scene = Scene::new(8, 60);
    begin_wait(&mut scene, 3600);
    (0..400).for_each(|number| scene.enqueue("a", &format!("c{number}"), 600));
    scene.enqueue("b", "only", 700);
    scene.run(Duration::from_secs(720), |_, _| Outcome::Succeeded);
    assert_eq!(seconds(&scene, "a").first(), Some(&300), "half of its remaining validity");
    let b = seconds(&scene, "b");
    assert!(b.len() == 1 && (350..=352).contains(&b[0]), "half of its remaining validity is 350 s: {b:?}");
}

#[test]
fn later_waits_delay_no_token_further() {
    let mut scene = Scene::new(8, 600);
    begin_wait(&mut scene, 60);
    scene.enqueue("b", "only", 600);
    for number in 0..320 {
        // it is allowed within a second, and the server asks for another wait
        scene.enqueue("a", &format!("c{number}"), 2);
        let answer = |_: &mut Scene, name: &str| {
            if name.starts_with("a/") { asked_to_wait(60) } else { Outcome::Succeeded }
        };
        scene.run(Duration::from_secs(2), answer);
    }
    let (a, b) = (seconds(&scene, "a").len(), seconds(&scene, "b"));
    assert!(a >= 300, "a wait is asked for each 2 s: {a}");
    assert!(b.len() == 1 && (300..=302).contains(&b[0]), "half of its remaining validity is 300 s: {b:?}");
}

#[test]
fn token_that_expires_during_a_wait_is_not_sent_before_valid_ones() {
    let mut scene = Scene::new(8, 60);
    begin_wait(&mut scene, 3600);
    (0..100).for_each(|number| scene.enqueue("a", &format!("soon-{number}"), 60));
    scene.enqueue("a", "later", 130);
    scene.run(Duration::from_secs(300), |_, _| Outcome::Succeeded);
    let later = scene.admitted.iter().find(|(name, _)| name == "a/later").map(|(_, at)| *at / 1000);
    assert!(later.is_some_and(|second| (65..=66).contains(&second)), "{later:?}");
    let all = seconds(&scene, "a");
    assert!((30..=33).contains(&all.len()), "those that expired wait for the end: {all:?}");
}

#[test]
fn client_with_an_open_circuit_sends_probes_only_during_a_wait() {
    let mut scene = Scene::new(8, 6000);
    for _ in 0..5 {
        scene.enqueue("a", "broken", 600);
        scene.run(Duration::from_millis(20), |_, _| failed(Reason::InvalidClient));
    }
    begin_wait(&mut scene, 3600);
    let broken = |scene: &Scene, number: usize| Request {
        content: number.to_string().into(),
        ..request("a", "broken", Some(scene.start_wall(200)))
    };
    for number in 0..100 {
        let (request, now) = (broken(&scene, number), scene.now());
        scene.queue.enqueue(number.to_string(), request, now);
    }
    let mut sent = 0;
    while scene.passed < Duration::from_secs(160) {
        let now = scene.now();
        for (key, _) in scene.queue.admit(now).admitted {
            sent += 1;
            scene.queue.settle(&key, None, &failed(Reason::InvalidClient), now);
        }
        scene.passed += Duration::from_millis(50);
    }
    assert!((2..=6).contains(&sent), "probes from 100 s on, after 4, 8, 16 and 30 s: {sent}");
}

#[test]
fn client_whose_circuit_opens_during_a_wait_has_no_other_request_reported() {
    let mut scene = Scene::new(8, 6000);
    begin_wait(&mut scene, 3600);
    (0..100).for_each(|number| scene.enqueue("b", &format!("c{number}"), 3600));
    let all = scene.queue.blocked_keys(None, scene.now().monotonic);
    assert_eq!(all.len(), 100, "the wait is reported by all");
    scene.enqueue("a", "broken", 60);
    let bad = request("a", "broken", None).requester;
    assert_eq!(scene.queue.blocked_keys(Some(&bad), scene.now().monotonic), ["a/broken"]);
}

#[test]
fn one_namespace_leaves_room_in_flight_and_slots_to_others_during_a_wait() {
    let mut scene = Scene::new(8, 60_000);
    begin_wait(&mut scene, 3600);
    (0..100).for_each(|number| scene.enqueue("slow", &format!("c{number}"), 60));
    scene.enqueue("quick", "only", 100);
    scene.passed = Duration::from_secs(55);
    let mut admitted = scene.admit();
    admitted.sort();
    assert_eq!((admitted.len(), admitted[0].as_str()), (7, "quick/only"), "a quarter is left to others");

    let mut scene = Scene::new(8, 60);
    begin_wait(&mut scene, 3600);
    for number in 0..400 {
        let retry = Request { is_retry: true, ..request("a", &format!("retry-{number}"), Some(scene.wall(600))) };
        let now = scene.now();
        scene.queue.enqueue(format!("a/retry-{number}"), retry, now);
        scene.enqueue("b", &format!("c{number}"), 600);
    }
    scene.run(Duration::from_secs(400), |_, _| Outcome::Succeeded);
    let (retries, first_attempts) = (seconds(&scene, "a").len(), seconds(&scene, "b").len());
    assert!((24..=26).contains(&retries) && (74..=77).contains(&first_attempts), "{retries} and {first_attempts}");
}

#[test]
fn circuit_of_the_server_stays_open_during_a_wait() {
    let mut scene = Scene::new(8, 6000);
    for _ in 0..8 {
        ["a", "b"].iter().for_each(|namespace| scene.retry(namespace, "down"));
        scene.run(Duration::from_secs(5), |_, _| failed(Reason::Timeout));
    }
    assert!(scene.queue.is_open());
    // the next probe is answered with 503 and `Retry-After`
    scene.retry("a", "another");
    scene.run(Duration::from_secs(31), |_, _| {
        let failure = Failure::new(Reason::ServerError, "because");
        Outcome::Failed { failure, server_wait: Some(TimeDelta::hours(1)), is_outage: true }
    });
    assert!(scene.queue.is_open());
    let (before, began) = (scene.admitted.len(), scene.passed.as_millis());
    (0..400).for_each(|number| scene.enqueue("c", &format!("c{number}"), 200));
    scene.run(Duration::from_secs(140), |_, _| failed(Reason::Timeout));
    let sent: Vec<u128> = scene.admitted.iter().skip(before).map(|(_, at)| at - began).collect();
    assert!(sent.first().is_some_and(|first| *first > 80_000), "after half of the remaining validity: {sent:?}");
    assert!(sent.len() <= 3, "and then one probe in 30 s: {sent:?}");
}

#[test]
fn instant_at_which_a_token_is_allowed_is_never_too_early() {
    // odd nanoseconds: half of them is rounded
    let mut scene = Scene::new(8, 6000);
    begin_wait(&mut scene, 3600);
    let expires_at = scene.wall(11) + TimeDelta::nanoseconds(7);
    let now = scene.now();
    scene.queue.enqueue("a/odd".into(), request("a", "odd", Some(expires_at)), now);
    scene.passed += Duration::from_secs(1);
    let now = scene.now();
    let admissions = scene.queue.admit(now);
    let again = admissions.again.expect("an instant");
    scene.passed = again.saturating_duration_since(scene.start);
    assert_eq!(scene.admit(), ["a/odd"], "not an instant later: the caller would ask again without end");
}

#[test]
fn clock_that_is_set_during_a_wait_costs_no_token_and_does_not_end_the_wait() {
    let run = |scene: &mut Scene, seconds| scene.run(Duration::from_secs(seconds), |_, _| Outcome::Succeeded);
    let mut scene = Scene::new(8, 60);
    begin_wait(&mut scene, 3600);
    scene.enqueue("a", "only", 4200);
    run(&mut scene, 60);
    scene.set = TimeDelta::hours(1);
    run(&mut scene, 540);
    let a = seconds(&scene, "a");
    assert!(a.len() == 1 && (300..=302).contains(&a[0]), "half of the ten minutes that it had: {a:?}");

    let mut scene = Scene::new(8, 60);
    begin_wait(&mut scene, 3600);
    run(&mut scene, 60);
    scene.set = TimeDelta::hours(-1);
    scene.enqueue("b", "only", 1800);
    run(&mut scene, 1000);
    let b = seconds(&scene, "b");
    assert!(b.len() == 1 && (930..=932).contains(&b[0]), "half of the 31 minutes that it had: {b:?}");
}

#[test]
fn credential_that_joins_when_a_wait_has_nearly_ended_reports_that_it_was_prolonged() {
    let mut scene = Scene::new(8, 6000);
    scene.enqueue("limited", "one", 7200);
    scene.enqueue("limited", "other", 7200);
    while scene.admitted.len() < 2 {
        scene.admit();
        scene.passed += Duration::from_millis(10);
    }
    scene.passed = Duration::from_secs(1);
    assert_eq!(scene.settle("limited/one", &asked_to_wait(12)).0, Change::Opened);
    scene.passed = Duration::from_secs(4);
    scene.retry("a", "joins");
    assert!(scene.queue.blocked_keys(None, scene.now().monotonic).is_empty(), "9 s are short");
    scene.passed = Duration::from_secs(6);
    assert_eq!(scene.settle("limited/other", &asked_to_wait(3600)).0, Change::None, "5 s after the last report");
    let mut reports = Vec::new();
    while scene.passed < Duration::from_secs(60) {
        let now = scene.now();
        let Admissions { again, reports: is_reported, .. } = scene.queue.admit(now);
        if is_reported {
            reports.push(scene.passed.as_secs());
            assert_eq!(scene.queue.blocked_keys(None, now.monotonic), ["a/joins"]);
        }
        scene.passed = again.expect("the end of the wait").saturating_duration_since(scene.start);
    }
    assert_eq!(reports, [11], "10 s after the last report, once");
}
