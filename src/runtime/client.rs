//! The client of the Kubernetes API.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use hyper::body::{Bytes, Incoming};
use hyper_timeout::TimeoutConnector;
use hyper_util::{client::legacy, rt::TokioExecutor};
use kube::{
    Client, Config,
    client::{AuthError, Body, ClientBuilder, ConfigExt},
};
use tower::{BoxError, Service, ServiceBuilder, layer::layer_fn};

use super::{bodies::Bounded, kubeconfig, pages};
use crate::{config::proxy::Proxies, liveness::Liveness};

/// The timeout for TCP and TLS: less than the deadline of a call, so that the error shows which of the two passed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection from which nothing is read for this time has failed: a watch without events ends earlier
/// ([`crate::observe::watch::WATCH_SECONDS`]). kube has no timeout of its own.
const READ_TIMEOUT: Duration = Duration::from_secs(75);
/// The read buffer of a connection, in bytes. The default is six times as large, for each body that waits for a permit
/// ([`super::bodies`]).
const READ_BUFFER: usize = 64 << 10;
/// Connections that are kept for later calls. A burst opens more, since a call that finds none opens one, although
/// another call may end meanwhile; each takes 50 to 80 KB. With the default, all are kept for 90 s. As many as there are
/// workers by default are never closed between two calls of a burst.
const IDLE_CONNECTIONS: usize = 16;

/// A client for the cluster of `KUBECONFIG`, or that which the process runs in. Each response to a watch or list, and
/// each failure, records a heartbeat for its path.
///
/// # Errors
/// A message that says what is missing.
pub fn client(liveness: Arc<Liveness>, proxies: &Proxies) -> Result<Client, String> {
    let mut config = kubeconfig::infer(proxies)?;
    // the operator's backoff depends on the validity of a token; that of the client would wait up to 1000 s
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    let client = if config.proxy_url.is_some() {
        ClientBuilder::try_from(config).map(|builder| observed(builder, liveness))
    } else {
        direct(config).map(|builder| observed(builder, liveness))
    };
    client.map_err(|error| unbuilt(&error))
}

/// Why there is no client, in one line. What an exec plugin printed is not quoted: it may be a token.
#[must_use]
pub fn unbuilt(error: &kube::Error) -> String {
    let cause = match error {
        kube::Error::Auth(AuthError::AuthExecStart(error)) => format!("its exec plugin cannot be started: {error}"),
        kube::Error::Auth(AuthError::AuthExecRun { out, .. }) => format!("its exec plugin ended with {}", out.status),
        kube::Error::Auth(AuthError::ReadTokenFile(error, path)) => {
            format!("its token file {} cannot be read: {error}", path.display())
        }
        kube::Error::Auth(_) => "the credentials of its user are not usable".to_owned(),
        _ => "its TLS settings are not usable".to_owned(),
    };
    format!("no client with the kubeconfig or service account: {cause}")
}

/// A client over the connections that `builder` has, with the bounds of every client of this process.
pub fn observed<S, B>(builder: ClientBuilder<S>, liveness: Arc<Liveness>) -> Client
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send + 'static> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    // each request for a page of a list is a heartbeat
    let layer = layer_fn(move |inner| Bounded::new(Observed { inner, liveness: liveness.clone() }));
    builder.with_layer(&layer).build()
}

/// The client that kube builds for a configuration without a proxy, but with `TCP_NODELAY`. Header and body of a
/// request are two writes, and the second would wait for the acknowledgement of the first, which the other side delays
/// by 40 ms (Nagle's algorithm, RFC 896, and delayed acknowledgements, RFC 1122 section 4.2.3.2).
fn direct(
    config: Config,
) -> kube::Result<
    ClientBuilder<
        impl Service<Request<Body>, Response = Response<Incoming>, Error = BoxError, Future: Send> + Send + use<>,
    >,
> {
    let mut tcp = legacy::connect::HttpConnector::new();
    // the TLS layer checks the scheme
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    let http: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new())
        .http1_max_buf_size(READ_BUFFER)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace))
}

/// Records a heartbeat for each response to a watch or list, and for each failure.
struct Observed<S> {
    inner: S,
    liveness: Arc<Liveness>,
}

impl<S, B> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = pages::is_of_all(request.uri()).then(|| request.uri().path().to_owned());
        let liveness = self.liveness.clone();
        self.inner
            .call(request)
            .inspect(move |_| {
                if let Some(path) = path {
                    liveness.heartbeat(&path);
                }
            })
            .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::watch::{WATCH_LIMIT, WATCH_SECONDS};

    #[tokio::test]
    async fn only_watches_and_lists_record_heartbeats_even_if_they_fail() {
        let liveness = Arc::new(Liveness::default());
        let inner = tower::service_fn(|_: Request<Body>| std::future::ready(Err::<Response<()>, _>("no connection")));
        let mut observed = Observed { inner, liveness: liveness.clone() };
        for (uri, is_heartbeat) in [
            ("/a?watch=true", true),
            ("/a?limit=500", true),
            ("/a?&fieldSelector=metadata.name%3Dx&limit=1", false),
            ("/a?&fieldSelector=metadata.name%3Dx&watch=true", false),
            ("/a/b", false),
        ] {
            liveness.expect("/a", Duration::ZERO);
            liveness.expect("/a/b", Duration::ZERO);
            let before = tokio::time::Instant::now();
            let request = Request::get(uri).body(Body::empty()).expect("a request");
            assert!(observed.call(request).await.is_err());
            assert_eq!(liveness.heartbeat_since("/a", before), is_heartbeat, "{uri}");
        }
    }

    #[test]
    fn watch_without_events_ends_before_the_read_timeout_and_long_before_it_counts_as_stalled() {
        let ends = Duration::from_secs(u64::from(WATCH_SECONDS));
        assert!(ends < READ_TIMEOUT && ends + READ_TIMEOUT + CONNECT_TIMEOUT < WATCH_LIMIT);
    }
}
