//! What went wrong with a request to the authority.

use chrono::TimeDelta;

use crate::{api::conditions::Reason, decide::facts::Refusal};

/// A failed exchange with the authority.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The reason of the contract, with a message for people.
    pub refusal: Refusal,
    /// How long the server asked us to wait.
    pub retry_after: Option<TimeDelta>,
}

impl Failure {
    /// A failure without a wish of the server.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { refusal: Refusal::new(reason, message), retry_after: None }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, retry_after: None }
    }
}
