//! Answers to calls about the Lease that are no Lease.

use super::*;

#[tokio::test(start_paused = true)]
async fn answer_that_is_no_lease_is_not_one_without_a_holder() {
    let server = Server::default();
    let mut leader = Replica::start(&server, "a");
    leader.elected().await;
    // a `Status` with HTTP status 200, which decodes as an object without metadata
    let no_lease = |verb: &str| match verb {
        "get" => Fault { refused: Some(200), ..Fault::NONE },
        _ => Fault::NONE,
    };
    let standby = Replica::start_with(&server, "b", no_lease);
    sleep(LONG).await;
    assert!(leader.fence.holds() && !standby.fence.holds());
    assert!(standby.counted("get", "transport") && !standby.counted("get", "success"));
    assert!(!standby.counted("update", "conflict"), "it does not try to take the Lease");
}

#[tokio::test(start_paused = true)]
async fn renewal_whose_answer_is_no_lease_does_not_prolong_the_right_to_write() {
    let server = Server::default();
    let began = Instant::now();
    let no_lease = move |_: &str| match began.elapsed() < Duration::from_secs(10) {
        true => Fault::NONE,
        false => Fault { refused: Some(200), ..Fault::NONE },
    };
    let mut leader = Replica::start_with(&server, "a", no_lease);
    leader.elected().await;
    let lost = timeout(LONG, leader.elector.lost()).await.expect("it gives up");
    assert_eq!(lost, "the Lease could not be renewed in time");
    assert!(leader.counted("update", "transport") && !leader.fence.holds());
}
