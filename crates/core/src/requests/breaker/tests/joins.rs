//! What a client that asks for a request while the circuit of the server is open changes, and what it does not.

use super::*;

#[test]
fn circuit_that_one_tenant_opened_closes_when_another_one_asks() {
    let (one, other, neighbor) = (client("a", "one"), client("a", "other"), client("b", "neighbor"));
    let mut scene = Scene::with(&[&one]);
    scene.fail(&one, Reason::ServerError, 5);
    assert!(scene.is_open() && !scene.joins(&one), "it is the client that fails");
    assert!(scene.joins(&neighbor) && !scene.is_open());
    assert!(scene.breaker.client_open_until(&one, scene.at(1).monotonic).is_some(), "its own circuit stays open");
    scene.fail(&one, Reason::ServerError, 50);
    assert!(!scene.is_open(), "the neighbor waits");
    scene.fail(&neighbor, Reason::ServerError, 1);
    assert!(scene.is_open(), "the server is down");
    assert!(!scene.joins(&client("c", "third")) && scene.is_open(), "two tenants failed");

    let mut scene = Scene::with(&[&one, &other]);
    scene.record(&one, &Outcome::Succeeded, 0);
    scene.record(&other, &Outcome::Succeeded, 0);
    scene.fail(&one, Reason::ServerError, 4);
    scene.fail(&other, Reason::ServerError, 1);
    assert!(scene.is_open() && !scene.joins(&client("a", "third")), "two of the only tenant failed");
    assert!(scene.joins(&neighbor), "it is the only one no longer");
}

#[test]
fn circuit_that_a_newcomer_closed_opens_when_that_one_fails_whatever_other_clients_are_idle() {
    let (one, other, idle) = (client("a", "one"), client("a", "other"), client("a", "idle"));
    let (neighbor, next) = (client("b", "neighbor"), client("b", "next"));
    let mut scene = Scene::with(&[&one, &other]);
    for client in [&one, &other, &idle] {
        scene.record(client, &Outcome::Succeeded, 0);
    }
    scene.fail(&one, Reason::ServerError, 4);
    scene.fail(&other, Reason::ServerError, 1);
    assert!(scene.is_open(), "two of the only tenant failed");
    assert!(scene.joins(&neighbor) && !scene.is_open());
    assert!(!scene.joins(&next), "it is closed");
    scene.fail(&one, Reason::ServerError, 5);
    assert!(!scene.is_open(), "the neighbor waits");
    scene.fail(&neighbor, Reason::ServerError, 1);
    assert!(scene.is_open(), "the server is down");

    // whether that is one client of another tenant is known once the server responds to anyone
    let good = client("b", "good");
    let mut scene = Scene::with(&[&one, &other]);
    for client in [&one, &other, &good] {
        scene.record(client, &Outcome::Succeeded, 0);
    }
    scene.fail(&one, Reason::ServerError, 50);
    scene.fail(&other, Reason::ServerError, 50);
    assert!(!scene.is_open(), "another tenant has a client that succeeded");
    scene.fail(&neighbor, Reason::ServerError, 1);
    assert!(scene.is_open(), "clients of two tenants fail, and no one gets a response");
    assert_eq!(scene.record(&good, &Outcome::Succeeded, 0), Change::Closed);
    [&one, &other, &neighbor].iter().for_each(|client| scene.fail(client, Reason::ServerError, 50));
    assert!(!scene.is_open(), "these clients fail, and not the server");
}

#[test]
fn namespace_whose_requests_are_never_sent_closes_the_circuit_once_in_an_outage() {
    let (one, neighbor, next) = (client("a", "one"), client("b", "neighbor"), client("b", "next"));
    let mut scene = Scene::with(&[&one]);
    scene.fail(&one, Reason::Timeout, 5);
    let mut closed = 0;
    for _ in 0..20 {
        closed += u32::from(scene.joins_and_leaves(&neighbor));
        closed += u32::from(scene.joins_and_leaves(&next));
        scene.fail(&one, Reason::Timeout, 1);
        assert!(scene.is_open(), "the only client that asks fails");
    }
    assert_eq!(closed, 1);
    assert!(scene.joins_and_leaves(&client("c", "third")), "another namespace may be served");
    scene.fail(&one, Reason::Timeout, 1);

    // the next outage is another one
    assert_eq!(scene.record(&one, &Outcome::Succeeded, 0), Change::Closed);
    scene.fail(&one, Reason::Timeout, 5);
    assert!(scene.is_open() && scene.joins_and_leaves(&neighbor));
}

#[test]
fn failing_tenant_closes_the_circuit_with_its_second_client_only() {
    let one = client("a", "one");
    let mut scene = Scene::with(&[&one]);
    scene.fail(&one, Reason::Timeout, 5);
    let joined: Vec<bool> = (0..20)
        .map(|number| {
            let closes = scene.joins_and_leaves(&client("a", &format!("c{number}")));
            scene.fail(&one, Reason::Timeout, 1);
            closes
        })
        .collect();
    assert_eq!(joined.iter().position(|closes| *closes), Some(0), "it is the only client no longer");
    assert!(joined.iter().skip(1).all(|closes| !closes) && scene.is_open());

    // only one of the two that fail succeeded before, so that the third one would be news
    let other = client("a", "other");
    let mut scene = Scene::with(&[&one, &other]);
    scene.record(&one, &Outcome::Succeeded, 0);
    scene.fail(&one, Reason::Timeout, 4);
    scene.fail(&other, Reason::Timeout, 1);
    assert!(scene.is_open() && !scene.joins(&client("a", "third")), "two of its clients failed");
    assert!(scene.is_open());
}

#[test]
fn circuit_that_opens_again_in_the_same_outage_keeps_its_interval() {
    let (one, neighbor) = (client("a", "one"), client("b", "neighbor"));
    let mut scene = Scene::with(&[&one]);
    scene.fail(&one, Reason::Timeout, 5);
    // three probes fail: after 2, 4 and 8 s
    for second in [2, 6, 14] {
        let now = scene.at(second * 1000).monotonic;
        assert_eq!(scene.breaker.gate(now), Gate::HalfOpen);
        scene.breaker.admitted(&one, now);
        scene.record(&one, &failed(Reason::Timeout), second * 1000);
    }
    let opens_until = |scene: &Scene, at: u64| match scene.breaker.gate(scene.at(at).monotonic) {
        Gate::Open { until, .. } => until.map(|until| until - scene.start),
        Gate::Closed | Gate::HalfOpen => None,
    };
    assert_eq!(opens_until(&scene, 14_000), Some(Duration::from_secs(30)));
    assert!(scene.joins(&neighbor) && !scene.is_open());
    scene.record(&neighbor, &failed(Reason::Timeout), 20_000);
    assert_eq!(opens_until(&scene, 20_000), Some(Duration::from_secs(36)), "16 s, as before");

    scene.record(&one, &Outcome::Succeeded, 40_000);
    scene.waiting.remove(&neighbor);
    for _ in 0..5 {
        scene.record(&one, &failed(Reason::Timeout), 50_000);
    }
    assert_eq!(opens_until(&scene, 50_000), Some(Duration::from_secs(52)), "the next outage begins with 2 s");
}
