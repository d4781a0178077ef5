//! Why something could not be done: the reason of a condition with its message.

use crate::conditions::Reason;

/// Something that stops us, in the words of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason of the condition.
    pub reason: Reason,
    /// What happened, to which object, and what to do.
    pub message: String,
}

impl Failure {
    /// A refusal with its message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}
