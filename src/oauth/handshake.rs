//! What happens in the handshakes with one server, as far as the error of a connection does not say it: whether the
//! handshake was reached, and whether the server asked for a client certificate.
//!
//! A server that wants one refuses late: with TLS 1.3 after the handshake, as an alert or as a reset while the request is
//! sent; some proxies answer HTTP 400. So what it asked for is remembered for the requests that follow.

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
    /// The server of the request that the task sends.
    static SERVER: Asked;
    /// Whether the server asked, of the handshake that the task does.
    static HANDSHAKE: Asked;
}

/// Whether a server asked for a client certificate.
type Asked = Arc<AtomicBool>;

/// Whether the servers of one authority asked for a client certificate, in the last handshake with each.
#[derive(Default)]
pub struct Servers(Mutex<BTreeMap<String, Asked>>);

impl Servers {
    /// Runs a request, so that its handshake is observed.
    pub async fn observe<F: Future>(&self, url: &Url, request: F) -> F::Output {
        SERVER.scope(self.server(url), request).await
    }

    /// Whether the server of this URL asked for a client certificate.
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
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed(inner)
    }
}

/// What makes connections, observed.
#[derive(Clone)]
pub struct Observed<S>(S);

impl<S, R> Service<R> for Observed<S>
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
        let server = SERVER.try_with(Arc::clone).unwrap_or_default();
        let asked = Asked::default();
        let connection = HANDSHAKE.scope(asked.clone(), self.0.call(target));
        Box::pin(async move {
            let result = connection.await;
            server.store(asked.load(Relaxed), Relaxed);
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
    async fn connect(servers: &Servers, asks: bool, result: Result<(), BoxError>) -> Result<(), BoxError> {
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
        connect(&servers, true, Ok(())).await.expect("connected");
        assert!(servers.asked(&url(URL)));
        assert!(servers.asked(&url("https://ims.example.com/keys")));
        assert!(!servers.asked(&url("https://ims.example.com:8443/keys")));
        connect(&servers, false, Ok(())).await.expect("connected");
        assert!(!servers.asked(&url(URL)));
    }

    #[tokio::test]
    async fn error_of_the_handshake_has_a_type_of_its_own() {
        let servers = Servers::default();
        let closed = connect(&servers, true, Err(Box::new(io::Error::from(io::ErrorKind::UnexpectedEof)))).await;
        assert!(closed.expect_err("closed").is::<HandshakeError>());
        assert!(servers.asked(&url(URL)));
        let refused = connect(&servers, false, Err("refused".into())).await;
        assert!(!refused.expect_err("refused").is::<HandshakeError>());
    }
}
