//! A token request that failed: what it means for the credential, for the queue and for the circuit breaker.

use chrono::TimeDelta;
use itwin_api::{conditions::Reason, failure::Failure};

/// A failed exchange with the authorization server.
#[derive(Clone, Debug)]
pub struct RequestFailure {
    /// The reason of the condition, with a message for users.
    pub failure: Failure,
    /// How long the server asked this client to wait.
    pub retry_after: Option<TimeDelta>,
    /// How long it asked all its clients to wait: `Retry-After` of 429 and 503.
    pub server_wait: Option<TimeDelta>,
    /// How far the exchange came.
    pub stage: ExchangeStage,
}

/// How far a failed exchange came, for the circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeStage {
    /// Nothing was sent: the fault is on our side.
    NotSent,
    /// The server did not answer, or with a 5xx that carries no OAuth `error`.
    Outage,
    /// The server answered.
    Answered,
}

impl RequestFailure {
    /// A failure after an answer that asks for no wait.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Failure::new(reason, message).into()
    }

    /// The same failure at another stage.
    #[must_use]
    pub fn at(self, stage: ExchangeStage) -> Self {
        Self { stage, ..self }
    }
}

impl From<Failure> for RequestFailure {
    fn from(failure: Failure) -> Self {
        Self { failure, retry_after: None, server_wait: None, stage: ExchangeStage::Answered }
    }
}
