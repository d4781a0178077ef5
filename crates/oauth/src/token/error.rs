//! Why a token request gave no token.

use chrono::TimeDelta;

use crate::{
    assertion::ClientKeyError,
    error_code::ErrorCode,
    transport::{TOO_MANY_REQUESTS, TransportError, UNAVAILABLE},
};

/// A token request without a usable token response.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The private key of the client signs nothing: no request was sent.
    #[error("no client assertion: {0}")]
    ClientKey(#[from] ClientKeyError),
    /// There is no complete answer, or one that its status alone explains.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The server answered with an error response (RFC 6749 section 5.2).
    #[error("HTTP {status} with the OAuth error {code}")]
    Response {
        /// The error.
        code: ErrorCode,
        /// The status; servers differ in which they send with which error.
        status: u16,
        /// The wait that the server asks for.
        retry_after: Option<TimeDelta>,
    },
    /// Another status than that of success, without an OAuth error that says more, as far as its body could be read.
    #[error("HTTP {status}, which no OAuth error explains")]
    Status {
        /// The status.
        status: u16,
        /// The server had asked for a client certificate, which may be what it misses.
        is_certificate_asked: bool,
        /// The body could not be read: it may name an error.
        is_body_unread: bool,
        /// The wait that the server asks for.
        retry_after: Option<TimeDelta>,
    },
    /// The status of success, without a usable token response.
    #[error("malformed token response: {0}")]
    Malformed(#[from] MalformedResponse),
}

/// Which rule a token response breaks. Nothing of the response is in it: the response may hold a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedResponse {
    /// Not JSON with `access_token`, `token_type`, and the others in their types (RFC 6749 section 5.1).
    #[error("no JSON of a token response")]
    NotATokenResponse,
    /// JSON, but said to be something else (RFC 6749 section 5.1).
    #[error("JSON of another content type")]
    ContentType,
    /// Arrays or objects in each other, deeper than anything known.
    #[error("JSON that is nested too deeply")]
    TooDeep,
    /// `access_token` is longer than [`crate::limits::ACCESS_TOKEN_MAX`].
    #[error("access_token is too long")]
    TokenTooLong,
    /// `access_token` is empty, or not all of it is visible ASCII: no header could carry it, or more than it.
    #[error("access_token is not visible ASCII")]
    NotVisibleAscii,
}

impl TokenError {
    /// Whether a request was sent.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        !matches!(self, Self::ClientKey(_))
    }

    /// Whether the server failed, not one request: it gave no answer, or a 5xx that carries no OAuth error.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Transport(error) if error.is_outage())
    }

    /// How long the server asks this client to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<TimeDelta> {
        match self {
            Self::Transport(error) => error.retry_after(),
            Self::Response { retry_after, .. } | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// How long it asks all its clients to wait: `Retry-After` of 429 and 503 (RFC 6585 section 4, RFC 9110 section
    /// 15.6.4).
    #[must_use]
    pub fn server_wait(&self) -> Option<TimeDelta> {
        match self {
            Self::Transport(error) => error.server_wait(),
            Self::Response { retry_after, status: UNAVAILABLE | TOO_MANY_REQUESTS, .. } => *retry_after,
            _ => None,
        }
    }
}
