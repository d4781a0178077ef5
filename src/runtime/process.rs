//! One process of the operator: its client, clocks, signals and the server of its probes.

use std::{path::Path, sync::Arc};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    admin, client,
    run::{Surroundings, operate},
};
use crate::{
    clock::Clock,
    config::{args::RunArgs, proxy::Proxies},
    leadership::elector,
    liveness::Liveness,
    metrics::Metrics,
    oauth::http::Http,
};

/// In a pod, the file with its namespace, which is that of the Lease by default.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Whether the operator can run with these arguments where it is.
///
/// # Errors
/// One line that says which argument is missing.
pub fn check(args: &RunArgs) -> Result<(), String> {
    if args.leader_election && args.lease_namespace.is_none() && !Path::new(POD_NAMESPACE).exists() {
        return Err("outside a pod, --lease-namespace must name the namespace of the Lease; or run one replica with \
                    --leader-election=false"
            .to_owned());
    }
    Ok(())
}

/// Runs the operator, whose arguments were checked, until SIGTERM.
///
/// # Errors
/// One line that says why it could not start, or which part of it ended.
pub async fn run(args: RunArgs, proxies: &Proxies) -> Result<(), String> {
    let metrics = Arc::new(Metrics::new(args.per_credential_metrics).map_err(|error| error.to_string())?);
    let listener = admin::bind(args.metrics_address)?;
    if !proxies.unusable().is_empty() {
        let entries = proxies.unusable().join(" ");
        tracing::warn!(
            entries,
            "NO_PROXY has entries that name no host; write hosts, domains and networks with commas"
        );
    }
    let liveness = Arc::new(Liveness::default());
    let client = client::client(liveness.clone(), proxies)?;
    let identity = elector::identity()?;
    let clock = Clock::system();
    let connect = Http::connect(clock.clone(), proxies.clone());
    let listener = Some(listener);
    let stop = stop_signal()?;
    operate(args, Surroundings { client, liveness, clock, connect, identity, metrics, listener, stop }).await
}

/// Becomes true with SIGTERM or SIGINT. The handlers are there before any work begins.
fn stop_signal() -> Result<watch::Receiver<bool>, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("signals cannot be handled: {error}"));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        sender.send_replace(true);
        // kept so that receivers never see the channel closed
        std::future::pending::<()>().await;
    });
    Ok(receiver)
}
