//! Probes and metrics over HTTP. They show no secret and change nothing.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};

use crate::metrics::Metrics;

/// What the probes ask.
#[derive(Clone)]
pub struct Probes {
    /// Metrics to render.
    pub metrics: Arc<Metrics>,
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
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(probes);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the server of probes and metrics failed");
    }
}

async fn readyz(State(probes): State<Probes>) -> impl IntoResponse {
    if *probes.ready.borrow() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the first listing of credentials, authorities and Secrets is not complete\n")
    }
}

async fn metrics(State(probes): State<Probes>) -> impl IntoResponse {
    match probes.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
