//! The HTTP client of one authority, with everything bounded that the other side controls.
//!
//! No redirects (a 307 would carry the client secret elsewhere), https only, TLS 1.2 or later, no decompression, a
//! deadline over the whole exchange, and a cap on the body. The error type tells apart what users can act upon.

use std::{error::Error as _, io, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use reqwest::{Certificate, redirect};

use super::{
    failure::{ExchangeStage, RequestFailure},
    json,
};
use crate::api::conditions::Reason;

/// The longest body that is read, 64 KiB: a token answer has about 2 KiB, a key set about 8 KiB.
const BODY_MAX: usize = 64 * 1024;
/// The longest time for name resolution, TCP and TLS together, where the request's deadline is longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are closed after this: shorter than the usual 60 s of load balancers, so that a renewal does not
/// meet a connection that the other side has just closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest `Retry-After` that is read, in bytes: the longest date of HTTP has 33 (RFC 9110 section 5.6.7).
const RETRY_AFTER_MAX: usize = 64;
/// The longest cause of a failure that is repeated, in characters: a certificate can name thousands of hosts.
const CAUSE_MAX: usize = 200;
/// The status by which a server says that it is down for all.
pub const UNAVAILABLE: u16 = 503;
/// The body of a 5xx is read for so long: it may name an OAuth error, and what the status says is known.
const ERROR_BODY_WITHIN: Duration = Duration::from_secs(1);
/// How the operator names itself.
const USER_AGENT: &str = concat!("itwin-credential-operator/", env!("CARGO_PKG_VERSION"));

/// Carries a request to the authority and brings the answer back. Apart from [`Http`] only tests and fuzzing have one,
/// with an answer of their own.
pub trait Transport: Sync {
    /// Sends one request and reads the whole answer. Answers of status 3xx, 429 and 5xx are errors; others are for the
    /// caller to understand.
    ///
    /// # Errors
    /// [`TransportError`].
    fn send(&self, request: http::Request<Vec<u8>>) -> BoxFuture<'_, Result<http::Response<Vec<u8>>, TransportError>>;
}

/// The HTTP client of one authority.
pub struct Http {
    client: reqwest::Client,
    deadline: Duration,
}

/// Why no answer was had.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The deadline passed.
    #[error("no complete answer within {0:?}")]
    Timeout(Duration),
    /// Name resolution, TCP, or a connection that broke.
    #[error("{0}")]
    Connection(String),
    /// The certificate or the handshake.
    #[error("{0}")]
    Tls(String),
    /// The server wants us elsewhere.
    #[error("HTTP {0}")]
    Redirect(u16),
    /// 429, with the wait that the server asks for.
    #[error("HTTP 429")]
    RateLimited(Option<TimeDelta>),
    /// 5xx, with the wait that the server asks for and what else it said, which may name an OAuth error.
    #[error("HTTP {0}")]
    Server(u16, Option<TimeDelta>, Vec<u8>),
    /// The body is longer than we read.
    #[error("more than {BODY_MAX} bytes")]
    TooLarge,
    /// Not HTTP, or not what was asked for.
    #[error("{0}")]
    Malformed(String),
}

impl Http {
    /// A client that trusts `roots`, or the system's roots where there are none.
    ///
    /// # Errors
    /// Text that says what is wrong with the roots.
    pub fn new(roots: Option<Vec<Certificate>>, deadline: Duration) -> Result<Self, String> {
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
        Ok(Self { client, deadline })
    }

    /// Gets a document.
    ///
    /// # Errors
    /// [`TransportError`], also for any status but 200.
    pub async fn get(&self, url: &str) -> Result<Vec<u8>, TransportError> {
        let request = http::Request::get(url)
            .header(http::header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|error| TransportError::Malformed(error.to_string()))?;
        let response = self.send(request).await?;
        if response.status() == http::StatusCode::OK {
            Ok(response.into_body())
        } else {
            Err(TransportError::Malformed(format!("HTTP {}", response.status().as_u16())))
        }
    }

    async fn exchange(&self, request: reqwest::Request) -> Result<http::Response<Vec<u8>>, TransportError> {
        let mut response = self.client.execute(request).await.map_err(|error| self.classify(&error))?;
        let status = response.status();
        let retry_after = retry_after(response.headers(), crate::clock::now());
        if status.is_redirection() {
            return Err(TransportError::Redirect(status.as_u16()));
        }
        if status == http::StatusCode::TOO_MANY_REQUESTS {
            return Err(TransportError::RateLimited(retry_after));
        }
        if status.is_server_error() {
            // whatever becomes of the body, the server failed
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

impl TransportError {
    /// The failure in the words of the contract. `what` names what was asked for, such as "token endpoint of
    /// ITwinAuthority bentley-ims".
    #[must_use]
    pub fn into_failure(self, what: &str) -> RequestFailure {
        let stage = match &self {
            // with an OAuth error it is one request that failed, not the server
            Self::Server(_, _, body) if json::error_code(body).is_some() => ExchangeStage::Answered,
            Self::Timeout(_) | Self::Connection(_) | Self::Tls(_) | Self::Server(..) => ExchangeStage::Outage,
            _ => ExchangeStage::Answered,
        };
        self.failure(what).at(stage)
    }

    fn failure(self, what: &str) -> RequestFailure {
        let again = "it is tried again";
        match self {
            Self::Timeout(deadline) => RequestFailure::new(
                Reason::Timeout,
                format!(
                    "the {what} gave no complete answer within {deadline:?}: check the network, or raise requestTimeout; {again}"
                ),
            ),
            Self::Connection(cause) => RequestFailure::new(
                Reason::ConnectionFailed,
                format!(
                    "no connection to the {what} ({cause}): check name resolution, network policies and proxies; {again}"
                ),
            ),
            Self::Tls(cause) => RequestFailure::new(
                Reason::TLSFailed,
                format!(
                    "the {what} showed a certificate that is not trusted ({cause}): check caBundle of the ITwinAuthority and the server's certificate; {again}"
                ),
            ),
            Self::Redirect(status) => RequestFailure::new(
                Reason::RedirectRefused,
                format!(
                    "the {what} answered HTTP {status}, and redirects are never followed: have the administrator name the final URL in the ITwinAuthority"
                ),
            ),
            Self::RateLimited(retry_after) => RequestFailure {
                retry_after,
                server_wait: retry_after,
                ..RequestFailure::new(
                    Reason::RateLimited,
                    format!("the {what} answered HTTP 429: lower requestsPerMinute of the ITwinAuthority; {again}"),
                )
            },
            Self::Server(status, retry_after, _) => RequestFailure {
                retry_after,
                server_wait: retry_after.filter(|_| status == UNAVAILABLE),
                ..RequestFailure::new(
                    Reason::ServerError,
                    format!("the {what} answered HTTP {status}: its operators must mend it; {again}"),
                )
            },
            Self::TooLarge => RequestFailure::new(
                Reason::MalformedResponse,
                format!(
                    "the {what} answered with more than {BODY_MAX} bytes: check that the URL is the right one; {again}"
                ),
            ),
            Self::Malformed(cause) => RequestFailure::new(
                Reason::MalformedResponse,
                format!(
                    "the {what} gave an answer that cannot be understood ({cause}): check that the URL is the right one; {again}"
                ),
            ),
        }
    }
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds or a date, as the time from `now`.
#[must_use]
pub fn retry_after(headers: &http::HeaderMap, now: DateTime<Utc>) -> Option<TimeDelta> {
    let value = headers.get(http::header::RETRY_AFTER).filter(|value| value.len() <= RETRY_AFTER_MAX)?;
    let text = value.to_str().ok()?.trim();
    let wait = match text.parse::<u32>() {
        Ok(seconds) => TimeDelta::seconds(seconds.into()),
        Err(_) => DateTime::parse_from_rfc2822(text).ok()?.to_utc() - now,
    };
    Some(wait.max(TimeDelta::zero()))
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

    fn headers(value: &str) -> http::HeaderMap {
        let mut headers = http::HeaderMap::new();
        headers.insert(http::header::RETRY_AFTER, value.parse().expect("a header value"));
        headers
    }

    fn read(value: &str) -> Option<TimeDelta> {
        retry_after(&headers(value), now())
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(784_111_777, 0).expect("in range")
    }

    #[test]
    fn retry_after_reads_seconds_and_dates_and_ignores_nonsense() {
        assert_eq!(read("120"), Some(TimeDelta::seconds(120)));
        assert_eq!(read("Sun, 06 Nov 1994 08:51:07 GMT"), Some(TimeDelta::seconds(90)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:36 GMT"), Some(TimeDelta::zero()));
        assert_eq!(read("soon"), None);
        assert_eq!(read("-5"), None);
        assert_eq!(retry_after(&http::HeaderMap::new(), now()), None);
    }

    #[test]
    fn longer_retry_after_is_not_read() {
        let date = |comment: usize| format!("Sun, 06 Nov 1994 08:51:07 GMT ({})", "x".repeat(comment));
        let longest = RETRY_AFTER_MAX - date(0).len();
        assert_eq!(read(&date(longest)), Some(TimeDelta::seconds(90)));
        assert_eq!(read(&date(longest + 1)), None);
    }

    #[test]
    fn cause_is_cut_and_has_no_control_characters() {
        assert_eq!(cut("certificate\r\nexpired\u{1b}[31m"), "certificateexpired[31m");
        assert_eq!(cut(&"ä".repeat(CAUSE_MAX)).chars().count(), CAUSE_MAX);
        assert_eq!(cut(&"ä".repeat(10_000)).chars().count(), CAUSE_MAX + 1);
    }
}
