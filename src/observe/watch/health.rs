//! Whether a watch works: its signs of life, and its failures.

use std::sync::Arc;

use itwin_core::quote::Quote;
use kube::core::Status;

use super::GONE;
use crate::{
    cluster::CallError,
    liveness::{Liveness, Trouble},
    metrics::Metrics,
};

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
    #[error("no response within {} s", super::ANSWER.as_secs())]
    Silence,
    #[error("the answer has no resourceVersion")]
    NoVersion,
    #[error("the list is older than what was shown before")]
    Older,
    #[error("it ended before its timeout")]
    Early,
    #[error("it was accepted and ended before it showed anything")]
    Cut,
}

impl WatchError {
    /// The resourceVersion is too old for a watch: everything is to be listed.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Status { code: super::GONE, .. })
    }

    /// The API server said what is wrong.
    fn is_answer(&self) -> bool {
        matches!(self, Self::Status { .. })
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
            Self::Transport | Self::NoVersion | Self::Cut => Some(CallError::Transport.label()),
            Self::Silence => Some(CallError::Timeout.label()),
            Self::Older | Self::Early => None,
        }
    }
}

/// What reports whether one watch works. The client records heartbeats.
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

    /// A watch works: it showed an event or a bookmark, or was open for a while.
    pub(super) fn works(&self) {
        self.liveness.watch_works(&self.path);
    }

    /// A request for a page of a list failed.
    pub(super) fn list_failed(&self, error: &WatchError) {
        if let Some(trouble) = self.failed("list", error) {
            self.liveness.list_failed(&self.path, trouble, error.is_answer());
        }
    }

    /// A watch was refused, or failed; `is_answer` where it was accepted just before.
    pub(super) fn watch_failed(&self, error: &WatchError, is_answer: bool) {
        if let Some(trouble) = self.failed("watch", error) {
            self.liveness.watch_failed(&self.path, trouble, is_answer || error.is_answer());
        }
    }

    /// A watch is too old, and the one before it was not: everything is listed and watched again, however long that
    /// takes. That happens to watches that work.
    pub(super) fn watch_expired(&self, error: &WatchError) {
        self.failed("watch", error);
    }

    /// A request failed: `list` or `watch`. That is a heartbeat too, also where the client never saw an end of it. Returns
    /// what is to be reported, if the API server did not answer as it may.
    fn failed(&self, verb: &'static str, error: &WatchError) -> Option<Trouble> {
        self.liveness.heartbeat(&self.path);
        self.metrics.kubernetes_request(verb, self.resource, error.label()?);
        let is_forbidden = matches!(error, WatchError::Status { code: 401 | 403, .. });
        Some(Trouble { message: error.to_string(), is_forbidden })
    }

    /// A page of a list was accepted.
    pub(super) fn list_accepted(&self) {
        self.liveness.list_accepted(&self.path);
    }

    /// What lists failed for before is over: a later page than that was accepted, or another one failed.
    pub(super) fn list_progressed(&self) {
        self.liveness.list_progressed(&self.path);
    }

    /// A watch was accepted. It may still break soon.
    pub(super) fn opened(&self) {
        self.list_progressed();
        self.liveness.watch_opened(&self.path);
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
