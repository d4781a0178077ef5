//! A token request in the queue: who asks for what by when, and how it can end.

use std::{sync::Arc, time::Instant};

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::conditions::Reason;

use crate::{failure::Failure, object::ObjectVersion};

/// The time on both clocks: the monotonic clock for intervals, the wall clock for comparison with tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock.
    pub wall: DateTime<Utc>,
    /// The monotonic clock.
    pub monotonic: Instant,
}

/// A client, identified by its client Secret, since the queue knows it before the Secret is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requester {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The client Secret.
    pub secret: Arc<str>,
}

/// A token request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client.
    pub requester: Requester,
    /// Version of the client Secret; `None` if Secrets are not watched.
    pub client_version: Option<ObjectVersion>,
    /// Digest of what is requested. Requests with the same requester, version and content are equal and share one
    /// response (single flight).
    pub content: Arc<str>,
    /// When the token in the Secret expires or expired; `None` if there is no token.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether it follows a failed attempt.
    pub is_retry: bool,
}

/// The outcome of an admitted request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A token was issued.
    Succeeded,
    /// It failed.
    Failed {
        /// Why.
        failure: Failure,
        /// How long the server asked all its clients to wait (`Retry-After` of 429 and 503).
        server_wait: Option<TimeDelta>,
        /// Whether the server did not respond, or responded with a 5xx without an OAuth `error`.
        is_outage: bool,
    },
    /// Nothing was sent: the request was no longer necessary, or could not be built.
    NotSent,
}

/// Why requests are blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// The circuit of the client is open because of this failure.
    Client(Failure),
    /// The circuit of the server is open.
    Server(Reason),
    /// The server asked all its clients to wait.
    ServerWait(Reason),
}

impl Request {
    /// Whether both request the same with the same client, as far as is known, so that one waits for the other.
    pub(super) fn is_equal(&self, other: &Self) -> bool {
        self.is_of(other.client_version.as_ref()) && self.requester == other.requester && self.content == other.content
    }

    /// Whether this version of the client Secret may be the one that it needs.
    pub(super) fn is_of(&self, version: Option<&ObjectVersion>) -> bool {
        version.is_none() || self.client_version.is_none() || self.client_version.as_ref() == version
    }
}
