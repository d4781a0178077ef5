//! The HTTP endpoints for probes and metrics. They expose no secret and change nothing.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use futures::stream;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use tokio::{net::TcpListener, sync::watch};

use super::connections::{self, Limits};
use crate::{clock::Clock, liveness::Liveness, metrics::Metrics};

/// The body of a response.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the endpoints read.
pub struct Probes {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The liveness of loops and watches.
    pub liveness: Arc<Liveness>,
    /// Whether all initial lists are complete.
    pub ready: watch::Receiver<bool>,
    /// The clocks.
    pub clock: Clock,
}

/// Opens the socket. `[::]` means every address of the machine, also of one that has no IPv6.
///
/// # Errors
/// A message that names the address.
pub fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let result = match connections::listen(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != io::ErrorKind::AddrInUse => {
            connections::listen((Ipv4Addr::UNSPECIFIED, address.port()).into()).map_err(|_| error)
        }
        other => other,
    };
    result.map_err(|error| format!("failed to listen on --metrics-address {address}: {error}"))
}

/// Serves the endpoints indefinitely.
pub async fn serve(listener: TcpListener, probes: Probes) {
    connections::serve(listener, Limits::default(), move |request| respond(&probes, request)).await;
}

/// The response to a request, whose body is not read.
fn respond<B>(probes: &Probes, request: &Request<B>) -> Response<Body> {
    let endpoint: fn(&Probes) -> Response<Body> = match request.uri().path() {
        "/healthz" => healthz,
        "/readyz" => readyz,
        "/metrics" => metrics,
        _ => return text(StatusCode::NOT_FOUND, String::new()),
    };
    if [Method::GET, Method::HEAD].contains(request.method()) {
        return endpoint(probes);
    }
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, String::new());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
    response
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Fails only if a restart helps, because a part of this process is stalled. A cluster or an authority that does not
/// respond is not a reason.
fn healthz(probes: &Probes) -> Response<Body> {
    match probes.liveness.stalled() {
        None => text(StatusCode::OK, "ok\n".to_owned()),
        Some(stalled) => {
            tracing::error!("liveness probe failed: {stalled}");
            text(StatusCode::SERVICE_UNAVAILABLE, format!("{stalled}\n"))
        }
    }
}

/// A standby is ready too: its lists are complete, so that it can take over immediately.
fn readyz(probes: &Probes) -> Response<Body> {
    if *probes.ready.borrow() {
        return text(StatusCode::OK, "ok\n".to_owned());
    }
    let mut missing = "the initial list of credentials, authorities and Secrets is not complete\n".to_owned();
    for (path, trouble) in probes.liveness.unlisted() {
        let trouble = trouble.map_or_else(|| "no response yet".to_owned(), |trouble| trouble.message);
        missing.push_str(&format!("{path}: {trouble}\n"));
    }
    text(StatusCode::SERVICE_UNAVAILABLE, missing)
}

fn metrics(probes: &Probes) -> Response<Body> {
    let now = probes.clock.now();
    for (resource, silence) in probes.liveness.silence() {
        // by the clock that cannot be set: a step of the other one is no silence
        probes.metrics.watch(resource, now.timestamp().saturating_sub_unsigned(silence.as_secs()));
    }
    let Ok(pages) = probes.metrics.pages() else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, String::new());
    };
    // each page is encoded when the client has read those before it
    let frames = stream::iter(pages.map(|page| Ok::<_, Infallible>(Frame::data(Bytes::from(page)))));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    async fn response(method: Method, path: &str) -> (StatusCode, String, String) {
        let metrics = Arc::new(Metrics::new(true).expect("metrics"));
        let (_, ready) = watch::channel(false);
        let probes = Probes { metrics, liveness: Arc::default(), ready, clock: Clock::system() };
        let request = Request::builder().method(method).uri(path).body(()).expect("a request");
        let (head, body) = respond(&probes, &request).into_parts();
        let kind = head.headers[CONTENT_TYPE].to_str().expect("text").to_owned();
        let body = body.collect().await.expect("a body").to_bytes();
        (head.status, kind, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn probes_and_metrics_are_read_and_nothing_else_is_served() {
        let (status, kind, text) = response(Method::GET, "/metrics").await;
        assert_eq!((status, &*kind), (StatusCode::OK, "text/plain; version=0.0.4"));
        assert!(text.contains("itwin_leader 0\n"), "{text}");
        let (status, kind, text) = response(Method::GET, "/healthz?verbose").await;
        assert_eq!((status, &*kind, &*text), (StatusCode::OK, "text/plain; charset=utf-8", "ok\n"));
        for (method, path, expected) in [
            (Method::GET, "/readyz", StatusCode::SERVICE_UNAVAILABLE),
            (Method::HEAD, "/healthz", StatusCode::OK),
            (Method::POST, "/metrics", StatusCode::METHOD_NOT_ALLOWED),
            (Method::GET, "/", StatusCode::NOT_FOUND),
            (Method::GET, "/metrics/", StatusCode::NOT_FOUND),
        ] {
            assert_eq!(response(method, path).await.0, expected, "{path}");
        }
    }

    #[tokio::test]
    async fn default_address_is_reached_over_every_protocol_that_the_machine_has() {
        let listener = bind("[::]:0".parse().expect("an address")).expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok());
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.is_ok() {
            assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.is_ok());
        }
        let taken = bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        assert!(taken.is_err_and(|error| error.contains(&format!("--metrics-address [::]:{port}"))));
    }
}
