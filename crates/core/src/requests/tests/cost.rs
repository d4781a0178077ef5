//! The cost of a request hardly depends on how many others wait, nor that of the queue length on those in flight.

use super::*;

/// The time in which one of this many requests is admitted and settled: the better of two runs.
fn cost(count: u32) -> Duration {
    let once = || {
        let mut scene = Scene::new(8, 6_000_000);
        for number in 0..count {
            scene.enqueue(&format!("n{}", number % 100), &format!("c{number}"), i64::from(number) + 60);
        }
        let (now, began) = (scene.now(), Instant::now());
        while !scene.queue.is_empty() {
            let admitted = scene.queue.admit(now).admitted;
            assert!(!admitted.is_empty(), "the rate suffices for all");
            for (key, _) in admitted {
                scene.queue.settle(&key, None, &Outcome::Succeeded, now);
            }
        }
        began.elapsed() / count
    };
    once().min(once())
}

/// The time in which the queue length is found with so many requests in flight, while a thousand clients fail.
fn cost_of_backlog(in_flight: usize) -> Duration {
    const FAILING: usize = 1000;
    let mut scene = Scene::new(u16::MAX, 6_000_000);
    let enqueue = |scene: &mut Scene, kind: &str, count: usize| {
        (0..count).for_each(|number| scene.enqueue(&format!("{kind}{}", number % 100), &format!("c{number}"), 3600));
    };
    for _ in 0..5 {
        enqueue(&mut scene, "failing", FAILING);
        let now = scene.now();
        for (key, _) in scene.queue.admit(now).admitted {
            scene.queue.settle(&key, None, &failed(Reason::InvalidClient), now);
        }
    }
    enqueue(&mut scene, "failing", FAILING);
    enqueue(&mut scene, "good", in_flight);
    let now = scene.now();
    assert_eq!(scene.queue.admit(now).admitted.len(), in_flight, "the others wait for their own clients");
    assert_eq!(scene.queue.len(), FAILING);
    let find = || {
        let began = Instant::now();
        assert_eq!(scene.queue.backlog(), 0);
        began.elapsed()
    };
    (0..5).map(|_| find()).min().unwrap_or_default()
}

#[test]
fn cost_of_the_queue_length_is_no_product_of_failing_clients_and_requests_in_flight() {
    let (few, many) = (cost_of_backlog(10), cost_of_backlog(2000));
    // the product would be 200 times as much
    assert!(many < few * 20, "{few:?} with ten in flight, {many:?} with two thousand");
}

#[test]
fn cost_of_a_request_does_not_grow_with_the_number_of_those_that_wait() {
    let (few, many) = (cost(1000), cost(32_000));
    // a scan of all would cost 32 times as much
    assert!(many < few * 5, "{few:?} with a thousand, {many:?} with 32 thousand");
}
