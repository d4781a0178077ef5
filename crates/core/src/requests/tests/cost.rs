//! The cost of a request hardly depends on how many others wait.

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

#[test]
fn cost_of_a_request_does_not_grow_with_the_number_of_those_that_wait() {
    let (few, many) = (cost(1000), cost(32_000));
    // a scan of all would cost 32 times as much
    assert!(many < few * 5, "{few:?} with a thousand, {many:?} with 32 thousand");
}
