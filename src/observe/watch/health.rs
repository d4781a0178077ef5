//! Whether a watch works: its signs of life, and its failures.

use std::{sync::Arc, time::Duration};

use itwin_core::quote::Quote;
use kube::core::Status;

use crate::{
    cluster::CallError,
    liveness::{Liveness, Trouble},
    metrics::Metrics,
};

/// A request for a page of a list, or for a watch, that is not answered for this long has failed. An API server under
/// load answers lists late; one that lost a request is asked again by then.
pub(super) const ANSWER: Duration = Duration::from_secs(30);
/// HTTP 410: the resourceVersion is too old.
const GONE: u16 = 410;
/// The reason that kube gives a response without a `Status`, whose whole body it takes for the message.
const NO_STATUS: &str = "Failed to parse error data";

/// How a list or watch failed, without the content of objects.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    #[error("HTTP {code}: {message}")]
    Status {
        code: u16,
        message: String,
        /// The label of the metric.
        label: &'static str,
    },
    #[error("no connection, or no readable answer")]
    Transport,
    #[error("no response within {} s", ANSWER.as_secs())]
    Silence,
    #[error("the answer has no resourceVersion")]
    NoVersion,
    #[error("the list is older than what was shown before")]
    Older,
    #[error("it ended before its timeout")]
    Early,
}

impl WatchError {
    /// The resourceVersion is too old for a watch: everything is to be listed.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Status { code: GONE, .. })
    }
}

impl From<kube::Error> for WatchError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from(&*status),
            _ => Self::Transport,
        }
    }
}

impl From<&Status> for WatchError {
    fn from(status: &Status) -> Self {
        let label = match status.code {
            // the API server no longer has the events since the last one, and all objects are listed again
            GONE => "expired",
            _ => CallError::from(kube::Error::Api(Box::new(status.clone()))).label(),
        };
        let message = match status.code {
            // an API server that serves no such group answers without a `Status`
            404 if status.reason == NO_STATUS => {
                "the cluster serves no such kind of object: install the CRDs".to_owned()
            }
            _ if status.reason == NO_STATUS => {
                "the response is not one of the API server: check its address".to_owned()
            }
            _ => Quote::new(&status.message).to_string(),
        };
        Self::Status { code: status.code, message, label }
    }
}

impl WatchError {
    /// The label of the metric; `None` where the API server answered as it may.
    fn label(&self) -> Option<&'static str> {
        match self {
            Self::Status { label, .. } => Some(label),
            Self::Transport | Self::NoVersion => Some(CallError::Transport.label()),
            Self::Silence => Some(CallError::Timeout.label()),
            Self::Older | Self::Early => None,
        }
    }
}

/// What reports whether one watch works. The client records heartbeats, and signs of life for each answer.
pub struct Health {
    path: String,
    resource: &'static str,
    liveness: Arc<Liveness>,
    metrics: Arc<Metrics>,
}

impl Health {
    /// The watch of `path` shows this resource.
    #[must_use]
    pub fn new(path: &str, resource: &'static str, liveness: Arc<Liveness>, metrics: Arc<Metrics>) -> Self {
        Self { path: path.to_owned(), resource, liveness, metrics }
    }

    /// The API server sent an event or a bookmark.
    pub(super) fn sign_of_life(&self) {
        self.liveness.sign_of_life(&self.path);
    }

    /// A request failed: `list` or `watch`. That is a heartbeat too, also where the client never saw an end of it.
    pub(super) fn failed(&self, verb: &'static str, error: &WatchError) {
        self.liveness.heartbeat(&self.path);
        if let Some(label) = error.label() {
            self.metrics.kubernetes_request(verb, self.resource, label);
            let is_forbidden = matches!(error, WatchError::Status { code: 401 | 403, .. });
            let trouble = Trouble { message: error.to_string(), is_forbidden };
            self.liveness.watch_failed(&self.path, trouble.clone());
            // after one that is too old, everything is listed and watched, however long that takes
            if !error.is_gone() {
                let is_answer = matches!(error, WatchError::Status { .. });
                self.liveness.watch_interrupted(&self.path, trouble, is_answer);
            }
        }
    }

    /// A request was accepted.
    pub(super) fn accepted(&self) {
        self.liveness.watch_accepted(&self.path);
    }

    /// What failed before is over: a later page than that was accepted, or another one failed.
    pub(super) fn progressed(&self) {
        self.liveness.watch_progressed(&self.path);
    }

    /// A watch was accepted. It may still break soon.
    pub(super) fn opened(&self) {
        self.accepted();
        self.progressed();
        self.liveness.watch_opened(&self.path);
    }

    /// A watch works.
    pub(super) fn resumed(&self) {
        self.liveness.watch_resumed(&self.path);
    }

    /// Everything was listed, and is known to those who receive the events.
    pub(super) fn listed(&self) {
        self.liveness.listed(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_that_is_not_one_of_the_api_server_is_not_quoted() {
        for (code, says) in [(404, "install the CRDs"), (500, "not one of the API server"), (403, "not one of the API")]
        {
            let status = Status::failure("<html>hidden</html>", NO_STATUS).with_code(code);
            let error = WatchError::from(&status).to_string();
            assert!(error.contains(says) && !error.contains("hidden"), "{error}");
        }
        let status = Status::failure("secrets is forbidden", "Forbidden").with_code(403);
        assert_eq!(WatchError::from(&status).to_string(), "HTTP 403: secrets is forbidden");
    }
}
