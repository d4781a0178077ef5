//! The HTTP client of one authority, with everything bounded that the other side controls.
//!
//! No redirects (a 307 would carry the client secret elsewhere), https only, TLS 1.2 or later, no decompression, a
//! deadline over the whole exchange, and a cap on the body. The error type distinguishes what users can act upon.

use std::{error::Error as _, io, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use itwin_oauth::transport::{BODY_MAX, Transport, TransportError, retry_after};
use reqwest::{Certificate, redirect};

use super::authority::Connect;
use crate::clock::Clock;

/// The longest time for name resolution, TCP and TLS together, where the request's deadline is longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are closed after this: shorter than the usual 60 s of load balancers, so that a renewal does not
/// meet a connection that the other side has just closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest cause of a failure that is repeated, in characters: a certificate can name thousands of hosts.
const CAUSE_MAX: usize = 200;
/// The body of a 5xx is read for so long: it may name an OAuth error, and what the status says is known.
const ERROR_BODY_WITHIN: Duration = Duration::from_secs(1);
/// How the operator names itself.
const USER_AGENT: &str = concat!("itwin-credential-operator/", env!("CARGO_PKG_VERSION"));

/// The HTTP client of one authority.
pub struct Http {
    client: reqwest::Client,
    clock: Clock,
    deadline: Duration,
}

impl Http {
    /// A client that trusts `roots`, or the system's roots where there are none.
    ///
    /// # Errors
    /// Text that says what is wrong with the roots.
    pub fn new(roots: Option<Vec<Certificate>>, deadline: Duration, clock: Clock) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .https_only(true)
            .tls_version_min(reqwest::tls::Version::TLS_1_2)
            .redirect(redirect::Policy::none())
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT.min(deadline))
            .timeout(deadline)
            .pool_idle_timeout(IDLE_TIMEOUT);
        if let Some(roots) = roots {
            builder = builder.tls_certs_only(roots);
        }
        let client = builder.build().map_err(|error| root_cause(&error))?;
        Ok(Self { client, deadline, clock })
    }

    /// What makes such clients from the configuration of an authority.
    #[must_use]
    pub fn connect(clock: Clock) -> Connect {
        Arc::new(move |config| {
            let http = Self::new(config.roots.clone(), config.request_timeout, clock.clone())
                .map_err(|error| format!("caBundle: no TLS client can be made with it ({error})"))?;
            Ok(Arc::new(http))
        })
    }

    async fn exchange(&self, request: reqwest::Request) -> Result<http::Response<Vec<u8>>, TransportError> {
        let mut response = self.client.execute(request).await.map_err(|error| self.classify(&error))?;
        let status = response.status();
        let retry_after = retry_after(response.headers(), self.clock.now());
        if status.is_redirection() {
            return Err(TransportError::Redirect(status.as_u16()));
        }
        if status == http::StatusCode::TOO_MANY_REQUESTS {
            return Err(TransportError::RateLimited(retry_after));
        }
        if status.is_server_error() {
            // the server failed, with or without a body that can be read
            let body = tokio::time::timeout(ERROR_BODY_WITHIN, self.body(&mut response)).await;
            let body = body.ok().and_then(Result::ok).unwrap_or_default();
            return Err(TransportError::Server(status.as_u16(), retry_after, body));
        }
        let body = self.body(&mut response).await?;
        let mut answer = http::Response::new(body);
        *answer.status_mut() = status;
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }

    async fn body(&self, response: &mut reqwest::Response) -> Result<Vec<u8>, TransportError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.classify(&error))? {
            if body.len() + chunk.len() > BODY_MAX {
                return Err(TransportError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn classify(&self, error: &reqwest::Error) -> TransportError {
        if error.is_timeout() {
            return TransportError::Timeout(self.deadline);
        }
        if let Some(tls) = tls_error(error) {
            return TransportError::Tls(tls);
        }
        let text = root_cause(error);
        // a body that ends early is a broken connection; one whose framing makes no sense is not
        let nonsense = io_error_kind(error)
            .is_some_and(|kind| matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput));
        if nonsense || error.is_decode() && io_error_kind(error).is_none() {
            return TransportError::Malformed(text);
        }
        TransportError::Connection(text)
    }
}

impl Transport for Http {
    fn send(&self, request: http::Request<Vec<u8>>) -> BoxFuture<'_, Result<http::Response<Vec<u8>>, TransportError>> {
        Box::pin(async move {
            let malformed = |error: reqwest::Error| TransportError::Malformed(root_cause(&error));
            let request = reqwest::Request::try_from(request).map_err(malformed)?;
            tokio::time::timeout(self.deadline, self.exchange(request))
                .await
                .unwrap_or(Err(TransportError::Timeout(self.deadline)))
        })
    }
}

/// The causes of an error, outermost first. An `io::Error` leaves the error that it wraps out of `source`; here it is in.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |cause| {
        let cause: &(dyn std::error::Error + 'static) = *cause;
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn std::error::Error + 'static)).or_else(|| cause.source())
    })
}

/// The TLS library's own words, if a chain of errors ends there.
fn tls_error(error: &reqwest::Error) -> Option<String> {
    causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>()).map(|error| cut(&error.to_string()))
}

/// The kind of the system's error, if there is one.
fn io_error_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind)
}

/// The innermost error: the outer ones repeat the URL and say "error sending request".
fn root_cause(error: &reqwest::Error) -> String {
    cut(&causes(error).last().map_or_else(|| error.to_string(), ToString::to_string))
}

/// A cause as a message may repeat it: parts of it can come from the server, such as the names in its certificate.
fn cut(cause: &str) -> String {
    let mut characters = cause.chars().filter(|c| !c.is_control());
    let mut text: String = characters.by_ref().take(CAUSE_MAX).collect();
    if characters.next().is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_is_cut_and_has_no_control_characters() {
        assert_eq!(cut("certificate\r\nexpired\u{1b}[31m"), "certificateexpired[31m");
        assert_eq!(cut(&"ä".repeat(CAUSE_MAX)).chars().count(), CAUSE_MAX);
        assert_eq!(cut(&"ä".repeat(10_000)).chars().count(), CAUSE_MAX + 1);
    }
}
