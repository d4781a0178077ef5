//! What is remembered of events, their names, and when those of first tokens are published.

use std::{future::ready, sync::atomic::AtomicUsize};

use http::{Request, Response};
use kube::{Client, client::Body};
use tokio::time::timeout;

use super::*;
use crate::leadership::fence::LeadershipFence;

/// A publisher of a process with one worker, and the number of events that the API server was sent.
fn publisher(workers: &Arc<Workers>) -> (Events, Arc<AtomicUsize>) {
    let sent: Arc<AtomicUsize> = Arc::default();
    let received = sent.clone();
    let service = tower::service_fn(move |_: Request<Body>| {
        received.fetch_add(1, Ordering::Relaxed);
        let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {}});
        let response = Response::builder().status(201).body(Body::from(event.to_string().into_bytes()));
        ready(Ok::<_, Infallible>(response.expect("a response")))
    });
    let metrics = Arc::new(Metrics::new(false).expect("metrics"));
    let cluster = Cluster::new(Client::new(service, "team"), LeadershipFence::unlimited(), metrics.clone());
    (Events::new(cluster, "replica".to_owned(), Clock::system(), metrics, workers.clone()), sent)
}

/// The number of events that were sent after the publisher ran for so long.
async fn sent_after(events: &Events, sent: &AtomicUsize, seconds: u64) -> usize {
    let ended = timeout(Duration::from_secs(seconds), events.run()).await;
    assert!(ended.is_err(), "it never ends");
    sent.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn events_of_first_tokens_wait_for_an_idle_worker_and_not_for_one_that_is_free_for_an_instant() {
    let workers = Arc::new(Workers::new(1));
    let (events, sent) = publisher(&workers);
    let publish = |number: usize| {
        let about = ObjectReference {
            namespace: Some("team".to_owned()),
            name: Some(format!("agent-{number}")),
            uid: Some(format!("uid-{number}")),
            ..ObjectReference::default()
        };
        events.publish(about, Transition { warning: false, reason: EventReason::Issued, note: "a token".to_owned() });
    };
    let worker = workers.take("team").await;
    events.set_workers_awaited(true);
    publish(0);
    assert_eq!(sent_after(&events, &sent, 1).await, 0, "the worker has something to do");
    drop(worker);
    assert_eq!(sent_after(&events, &sent, 1).await, 0, "another object waits for it");
    let worker = workers.take("team").await;
    events.set_workers_awaited(false);
    assert_eq!(sent_after(&events, &sent, 1).await, 0, "it has the last one");
    drop(worker);
    assert_eq!(sent_after(&events, &sent, 1).await, 1);
    events.set_workers_awaited(true);
    publish(1);
    assert_eq!(sent_after(&events, &sent, 5).await, 1);
    assert_eq!(sent_after(&events, &sent, 6).await, 2, "it has waited for 10 s");
    publish(2);
    events.end();
    let published = async { tokio::join!(timeout(Duration::from_secs(1), events.run()), events.published()) };
    assert!(published.await.0.is_err());
    assert_eq!((events.waiting(), sent.load(Ordering::Relaxed)), (0, 3), "the process ends");
}

#[tokio::test]
async fn event_that_equals_one_that_is_gone_is_published() {
    let methods: Arc<Mutex<Vec<String>>> = Arc::default();
    let received = methods.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        received.lock().expect("no panic").push(request.method().to_string());
        let absent = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404,
            "message": "events.events.k8s.io \"agent.1\" not found"});
        let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {}});
        let (code, body) = if request.method() == "PATCH" { (404, absent) } else { (201, event) };
        let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
        ready(Ok::<_, Infallible>(response.expect("a response")))
    });
    let metrics = Arc::new(Metrics::new(false).expect("metrics"));
    let cluster = Cluster::new(Client::new(service, "team"), LeadershipFence::unlimited(), metrics.clone());
    let workers = Arc::new(Workers::new(1));
    let events = Events::new(cluster, "replica".to_owned(), Clock::system(), metrics, workers);
    let about = ObjectReference { name: Some("agent".to_owned()), ..ObjectReference::default() };
    let transition = Transition::warning(EventReason::RenewalFailed, "the same".to_owned());
    for _ in 0..2 {
        assert_eq!(events.try_publish(&about, &transition).await, Ok(()));
    }
    assert_eq!(*methods.lock().expect("no panic"), ["POST", "PATCH", "POST"]);
}

#[test]
fn equal_events_are_counted_for_a_while() {
    let (mut reported, now) = (Reported::default(), Instant::now());
    assert_eq!(reported.again("a", now), None);
    reported.first("a".to_owned(), "a.1".to_owned(), now);
    assert_eq!(reported.again("b", now), None);
    let within = now + EQUAL_WITHIN / 2;
    assert_eq!(reported.again("a", within), Some(("a.1".to_owned(), 2)));
    assert_eq!(
        reported.again("a", within + EQUAL_WITHIN / 2),
        Some(("a.1".to_owned(), 3)),
        "each one starts the time again"
    );
    assert_eq!(reported.again("a", within + EQUAL_WITHIN * 2), None);

    reported.first("c".to_owned(), "c.1".to_owned(), now);
    reported.forget("c");
    assert_eq!(reported.again("c", now), None);
}

#[test]
fn what_is_remembered_does_not_grow() {
    let (mut reported, now) = (Reported::default(), Instant::now());
    for number in 0..=REMEMBERED {
        reported.first(number.to_string(), String::new(), now);
    }
    assert_eq!(reported.0.len(), REMEMBERED);
    assert_eq!(reported.again("0", now), None);
    assert!(reported.again("1", now).is_some());
}

#[test]
fn names_of_events_are_never_too_long_and_end_well() {
    let longest = event_name(&"a".repeat(253), i64::MAX);
    assert_eq!(longest.len(), 253);
    let cut_at_a_point = event_name(&format!("{}.{}", "a".repeat(NAME_MAX - 1), "b".repeat(10)), 255);
    assert_eq!(cut_at_a_point, format!("{}.00000000000000ff", "a".repeat(NAME_MAX - 1)));
}
