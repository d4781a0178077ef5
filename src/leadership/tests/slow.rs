//! An API server that answers each call, but late.

use super::*;

/// Each call is carried out after half of this, and answered after all of it.
fn slow(latency: Duration) -> Fault {
    Fault { before: latency / 2, after: Some(latency / 2), ..Fault::NONE }
}

/// The longest time until a replica is elected where there is no Lease: a read that is cut, another one, and a write.
fn election(latency: Duration) -> Duration {
    Duration::from_secs(2) + latency * 2 + Duration::from_millis(100)
}

/// Asserts for a minute that this fence holds and that the other one does not.
async fn leads_for_a_minute(leader: &LeadershipFence, other: &LeadershipFence) {
    let began = Instant::now();
    while began.elapsed() < LONG {
        assert!(leader.holds() && !other.holds(), "after {:?}", began.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn replica_is_elected_and_goes_on_to_lead_where_every_call_takes_seconds() {
    for latency in [2_100, 3_000, 4_500].map(Duration::from_millis) {
        let server = Server::default();
        let mut leader = Replica::start_with(&server, "a", move |_| slow(latency));
        let took = leader.elected().await;
        assert!(took <= election(latency), "{took:?} with {latency:?}");
        let standby = Replica::start_with(&server, "b", move |_| slow(latency));
        leads_for_a_minute(&leader.fence, &standby.fence).await;
        assert!(!leader.elector.has_ended() && leader.counted("get", "timeout"), "with {latency:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn replica_is_elected_and_goes_on_to_lead_where_only_writes_take_seconds() {
    for latency in [2_100, 3_000, 4_500].map(Duration::from_millis) {
        let server = Server::default();
        let writes = move |verb: &str| if matches!(verb, "create" | "update") { slow(latency) } else { Fault::NONE };
        let mut leader = Replica::start_with(&server, "a", writes);
        let took = leader.elected().await;
        assert!(took <= election(latency), "{took:?} with {latency:?}");
        let standby = Replica::start_with(&server, "b", writes);
        leads_for_a_minute(&leader.fence, &standby.fence).await;
        assert!(!leader.elector.has_ended() && leader.counted("create", "timeout"), "with {latency:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn killed_leader_is_replaced_where_every_call_takes_seconds() {
    let latency = Duration::from_secs(3);
    let server = Server::default();
    let mut leader = Replica::start_with(&server, "a", move |_| slow(latency));
    leader.elected().await;
    let mut standby = Replica::start_with(&server, "b", move |_| slow(latency));
    sleep(LONG).await;
    let Replica { elector, fence, .. } = leader;
    drop(elector);
    let took = standby.elected().await;
    // the last renewal is still carried out; a read that shows it, after one that just missed it; the Lease; and a write
    assert!(took <= Duration::from_millis(3_850) + LEASE + latency * 3, "{took:?}");
    leads_for_a_minute(&standby.fence, &fence).await;
}

/// The same without watches.
fn slow_without_watches(latency: Duration) -> impl Fn(&str) -> Fault + Send + Sync + 'static {
    move |verb: &str| match verb {
        "watch" => Fault { refused: Some(403), ..Fault::NONE },
        _ => slow(latency),
    }
}

/// The longest time from the end of a leader to the next one, without watches. A standby reads again and again, and the
/// leader ends at different times between two reads.
async fn longest_failover(latency: Duration) -> Duration {
    let mut longest = Duration::ZERO;
    for kill_after in (0..30_000).step_by(300).map(Duration::from_millis) {
        let server = Server::default();
        let mut leader = Replica::start_with(&server, "a", slow_without_watches(latency));
        leader.elected().await;
        let mut standby = Replica::start_with(&server, "b", slow_without_watches(latency));
        sleep(LONG + kill_after).await;
        drop(leader);
        longest = longest.max(standby.elected().await);
    }
    longest
}

#[tokio::test(start_paused = true)]
async fn killed_leader_is_replaced_within_twenty_seconds_where_every_call_takes_almost_two() {
    let took = longest_failover(Duration::from_millis(1_900)).await;
    assert!(took <= Duration::from_secs(20), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn killed_leader_is_replaced_where_every_call_takes_seconds_and_watches_are_refused() {
    let latency = Duration::from_millis(4_500);
    let took = longest_failover(latency).await;
    // one read just misses the last renewal, and after a second another one shows it; the Lease; and a write
    assert!(took <= latency + Duration::from_millis(1_100) + latency + LEASE + latency, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn lease_is_taken_once_it_is_free_although_a_read_is_under_way() {
    for latency in [3_000, 4_000, 4_500].map(Duration::from_millis) {
        let server = Server::default();
        server.put(&json!({"holderIdentity": "dead", "leaseDurationSeconds": 12}));
        let took = Replica::start_with(&server, "b", slow_without_watches(latency)).elected().await;
        // the first read is cut, and the second one shows the Lease
        let (observed, slack) = (Duration::from_secs(2) + latency, Duration::from_millis(100));
        assert!(took <= observed + LEASE + latency + slack, "{took:?} with {latency:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn someone_leads_again_after_calls_have_become_slow() {
    let server = Server::default();
    let began = Instant::now();
    let becomes_slow = move |_: &str| match began.elapsed() < Duration::from_secs(30) {
        true => Fault::NONE,
        false => slow(Duration::from_secs(3)),
    };
    let mut first = Replica::start_with(&server, "a", becomes_slow);
    first.elected().await;
    let mut second = Replica::start_with(&server, "b", becomes_slow);
    sleep(Duration::from_secs(30)).await;
    // the first late answer is not waited for, and the next ones do not come before the fence ends
    assert_eq!(first.elector.lost().await, "the Lease could not be renewed in time");
    let took = second.elected().await;
    assert!(took < Duration::from_secs(20), "{took:?}");
    leads_for_a_minute(&second.fence, &first.fence).await;
}

#[tokio::test(start_paused = true)]
async fn call_has_the_shorter_deadline_again_after_one_that_was_fast() {
    let server = Server::default();
    let began = Instant::now();
    // slow until 20 s, fast until 30 s, then lost
    let faults = move |_: &str| match began.elapsed().as_secs() {
        ..20 => slow(Duration::from_secs(3)),
        20..30 => Fault::NONE,
        _ => Fault { after: None, ..Fault::NONE },
    };
    let mut leader = Replica::start_with(&server, "a", faults);
    leader.elected().await;
    sleep(Duration::from_secs(30).saturating_sub(began.elapsed())).await;
    let since = Instant::now();
    while server.calls_since(since).is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_millis(2_100)).await;
    assert_eq!(server.calls_since(since), ["update", "get"], "a renewal that is lost is followed by a read after 2 s");
}
