//! Which request is sent as a probe while a circuit is open.

use super::*;

#[test]
fn client_with_an_open_circuit_sends_probes_only() {
    let mut scene = Scene::new(8, 6000);
    for number in 0..100 {
        let request = Request { content: number.to_string().into(), ..request("a", "broken", None) };
        let now = scene.now();
        scene.queue.enqueue(format!("a/c{number}"), request, now);
    }
    scene.enqueue("b", "good", 60);
    let mut sent = 0;
    let end = Duration::from_secs(65);
    while scene.passed < end {
        let now = scene.now();
        for (name, _) in scene.queue.admit(now).admitted {
            let good = name == "b/good";
            sent += u32::from(!good);
            let outcome = if good { Outcome::Succeeded } else { failed(Reason::ServerError) };
            let now = scene.now();
            scene.queue.settle(&name, None, &outcome, now);
            if !good {
                let number = name.trim_start_matches("a/c").to_owned();
                let request = Request { content: number.into(), is_retry: true, ..request("a", "broken", None) };
                scene.queue.enqueue(name, request, now);
            }
        }
        scene.passed += Duration::from_millis(50);
    }
    assert!((9..=14).contains(&sent), "five, those in flight, then probes after 2, 4, 8, 16 and 30 s: {sent}");
    assert!(!scene.queue.is_open(), "requests of others are not delayed");
    assert!(scene.queue.blocked(&request("a", "broken", None).requester, scene.now().monotonic).is_some());

    // another version of the client Secret resets the circuit
    let changed = Request { client_version: Some("2".into()), ..request("a", "broken", None) };
    let now = scene.now();
    scene.queue.enqueue("a/c0".into(), changed, now);
    assert!(!scene.queue.admit(now).admitted.is_empty());
}

#[test]
fn token_that_would_expire_gets_an_urgent_probe_while_the_circuit_is_open() {
    let mut scene = Scene::new(8, 6000);
    for round in 0..8 {
        ["a", "b"].iter().for_each(|namespace| scene.retry(namespace, "down"));
        let end = if round < 3 { 1 } else { 20 };
        scene.run(Duration::from_secs(end), |_, _| failed(Reason::Timeout));
    }
    assert!(scene.queue.is_open());
    scene.retry("a", "down");
    scene.enqueue("c", "later", 3600);
    assert!(scene.admit().is_empty(), "no token expires before the next probe");
    scene.enqueue("c", "soon", 10);
    scene.passed += Duration::from_secs(3);
    let admitted = scene.admit();
    assert_eq!(admitted, ["c/soon"]);
    assert_eq!(scene.settle("c/soon", &Outcome::Succeeded).0, Change::Closed);
}

#[test]
fn probe_is_of_the_client_that_succeeded_last() {
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
    scene.retry("z", "never-succeeded");
    scene.enqueue("z", "three", 3600);
    scene.passed += Duration::from_secs(3);
    assert_eq!(scene.admit(), ["z/three"], "one probe, of a successful client");
}

#[test]
fn circuit_that_one_tenant_opened_holds_up_no_other_one() {
    let mut scene = Scene::new(8, 6000);
    // as after a start: no other client is known
    for _ in 0..8 {
        scene.retry("noisy", "down");
        scene.run(Duration::from_secs(5), |_, _| failed(Reason::ServerError));
    }
    assert!(scene.queue.is_open());
    scene.retry("noisy", "down");
    scene.enqueue("quiet", "only", 3600);
    assert_eq!(scene.queue.blocked(&request("quiet", "only", None).requester, scene.now().monotonic), None);
    assert_eq!(scene.admit(), ["quiet/only"], "immediately, and the client that fails waits for its own circuit");
    assert_eq!(scene.settle("quiet/only", &Outcome::Succeeded).0, Change::None, "it was not open any more");
    scene.run(Duration::from_secs(60), |scene, name| {
        scene.again.push((name.to_owned(), Request { is_retry: true, ..request("noisy", "down", None) }));
        failed(Reason::ServerError)
    });
    assert!(!scene.queue.is_open(), "a client that succeeded is known");
}

#[test]
fn requests_that_are_never_sent_close_the_circuit_once() {
    let mut scene = Scene::new(8, 6000);
    for _ in 0..8 {
        scene.retry("noisy", "down");
        scene.run(Duration::from_secs(5), |_, _| failed(Reason::ServerError));
    }
    assert!(scene.queue.is_open());
    // its authority does not allow this namespace, which shows only when its turn has come
    let (mut closed, mut failures) = (0, 0);
    for _ in 0..180 {
        scene.retry("noisy", "down");
        let was_open = scene.queue.is_open();
        scene.enqueue("barred", "only", 3600);
        closed += u32::from(was_open && !scene.queue.is_open());
        let mut names = scene.admit();
        // it has left when the failure of the other one arrives
        names.sort_unstable();
        for name in names {
            let is_barred = name == "barred/only";
            failures += u32::from(!is_barred);
            let outcome = if is_barred { Outcome::NotSent } else { failed(Reason::ServerError) };
            scene.settle(&name, &outcome);
        }
        scene.passed += Duration::from_secs(1);
    }
    assert!(failures >= 3 && scene.queue.is_open(), "{failures} failures");
    assert_eq!(closed, 1);
}

#[test]
fn probe_that_fails_is_followed_by_one_of_another_client() {
    let mut scene = Scene::new(8, 6000);
    for (namespace, name) in [("good", "one"), ("bad", "two")] {
        scene.enqueue(namespace, name, 60);
        scene.run(Duration::from_millis(10), |_, _| Outcome::Succeeded);
    }
    for _ in 0..6 {
        scene.retry("good", "one");
        scene.retry("bad", "two");
        scene.run(Duration::from_millis(10), |_, _| failed(Reason::Timeout));
    }
    assert!(scene.queue.is_open());
    // the client that succeeded last still fails; the server serves the other one again
    let mut closed = None;
    for second in 0..60 {
        scene.retry("bad", "two");
        scene.retry("good", "one");
        for name in scene.admit() {
            let outcome = if name == "good/one" { Outcome::Succeeded } else { failed(Reason::Timeout) };
            if scene.settle(&name, &outcome).0 == Change::Closed {
                closed.get_or_insert(second);
            }
        }
        scene.passed += Duration::from_secs(1);
    }
    assert!(closed.is_some_and(|second| second < 15), "{closed:?}");
}

#[test]
fn urgent_probes_are_round_robin_by_namespace() {
    let mut scene = Scene::new(8, 6000);
    for _ in 0..8 {
        ["a", "b"].iter().for_each(|namespace| scene.retry(namespace, "down"));
        scene.run(Duration::from_secs(5), |_, _| failed(Reason::Timeout));
    }
    assert!(scene.queue.is_open());
    for number in 0..40 {
        scene.enqueue("crowd", &format!("c{number}"), 10 + number / 20);
    }
    scene.enqueue("quiet", "only", 14);
    let mut probes = Vec::new();
    for _ in 0..14 {
        for name in scene.admit() {
            probes.push(name.clone());
            scene.settle(&name, &failed(Reason::Timeout));
        }
        scene.passed += Duration::from_millis(500);
    }
    // a regular probe of the crowd, an urgent one, and then one of the other namespace
    assert!(probes.iter().take(3).any(|name| name == "quiet/only"), "{probes:?}");
}

#[test]
fn urgent_probes_are_round_robin_in_each_round() {
    let mut scene = Scene::new(8, 6000);
    for _ in 0..8 {
        ["a", "b"].iter().for_each(|namespace| scene.retry(namespace, "down"));
        scene.run(Duration::from_secs(5), |_, _| failed(Reason::Timeout));
    }
    // until the open interval is the longest and has just begun
    for number in 0..6 {
        scene.retry("a", &format!("another-{number}"));
        let mut probes = scene.admit();
        while probes.is_empty() {
            scene.passed += Duration::from_millis(100);
            probes = scene.admit();
        }
        probes.iter().for_each(|name| drop(scene.settle(name, &failed(Reason::Timeout))));
    }
    assert!(scene.queue.is_open());
    (0..40).for_each(|number| scene.enqueue("crowd", &format!("c{number}"), 34));
    ["one", "two"].iter().for_each(|name| scene.enqueue("quiet", name, 34));
    let mut probes = Vec::new();
    for _ in 0..20 {
        for name in scene.admit() {
            probes.push(name.clone());
            scene.settle(&name, &failed(Reason::Timeout));
        }
        scene.passed += Duration::from_millis(500);
    }
    assert_eq!(probes[..4], ["crowd/c0", "quiet/one", "crowd/c1", "quiet/two"]);
}

#[test]
fn half_open_probes_are_round_robin_by_namespace() {
    let mut scene = Scene::new(8, 6000);
    scene.enqueue("good", "one", 60);
    scene.run(Duration::from_millis(10), |_, _| Outcome::Succeeded);
    ["good", "bad"].iter().for_each(|namespace| scene.enqueue(namespace, "down", 60));
    scene.run(Duration::from_millis(10), |_, _| Outcome::Succeeded);
    for number in 0..10 {
        scene.enqueue("bad", &format!("c{number}"), 60);
        scene.run(Duration::from_millis(10), |_, _| Outcome::Succeeded);
    }
    for _ in 0..6 {
        ["good", "bad"].iter().for_each(|namespace| scene.retry(namespace, "down"));
        scene.run(Duration::from_millis(10), |_, _| failed(Reason::Timeout));
    }
    assert!(scene.queue.is_open());
    (0..10).for_each(|number| scene.enqueue("bad", &format!("c{number}"), 3600));
    scene.enqueue("good", "one", 3600);
    // ten clients of one namespace succeeded last, and the server serves only the other namespace again
    let mut closed = None;
    for second in 0..60 {
        for name in scene.admit() {
            let outcome = if name == "good/one" { Outcome::Succeeded } else { failed(Reason::Timeout) };
            if scene.settle(&name, &outcome).0 == Change::Closed {
                closed.get_or_insert(second);
            }
        }
        scene.passed += Duration::from_secs(1);
    }
    assert!(closed.is_some_and(|second| second < 15), "{closed:?}");
}

#[test]
fn requests_that_are_parked_cost_their_namespace_no_turn() {
    let mut scene = Scene::new(8, 6000);
    for _ in 0..5 {
        scene.retry("a", "broken");
        scene.run(Duration::from_millis(20), |_, _| failed(Reason::InvalidClient));
    }
    let now = scene.now();
    for number in 0..300 {
        let content = number.to_string().into();
        let broken = Request { content, is_retry: true, ..request("a", "broken", None) };
        scene.queue.enqueue(format!("a/{number}"), broken, now);
        scene.retry("b", &format!("c{number}"));
    }
    scene.retry("a", "good");
    let mut turns = Vec::new();
    while turns.len() < 4 {
        for name in scene.admit() {
            scene.settle(&name, &Outcome::Succeeded);
            turns.push(name);
        }
        scene.passed += Duration::from_millis(10);
    }
    assert!(turns.iter().any(|name| name == "a/good"), "within two rounds: {turns:?}");
}
