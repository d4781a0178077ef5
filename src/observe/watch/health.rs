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
/// HTTP 400: a continue token is not one of this API server.
const BAD_REQUEST: u16 = 400;
/// HTTP 429.
const TOO_MANY_REQUESTS: u16 = 429;
/// What an API server that is overloaded asks for at least, in seconds: the client does not show the header of a response
/// without a `Status` (kubernetes/kubernetes `staging/src/k8s.io/apiserver/pkg/server/filters`).
const LEAST_WAIT: u32 = 1;
/// It is not obeyed for longer, in seconds: nothing is watched meanwhile.
const MOST_WAIT: u32 = 30;
/// The reason that kube gives a response without a `Status`, whose whole body it takes for the message.
const NO_STATUS: &str = "Failed to parse error data";

/// How a list or watch failed, without the content of objects.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    #[error("HTTP {code}: {message}")]
    Status {
        code: u16,
        message: String,
        /// The message is the API server's.
        is_quoted: bool,
        /// The label of the metric.
        label: &'static str,
        /// How long to wait at least before the next request, in seconds.
        wait: u32,
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
    #[error("it was accepted and ended before it showed anything")]
    Cut,
}

impl WatchError {
    /// The resourceVersion is too old for a watch: everything is to be listed.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Status { code: GONE, .. })
    }

    /// A list does not go on after it, and begins again.
    pub(super) fn ends_list(&self) -> bool {
        matches!(self, Self::Status { code: GONE | BAD_REQUEST, .. })
    }

    /// The API server said that it cannot answer. Of a page of a list, only a new list may show what is there by now: the
    /// one under way is of a state that cannot be read, or that is not reached again after a restore.
    pub(super) fn is_of_server(&self) -> bool {
        matches!(self, Self::Status { code: 500.., .. })
    }

    /// How long the API server asks to wait.
    pub(super) fn asked_wait(&self) -> Duration {
        match self {
            Self::Status { wait, .. } => Duration::from_secs((*wait).into()),
            _ => Duration::ZERO,
        }
    }

    /// The API server said what is wrong, and asks for no longer wait than this: the same request may succeed then.
    pub(super) fn may_end_within(&self, wait: Duration) -> bool {
        self.is_answer() && self.asked_wait() <= wait
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
        let explained = explained(status);
        let message = explained.map_or_else(|| Quote::new(&status.message).to_string(), str::to_owned);
        let asked = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        let wait = if status.code == TOO_MANY_REQUESTS { asked.clamp(LEAST_WAIT, MOST_WAIT) } else { 0 };
        Self::Status { code: status.code, message, is_quoted: explained.is_none(), label, wait }
    }
}

/// What is said of a response without a `Status`, whose text may be anything.
fn explained(status: &Status) -> Option<&'static str> {
    if status.reason != NO_STATUS {
        return None;
    }
    Some(match status.code {
        // a page for browsers, such as of a proxy
        _ if status.message.starts_with('<') => "the response is not one of the API server: check its address",
        // an API server that serves no such group answers in plain text
        404 => "the cluster serves no such kind of object: install the CRDs",
        // so does one that has more requests than it allows at a time
        TOO_MANY_REQUESTS => "the API server has too many requests",
        _ => "the response has no explanation",
    })
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

    /// For users of one namespace, and for anyone who may call the port of probes. A list is of all objects, and what the
    /// API server says of it may name one of them, such as a Secret of another namespace that cannot be decrypted. Where
    /// it forbids the list, it names the operator's service account and the resource.
    fn for_users(&self) -> String {
        match self {
            Self::Status { code, is_quoted: true, .. } if !matches!(*code, 401 | 403) => format!("HTTP {code}"),
            _ => self.to_string(),
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

    /// A watch is requested.
    pub(super) fn requested(&self) {
        self.liveness.watch_requested(&self.path);
    }

    /// A watch was refused, or failed; `is_answer` where it was accepted just before.
    pub(super) fn watch_failed(&self, error: &WatchError, is_answer: bool) {
        if let Some(trouble) = self.failed("watch", error) {
            self.liveness.watch_failed(&self.path, trouble, is_answer || error.is_answer());
        }
    }

    /// A watch that worked ended, in any way: it is resumed, and only if that fails nothing is watched. Or a watch is
    /// too old, and the one before it was not: everything is listed and watched again, however long that takes. Both
    /// happen to watches that work.
    pub(super) fn watch_ended(&self, error: &WatchError) {
        self.failed("watch", error);
    }

    /// A request failed: `list` or `watch`. That is a heartbeat too, also where the client never saw an end of it. Returns
    /// what is to be reported, if the API server did not answer as it may.
    fn failed(&self, verb: &'static str, error: &WatchError) -> Option<Trouble> {
        self.liveness.heartbeat(&self.path);
        self.metrics.kubernetes_request(verb, self.resource, error.label()?);
        let is_forbidden = matches!(error, WatchError::Status { code: 401 | 403, .. });
        Some(Trouble { message: error.for_users(), is_forbidden })
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
    use itwin_core::messages;

    use super::*;

    #[test]
    fn objects_that_the_api_server_names_are_in_no_status() {
        const KEY: &str = "/registry/secrets/team-b/payments-db";
        let liveness = Arc::new(Liveness::default());
        liveness.expect_watch("/secrets", "secrets");
        let metrics = Arc::new(Metrics::new(false).expect("metrics"));
        let health = Health::new("/secrets", "secrets", liveness.clone(), metrics);
        let reported = |code: u16, said: &str| {
            let error = WatchError::from(&Status::failure(said, "InternalError").with_code(code));
            health.list_failed(&error);
            let trouble = liveness.interruption("/secrets").expect("it is interrupted").trouble;
            let of_secrets = messages::secrets_unwatched(&trouble.message, trouble.is_forbidden).message;
            let of_authorities =
                messages::authorities_unlisted("ims", Some((trouble.message.as_str(), trouble.is_forbidden)));
            (of_secrets, of_authorities.message)
        };
        for code in [422, 429, 500, 503] {
            let (of_secrets, of_authorities) = reported(code, &format!("unable to transform key \"{KEY}\": no key"));
            for message in [of_secrets, of_authorities] {
                let is_named = message.contains("team-b") || message.contains("payments-db");
                assert!(!is_named && message.contains(&format!("(HTTP {code})")), "{message}");
            }
        }
        let said = "secrets is forbidden: User \"operator\" cannot list resource \"secrets\"";
        let (of_secrets, _) = reported(403, said);
        assert!(of_secrets.contains(said), "it says which permission is missing: {of_secrets}");
    }

    #[test]
    fn response_that_is_not_one_of_the_api_server_is_not_quoted() {
        const PAGE: &str = "<html>hidden</html>";
        let rows = [
            (404, "404 page not found", "HTTP 404: the cluster serves no such kind of object: install the CRDs"),
            (429, "Too many requests, please try again later.", "HTTP 429: the API server has too many requests"),
            (500, "hidden", "HTTP 500: the response has no explanation"),
            (403, "hidden", "HTTP 403: the response has no explanation"),
            (404, PAGE, "HTTP 404: the response is not one of the API server: check its address"),
            (429, PAGE, "HTTP 429: the response is not one of the API server: check its address"),
            (500, PAGE, "HTTP 500: the response is not one of the API server: check its address"),
        ];
        for (code, body, says) in rows {
            let error = WatchError::from(&Status::failure(body, NO_STATUS).with_code(code));
            assert_eq!((error.to_string(), error.for_users()), (says.to_owned(), says.to_owned()));
        }
        let status = Status::failure("secrets is forbidden", "Forbidden").with_code(403);
        assert_eq!(WatchError::from(&status).to_string(), "HTTP 403: secrets is forbidden");
    }
}
