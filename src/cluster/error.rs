//! How a call to the Kubernetes API fails, without anything of the response but what may be shown.

use std::time::Duration;

use itwin_core::{call_failure::CallFailure, quote::Quote};

/// Deadline of one call: less than the 10 s within which a failure must be reported, and more than the API server
/// queues a request under load.
pub const DEADLINE: Duration = Duration::from_secs(8);

/// What the API server answers where a group has no such kind of object.
const NO_SUCH_KIND: &str = "the server could not find the requested resource";

/// What it says of an object that was deleted and created again (`storage.Preconditions.Check`).
const OTHER_UID: &str = "Precondition failed: UID in precondition";

/// How a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// 404, or 409 where the object of this name has another UID than the one that is meant.
    #[error("not found")]
    NotFound,
    /// 404: the API server serves no such kind of object.
    #[error("the cluster serves no such kind of object")]
    NotServed,
    /// 409: the object exists already.
    #[error("it exists already")]
    AlreadyExists,
    /// 409: another client changed the object.
    #[error("another client changed it at the same time")]
    Conflict,
    /// 401 or 403, with the message of the API server: RBAC, a quota, a policy, a namespace that is being deleted.
    #[error("forbidden: {0}")]
    Forbidden(Quote),
    /// Any other 4xx, with the message of the API server: 422 for a field that is not valid, and what an admission
    /// webhook chooses.
    #[error("rejected with HTTP {0}: {1}")]
    Rejected(u16, Quote),
    /// 429 and 5xx, with the message of the API server: an admission webhook that does not answer is among them.
    #[error("the API server responded with HTTP {0}: {1}")]
    Unavailable(u16, Quote),
    /// The deadline passed.
    #[error("no response from the API server within {} s", DEADLINE.as_secs())]
    Timeout,
    /// This process does not lead, so nothing was sent.
    #[error("this replica does not hold the Lease")]
    NotLeading,
    /// The connection failed, or the response could not be decoded or is not about the object.
    #[error("no valid response from the API server")]
    Transport,
}

impl CallError {
    /// The label of the metric.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotFound | Self::NotServed => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::Forbidden(_) => "forbidden",
            Self::Rejected(..) => "invalid",
            Self::Unavailable(..) => "unavailable",
            Self::Timeout => "timeout",
            Self::NotLeading => "not_leading",
            Self::Transport => "transport",
        }
    }
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::Transport;
        };
        let said = Quote::new(&status.message);
        match status.code {
            404 if !is_denied(&said) && is_not_served(&status) => Self::NotServed,
            404 if !is_denied(&said) => Self::NotFound,
            409 if !is_denied(&said) && status.message.contains(OTHER_UID) => Self::NotFound,
            409 if !is_denied(&said) && status.reason == "AlreadyExists" => Self::AlreadyExists,
            409 if !is_denied(&said) => Self::Conflict,
            401 | 403 => Self::Forbidden(said),
            429 | 500.. => Self::Unavailable(status.code, said),
            code => Self::Rejected(code, said),
        }
    }
}

/// Whether there is no such kind of object: a group that is not served is answered without a `Status`, a kind with one
/// that names no object.
fn is_not_served(status: &kube::core::Status) -> bool {
    status.reason != "NotFound" || status.message == NO_SUCH_KIND
}

/// Whether an admission webhook or policy denied the request: it may do so with any status code
/// (`AdmissionReview.response.status`), so that a 404 or 409 of it is no news of the object.
fn is_denied(said: &Quote) -> bool {
    said.contains("denied the request") || said.contains("denied request")
}

impl CallError {
    /// Whether a write may have been carried out although it failed: its answer was lost, or is that of a proxy.
    #[must_use]
    pub fn may_have_written(&self) -> bool {
        matches!(self, Self::Unavailable(..) | Self::Timeout | Self::Transport)
    }

    /// Why the call failed, as messages distinguish it.
    #[must_use]
    pub fn why(&self) -> CallFailure<'_> {
        match self {
            Self::Forbidden(said) => CallFailure::Forbidden(said),
            Self::Rejected(_, said) => CallFailure::Refused(said),
            Self::Unavailable(_, said) => CallFailure::Unavailable(said),
            Self::Timeout => CallFailure::Timeout,
            _ => CallFailure::NoAnswer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_with_another_uid_is_not_the_one_that_is_meant_and_one_that_changed_is() {
        let because = |text: &str| {
            let message = format!("Operation cannot be fulfilled on secrets \"web\": {text}");
            let status = kube::core::Status { code: 409, message, reason: "Conflict".to_owned(), ..Default::default() };
            CallError::from(kube::Error::Api(Box::new(status)))
        };
        let other = "StorageError: invalid object, Code: 4, Key: /registry/secrets/team/web, ResourceVersion: 0, \
                     AdditionalErrorMsg: Precondition failed: UID in precondition: a, UID in object meta: b";
        assert_eq!(because(other), CallError::NotFound);
        assert_eq!(because("the object has been modified"), CallError::Conflict);
        let denied = format!("admission webhook \"a.example.com\" denied the request: {other}");
        assert_ne!(because(&denied), CallError::NotFound);
    }

    #[test]
    fn what_admission_says_is_quoted_without_what_may_be_a_value_whatever_its_status_is() {
        for code in [400, 403, 404, 409, 422, 503] {
            let said =
                "admission webhook \"restarts.example.com\" denied the request: API_KEY=0f8fad5bd9cb469f of web-1";
            let status = kube::core::Status { code, message: said.to_owned(), ..kube::core::Status::default() };
            let text = CallError::from(kube::Error::Api(Box::new(status))).to_string();
            assert!(text.contains("\"restarts.example.com\" denied the request: [redacted] of web-1"), "{text}");
        }
    }
}
