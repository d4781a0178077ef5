//! Bodies of the API server over a limit, and pages that are requested again.

use std::{convert::Infallible, sync::Mutex as SyncMutex};

use futures::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tower::service_fn;

use super::*;

type Streamed = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

/// A body of this many bytes whose length is unknown until it ends.
fn streamed(length: usize) -> Streamed {
    const CHUNK: usize = 16 << 10;
    let chunks = (0..length).step_by(CHUNK).map(move |start| CHUNK.min(length - start));
    let frames = chunks.map(|chunk| Ok(Frame::data(Bytes::from(vec![b'x'; chunk]))));
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

/// A server whose objects have this many bytes each; it records the requested limits.
fn lists(
    object: usize,
    requested: &Arc<SyncMutex<Vec<u32>>>,
) -> impl Service<Request<Body>, Response = Response<Streamed>, Error = BoxError, Future: Send> + Send + use<> {
    let requested = requested.clone();
    service_fn(move |request: Request<Body>| {
        let limit = pages::limit(request.uri()).unwrap_or(1);
        requested.lock().expect("no panic").push(limit);
        std::future::ready(Ok(Response::new(streamed(object * limit as usize))))
    })
}

fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::empty()).expect("a request")
}

async fn length<B>(response: Result<BoundedResponse<B>, BoxError>) -> Option<usize>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    Some(response.ok()?.into_body().collect().await.ok()?.to_bytes().len())
}

#[tokio::test]
async fn page_that_is_too_long_is_requested_again_with_fewer_objects_and_so_is_the_next_page() {
    const OBJECT: usize = 300_000;
    let requested = Arc::default();
    let mut bounded = Bounded::new(lists(OBJECT, &requested));
    assert_eq!(length(bounded.call(get("/a?limit=100")).await).await, Some(6 * OBJECT));
    assert_eq!(length(bounded.call(get("/a?limit=100&continue=x")).await).await, Some(6 * OBJECT));
    assert_eq!(*requested.lock().expect("no panic"), [100, 25, 6, 6]);
}

#[tokio::test]
async fn pages_of_typical_objects_have_as_many_as_requested() {
    let requested = Arc::default();
    let mut bounded = Bounded::new(lists(500, &requested));
    assert_eq!(length(bounded.call(get("/a?limit=100")).await).await, Some(50_000));
    assert_eq!(*requested.lock().expect("no panic"), [100]);
}

#[tokio::test]
async fn single_object_may_be_longer_than_a_page_but_is_limited() {
    for (object, is_read) in [(PAGE + 1, true), (LONGEST, true), (LONGEST + 1, false)] {
        let mut bounded = Bounded::new(lists(object, &Arc::default()));
        let list = length(bounded.call(get("/a?limit=100")).await).await;
        let single = length(bounded.call(get("/a/b")).await).await;
        assert_eq!([list, single], [is_read.then_some(object); 2], "{object}");
    }
}

#[tokio::test]
async fn rejection_of_a_list_is_passed_on() {
    let inner = service_fn(|_: Request<Body>| {
        let mut response = Response::new(streamed(100));
        *response.status_mut() = http::StatusCode::GONE;
        std::future::ready(Ok::<_, BoxError>(response))
    });
    let response = Bounded::new(inner).call(get("/a?limit=100")).await.expect("a response");
    assert_eq!(response.status(), http::StatusCode::GONE);
}

#[tokio::test(start_paused = true)]
async fn body_of_a_watch_is_passed_on_unread() {
    let inner = service_fn(|_: Request<Body>| {
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        std::future::ready(Ok::<_, BoxError>(Response::new(silent.boxed_unsync())))
    });
    let response = timeout(READ_TIMEOUT / 2, Bounded::new(inner).call(get("/a?watch=true"))).await;
    let response = response.expect("in time").expect("a response");
    assert!(matches!(response.into_body(), Either::Right(_)));
}

#[tokio::test]
async fn number_of_long_bodies_in_memory_is_limited_and_that_of_short_ones_is_not() {
    let mut bounded = Bounded::new(lists(1, &Arc::default()));
    let get = |length: usize| get(&format!("/a?limit={length}"));
    let mut held = Vec::new();
    for _ in 0..LONG_MAX {
        held.push(bounded.call(get(SHORT + 1)).await.expect("a response"));
    }
    held.push(bounded.call(get(SHORT)).await.expect("a response"));
    let mut waiting = bounded.call(get(SHORT + 1));
    assert!(futures::poll!(&mut waiting).is_pending());
    held.clear();
    assert!(waiting.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn body_that_stalls_fails() {
    let inner = service_fn(|_: Request<Body>| {
        let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; SHORT + 1])))]);
        let stalled = StreamBody::new(futures::StreamExt::chain(first, stream::pending()));
        std::future::ready(Ok::<_, BoxError>(Response::new(stalled.boxed_unsync())))
    });
    let mut bounded = Bounded::new(inner);
    for uri in ["/a?limit=100", "/a/b"] {
        let response = timeout(2 * READ_TIMEOUT, bounded.call(get(uri))).await;
        assert!(response.is_ok_and(|response| response.is_err()), "{uri}");
    }
    assert_eq!(bounded.limits.long.available_permits(), LONG_MAX, "its permit is released");
}
