//! The bodies of the API server's answers: a tenant decides how long one is, so that here it is decided how many long
//! ones are in memory at the same time.
//!
//! A list is limited by the number of its objects, and one object has between 300 bytes and some megabytes. So a page
//! that gets too long is broken off and requested again with fewer objects ([`super::pages`]); the program that follows
//! the pages notices nothing. Long bodies of any kind take turns; a call without an answer, or with a short one, takes
//! none. Watches pass: each of their lines is one object, and kube decodes one line at a time.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, poll_fn},
};
use http::{Request, Response};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Bytes;
use kube::client::Body;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tower::{BoxError, Service};

use super::pages::{self, Pages};

/// The longest body of which any number may be in memory, in bytes: more than a page of common Secrets or a common
/// Secret, and so little that two hundred watched namespaces can be listed at the same time.
const SHORT: usize = 64 << 10;
/// The longest page, in bytes. It stands in memory twice, as bytes and as text, so that it is what a start costs most.
const PAGE: usize = 2 << 20;
/// The longest body, and so the longest single object, in bytes. The API server takes requests of 3 MiB, and writes
/// one character of them as up to six (`<` as `\u003c`); with etcd's own limit of 1.5 MiB it is half of that. What is
/// longer is an error, for a page of one object too.
const LONGEST: usize = 20 << 20;
/// Bodies longer than [`SHORT`] in memory at the same time.
const LONG_AT_ONCE: usize = 2;
/// Bodies longer than [`PAGE`] in memory at the same time. Of those above, so that no two wait for each other.
const LONGEST_AT_ONCE: usize = 1;
/// A body of which nothing comes for so long fails, so that none delays others indefinitely. Less than the connection
/// allows, which does not know that others wait. Calls other than lists have a deadline of their own, which is shorter.
const SILENCE: Duration = Duration::from_secs(10);

/// Reads the bodies of all answers, watches apart, before it hands them on.
pub struct Bounded<S> {
    inner: Arc<Mutex<S>>,
    rules: Arc<Rules>,
}

struct Rules {
    long: Arc<Semaphore>,
    longest: Arc<Semaphore>,
    pages: Pages,
}

impl<S> Bounded<S> {
    /// Bounds the bodies of the answers of `inner`.
    pub fn new(inner: S) -> Self {
        let rules = Rules {
            long: Arc::new(Semaphore::new(LONG_AT_ONCE)),
            longest: Arc::new(Semaphore::new(LONGEST_AT_ONCE)),
            pages: Pages::new(PAGE),
        };
        Self { inner: Arc::new(Mutex::new(inner)), rules: Arc::new(rules) }
    }
}

/// A body that was read, or a watch.
type Answer<B> = Response<Either<Full<Bytes>, B>>;

impl<S, B> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Answer<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // asked for each of the requests that one may become
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (inner, rules) = (self.inner.clone(), self.rules.clone());
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        async move {
            match pages::limit(request.uri()) {
                _ if is_watch => Ok(send(&inner, request).await?.map(Either::Right)),
                Some(limit) => rules.list(&inner, request, limit).await,
                None => match rules.read(send(&inner, request).await?, LONGEST).await? {
                    Some(answer) => Ok(answer),
                    None => Err(too_long()),
                },
            }
        }
        .boxed()
    }
}

async fn send<S, B>(inner: &Mutex<S>, request: Request<Body>) -> Result<Response<B>, BoxError>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>>,
{
    let answer = {
        let mut inner = inner.lock().await;
        poll_fn(|context| inner.poll_ready(context)).await.map_err(Into::into)?;
        inner.call(request)
    };
    answer.await.map_err(Into::into)
}

fn too_long() -> BoxError {
    format!("an answer of the API server has more than {} MiB", LONGEST >> 20).into()
}

impl Rules {
    /// Requests one page, again with fewer objects where it is too long. `asked` objects were asked for.
    async fn list<S, B>(&self, inner: &Mutex<S>, request: Request<Body>, asked: u32) -> Result<Answer<B>, BoxError>
    where
        S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>>,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let (head, _) = request.into_parts();
        loop {
            let limit = self.pages.next(head.uri.path(), asked);
            let mut page = Request::from_parts(head.clone(), Body::empty());
            *page.uri_mut() = pages::with_limit(&head.uri, limit)?;
            let answer = send(inner, page).await?;
            // one object cannot be divided
            match self.read(answer, if limit > 1 { PAGE } else { LONGEST }).await? {
                Some(answer) => {
                    if let Either::Left(body) = answer.body()
                        && answer.status().is_success()
                    {
                        let length = http_body::Body::size_hint(body).lower();
                        self.pages.fitted(head.uri.path(), limit, length as usize);
                    }
                    return Ok(answer);
                }
                None if limit > 1 => self.pages.was_too_long(head.uri.path(), limit),
                None => return Err(too_long()),
            }
        }
    }

    /// Reads the body of an answer; `None` where it is longer than `most`, in which case the rest of it is not read.
    async fn read<B>(&self, answer: Response<B>, most: usize) -> Result<Option<Answer<B>>, BoxError>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let (head, body) = answer.into_parts();
        let body = self.collect(body, most).await?;
        Ok(body.map(|body| Response::from_parts(head, Either::Left(Full::new(body)))))
    }

    async fn collect<B>(&self, body: B, most: usize) -> Result<Option<Bytes>, BoxError>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
    {
        if body.size_hint().lower() > most as u64 {
            return Ok(None);
        }
        let mut body = pin!(body.map_err(Into::<BoxError>::into));
        let mut collected = Collected { bytes: Vec::new(), long: None, longest: None };
        while let Some(frame) = timeout(SILENCE, body.frame()).await.map_err(|_| "an answer does not go on")? {
            let Ok(data) = frame?.into_data() else { continue };
            let length = collected.bytes.len() + data.len();
            if length > most {
                return Ok(None);
            }
            if length > SHORT && collected.long.is_none() {
                collected.long = Some(self.long.clone().acquire_owned().await?);
            }
            if length > PAGE && collected.longest.is_none() {
                collected.longest = Some(self.longest.clone().acquire_owned().await?);
            }
            collected.bytes.extend_from_slice(&data);
        }
        Ok(Some(Bytes::from_owner(collected)))
    }
}

/// A body in memory. While it is there no more than so many others are as long.
struct Collected {
    bytes: Vec<u8>,
    long: Option<OwnedSemaphorePermit>,
    longest: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Collected {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Mutex as SyncMutex};

    use futures::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tower::service_fn;

    use super::*;

    type Streamed = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

    /// A body of so many bytes whose length is not known before it ends.
    fn streamed(length: usize) -> Streamed {
        const CHUNK: usize = 16 << 10;
        let chunks = (0..length).step_by(CHUNK).map(move |start| CHUNK.min(length - start));
        let frames = chunks.map(|chunk| Ok(Frame::data(Bytes::from(vec![b'x'; chunk]))));
        StreamBody::new(stream::iter(frames)).boxed_unsync()
    }

    /// A server whose pages have so many bytes an object; notes the limits that it was asked for.
    fn lists(
        object: usize,
        asked: &Arc<SyncMutex<Vec<u32>>>,
    ) -> impl Service<Request<Body>, Response = Response<Streamed>, Error = BoxError, Future: Send> + Send + use<> {
        let asked = asked.clone();
        service_fn(move |request: Request<Body>| {
            let limit = pages::limit(request.uri()).unwrap_or(1);
            asked.lock().expect("no panic").push(limit);
            std::future::ready(Ok(Response::new(streamed(object * limit as usize))))
        })
    }

    fn get(uri: &str) -> Request<Body> {
        Request::get(uri).body(Body::empty()).expect("a request")
    }

    async fn length<B>(answer: Result<Answer<B>, BoxError>) -> Option<usize>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
    {
        Some(answer.ok()?.into_body().collect().await.ok()?.to_bytes().len())
    }

    #[tokio::test]
    async fn page_that_is_too_long_is_requested_again_with_fewer_objects_and_the_next_begins_there() {
        const OBJECT: usize = 300_000;
        let asked = Arc::default();
        let mut bounded = Bounded::new(lists(OBJECT, &asked));
        assert_eq!(length(bounded.call(get("/a?limit=100")).await).await, Some(6 * OBJECT));
        assert_eq!(length(bounded.call(get("/a?limit=100&continue=x")).await).await, Some(6 * OBJECT));
        assert_eq!(*asked.lock().expect("no panic"), [100, 25, 6, 6]);
    }

    #[tokio::test]
    async fn pages_of_common_objects_have_as_many_as_asked_for() {
        let asked = Arc::default();
        let mut bounded = Bounded::new(lists(500, &asked));
        assert_eq!(length(bounded.call(get("/a?limit=100")).await).await, Some(50_000));
        assert_eq!(*asked.lock().expect("no panic"), [100]);
    }

    #[tokio::test]
    async fn single_object_may_be_longer_than_a_page_but_not_endless() {
        for (object, is_read) in [(PAGE + 1, true), (LONGEST, true), (LONGEST + 1, false)] {
            let mut bounded = Bounded::new(lists(object, &Arc::default()));
            let list = length(bounded.call(get("/a?limit=100")).await).await;
            let single = length(bounded.call(get("/a/b")).await).await;
            assert_eq!([list, single], [is_read.then_some(object); 2], "{object}");
        }
    }

    #[tokio::test]
    async fn rejection_of_a_list_is_handed_on() {
        let inner = service_fn(|_: Request<Body>| {
            let mut answer = Response::new(streamed(100));
            *answer.status_mut() = http::StatusCode::GONE;
            std::future::ready(Ok::<_, BoxError>(answer))
        });
        let answer = Bounded::new(inner).call(get("/a?limit=100")).await.expect("an answer");
        assert_eq!(answer.status(), http::StatusCode::GONE);
    }

    #[tokio::test(start_paused = true)]
    async fn watch_is_not_read_here() {
        let inner = service_fn(|_: Request<Body>| {
            let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
            std::future::ready(Ok::<_, BoxError>(Response::new(silent.boxed_unsync())))
        });
        let answer = timeout(SILENCE / 2, Bounded::new(inner).call(get("/a?watch=true"))).await;
        let answer = answer.expect("in time").expect("an answer");
        assert!(matches!(answer.into_body(), Either::Right(_)));
    }

    #[tokio::test]
    async fn only_so_many_long_bodies_are_in_memory_and_any_number_of_short_ones() {
        let mut bounded = Bounded::new(lists(1, &Arc::default()));
        let get = |length: usize| get(&format!("/a?limit={length}"));
        let mut held = Vec::new();
        for _ in 0..LONG_AT_ONCE {
            held.push(bounded.call(get(SHORT + 1)).await.expect("an answer"));
        }
        held.push(bounded.call(get(SHORT)).await.expect("an answer"));
        let mut waiting = bounded.call(get(SHORT + 1));
        assert!(futures::poll!(&mut waiting).is_pending());
        held.clear();
        assert!(waiting.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn body_that_does_not_go_on_fails() {
        let inner = service_fn(|_: Request<Body>| {
            let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; SHORT + 1])))]);
            let stalled = StreamBody::new(futures::StreamExt::chain(first, stream::pending()));
            std::future::ready(Ok::<_, BoxError>(Response::new(stalled.boxed_unsync())))
        });
        let mut bounded = Bounded::new(inner);
        for uri in ["/a?limit=100", "/a/b"] {
            let answer = timeout(2 * SILENCE, bounded.call(get(uri))).await;
            assert!(answer.is_ok_and(|answer| answer.is_err()), "{uri}");
        }
        assert_eq!(bounded.rules.long.available_permits(), LONG_AT_ONCE, "and leaves room to others");
    }
}
