//! Why an action did not do what it is for, and so what follows it.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_core::failure::Failure;

use crate::cluster::CallError;

/// An action without its result.
pub(super) enum ActionError {
    /// The Secret was changed since the decision: it is read again before the next one.
    Changed,
    /// What the decision rested on is gone, such as the right to send, or the token that was issued.
    Outdated,
    /// The credential is gone: nothing is written for it.
    Gone,
    /// Its spec was changed meanwhile: it is reconciled again.
    Superseded,
    /// The token that was issued is the one that the Secret holds.
    SameToken {
        /// When it expires.
        expires_at: DateTime<Utc>,
    },
    /// It must wait for so long.
    NotYet(TimeDelta),
    /// It failed, and that is reported to the user.
    Failed(Failure),
    /// A call to the Kubernetes API failed, and the reconcile with it.
    Call(CallError),
}

impl From<Failure> for ActionError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<CallError> for ActionError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}
