//! What happens in the handshakes with one server, as far as the error of a connection does not say it: whether the
//! handshake was reached, and whether the server asked for a client certificate.
//!
//! A server that wants one refuses late: with TLS 1.3 after the handshake, as an alert or as a reset while the request is
//! sent; some proxies answer HTTP 400. But a server may also ask and accept clients without one. So the end of a
//! connection is about a certificate only where the handshake of the same request asked for it.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use reqwest::Url;
use rustls::{SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};
use tower::{BoxError, Layer, Service};

tokio::task_local! {
    /// What is observed of the request that the task sends.
    static REQUEST: Request;
    /// Whether the server asked, of the handshake that the task does.
    static HANDSHAKE: Asked;
}

/// Whether a server asked for a client certificate.
type Asked = Arc<AtomicBool>;

/// Where the outcome of a handshake is noted.
#[derive(Clone, Default)]
struct Request {
    /// For the requests that follow.
    server: Asked,
    /// For this request, which makes no connection where it uses one that is there.
    own: Asked,
}

/// A request that was observed.
pub struct Observed<T> {
    /// How it ended.
    pub output: T,
    /// The server asked for a client certificate in the last handshake of this request.
    pub asked_in_its_handshake: bool,
}

/// Whether the servers of one authority asked for a client certificate, in the last handshake with each.
#[derive(Default)]
pub struct Servers(Mutex<BTreeMap<String, Asked>>);

impl Servers {
    /// Runs a request, so that its handshake is observed.
    pub async fn observe<F: Future>(&self, url: &Url, request: F) -> Observed<F::Output> {
        let noted = Request { server: self.server(url), own: Asked::default() };
        let output = REQUEST.scope(noted.clone(), request).await;
        Observed { output, asked_in_its_handshake: noted.own.load(Relaxed) }
    }

    /// Whether the server of this URL asked for a client certificate in the last handshake with it.
    pub fn asked(&self, url: &Url) -> bool {
        self.server(url).load(Relaxed)
    }

    /// There are as many as URLs in one ITwinAuthority: three at most.
    fn server(&self, url: &Url) -> Asked {
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        servers.entry(url.origin().ascii_serialization()).or_default().clone()
    }
}

/// Has no client certificate, and notes that one was asked for.
#[derive(Debug)]
pub struct NoClientCertificate;

impl ResolvesClientCert for NoClientCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // called while the connection is polled, so in its task
        let _ = HANDSHAKE.try_with(|asked| asked.store(true, Relaxed));
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// The connection was there, and the handshake on it failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HandshakeError(#[source] io::Error);

/// Observes each connection that is made.
#[derive(Clone)]
pub struct ObserveHandshakes;

impl<S> Layer<S> for ObserveHandshakes {
    type Service = Connector<S>;

    fn layer(&self, inner: S) -> Connector<S> {
        Connector(inner)
    }
}

/// What makes connections, observed.
#[derive(Clone)]
pub struct Connector<S>(S);

impl<S, R> Service<R> for Connector<S>
where
    S: Service<R, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, target: R) -> Self::Future {
        // the connection may be finished by another task than that of the request
        let Request { server, own } = REQUEST.try_with(Request::clone).unwrap_or_default();
        let asked = Asked::default();
        let connection = HANDSHAKE.scope(asked.clone(), self.0.call(target));
        Box::pin(async move {
            let result = connection.await;
            let asked = asked.load(Relaxed);
            server.store(asked, Relaxed);
            own.store(asked, Relaxed);
            result.map_err(in_handshake)
        })
    }
}

/// Errors of the handshake are the only ones that come bare: name resolution, TCP and proxies have types of their own.
fn in_handshake(error: BoxError) -> BoxError {
    match error.downcast::<io::Error>() {
        Ok(error) => Box::new(HandshakeError(*error)),
        Err(other) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://ims.example.com/connect/token";

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    /// Makes a connection, in whose handshake the server asks or does not.
    async fn connect(servers: &Servers, asks: bool, result: Result<(), BoxError>) -> Observed<Result<(), BoxError>> {
        let mut result = Some(result);
        let inner = tower::service_fn(move |()| {
            let result = result.take().expect("one connection");
            async move {
                if asks {
                    NoClientCertificate.resolve(&[], &[]);
                }
                result
            }
        });
        let url = url(URL);
        servers.observe(&url, async { ObserveHandshakes.layer(inner).call(()).await }).await
    }

    #[tokio::test]
    async fn request_for_a_certificate_is_remembered_for_its_server_until_the_next_handshake() {
        let servers = Servers::default();
        let first = connect(&servers, true, Ok(())).await;
        assert!(first.output.is_ok() && first.asked_in_its_handshake);
        assert!(servers.asked(&url(URL)));
        assert!(servers.asked(&url("https://ims.example.com/keys")));
        assert!(!servers.asked(&url("https://ims.example.com:8443/keys")));
        let other = connect(&servers, false, Ok(())).await;
        assert!(other.output.is_ok() && !other.asked_in_its_handshake);
        assert!(!servers.asked(&url(URL)));
    }

    #[tokio::test]
    async fn request_on_a_connection_that_was_there_had_no_handshake() {
        let servers = Servers::default();
        connect(&servers, true, Ok(())).await;
        let without_a_connection = servers.observe(&url(URL), async {}).await;
        assert!(!without_a_connection.asked_in_its_handshake && servers.asked(&url(URL)));
    }

    #[tokio::test]
    async fn error_of_the_handshake_has_a_type_of_its_own() {
        let servers = Servers::default();
        let closed = connect(&servers, true, Err(Box::new(io::Error::from(io::ErrorKind::UnexpectedEof)))).await;
        assert!(closed.output.expect_err("closed").is::<HandshakeError>());
        assert!(servers.asked(&url(URL)));
        let refused = connect(&servers, false, Err("refused".into())).await;
        assert!(!refused.output.expect_err("refused").is::<HandshakeError>());
    }
}
