//! What went wrong with a request to the authority.

use chrono::TimeDelta;

use crate::{api::conditions::Reason, decide::facts::Refusal};

/// A failed exchange with the authority.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The reason of the contract, with a message for people.
    pub refusal: Refusal,
    /// How long the server asked this client to wait.
    pub retry_after: Option<TimeDelta>,
    /// How long it asked all its clients to wait: `Retry-After` of 429 and 503.
    pub server_wait: Option<TimeDelta>,
    /// How far the exchange came.
    pub stage: Stage,
}

/// How far a failed exchange came: what a circuit breaker asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was sent: the fault is on our side.
    NotSent,
    /// The server did not answer, or with a 5xx that carries no OAuth `error`.
    Outage,
    /// The server answered.
    Answered,
}

impl Failure {
    /// An answer that is no token, without a wish of the server.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Refusal::new(reason, message).into()
    }

    /// The same failure at another stage.
    #[must_use]
    pub fn at(self, stage: Stage) -> Self {
        Self { stage, ..self }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, retry_after: None, server_wait: None, stage: Stage::Answered }
    }
}
