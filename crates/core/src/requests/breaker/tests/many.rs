//! Thousands of clients: more than are remembered as successful, and tenants with hundreds that never work.

use super::*;

const CLIENTS: usize = 2000;
const NAMESPACES: usize = 20;

/// Clients of several tenants, in the order in which their tokens are due.
fn working() -> Vec<Requester> {
    (0..CLIENTS).map(|number| client(&format!("n{}", number % NAMESPACES), &format!("c{number}"))).collect()
}

/// More clients than are remembered, of so many tenants.
fn too_many(namespaces: usize) -> Vec<Requester> {
    (0..6000).map(|number| client(&format!("n{}", number % namespaces), &format!("c{number}"))).collect()
}

/// Hundreds of clients of one tenant.
fn of_one_tenant() -> Vec<Requester> {
    (0..400).map(|number| client("broken", &format!("c{number}"))).collect()
}

/// No request waits.
fn idle() -> Scene {
    Scene::with(&[])
}

impl Scene {
    /// The request of a client joins, is sent and ends.
    fn ends(&mut self, requester: &Requester, outcome: &Outcome) -> Change {
        self.ends_at(requester, outcome, 0)
    }

    fn ends_at(&mut self, requester: &Requester, outcome: &Outcome, millisecond: u64) -> Change {
        self.joins(requester);
        let change = self.record(requester, outcome, millisecond);
        self.waiting.remove(requester);
        change
    }

    fn succeed<'a>(&mut self, clients: impl IntoIterator<Item = &'a Requester>) {
        for client in clients {
            self.ends(client, &Outcome::Succeeded);
        }
    }

    /// One request of each client fails, until the circuit of the server is open. Returns how many failed before that.
    fn outage(&mut self, clients: &[Requester]) -> Option<usize> {
        clients.iter().position(|client| {
            self.ends(client, &failed(Reason::Timeout));
            self.is_open()
        })
    }
}

#[test]
fn circuit_of_a_dead_server_opens_whichever_of_thousands_of_clients_fail() {
    for clients in [working(), too_many(3), too_many(2000)] {
        // each has a token, the last one since a moment ago; those that are due next got theirs first
        let mut scene = idle();
        scene.succeed(&clients);
        assert_eq!(scene.outage(&clients), Some(THRESHOLD as usize - 1));

        // after a start, most of them requested nothing yet
        let mut scene = idle();
        scene.succeed(clients.iter().rev().take(3));
        assert_eq!(scene.outage(&clients), Some(THRESHOLD as usize - 1));

        // the server is down when the process starts
        assert_eq!(idle().outage(&clients), Some(THRESHOLD as usize - 1));
    }
}

#[test]
fn outages_of_more_clients_than_are_remembered_open_the_circuit_after_five_failures_each_time() {
    let clients = too_many(20);
    for has_failed_probe in [true, false] {
        let mut scene = idle();
        for outage in 0..6 {
            scene.succeed(&clients);
            assert!(!scene.breaker.succeeded.contains(&clients[0]), "it was forgotten");
            assert_eq!(scene.outage(&clients), Some(THRESHOLD as usize - 1), "outage {outage}");
            if has_failed_probe {
                scene.breaker.admitted(&clients[5], scene.at(0).monotonic);
                assert_eq!(scene.ends(&clients[5], &failed(Reason::Timeout)), Change::None);
            }
            assert_eq!(scene.ends(&clients[0], &Outcome::Succeeded), Change::Closed);
        }
    }
}

#[test]
fn few_clients_that_fail_now_and_then_make_no_outage_of_a_mistake() {
    let (good, flaky) = (client("good", "one"), client("n0", "flaky"));
    let mut scene = idle();
    // how many failures open the circuit, before the server responds to another one
    let mut needed = |round: u64| {
        let fails = |number: u64| {
            let newcomer = client(&format!("n{}", number % 2), &format!("{round}-{number}"));
            if number == 0 { flaky.clone() } else { newcomer }
        };
        let opens = (0..20).position(|number| {
            scene.ends(&fails(number), &failed(Reason::Timeout));
            scene.is_open()
        });
        scene.ends(&good, &Outcome::Succeeded);
        scene.ends(&flaky, &Outcome::Succeeded);
        for _ in 0..3 {
            scene.ends(&flaky, &failed(Reason::Timeout));
            scene.ends(&good, &Outcome::Succeeded);
            scene.ends(&flaky, &Outcome::Succeeded);
        }
        opens.map(|place| place + 1)
    };
    assert_eq!([needed(0), needed(1), needed(2)], [Some(5), Some(10), Some(20)]);
}

#[test]
fn hundreds_of_broken_clients_of_one_tenant_open_no_circuit_for_thousands_of_others() {
    let (clients, broken) = (working(), of_one_tenant());
    let mut scene = idle();
    // after a start, while no other one asks: until the first one does
    assert!(scene.outage(&broken).is_some());
    assert!(scene.joins(&clients[0]) && !scene.is_open());
    assert_eq!(scene.ends(&clients[0], &Outcome::Succeeded), Change::None);
    // they fail again and again while some of the others get tokens, or none is due
    for due in clients.chunks(CLIENTS / 4) {
        assert_eq!(scene.outage(&broken), None);
        scene.succeed(due);
        assert_eq!(scene.outage(&broken), None);
    }
    // and the server is found to be down although they failed all the time
    assert!(scene.outage(&clients).is_some_and(|failures| failures < THRESHOLD as usize));
}

#[test]
fn few_broken_clients_of_several_tenants_open_the_circuit_twice_at_most() {
    let clients = working();
    let mut broken = of_one_tenant().split_off(350);
    broken.extend((0..10).map(|number| client(&format!("n{number}"), "broken")));
    for is_any_known in [false, true] {
        let mut scene = idle();
        if is_any_known {
            scene.succeed(&clients);
        }
        let mut opened = 0;
        for good in &clients[..20] {
            opened += u32::from(scene.outage(&broken).is_some());
            scene.ends(good, &Outcome::Succeeded);
            assert!(!scene.is_open());
        }
        assert!((1..=2).contains(&opened), "after responses to others they are known to fail by themselves: {opened}");
        assert!(scene.outage(&clients[20..]).is_some(), "others still show that the server is down");
    }
}

#[test]
fn broken_client_counts_again_after_it_succeeded() {
    let (one, other, good) = (client("a", "one"), client("c", "other"), client("b", "good"));
    let mut scene = Scene::with(&[&one, &other, &good]);
    scene.fail(&one, Reason::Timeout, 1);
    scene.record(&good, &Outcome::Succeeded, 0);
    scene.fail(&one, Reason::Timeout, 50);
    scene.fail(&other, Reason::Timeout, 50);
    assert!(!scene.is_open(), "one of the two is known to fail by itself");
    scene.record(&one, &Outcome::Succeeded, 0);
    scene.record(&other, &Outcome::Succeeded, 0);
    scene.fail(&one, Reason::Timeout, 4);
    scene.fail(&other, Reason::Timeout, 1);
    assert!(scene.is_open());
}

#[test]
fn hundreds_of_broken_clients_of_two_tenants_open_the_circuit_a_few_times_after_a_start() {
    let clients = working();
    let broken: Vec<Requester> =
        (0..800).map(|number| client(&format!("broken-{}", number % 2), &format!("c{number}"))).collect();
    // in two hours with a request each second, one of so many is of a client that works
    for each in [11, 41] {
        let mut scene = idle();
        let (mut good, mut bad) = (clients.iter(), broken.iter().cycle());
        let (mut opened, mut met) = (0, 0);
        for second in 0..7200_u64 {
            let (now, was_open) = (second * 1000, scene.is_open());
            if second % each == each - 1 {
                met += u32::from(was_open);
                scene.ends_at(good.next().expect("enough"), &Outcome::Succeeded, now);
                continue;
            }
            let (failing, monotonic) = (bad.next().expect("endless"), scene.at(now).monotonic);
            if !matches!(scene.breaker.gate(monotonic), Gate::Open { .. }) {
                scene.breaker.admitted(failing, monotonic);
                scene.ends_at(failing, &failed(Reason::Timeout), now);
            }
            opened += u32::from(!was_open && scene.is_open());
        }
        assert!((1..=4).contains(&opened), "opened {opened} times");
        assert!(met <= 4, "{met} renewals had to wait");
        // and a server that is down is noticed as soon as ever
        assert_eq!(scene.outage(&clients), Some(THRESHOLD as usize - 1));
    }
}

#[test]
fn clients_that_were_never_seen_to_work_need_five_failures_again_after_an_hour_without_any() {
    const HOUR: u64 = 3_600_000;
    let mut scene = idle();
    // how many failures of ten new clients of two tenants open the circuit, before the server responds to another one
    let mut needed = |round: u64, now: u64| {
        let opens = (0..10).position(|number| {
            let newcomer = client(&format!("n{}", number % 2), &format!("{round}-{number}"));
            scene.ends_at(&newcomer, &failed(Reason::Timeout), now);
            scene.is_open()
        });
        scene.ends_at(&client("good", "one"), &Outcome::Succeeded, now);
        opens.map(|place| place + 1)
    };
    assert_eq!(needed(0, 0), Some(5));
    assert_eq!(needed(1, HOUR - 1), Some(10));
    assert_eq!(needed(2, 2 * HOUR - 2), None, "twenty");
    assert_eq!(needed(3, 3 * HOUR), Some(5));
}

#[test]
fn failures_of_a_client_that_fails_by_itself_are_none_of_the_five() {
    let (bad, one, other) = (client("a", "bad"), client("b", "one"), client("c", "other"));
    let mut scene = Scene::with(&[&bad, &one, &other]);
    scene.fail(&bad, Reason::Timeout, 1);
    scene.succeed([&one, &other]);
    scene.waiting = [&bad, &one, &other].map(|client| (client.clone(), 1)).into();
    scene.fail(&bad, Reason::Timeout, 4);
    [&one, &other].iter().for_each(|client| scene.fail(client, Reason::Timeout, 1));
    assert!(!scene.is_open(), "two occasional failures");
    scene.fail(&one, Reason::Timeout, 3);
    assert!(scene.is_open(), "five");
}

#[test]
fn thousands_of_failing_clients_of_one_tenant_crowd_out_no_failure_of_another_one() {
    let (bad, fine, good) = (client("b", "bad"), client("b", "fine"), client("c", "good"));
    let mut scene = Scene::with(&[&good]);
    scene.fail(&bad, Reason::Timeout, 1);
    scene.record(&good, &Outcome::Succeeded, 0);
    scene.fail(&bad, Reason::Timeout, 1);
    (0..FAILING_MAX).for_each(|number| scene.fail(&client("a", &number.to_string()), Reason::Timeout, 1));
    assert!(!scene.is_open(), "of the other tenant, only a client failed that fails by itself");
    scene.fail(&fine, Reason::Timeout, 1);
    assert!(scene.is_open());
}

#[test]
fn failed_probe_of_a_client_that_fails_by_itself_makes_the_open_interval_no_longer() {
    let (bad, one, other) = (client("a", "bad"), client("b", "one"), client("c", "other"));
    let mut scene = Scene::with(&[&bad, &one, &other]);
    scene.fail(&bad, Reason::Timeout, 1);
    for client in [&one, &other] {
        scene.record(client, &Outcome::Succeeded, 0);
    }
    scene.fail(&one, Reason::Timeout, 4);
    scene.fail(&other, Reason::Timeout, 1);
    let mut open_until = |client: &Requester, second: u64| {
        scene.breaker.admitted(client, scene.at(second * 1000).monotonic);
        scene.record(client, &failed(Reason::Timeout), second * 1000);
        match scene.breaker.gate(scene.at(second * 1000).monotonic) {
            Gate::Open { until, .. } => until.map(|until| (until - scene.start).as_secs()),
            Gate::Closed | Gate::HalfOpen => None,
        }
    };
    assert_eq!([open_until(&bad, 2), open_until(&bad, 4), open_until(&one, 6)], [Some(4), Some(6), Some(10)]);
}
