//! Limits the memory for response bodies of the API server, whose length tenants determine.
//!
//! Kubernetes limits a page of a list by the number of objects, and one object has between 300 bytes and several
//! megabytes. A page that is too long is aborted and requested again with fewer objects ([`super::pages`]), which the
//! caller does not notice. Only a limited number of long bodies is in memory at the same time; a call without a
//! response, or with a short one, needs no permit. Watches are not limited: each line is one object, and kube decodes
//! one line at a time.

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

/// The longest body that needs no permit, in bytes: longer than a typical Secret or a page of typical Secrets, and
/// short enough to list two hundred watched namespaces at the same time.
const SHORT: usize = 64 << 10;
/// The longest page, in bytes. It is in memory twice, as bytes and as text, and determines the peak memory at startup.
const PAGE: usize = 2 << 20;
/// The longest body and therefore the longest object, in bytes. The API server accepts requests of 3 MiB and encodes
/// one character as up to six (`<` as `\u003c`); etcd's default limit of 1.5 MiB halves that. A longer body is an
/// error, even for a page of one object.
const LONGEST: usize = 20 << 20;
/// The number of bodies longer than [`SHORT`] in memory at the same time.
const LONG_MAX: usize = 2;
/// The number of bodies longer than [`PAGE`] in memory at the same time. It is less than [`LONG_MAX`], so that no two
/// bodies wait for each other.
const LONGEST_MAX: usize = 1;
/// The read timeout of a body, so that none delays others indefinitely. It is less than that of the connection, for
/// which no other bodies wait. Calls other than lists have a shorter deadline of their own.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the bodies of all responses, except watches, before it passes them on.
pub struct Bounded<S> {
    inner: Arc<Mutex<S>>,
    limits: Arc<Limits>,
}

struct Limits {
    long: Arc<Semaphore>,
    longest: Arc<Semaphore>,
    pages: Pages,
}

impl<S> Bounded<S> {
    /// Limits the response bodies of `inner`.
    pub fn new(inner: S) -> Self {
        let limits = Limits {
            long: Arc::new(Semaphore::new(LONG_MAX)),
            longest: Arc::new(Semaphore::new(LONGEST_MAX)),
            pages: Pages::new(PAGE),
        };
        Self { inner: Arc::new(Mutex::new(inner)), limits: Arc::new(limits) }
    }
}

/// A response with its body in memory, or a watch.
type BoundedResponse<B> = Response<Either<Full<Bytes>, B>>;

impl<S, B> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = BoundedResponse<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // polled for each request that is sent
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (inner, limits) = (self.inner.clone(), self.limits.clone());
        async move {
            match pages::limit(request.uri()) {
                _ if pages::is_watch(request.uri()) => Ok(send(&inner, request).await?.map(Either::Right)),
                Some(limit) => limits.list(&inner, request, limit).await,
                None => match limits.read(send(&inner, request).await?, LONGEST).await? {
                    Some(response) => Ok(response),
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
    let response = {
        let mut inner = inner.lock().await;
        poll_fn(|context| inner.poll_ready(context)).await.map_err(Into::into)?;
        inner.call(request)
    };
    response.await.map_err(Into::into)
}

fn too_long() -> BoxError {
    format!("a response of the API server has more than {} MiB", LONGEST >> 20).into()
}

impl Limits {
    /// Requests one page of `requested` objects, and requests it again with fewer objects if it is too long.
    async fn list<S, B>(
        &self,
        inner: &Mutex<S>,
        request: Request<Body>,
        requested: u32,
    ) -> Result<BoundedResponse<B>, BoxError>
    where
        S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>>,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let (head, _) = request.into_parts();
        loop {
            let limit = self.pages.next(head.uri.path(), requested);
            let mut page = Request::from_parts(head.clone(), Body::empty());
            *page.uri_mut() = pages::with_limit(&head.uri, limit)?;
            let response = send(inner, page).await?;
            // a page of one object cannot be divided
            match self.read(response, if limit > 1 { PAGE } else { LONGEST }).await? {
                Some(response) => {
                    if let Either::Left(body) = response.body()
                        && response.status().is_success()
                    {
                        let length = http_body::Body::size_hint(body).lower();
                        self.pages.fitted(head.uri.path(), limit, length as usize);
                    }
                    return Ok(response);
                }
                None if limit > 1 => self.pages.was_too_long(head.uri.path(), limit),
                None => return Err(too_long()),
            }
        }
    }

    /// Reads the body of a response; `None` if it is longer than `most`, in which case the rest is not read.
    async fn read<B>(&self, response: Response<B>, most: usize) -> Result<Option<BoundedResponse<B>>, BoxError>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let (head, body) = response.into_parts();
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
        while let Some(frame) = timeout(READ_TIMEOUT, body.frame()).await.map_err(|_| "a response body stalled")? {
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

/// A body in memory, with its permits.
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
mod tests;
