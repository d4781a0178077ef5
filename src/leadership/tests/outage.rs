//! An API server that refuses each call for a while, or answers none.

use super::*;

#[tokio::test(start_paused = true)]
async fn leader_without_answers_steps_down_before_its_lease_ends() {
    let server = Server::default();
    let began = Instant::now();
    let silent = move |_: &str| match began.elapsed() < Duration::from_secs(30) {
        true => Fault::NONE,
        false => Fault { after: None, ..Fault::NONE },
    };
    let mut leader = Replica::start_with(&server, "a", silent);
    leader.elected().await;
    assert_eq!(leader.elector.lost().await, "the Lease could not be renewed in time");
    assert!(!leader.fence.holds());
    let ended = began.elapsed();
    assert!((Duration::from_secs(36)..=Duration::from_secs(40)).contains(&ended), "{ended:?}");
    assert!(leader.counted("update", "timeout"));
}

/// A leader goes on to lead although each of its calls fails like this from `from` on, for so long.
async fn goes_on(fault: Fault, from: Duration, long: Duration) {
    let server = Server::default();
    let began = Instant::now();
    let faults = move |_: &str| match (from..from + long).contains(&began.elapsed()) {
        true => fault,
        false => Fault::NONE,
    };
    let mut leader = Replica::start_with(&server, "a", faults);
    leader.elected().await;
    let ends = Instant::now() + LONG;
    while Instant::now() < ends {
        assert!(leader.fence.holds() && !leader.elector.has_ended(), "after {:?}", began.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn leader_whose_calls_are_refused_for_six_seconds_goes_on() {
    // the last renewal was sent 2 s before
    let refused = Fault { refused: Some(503), ..Fault::NONE };
    goes_on(refused, Duration::from_secs(29), Duration::from_millis(6_500)).await;
}

#[tokio::test(start_paused = true)]
async fn leader_whose_calls_are_not_answered_for_six_seconds_goes_on() {
    // right before a renewal, and at any other time between two of them
    for from in (29_900..33_000).step_by(250).map(Duration::from_millis) {
        goes_on(Fault { after: None, ..Fault::NONE }, from, Duration::from_secs(6)).await;
    }
}
