//! How a call to the Kubernetes API failed, and who can help.

use crate::quote::Quote;

/// Why a call to the Kubernetes API failed, as far as it decides what a user can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure<'a> {
    /// 401 or 403.
    Forbidden(&'a Quote),
    /// The API server refused the request otherwise.
    Refused(&'a Quote),
    /// The API server could not process it, or an admission webhook did not answer.
    Unavailable(&'a Quote),
    /// No answer in time: the API server hangs, or waits for an admission webhook.
    Timeout,
    /// No answer, or none that could be read.
    NoAnswer,
}

impl<'a> CallFailure<'a> {
    /// What the API server said.
    #[must_use]
    pub fn said(self) -> Option<&'a Quote> {
        match self {
            Self::Forbidden(said) | Self::Refused(said) | Self::Unavailable(said) => Some(said),
            Self::Timeout | Self::NoAnswer => None,
        }
    }

    /// Who can help where admission denied a write, or failed. What RBAC denies may name an object with any name.
    #[must_use]
    pub fn admission_advice(self) -> Option<&'static str> {
        let said = self.said().filter(|said| !said.is_missing_permission())?;
        if said.contains("webhook") {
            Some("contact those who run that admission webhook")
        } else if said.contains("olicy") {
            Some("contact those who made that admission policy")
        } else {
            None
        }
    }
}
