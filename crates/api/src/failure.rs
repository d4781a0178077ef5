//! A failure: the reason of a condition and its message.

use crate::conditions::Reason;

/// Why the operator cannot proceed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason of the condition.
    pub reason: Reason,
    /// What happened, which object is affected, and what to do.
    pub message: String,
}

impl Failure {
    /// A failure with this reason and message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}
