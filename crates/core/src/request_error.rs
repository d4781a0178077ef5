//! Why a token request gave no token that may be written, and what that says about the authorization server.

use std::time::Duration;

use chrono::TimeDelta;
use itwin_oauth::{
    discovery::DiscoveryError, jwt::VerificationError, key_set::KeySetError, shown::Shown, token::TokenError,
    transport::TransportError,
};

use crate::{failure::Failure, requests::Outcome, validate::ValidationError};

/// A token request without a token that may be written.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It could not be sent.
    #[error("not sent: {}", .0.message)]
    NotSent(Failure),
    /// There is no token response.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The keys that verify the token could not be fetched again.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The token is not trusted.
    #[error(transparent)]
    Verification(#[from] VerificationError),
    /// The token names another issuer or other audiences than it must.
    #[error("{0}: it has {1}")]
    OtherClaim(VerificationError, Shown),
    /// The token is not worth writing.
    #[error(transparent)]
    Validation(#[from] ValidationError),
}

/// Why the metadata or the keys of an authorization server are not known. One fetch may be for several requests.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MetadataError {
    /// A document could not be fetched.
    #[error("{0:?}: {1}")]
    Transport(Document, TransportError),
    /// A token that was issued already does not wait for a document for longer than this.
    #[error("{0:?}: not within {1:?}")]
    Late(Document, Duration),
    /// The discovery document is of no use.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The key set is of no use.
    #[error(transparent)]
    KeySet(#[from] KeySetError),
}

impl MetadataError {
    /// How long the authority asks all its clients to wait: `Retry-After` of 429 and 503.
    #[must_use]
    pub fn server_wait(&self) -> Option<TimeDelta> {
        match self {
            Self::Transport(_, error) => error.server_wait(),
            _ => None,
        }
    }

    /// The same error for a request that meets it `passed` later, as long as it is not tried again.
    #[must_use]
    pub fn after(self, passed: Duration) -> Self {
        let passed = TimeDelta::from_std(passed).unwrap_or(TimeDelta::MAX);
        match self {
            Self::Transport(document, error) => Self::Transport(document, error.after(passed)),
            error => error,
        }
    }
}

/// A document that an authorization server publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// Its metadata.
    Discovery,
    /// Its keys.
    KeySet,
}

/// Whether this status says that there is no token endpoint at its URL (RFC 9110 sections 15.5.5, 15.5.6 and 15.5.11).
#[must_use]
pub fn means_moved(status: u16) -> bool {
    matches!(status, 404 | 405 | 410)
}

impl RequestError {
    /// Whether the token endpoint may have another URL now.
    #[must_use]
    pub fn may_have_moved(&self) -> bool {
        match self {
            Self::Token(TokenError::Status { status, .. }) => means_moved(*status),
            Self::Token(TokenError::Transport(TransportError::Redirect(_))) => true,
            _ => false,
        }
    }

    /// Whether a request was sent.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        match self {
            Self::NotSent(_) => false,
            Self::Token(error) => error.was_sent(),
            Self::Metadata(_) | Self::Verification(_) | Self::OtherClaim(..) | Self::Validation(_) => true,
        }
    }

    /// How the request ended for the queue and the circuit breaker. `failure` is what users read about this error.
    #[must_use]
    pub fn outcome(&self, failure: &Failure) -> Outcome {
        if !self.was_sent() {
            return Outcome::NotSent;
        }
        Outcome::Failed {
            // the wait concerns the request that was sent, not those that the open circuit holds back
            failure: Failure { retry_after: None, server_wait: None, ..failure.clone() },
            server_wait: self.server_wait(),
            is_outage: self.is_outage(),
        }
    }

    fn server_wait(&self) -> Option<TimeDelta> {
        match self {
            Self::Token(error) => error.server_wait(),
            Self::Metadata(error) => error.server_wait(),
            _ => None,
        }
    }

    fn is_outage(&self) -> bool {
        match self {
            Self::Token(error) => error.is_outage(),
            Self::Metadata(MetadataError::Transport(_, error)) => error.is_outage(),
            Self::Metadata(MetadataError::Late(..)) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use itwin_api::conditions::Reason;
    use itwin_oauth::{assertion::ClientKeyError, token::ErrorCode};

    use super::*;

    fn failure() -> Failure {
        let wait = Some(TimeDelta::seconds(7));
        Failure { retry_after: wait, server_wait: wait, ..Failure::new(Reason::ServerError, "because") }
    }

    #[test]
    fn request_that_was_not_sent_says_nothing_about_the_server() {
        for error in [RequestError::NotSent(failure()), TokenError::from(ClientKeyError { algorithm: None }).into()] {
            assert!(matches!(error.outcome(&failure()), Outcome::NotSent), "{error:?}");
        }
    }

    #[test]
    fn outage_and_wait_are_those_of_the_typed_error() {
        let wait = Some(TimeDelta::seconds(7));
        let server = |status| TransportError::Server(status, wait, Vec::new());
        let response = TokenError::Response { code: ErrorCode::ServerError, status: 503, retry_after: wait };
        for (error, expected) in [
            (RequestError::from(TokenError::from(server(503))), (wait, true)),
            (TokenError::from(server(500)).into(), (None, true)),
            (TokenError::from(TransportError::RateLimited(wait, Vec::new())).into(), (wait, false)),
            (MetadataError::Transport(Document::KeySet, server(503)).into(), (wait, true)),
            (MetadataError::Transport(Document::KeySet, server(500)).into(), (None, true)),
            (MetadataError::Late(Document::KeySet, Duration::from_secs(15)).into(), (None, true)),
            (TokenError::from(TransportError::NotHttp("invalid HTTP version parsed".to_owned())).into(), (None, true)),
            (response.into(), (wait, false)),
            (
                TokenError::Status {
                    status: 404,
                    is_certificate_asked: false,
                    is_body_unread: false,
                    retry_after: None,
                }
                .into(),
                (None, false),
            ),
            (VerificationError::UnknownKey.into(), (None, false)),
            (ValidationError::UnknownLifetime.into(), (None, false)),
        ] {
            let Outcome::Failed { failure, server_wait, is_outage } = error.outcome(&failure()) else {
                unreachable!("{error:?} was sent")
            };
            assert_eq!((server_wait, is_outage), expected, "{error:?}");
            let waits = (failure.retry_after, failure.server_wait);
            assert_eq!(waits, (None, None), "they are of the request that was sent");
        }
    }

    #[test]
    fn endpoint_may_have_moved_where_there_is_none_or_a_redirect() {
        let status = |status| TokenError::Status {
            status,
            is_certificate_asked: false,
            is_body_unread: false,
            retry_after: None,
        };
        for (error, expected) in [
            (status(404), true),
            (status(405), true),
            (status(410), true),
            (status(400), false),
            (status(401), false),
            (TransportError::Redirect(308).into(), true),
            (TransportError::Server(503, None, Vec::new()).into(), false),
            // the endpoint answered
            (TokenError::Response { code: ErrorCode::InvalidClient, status: 404, retry_after: None }, false),
        ] {
            assert_eq!(RequestError::from(error).may_have_moved(), expected);
        }
        assert!(!RequestError::from(VerificationError::UnknownKey).may_have_moved());
    }
}
