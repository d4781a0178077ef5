//! What carries a request to an authorization server and brings the answer back, and how that fails.
//!
//! The operator implements [`Transport`] over HTTPS; tests and fuzz targets answer requests themselves.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;

use crate::{
    error_code::ErrorCode,
    limits::RETRY_AFTER_MAX,
    tls::{TlsError, TrustedRoots},
};

/// The longest token response or error that is read, in bytes: a token response has about 2 KiB.
pub const BODY_MAX: usize = 64 * 1024;
/// The longest document that is read, in bytes: a key set of 100 keys has about 50 KiB, and with certificates 200 KiB.
pub const DOCUMENT_MAX: usize = 256 * 1024;
/// The status of a server that limits its clients (RFC 6585 section 4).
pub const TOO_MANY_REQUESTS: u16 = 429;
/// The status of a server that is down for all its clients (RFC 9110 section 15.6.4).
pub const UNAVAILABLE: u16 = 503;

/// An extension of an answer that may be a server's way to say that it wants a client certificate: the server asked for
/// one in the handshake, and answered 400, 401 or 403, or a status of its own, without an OAuth error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientCertificateAsked;

/// An extension of an answer of another status than that of success whose body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyUnread;

/// An extension of an answer that asks this client to wait for so long (`Retry-After`), whatever its status is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter(pub TimeDelta);

/// Carries a request to an authorization server and brings the answer back, within a deadline of its own.
pub trait Transport: Sync {
    /// Sends one request and reads the whole answer, up to [`body_max`]. Answers of status 3xx, 429 and 5xx are errors;
    /// the caller reads the others. One of another status than that of success counts without a body where that cannot be
    /// read, and has the extension [`BodyUnread`].
    ///
    /// # Errors
    /// [`TransportError`].
    fn send(&self, request: http::Request<Vec<u8>>) -> BoxFuture<'_, Result<http::Response<Vec<u8>>, TransportError>>;
}

/// Why there is no answer to read. The texts are bounded by the implementation of [`Transport`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// The deadline of the whole request passed.
    #[error("no complete answer within {0:?}")]
    Timeout(Duration),
    /// The deadline of the connection passed: name resolution, proxy, TCP and TLS.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// Name resolution, TCP, or a connection that broke.
    #[error("{0}")]
    Connection(String),
    /// The proxy on the way makes no connection to the server.
    #[error("{0}")]
    Proxy(#[from] ProxyError),
    /// The certificate or the handshake.
    #[error("{0}")]
    Tls(TlsError),
    /// 3xx: redirects are never followed, since one could carry the client secret elsewhere.
    #[error("HTTP {0}")]
    Redirect(u16),
    /// 429, with the wait that the server asks for and the body, which may name an OAuth error.
    #[error("HTTP 429")]
    RateLimited(Option<TimeDelta>, Vec<u8>),
    /// 5xx, with the wait that the server asks for and the body, which may name an OAuth error.
    #[error("HTTP {0}")]
    Server(u16, Option<TimeDelta>, Vec<u8>),
    /// The body is longer than this.
    #[error("more than {0} bytes")]
    TooLarge(usize),
    /// The other side answered something that is not HTTP, or a message head that breaks its rules.
    #[error("{0}")]
    NotHttp(String),
    /// HTTP, but not the status that was expected, or a body whose framing makes no sense.
    #[error("{0}")]
    Malformed(String),
}

/// Why a proxy makes no connection to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// 407 (RFC 9110 section 15.5.8): it demands a user name and password, or others than those it got.
    #[error("the proxy answered HTTP 407")]
    Unauthorized,
    /// Any other answer but 200: it refuses, or could not reach the server. The HTTP client does not give out the status.
    #[error("the proxy made no connection to the server")]
    NotConnected,
    /// The server has an IPv6 address in place of a name, for which the HTTP client makes no tunnel.
    #[error("no tunnel to an IPv6 address")]
    Ipv6Address,
    /// The URL of the proxy is an https one, and its certificate is signed by none of the CAs that the server's is checked
    /// with.
    #[error("TLS with the proxy: unknown issuer")]
    UntrustedIssuer(TrustedRoots),
}

/// The longest body that is read in answer to a request with this method: documents are fetched with GET.
#[must_use]
pub fn body_max(method: &http::Method) -> usize {
    if method == http::Method::GET { DOCUMENT_MAX } else { BODY_MAX }
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
        let is_asked = response.extensions().get::<ClientCertificateAsked>().is_some();
        let hint =
            if is_asked { ", after it asked for a client certificate, which this operator does not have" } else { "" };
        Err(TransportError::Malformed(format!("HTTP {}{hint}", response.status().as_u16())))
    }
}

impl TransportError {
    /// How long the server asks this client to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<TimeDelta> {
        match self {
            Self::RateLimited(wait, _) | Self::Server(_, wait, _) => *wait,
            _ => None,
        }
    }

    /// How long it asks all its clients to wait: `Retry-After` of 429 and 503 (RFC 6585 section 4, RFC 9110 section
    /// 15.6.4).
    #[must_use]
    pub fn server_wait(&self) -> Option<TimeDelta> {
        match self {
            Self::RateLimited(wait, _) | Self::Server(UNAVAILABLE, wait, _) => *wait,
            _ => None,
        }
    }

    /// The same error after `passed`, when that much less is left of the wait that the server asked for.
    #[must_use]
    pub fn after(self, passed: TimeDelta) -> Self {
        let left = |wait: Option<TimeDelta>| wait.map(|wait| (wait - passed).max(TimeDelta::zero()));
        match self {
            Self::RateLimited(wait, body) => Self::RateLimited(left(wait), body),
            Self::Server(status, wait, body) => Self::Server(status, left(wait), body),
            error => error,
        }
    }

    /// Whether the server failed, not one request: it gave no answer, none in HTTP, or a 5xx that carries no OAuth error.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Timeout(_)
            | Self::ConnectTimeout(_)
            | Self::Connection(_)
            | Self::Proxy(_)
            | Self::Tls(_)
            | Self::NotHttp(_) => true,
            Self::Server(status, _, body) => ErrorCode::with_status(*status, body).is_none(),
            Self::Redirect(_) | Self::RateLimited(..) | Self::TooLarge(_) | Self::Malformed(_) => false,
        }
    }
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date. The date is one of the server's clock, so that it counts
/// from what the server calls now (`Date`), or from `now` where it does not say that.
#[must_use]
pub fn retry_after(headers: &http::HeaderMap, now: DateTime<Utc>) -> Option<TimeDelta> {
    let text = short(headers, http::header::RETRY_AFTER)?;
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wait = if is_number {
        // no one waits for longer than that
        TimeDelta::seconds(text.parse().unwrap_or(u32::MAX).into())
    } else {
        date(text)? - short(headers, http::header::DATE).and_then(date).unwrap_or(now)
    };
    Some(wait.clamp(TimeDelta::zero(), TimeDelta::seconds(u32::MAX.into())))
}

/// The text of a header that is not too long.
fn short(headers: &http::HeaderMap, name: http::HeaderName) -> Option<&str> {
    let value = headers.get(name).filter(|value| value.len() <= RETRY_AFTER_MAX)?;
    Some(value.to_str().ok()?.trim())
}

/// A date in one of the three forms of HTTP (RFC 9110 section 5.6.7), or in another one of mail.
fn date(text: &str) -> Option<DateTime<Utc>> {
    let of_http = || httpdate::parse_http_date(text).ok().map(DateTime::from);
    DateTime::parse_from_rfc2822(text).map(|date| date.to_utc()).ok().or_else(of_http)
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
    fn outage_is_no_answer_or_a_5xx_without_an_oauth_error() {
        let named = |error: &str| format!(r#"{{"error": "{error}"}}"#).into_bytes();
        for (error, expected) in [
            (TransportError::Timeout(Duration::from_secs(1)), true),
            (TransportError::ConnectTimeout(Duration::from_secs(1)), true),
            (TransportError::Connection("refused".to_owned()), true),
            (TransportError::Tls(TlsError::HandshakeRefused), true),
            (TransportError::Tls(TlsError::ClientCertificateWanted), true),
            (TransportError::Server(500, None, Vec::new()), true),
            (TransportError::Server(500, None, named("invalid_client")), false),
            (TransportError::Server(500, None, named("server_error")), false),
            (TransportError::Server(500, None, named("unknown_error")), true),
            (TransportError::Server(500, None, named("Internal Server Error")), true),
            (TransportError::Server(500, None, br#"{"errorCode": "E0000009"}"#.to_vec()), true),
            (TransportError::Proxy(ProxyError::NotConnected), true),
            (TransportError::NotHttp("invalid HTTP version parsed".to_owned()), true),
            (TransportError::RateLimited(None, Vec::new()), false),
            (TransportError::Redirect(302), false),
            (TransportError::TooLarge(BODY_MAX), false),
            (TransportError::Malformed("HTTP 404".to_owned()), false),
        ] {
            assert_eq!(error.is_outage(), expected, "{error:?}");
        }
    }

    #[test]
    fn wait_that_is_over_is_not_asked_for_again() {
        let wait = Some(TimeDelta::seconds(60));
        for error in [TransportError::RateLimited(wait, Vec::new()), TransportError::Server(503, wait, Vec::new())] {
            let left = |passed| error.clone().after(TimeDelta::seconds(passed)).server_wait();
            assert_eq!(left(45), Some(TimeDelta::seconds(15)), "{error:?}");
            assert_eq!(left(61), Some(TimeDelta::zero()), "{error:?}");
        }
        assert_eq!(TransportError::RateLimited(None, Vec::new()).after(TimeDelta::zero()).server_wait(), None);
    }

    #[test]
    fn retry_after_reads_seconds_and_dates_and_ignores_nonsense() {
        assert_eq!(read("120"), Some(TimeDelta::seconds(120)));
        assert_eq!(read("Sun, 06 Nov 1994 08:51:07 GMT"), Some(TimeDelta::seconds(90)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:36 GMT"), Some(TimeDelta::zero()));
        // the obsolete forms, of which a server may still write either
        assert_eq!(read("Sunday, 06-Nov-94 08:51:07 GMT"), Some(TimeDelta::seconds(90)));
        assert_eq!(read("Sun Nov  6 08:51:07 1994"), Some(TimeDelta::seconds(90)));
        let longest = Some(TimeDelta::seconds(u32::MAX.into()));
        for seconds in ["4294967295", "4294967296", "99999999999999999999999999"] {
            assert_eq!(read(seconds), longest, "{seconds}");
        }
        assert_eq!(read("soon"), None);
        assert_eq!(read("-5"), None);
        assert_eq!(read("+5"), None);
        assert_eq!(read(""), None);
        assert_eq!(retry_after(&http::HeaderMap::new(), now()), None);
    }

    #[test]
    fn date_of_retry_after_counts_from_the_date_of_the_server() {
        let with_date = |value: &str, date: &str| {
            let mut headers = headers(value);
            headers.insert(http::header::DATE, date.parse().expect("a header value"));
            retry_after(&headers, now())
        };
        let (date, in_a_minute) = ("Sun, 06 Nov 1994 07:00:00 GMT", "Sun, 06 Nov 1994 07:01:00 GMT");
        assert_eq!(with_date(in_a_minute, date), Some(TimeDelta::minutes(1)), "its clock is behind");
        assert_eq!(with_date(date, in_a_minute), Some(TimeDelta::zero()));
        assert_eq!(with_date("Sun, 06 Nov 1994 08:51:07 GMT", "today"), Some(TimeDelta::seconds(90)));
        assert_eq!(with_date("120", date), Some(TimeDelta::seconds(120)));
        let (first, last) = ("Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(with_date(last, first), Some(TimeDelta::seconds(u32::MAX.into())));
    }

    #[test]
    fn longer_retry_after_is_not_read() {
        let date = |comment: usize| format!("Sun, 06 Nov 1994 08:51:07 GMT ({})", "x".repeat(comment));
        let longest = RETRY_AFTER_MAX - date(0).len();
        assert_eq!(read(&date(longest)), Some(TimeDelta::seconds(90)));
        assert_eq!(read(&date(longest + 1)), None);
    }
}
