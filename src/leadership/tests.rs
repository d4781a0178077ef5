//! The elector over a Lease in memory, in paused time: each wait ends at once, in its order.

mod answers;
mod outage;
mod rivals;
mod server;
mod slow;

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use self::server::{Fault, Server};
use super::{
    elector::{self, Elector},
    fence::LeadershipFence,
    lease::LeaseApi,
};
use crate::{clock::Clock, metrics::Metrics};

const LEASE: Duration = Duration::from_secs(12);
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(false).expect("metrics"))
}

struct Replica {
    elector: Elector,
    fence: LeadershipFence,
    metrics: Arc<Metrics>,
}

impl Replica {
    fn start(server: &Server, identity: &str) -> Self {
        Self::start_with(server, identity, |_| Fault::NONE)
    }

    fn start_with(server: &Server, identity: &str, faults: impl Fn(&str) -> Fault + Send + Sync + 'static) -> Self {
        let (fence, metrics) = (elector::fence(Clock::system()), metrics());
        let client = server.client(Arc::default(), faults);
        let lease = LeaseApi::of(client, metrics.clone());
        let elector = Elector::start(lease, identity.to_owned(), fence.clone());
        Self { elector, fence, metrics }
    }

    /// Waits until it leads; gives how long that took.
    async fn elected(&mut self) -> Duration {
        let began = Instant::now();
        timeout(LONG, self.elector.elected()).await.expect("it is elected").expect("no error");
        assert!(self.fence.holds(), "who leads may write");
        began.elapsed()
    }

    fn counted(&self, verb: &str, result: &str) -> bool {
        let pages: String = self.metrics.pages().expect("metrics").collect();
        let series =
            format!("itwin_kubernetes_requests_total{{resource=\"leases\",result=\"{result}\",verb=\"{verb}\"}}");
        pages.contains(&series)
    }
}

#[tokio::test(start_paused = true)]
async fn first_replica_creates_the_lease_and_renews_it_every_three_seconds() {
    let server = Server::default();
    let mut replica = Replica::start(&server, "a");
    assert!(!replica.fence.holds());
    assert!(replica.elected().await < Duration::from_millis(100));
    let spec = server.spec();
    assert_eq!(spec["holderIdentity"], "a");
    assert_eq!((&spec["leaseDurationSeconds"], &spec["leaseTransitions"]), (&json!(12), &json!(0)));
    let since = Instant::now();
    sleep(LONG).await;
    assert!(replica.fence.holds());
    let calls = server.calls_since(since);
    assert!(calls.iter().all(|verb| *verb == "update"), "a renewal is one call: {calls:?}");
    assert!((19..=20).contains(&calls.len()), "{}", calls.len());
    assert_eq!(server.spec()["acquireTime"], spec["acquireTime"]);
    assert_ne!(server.spec()["renewTime"], spec["renewTime"]);
    assert!(replica.counted("get", "not_found") && replica.counted("create", "success"));
    assert!(replica.counted("update", "success"));
}

#[tokio::test(start_paused = true)]
async fn standby_that_watches_reads_nothing_and_takes_a_released_lease_at_once() {
    let server = Server::default();
    let mut leader = Replica::start(&server, "a");
    leader.elected().await;
    let mut standby = Replica::start(&server, "b");
    sleep(LONG).await;
    let since = Instant::now();
    sleep(LONG * 10).await;
    let calls = server.calls_since(since);
    let count = |verb: &str| calls.iter().filter(|call| **call == verb).count();
    assert_eq!(count("get"), 0, "{calls:?}");
    assert!(count("watch") <= 11 && count("update") <= 201, "{calls:?}");
    assert!(!standby.fence.holds());
    leader.elector.step_down().await;
    assert!(!leader.fence.holds());
    assert!(standby.elected().await < Duration::from_millis(100));
    assert_eq!((&server.spec()["holderIdentity"], &server.spec()["leaseTransitions"]), (&json!("b"), &json!(1)));
    assert!(standby.counted("watch", "success"));
}

/// A standby whose watches fail like this.
async fn reads_without_a_watch(fault: Fault) {
    let server = Server::default();
    let mut leader = Replica::start(&server, "a");
    leader.elected().await;
    let faults = move |verb: &str| if verb == "watch" { fault } else { Fault::NONE };
    let mut standby = Replica::start_with(&server, "b", faults);
    sleep(LONG).await;
    let since = Instant::now();
    sleep(LONG).await;
    let calls = server.calls_since(since);
    let reads = calls.iter().filter(|call| **call == "get").count();
    assert!((15..=20).contains(&reads), "no more than one in 3 s: {calls:?}");
    leader.elector.step_down().await;
    assert_eq!((&server.spec()["holderIdentity"], &server.spec()["leaseDurationSeconds"]), (&json!(""), &json!(1)));
    assert!(standby.elected().await < Duration::from_secs(4));
    drop(standby);
    let began = Instant::now();
    let mut next = Replica::start_with(&server, "c", faults);
    next.elected().await;
    assert!(began.elapsed() <= LEASE + Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn standby_whose_watches_are_refused_reads() {
    reads_without_a_watch(Fault { refused: Some(403), ..Fault::NONE }).await;
}

#[tokio::test(start_paused = true)]
async fn standby_whose_watches_show_nothing_reads() {
    reads_without_a_watch(Fault { after: None, ..Fault::NONE }).await;
}

#[tokio::test(start_paused = true)]
async fn killed_leader_is_replaced_after_its_lease() {
    let server = Server::default();
    let mut leader = Replica::start(&server, "a");
    leader.elected().await;
    let mut standby = Replica::start(&server, "b");
    sleep(LONG).await;
    drop(leader);
    let took = standby.elected().await;
    assert!((LEASE - Duration::from_secs(3)..LEASE + Duration::from_millis(100)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn killed_leader_is_replaced_where_a_cache_shows_what_was_before_a_restore() {
    let server = Server::default();
    let mut leader = Replica::start(&server, "a");
    leader.elected().await;
    let mut standby = Replica::start(&server, "b");
    sleep(LONG / 2).await;
    drop(leader);
    server.restore(5);
    let since = Instant::now();
    let took = standby.elected().await;
    assert!(took < Duration::from_secs(20), "{took:?}");
    let calls = server.calls_since(since);
    assert!(!calls.contains(&"watch"), "no watch is made before the versions have passed: {calls:?}");
}

#[tokio::test(start_paused = true)]
async fn dead_holder_whose_clock_was_ahead_is_replaced_after_its_lease() {
    let server = Server::default();
    let spec = json!({
        "holderIdentity": "dead", "leaseDurationSeconds": i32::MAX, "renewTime": "9999-12-31T23:59:59.999999Z",
    });
    server.put(&spec);
    let took = Replica::start(&server, "b").elected().await;
    assert!((LEASE..Duration::from_secs(16)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn leader_ends_where_another_holds_the_lease() {
    let server = Server::default();
    let mut leader = Replica::start(&server, "a");
    leader.elected().await;
    server.put(&json!({"holderIdentity": "b", "leaseDurationSeconds": 12}));
    assert_eq!(leader.elector.lost().await, "another replica holds the Lease");
    assert!(!leader.fence.holds());
    assert_eq!(server.spec()["holderIdentity"], "b", "it is left alone");
}

#[tokio::test(start_paused = true)]
async fn deleted_lease_is_created_again_by_its_leader() {
    let server = Server::default();
    let mut leader = Replica::start(&server, "a");
    leader.elected().await;
    let standby = Replica::start(&server, "b");
    sleep(LEASE).await;
    server.delete();
    sleep(LONG).await;
    assert_eq!(server.spec()["holderIdentity"], "a");
    assert!(leader.fence.holds() && !standby.fence.holds());
}

#[tokio::test(start_paused = true)]
async fn late_update_does_not_create_a_deleted_lease() {
    let server = Server::default();
    let began = Instant::now();
    let late = move |verb: &str| match verb == "update" && began.elapsed() > Duration::from_secs(10) {
        true => Fault { before: Duration::from_secs(5), ..Fault::NONE },
        false => Fault::NONE,
    };
    let mut leader = Replica::start_with(&server, "a", late);
    leader.elected().await;
    sleep(Duration::from_secs(12)).await;
    // its process is gone, and what it sent is still on its way
    drop(leader);
    server.delete();
    sleep(LONG).await;
    assert!(!server.exists());
}

#[tokio::test(start_paused = true)]
async fn annotation_of_the_lease_by_others_costs_a_read() {
    let server = Server::default();
    let mut leader = Replica::start(&server, "a");
    leader.elected().await;
    server.annotate();
    let since = Instant::now();
    sleep(Duration::from_millis(3500)).await;
    assert_eq!(server.calls_since(since), ["update", "get", "update"]);
    assert!(leader.fence.holds() && leader.counted("update", "conflict"));
}

#[tokio::test(start_paused = true)]
async fn step_down_takes_no_longer_than_its_bound() {
    let server = Server::default();
    let began = Instant::now();
    let silent = move |_: &str| match began.elapsed() < Duration::from_secs(5) {
        true => Fault::NONE,
        false => Fault { after: None, ..Fault::NONE },
    };
    let mut leader = Replica::start_with(&server, "a", silent);
    leader.elected().await;
    sleep(Duration::from_secs(5)).await;
    let asked = Instant::now();
    leader.elector.step_down().await;
    assert!(asked.elapsed() <= Duration::from_secs(3));
    assert!(!leader.fence.holds());
}

#[tokio::test(start_paused = true)]
async fn step_down_does_not_wait_for_a_renewal_that_hangs() {
    let server = Server::default();
    let began = Instant::now();
    // the third renewal
    let hangs = Duration::from_millis(8_900)..Duration::from_millis(9_100);
    let silent = move |verb: &str| match verb == "update" && hangs.contains(&began.elapsed()) {
        true => Fault { after: None, ..Fault::NONE },
        false => Fault::NONE,
    };
    let mut leader = Replica::start_with(&server, "a", silent);
    leader.elected().await;
    sleep(Duration::from_millis(9_200)).await;
    let asked = Instant::now();
    leader.elector.step_down().await;
    assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
    assert_eq!(server.spec()["holderIdentity"], "");
    assert_eq!(server.calls_since(asked), ["get", "update"], "it may have been made");
}

#[tokio::test(start_paused = true)]
async fn standby_that_is_stopped_leaves_the_lease_alone() {
    let server = Server::default();
    let mut leader = Replica::start(&server, "a");
    leader.elected().await;
    let standby = Replica::start(&server, "b");
    sleep(LEASE).await;
    standby.elector.step_down().await;
    assert_eq!(server.spec()["holderIdentity"], "a");
    assert!(!standby.fence.holds() && leader.fence.holds());
}
