//! Request slots: they are returned however they end, and requests are sent at the pace of their authority.

use chrono::TimeDelta;
use itwin_api::conditions::Reason;
use itwin_core::failure::Failure;

use super::*;

fn key(name: &str) -> Arc<ObjectKey> {
    Arc::new(ObjectKey::new("team", name))
}

fn request() -> Request {
    Request {
        requester: Requester { namespace: "team".into(), secret: "client".into() },
        client_version: Some("1".into()),
        content: "request".into(),
        expires_at: Some(Clock::system().now() + TimeDelta::hours(1)),
        is_retry: false,
    }
}

fn requests() -> Arc<Requests> {
    let requests = Arc::new(Requests::new(Arc::new(Metrics::new(true).expect("metrics")), Clock::system()));
    requests.set_limits("ims", 8, 60);
    requests
}

fn enqueued(requests: &Requests) -> Vec<String> {
    requests.work().enqueued.iter().map(|key| key.name.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn slot_that_is_dropped_gives_its_right_back() {
    let requests = requests();
    requests.enqueue("ims", &key("a"), request());
    assert_eq!(enqueued(&requests), ["a"]);
    let slot = requests.take_up("ims", &key("a"), &request().requester);
    assert!(slot.is_some());
    assert!(requests.take_up("ims", &key("a"), &request().requester).is_none(), "one right, once");
    drop(slot);
    requests.enqueue("ims", &key("b"), request());
    assert_eq!(enqueued(&requests), ["b"], "without waiting for the pace");
}

#[tokio::test(start_paused = true)]
async fn right_for_another_authority_than_the_spec_names_by_now_is_given_back() {
    let requests = requests();
    requests.enqueue("ims", &key("a"), request());
    assert_eq!(enqueued(&requests), ["a"]);
    assert!(requests.take_up("other", &key("a"), &request().requester).is_none());
    requests.enqueue("ims", &key("b"), request());
    assert_eq!(enqueued(&requests), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn credential_that_is_gone_holds_nothing() {
    let requests = requests();
    for name in ["a", "b"] {
        requests.enqueue("ims", &key(name), request());
    }
    assert_eq!(enqueued(&requests).len(), 1);
    requests.forget_credential(&key("a"));
    requests.forget_credential(&key("b"));
    let state = requests.state();
    assert!(state.places.is_empty() && state.queues["ims"].queue.is_empty());
    drop(state);
    requests.enqueue("ims", &key("c"), request());
    assert_eq!(enqueued(&requests), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn credential_that_joins_the_queue_after_it_was_deleted_leaves_it_when_its_slot_comes() {
    let requests = requests();
    for name in ["gone", "there"] {
        requests.enqueue("ims", &key(name), request());
    }
    let enqueued = Mutex::new(Vec::new());
    let enqueue = |key: &ObjectKey| {
        enqueued.lock().expect("not poisoned").push(key.name.clone());
        key.name != "gone"
    };
    let dispatched = requests.dispatch(enqueue, |_: &str| {});
    assert!(tokio::time::timeout(Duration::from_secs(30), dispatched).await.is_err(), "it goes on");
    assert_eq!(*enqueued.lock().expect("not poisoned"), ["gone", "there"], "it holds up no other");
    assert!(!requests.state().places.contains_key(&key("gone")));
}

#[tokio::test(start_paused = true)]
async fn requests_are_really_sent_at_the_pace() {
    let requests = requests();
    requests.set_limits("ims", 8, 60);
    let started = tokio::time::Instant::now();
    for name in ["a", "b", "c"] {
        requests.enqueue("ims", &key(name), Request { content: name.into(), ..request() });
        let mut slot = slot(&requests, name);
        slot.paced().await;
        slot.end(Outcome::Succeeded, "".into(), None);
    }
    assert_eq!(started.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn request_that_is_not_sent_after_all_delays_no_other() {
    let requests = requests();
    requests.set_limits("ims", 8, 60);
    let started = tokio::time::Instant::now();
    for name in ["a", "b", "c"] {
        let mut slot = slot(&requests, name);
        slot.paced().await;
        drop(slot);
    }
    assert_eq!(started.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn wait_that_is_prolonged_is_reported_later_by_those_that_joined_when_it_had_nearly_ended() {
    let requests = requests();
    requests.set_limits("ims", 8, 6000);
    let waits = |seconds| {
        let failure = Failure::new(Reason::RateLimited, "because");
        Outcome::Failed { failure, server_wait: Some(TimeDelta::seconds(seconds)), is_outage: false }
    };
    for name in ["one", "other"] {
        requests.enqueue("ims", &key(name), Request { content: name.into(), ..request() });
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(enqueued(&requests), [name]);
    }
    slot(&requests, "one").end(waits(12), "".into(), None);
    tokio::time::advance(Duration::from_secs(3)).await;
    let joins = Request { content: "joins".into(), expires_at: None, ..request() };
    assert!(requests.enqueue("ims", &key("joins"), joins).blocked.is_none());
    tokio::time::advance(Duration::from_secs(2)).await;
    slot(&requests, "other").end(waits(3600), "".into(), None);
    assert_eq!(enqueued(&requests), [""; 0], "5 s after the last report");
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(enqueued(&requests), ["joins"]);
    assert_eq!(enqueued(&requests), [""; 0], "once");
}

#[tokio::test(start_paused = true)]
async fn requests_whose_own_client_fails_do_not_count_as_the_queue_of_the_authority() {
    let requests = requests();
    requests.set_limits("ims", 1, 60_000);
    for name in ["1", "2", "3", "4", "5"] {
        requests.enqueue("ims", &key(name), Request { content: name.into(), ..request() });
        assert_eq!(enqueued(&requests), [name]);
        let failure = Failure::new(Reason::InvalidClient, "because");
        slot(&requests, name).end(Outcome::Failed { failure, server_wait: None, is_outage: false }, "1".into(), None);
    }
    let of_other = |name: &str| Request {
        requester: Requester { namespace: "team".into(), secret: "other".into() },
        content: name.into(),
        ..request()
    };
    requests.enqueue("ims", &key("in flight"), of_other("in flight"));
    assert_eq!(enqueued(&requests), ["in flight"]);
    requests.enqueue("ims", &key("waits"), of_other("waits"));
    for name in ["6", "7", "8"] {
        requests.enqueue("ims", &key(name), Request { content: name.into(), ..request() });
    }
    assert_eq!(enqueued(&requests), [""; 0], "one request in flight at most");
    let metrics: String = requests.metrics.pages().expect("metrics").collect();
    assert!(metrics.contains("itwin_token_request_queue_length{authority=\"ims\"} 1\n"), "{metrics}");
}

fn slot(requests: &Arc<Requests>, name: &str) -> Slot {
    let (requests, requester) = (requests.clone(), request().requester);
    Slot { requests, authority: "ims".into(), key: key(name), requester, paced: None, ended: None }
}
