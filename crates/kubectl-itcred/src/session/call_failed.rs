//! Why a call gave nothing, without the text of what was sent or answered that may be a secret.

use std::time::Duration;

use itwin_credential_operator::{cluster::CallError, runtime::client::unbuilt};
use kube::client::AuthError;

use crate::plain::plain;

/// Why a call gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailed {
    /// The API server answered with an error.
    #[error("{0}")]
    Answered(CallError),
    /// No connection, or no answer that could be read.
    #[error("{0}")]
    NoAnswer(String),
    /// The deadline passed.
    #[error("no answer within {0:?}; --request-timeout sets this deadline")]
    Timeout(Duration),
}

impl CallFailed {
    /// Whether the object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Answered(CallError::NotFound))
    }

    /// Whether the cluster has no such kind of object.
    #[must_use]
    pub fn is_not_served(&self) -> bool {
        matches!(self, Self::Answered(CallError::NotServed))
    }

    /// Whether the user may not do this.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Answered(CallError::Forbidden(_)))
    }

    /// Whether it is not known what became of the call.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::NoAnswer(_) | Self::Timeout(_))
    }

    /// Whether another client changed the object.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Answered(CallError::Conflict))
    }

    pub(super) fn is_expired(&self) -> bool {
        matches!(self, Self::Answered(CallError::Rejected(410, _)))
    }
}

impl From<kube::Error> for CallFailed {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(_) => Self::Answered(error.into()),
            kube::Error::Auth(_) => Self::NoAnswer(unbuilt(&error)),
            // it says itself what is wrong with the answer: failures of a connection have a cause
            kube::Error::Service(error) if error.source().is_none() => Self::NoAnswer(plain(&error.to_string())),
            // the text of these may repeat parts of an object
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
                Self::NoAnswer("the answer of the API server could not be decoded".to_owned())
            }
            error => Self::NoAnswer(format!("no connection to the API server ({})", causes(&error))),
        }
    }
}

/// The last cause of an error, which says most. What an exec plugin printed is not quoted: it may be a token.
fn causes(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        if cause.is::<AuthError>() {
            return "the credentials of the user of the kubeconfig are not usable".to_owned();
        }
        last = cause;
    }
    plain(&last.to_string())
}
