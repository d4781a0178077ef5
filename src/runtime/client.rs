//! The client of the Kubernetes API.

use std::time::Duration;

use kube::{Client, Config};

/// The longest time for TCP and TLS. Less than the deadline of a call, so that the error says which of the two it was.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client for the cluster that the process runs in, or the one of `KUBECONFIG`.
///
/// # Errors
/// Text that says what is missing.
pub async fn client() -> Result<Client, String> {
    let mut config = Config::infer()
        .await
        .map_err(|error| format!("neither a service account nor a kubeconfig can be used: {error}"))?;
    // our own back-off knows what is left of a token; the client's would wait up to 1000 s
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Client::try_from(config).map_err(|error| format!("no Kubernetes client can be made: {error}"))
}
