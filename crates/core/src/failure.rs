//! A failure: the reason of a condition, its message, and a wait that a server asked for.
//!
//! Errors are typed where they happen. They become a failure where a user must read about them.

use chrono::TimeDelta;
use itwin_api::conditions::Reason;

/// Why the operator cannot proceed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason of the condition.
    pub reason: Reason,
    /// What happened, which object is affected, and what to do.
    pub message: String,
    /// How long the server asked this client to wait.
    pub retry_after: Option<TimeDelta>,
}

impl Failure {
    /// A failure with this reason and message. No server asked for a wait.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after: None }
    }

    /// Whether users read the same about both.
    #[must_use]
    pub fn reads_as(&self, other: &Self) -> bool {
        self.reason == other.reason && self.message == other.message
    }
}
