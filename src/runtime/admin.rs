//! The HTTP endpoints for probes and metrics. They expose no secret and change nothing.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use futures::stream;
use tokio::{net::TcpListener, sync::watch};

use crate::{clock::Clock, liveness::Liveness, metrics::Metrics};

/// What the endpoints read.
#[derive(Clone)]
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
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let result = match TcpListener::bind(address).await {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await.map_err(|_| error)
        }
        other => other,
    };
    result.map_err(|error| format!("failed to listen on --metrics-address {address}: {error}"))
}

/// Serves the endpoints indefinitely.
pub async fn serve(listener: TcpListener, probes: Probes) {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(probes);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the HTTP server of probes and metrics failed");
    }
}

/// Fails only if a restart helps, because a part of this process is stalled. A cluster or an authority that does not
/// respond is not a reason.
async fn healthz(State(probes): State<Probes>) -> impl IntoResponse {
    match probes.liveness.stalled() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(stalled) => {
            tracing::error!("liveness probe failed: {stalled}");
            (StatusCode::SERVICE_UNAVAILABLE, format!("{stalled}\n"))
        }
    }
}

/// A standby is ready too: its lists are complete, so that it can take over immediately.
async fn readyz(State(probes): State<Probes>) -> impl IntoResponse {
    if *probes.ready.borrow() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let mut text = "the initial list of credentials, authorities and Secrets is not complete\n".to_owned();
    for (path, trouble) in probes.liveness.unlisted() {
        let trouble = trouble.map_or_else(|| "no response yet".to_owned(), |trouble| trouble.message);
        text.push_str(&format!("{path}: {trouble}\n"));
    }
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

async fn metrics(State(probes): State<Probes>) -> impl IntoResponse {
    let now = probes.clock.now();
    for (resource, silence) in probes.liveness.silence() {
        // by the clock that cannot be set: a step of the other one is no silence
        probes.metrics.watch(resource, now.timestamp().saturating_sub_unsigned(silence.as_secs()));
    }
    match probes.metrics.pages() {
        Ok(pages) => {
            let body = Body::from_stream(stream::iter(pages.map(Ok::<_, Infallible>)));
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], body).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn default_address_is_reached_over_every_protocol_that_the_machine_has() {
        let listener = bind("[::]:0".parse().expect("an address")).await.expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok());
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.is_ok() {
            assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.is_ok());
        }
        let taken = bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await;
        assert!(taken.is_err_and(|error| error.contains(&format!("--metrics-address [::]:{port}"))));
    }
}
