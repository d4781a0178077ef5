//! Thousands of clients: more than are remembered as successful, and tenants with hundreds that never work.

use super::*;

const CLIENTS: usize = 2000;
const NAMESPACES: usize = 20;

/// Clients of several tenants, in the order in which their tokens are due.
fn working() -> Vec<Requester> {
    (0..CLIENTS).map(|number| client(&format!("n{}", number % NAMESPACES), &format!("c{number}"))).collect()
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
        self.joins(requester);
        let change = self.record(requester, outcome, 0);
        self.waiting.remove(requester);
        change
    }

    fn succeed<'a>(&mut self, clients: impl IntoIterator<Item = &'a Requester>) {
        for client in clients {
            self.ends(client, &Outcome::Succeeded);
        }
    }

    fn fail_once(&mut self, clients: &[Requester]) {
        for client in clients {
            self.ends(client, &failed(Reason::Timeout));
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
    let clients = working();
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
fn broken_clients_of_several_tenants_open_the_circuit_once_at_most() {
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
            // all of them fail before anyone gets a response
            scene.fail_once(&broken);
            scene.ends(good, &Outcome::Succeeded);
            assert!(!scene.is_open());
        }
        assert_eq!(opened, 1, "after a response to another one they are known to fail by themselves");
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
