//! The HTTP client of one authority, with everything bounded that the other side controls.
//!
//! No redirects (a 307 would carry the client secret elsewhere), https only, TLS 1.2 or later, no decompression, a
//! deadline over the whole exchange, and a cap on the body. The error type distinguishes what users can act upon.

use std::{io, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use itwin_oauth::{
    tls::{TlsError, TrustedRoots},
    token::ErrorCode,
    transport::{
        BodyUnread, ClientCertificateAsked, ProxyError, RetryAfter, TOO_MANY_REQUESTS, Transport, TransportError,
        body_max, retry_after,
    },
};
use reqwest::{Url, redirect};
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;
use url::Host;

use super::{
    authority::Connect,
    cause::{find, io_error_kind, is_closed, is_not_http, proxy_error, root_cause},
    handshake::{HandshakeError, ObserveHandshakes, Servers},
    tls,
};
use crate::{clock::Clock, config::proxy::Proxies};

/// Idle connections are closed after this: shorter than the usual 60 s of load balancers, so that a renewal does not
/// meet a connection that the other side has just closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections that are kept: with more, the memory of a burst would stay in use. Up to maxConcurrentRequests are open
/// while requests are in flight.
const IDLE_CONNECTIONS: usize = 16;
/// The body of an answer that its status explains is read for so long: it may name an OAuth error that says more.
const ERROR_BODY_WITHIN: Duration = Duration::from_secs(1);
/// The body of an answer that often only its body explains is read for so long: it holds a slot, and delays the report.
const REFUSED_BODY_WITHIN: Duration = Duration::from_secs(5);
/// The body of any error is read until so long before the deadline of the request, so that its status is reported.
const ERROR_BODY_MARGIN: Duration = Duration::from_millis(100);
/// How a web server answers a client that has no certificate: nginx with 400 (or 495 and 496 where an error page is
/// configured), others with 401 or 403.
const NO_CERTIFICATE: [u16; 5] = [400, 401, 403, 495, 496];
/// How the operator names itself.
const USER_AGENT: &str = concat!("itwin-credential-operator/", env!("CARGO_PKG_VERSION"));

/// The HTTP client of one authority.
pub struct Http {
    client: reqwest::Client,
    clock: Clock,
    deadlines: Deadlines,
    roots: TrustedRoots,
    proxies: Proxies,
    servers: Servers,
}

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For the whole request.
    pub request: Duration,
    /// For name resolution, proxy, TCP and TLS together.
    pub connect: Duration,
}

impl Http {
    /// A client that trusts `roots`, or the system's roots where there are none; messages name where they come from.
    ///
    /// # Errors
    /// Text that says what is wrong with the roots, and where they come from.
    pub fn new(
        (roots, roots_from): (Option<&[CertificateDer<'static>]>, TrustedRoots),
        deadlines: Deadlines,
        proxies: Proxies,
        clock: Clock,
    ) -> Result<Self, String> {
        let chosen = proxies.clone();
        let client = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .https_only(true)
            .tls_backend_preconfigured(tls::config(roots)?)
            .connector_layer(ObserveHandshakes)
            .redirect(redirect::Policy::none())
            // in place of the library's own reading of the environment
            .no_proxy()
            .proxy(reqwest::Proxy::custom(move |url| chosen.for_url(url).cloned()))
            .http1_only()
            .connect_timeout(deadlines.connect)
            .timeout(deadlines.request)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build()
            .map_err(|error| format!("no TLS client can be made ({})", root_cause(&error)))?;
        Ok(Self { client, deadlines, clock, roots: roots_from, proxies, servers: Servers::default() })
    }

    /// What makes such clients from the configuration of an authority.
    #[must_use]
    pub fn connect(clock: Clock, proxies: Proxies) -> Connect {
        Arc::new(move |config| {
            let deadlines = Deadlines { request: config.request_timeout, connect: config.connect_timeout };
            let roots = (config.roots.as_deref(), config.roots_from);
            let http = Self::new(roots, deadlines, proxies.clone(), clock.clone())?;
            Ok(Arc::new(http))
        })
    }

    async fn exchange(&self, request: reqwest::Request) -> Result<http::Response<Vec<u8>>, TransportError> {
        let began = self.clock.monotonic();
        let (url, method) = (request.url().clone(), request.method().clone());
        // behind the tunnel, the library takes the address in brackets for a name, and refuses it
        if matches!(url.host(), Some(Host::Ipv6(_))) && self.proxies.for_url(&url).is_some() {
            return Err(ProxyError::Ipv6Address.into());
        }
        let observed = self.servers.observe(&url, self.client.execute(request)).await;
        // a connection that was there before has not ended for want of a certificate: it was used without one
        let in_this_request = observed.asked_in_its_handshake;
        let mut response = observed.output.map_err(|error| self.classify(&error, in_this_request))?;
        let status = response.status();
        let retry_after = retry_after(response.headers(), self.clock.now());
        if status.is_redirection() {
            return Err(TransportError::Redirect(status.as_u16()));
        }
        let read = self.body(&mut response, in_this_request, body_max(&method));
        let read = if status.is_success() {
            Some(read.await?)
        } else {
            // the status is an answer, with or without a body that can be read
            let until = self.error_body_until(began, &method, status);
            tokio::time::timeout_at(until, read).await.ok().and_then(Result::ok)
        };
        let is_unread = read.is_none();
        let body = read.unwrap_or_default();
        if status.as_u16() == TOO_MANY_REQUESTS {
            return Err(TransportError::RateLimited(retry_after, body));
        }
        if status.is_server_error() {
            return Err(TransportError::Server(status.as_u16(), retry_after, body));
        }
        let mut answer = http::Response::new(body);
        if is_unread {
            answer.extensions_mut().insert(BodyUnread);
        }
        if let Some(wait) = retry_after {
            answer.extensions_mut().insert(RetryAfter(wait));
        }
        if self.may_want_a_certificate(&url, status, answer.body()) {
            answer.extensions_mut().insert(ClientCertificateAsked);
        }
        *answer.status_mut() = status;
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }

    /// Until when the body of an error is read. Of a token request that was refused, often only the body says why.
    fn error_body_until(&self, began: Instant, method: &http::Method, status: http::StatusCode) -> Instant {
        let latest = began + self.deadlines.request.saturating_sub(ERROR_BODY_MARGIN);
        let is_limited = status == http::StatusCode::TOO_MANY_REQUESTS;
        let is_refused = method == http::Method::POST && status.is_client_error() && !is_limited;
        latest.min(self.clock.monotonic() + if is_refused { REFUSED_BODY_WITHIN } else { ERROR_BODY_WITHIN })
    }

    async fn body(
        &self,
        response: &mut reqwest::Response,
        asked: bool,
        longest: usize,
    ) -> Result<Vec<u8>, TransportError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.classify(&error, asked))? {
            if body.len() + chunk.len() > longest {
                return Err(TransportError::TooLarge(longest));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Whether this may be the answer of a proxy before the server to a client without a certificate. It is known by the
    /// last handshake with the server, so that equal answers are reported alike on a new connection and on an old one.
    fn may_want_a_certificate(&self, url: &Url, status: http::StatusCode, body: &[u8]) -> bool {
        let status = status.as_u16();
        NO_CERTIFICATE.contains(&status) && ErrorCode::with_status(status, body).is_none() && self.servers.asked(url)
    }

    /// `asked` is whether the server asked for a client certificate in a handshake of this request.
    fn classify(&self, error: &reqwest::Error, asked: bool) -> TransportError {
        if error.is_timeout() && error.is_connect() {
            return TransportError::ConnectTimeout(self.deadlines.connect);
        }
        if error.is_timeout() {
            return TransportError::Timeout(self.deadlines.request);
        }
        if let Some(tls) = self.tls_error(error, asked) {
            return tls;
        }
        if let Some(proxy) = proxy_error(error) {
            return proxy.into();
        }
        let text = root_cause(error);
        // a body that ends early is a broken connection; one whose framing makes no sense is not
        let nonsense = io_error_kind(error)
            .is_some_and(|kind| matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput));
        if is_not_http(error) {
            return TransportError::NotHttp(text);
        }
        if nonsense || error.is_decode() && io_error_kind(error).is_none() {
            return TransportError::Malformed(text);
        }
        TransportError::Connection(text)
    }

    /// What TLS has to do with an error.
    fn tls_error(&self, error: &reqwest::Error, asked: bool) -> Option<TransportError> {
        let wanted = TransportError::Tls(TlsError::ClientCertificateWanted);
        let in_handshake = find::<HandshakeError>(error).is_some();
        match find::<rustls::Error>(error) {
            // a connection to a server fails in its handshake; what fails before is TLS with a proxy
            Some(cause) if error.is_connect() && !in_handshake => Some(match tls::cause(cause, self.roots, false) {
                TlsError::UntrustedIssuer(roots) => ProxyError::UntrustedIssuer(roots).into(),
                cause => TransportError::Connection(format!("TLS with the proxy: {cause}")),
            }),
            Some(cause) => Some(TransportError::Tls(tls::cause(cause, self.roots, asked))),
            None if in_handshake => Some(if asked { wanted } else { TransportError::Tls(TlsError::Closed) }),
            // the request was sent, and there is no answer
            None => (asked && error.is_request() && !error.is_connect() && is_closed(error)).then_some(wanted),
        }
    }
}

impl Transport for Http {
    fn send(&self, request: http::Request<Vec<u8>>) -> BoxFuture<'_, Result<http::Response<Vec<u8>>, TransportError>> {
        Box::pin(async move {
            let malformed = |error: reqwest::Error| TransportError::Malformed(root_cause(&error));
            let request = reqwest::Request::try_from(request).map_err(malformed)?;
            let deadline = self.deadlines.request;
            tokio::time::timeout(deadline, self.exchange(request))
                .await
                .unwrap_or(Err(TransportError::Timeout(deadline)))
        })
    }
}
