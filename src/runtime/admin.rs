//! Probes and metrics over HTTP. They show no secret and change nothing.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

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

use crate::{liveness::Liveness, metrics::Metrics};

/// What the probes ask.
#[derive(Clone)]
pub struct Probes {
    /// Metrics to render.
    pub metrics: Arc<Metrics>,
    /// What must go on.
    pub liveness: Arc<Liveness>,
    /// Every listing is complete.
    pub ready: watch::Receiver<bool>,
}

/// Opens the socket.
///
/// # Errors
/// Text that names the address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("--metrics-address {address} cannot be opened: {error}"))
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, probes: Probes) {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(probes);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the server of probes and metrics failed");
    }
}

/// Fails only where a restart helps: a part of this process stands still. A cluster or an authority that does not
/// answer is no such case.
async fn healthz(State(probes): State<Probes>) -> impl IntoResponse {
    match probes.liveness.stalled() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(stalled) => {
            tracing::error!("not alive: {stalled}");
            (StatusCode::SERVICE_UNAVAILABLE, format!("{stalled}\n"))
        }
    }
}

/// A replica that stands by is ready too: its listings are complete, so that it can take over at once.
async fn readyz(State(probes): State<Probes>) -> impl IntoResponse {
    if *probes.ready.borrow() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the first listing of credentials, authorities and Secrets is not complete\n")
    }
}

async fn metrics(State(probes): State<Probes>) -> impl IntoResponse {
    match probes.metrics.pages() {
        Ok(pages) => {
            let body = Body::from_stream(stream::iter(pages.map(Ok::<_, Infallible>)));
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], body).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
