//! What carries a request to an authorization server and brings the answer back, and how that fails.
//!
//! The operator implements [`Transport`] over HTTPS; tests and fuzzing answer for themselves.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use itwin_api::conditions::Reason;

use crate::{
    failure::{ExchangeStage, RequestFailure},
    json,
};

/// The longest body that is read, 64 KiB: a token answer has about 2 KiB, a key set about 8 KiB.
pub const BODY_MAX: usize = 64 * 1024;
/// The longest `Retry-After` that is read, in bytes: the longest date of HTTP has 33 (RFC 9110 section 5.6.7).
const RETRY_AFTER_MAX: usize = 64;
/// The status by which a server says that it is down for all.
pub const UNAVAILABLE: u16 = 503;

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

/// Gets a document.
///
/// # Errors
/// [`TransportError`], also for any status but 200.
pub async fn get(transport: &dyn Transport, url: &str) -> Result<Vec<u8>, TransportError> {
    let request = http::Request::get(url)
        .header(http::header::ACCEPT, "application/json")
        .body(Vec::new())
        .map_err(|error| TransportError::Malformed(error.to_string()))?;
    let response = transport.send(request).await?;
    if response.status() == http::StatusCode::OK {
        Ok(response.into_body())
    } else {
        Err(TransportError::Malformed(format!("HTTP {}", response.status().as_u16())))
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
}
