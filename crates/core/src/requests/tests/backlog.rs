//! Which of the requests that wait are the queue of the server, and which wait because of their own client.

use super::*;

/// Requests of the client `a/broken` for so many different tokens.
fn enqueue_of_broken(scene: &mut Scene, count: usize) {
    let now = scene.now();
    for number in 0..count {
        let request = Request { content: number.to_string().into(), is_retry: true, ..request("a", "broken", None) };
        scene.queue.enqueue(format!("a/c{number}"), request, now);
    }
}

/// Admits what may be sent now, each with the outcome that `answer` returns. Returns the queue of the server before that
/// ended.
fn pass(scene: &mut Scene, answer: impl Fn(&str) -> Outcome) -> usize {
    let now = scene.now();
    let admitted = scene.queue.admit(now).admitted;
    let backlog = scene.queue.backlog();
    for (key, _) in admitted {
        scene.queue.settle(&key, None, &answer(&key), now);
    }
    scene.passed += Duration::from_millis(250);
    backlog
}

#[test]
fn requests_that_wait_because_of_failures_of_their_own_client_are_no_queue() {
    let mut scene = Scene::new(8, 60);
    let is_broken = |name: &str| name.starts_with("a/");
    let good = |name: &str| if is_broken(name) { failed(Reason::InvalidClient) } else { Outcome::Succeeded };
    // its circuit opens after five of them, one a second
    for step in 0..400 {
        enqueue_of_broken(&mut scene, 100);
        let backlog = pass(&mut scene, good);
        assert!(step < 40 || backlog == 0, "{backlog} in step {step}");
    }
    assert!(scene.queue.len() >= 99);

    // others wait for the rate
    (0..3).for_each(|number| scene.enqueue("b", &format!("c{number}"), 3600));
    assert_eq!(scene.queue.backlog(), 3);
    for _ in 0..40 {
        pass(&mut scene, good);
    }
    assert_eq!(scene.queue.backlog(), 0);

    // and where the server asks all clients to wait
    scene.enqueue("limited", "client", 7200);
    for _ in 0..40 {
        pass(&mut scene, |name| {
            let failure = Failure::new(Reason::RateLimited, "because");
            let server_wait = Some(TimeDelta::hours(1));
            if is_broken(name) { good(name) } else { Outcome::Failed { failure, server_wait, is_outage: false } }
        });
    }
    scene.enqueue("b", "waits", 7200);
    let last = (0..40).map(|_| pass(&mut scene, good)).last();
    assert_eq!(last, Some(1));
}

#[test]
fn requests_that_wait_for_a_server_that_is_down_are_its_queue() {
    let mut scene = Scene::new(8, 6000);
    for _ in 0..40 {
        enqueue_of_broken(&mut scene, 10);
        pass(&mut scene, |_| failed(Reason::Timeout));
    }
    assert!(scene.queue.is_open(), "the only client fails");
    enqueue_of_broken(&mut scene, 10);
    assert_eq!((scene.queue.len(), scene.queue.backlog()), (10, 10));
}
