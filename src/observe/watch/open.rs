//! An open watch: what it shows, when it works, and what follows its end.

use std::{fmt::Debug, time::Duration};

use futures::StreamExt;
use itwin_core::revisions::parse;
use kube::{
    Resource, ResourceExt,
    api::{WatchEvent, WatchParams},
    runtime::watcher::Event,
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::{LIST_INTERVAL, RETRY, State, WATCH_SECONDS, Watch, answered, health::WatchError};
use crate::{clock::until, restores::is_lower};

/// A watch that was open for so long works, as does one that showed an event or a bookmark: often nothing happens that it
/// could show. One that was merely accepted may break at once, again and again.
pub(super) const WORKS: Duration = Duration::from_secs(15);
/// How much later than its timeout a watch may end.
const LATE: Duration = Duration::from_secs(5);
/// How much earlier than its timeout a watch may end that is resumed: the timeout counts from the request.
const EARLY: Duration = Duration::from_secs(1);
/// The API server sends a bookmark 2 s before the timeout of a watch, unless no revision is newer than the watch.
const LAST_BOOKMARK: Duration = Duration::from_secs(5);

/// How far a watch got that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// It was not accepted.
    Nothing,
    /// It was accepted and did not work yet.
    Accepted,
    /// It worked.
    Works,
}

/// What comes next while a watch is open.
enum Next<K> {
    Event(WatchEvent<K>),
    /// It ended.
    End(Option<WatchError>),
    /// It was open for long enough.
    Works,
    /// The cluster was restored.
    Restored,
    /// Everything is to be listed again.
    List,
}

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Requests the watch from this resourceVersion.
    pub(super) async fn start(&mut self, version: String) -> Result<(), WatchError> {
        let params = WatchParams { timeout: Some(WATCH_SECONDS), ..WatchParams::default() };
        let started = Instant::now();
        self.health.requested();
        match answered(self.api.watch(&params, &version)).await {
            Ok(events) => {
                self.health.opened();
                self.state = State::Watching {
                    version,
                    events: Box::pin(events),
                    started,
                    shown_at: None,
                    works: false,
                    deadline: deadline(),
                };
                Ok(())
            }
            Err(error) => self.failed(version, error, Reached::Nothing),
        }
    }

    /// Takes in what the open watch shows next.
    pub(super) async fn watch(&mut self) -> Result<(), WatchError> {
        let next = self.next_of_stream().await;
        if matches!(&next, Next::Event(event) if !matches!(event, WatchEvent::Error(_))) {
            if let State::Watching { deadline, .. } = &mut self.state {
                *deadline = self::deadline();
            }
            self.works();
        }
        match next {
            Next::Works => self.works(),
            Next::List => self.list_now(),
            Next::Restored => {
                self.is_restored = true;
                self.list_within(Duration::ZERO);
            }
            Next::Event(WatchEvent::Bookmark(bookmark)) => drop(self.observe(bookmark.metadata.resource_version)),
            Next::Event(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                if self.observe(object.resource_version().unwrap_or_default()) {
                    self.received.push_back(Event::Apply(object));
                }
            }
            Next::Event(WatchEvent::Deleted(object)) => {
                if self.observe(object.resource_version().unwrap_or_default()) {
                    self.received.push_back(Event::Delete(object));
                }
            }
            Next::Event(WatchEvent::Error(status)) => return self.ended(Some(WatchError::from(&*status))).await,
            Next::End(error) => return self.ended(error).await,
        }
        Ok(())
    }

    /// The open watch works.
    fn works(&mut self) {
        if let State::Watching { works, .. } = &mut self.state {
            *works = true;
            (self.retry, self.is_gone) = (RETRY.0, false);
            self.health.works();
        }
    }

    async fn next_of_stream(&mut self) -> Next<K> {
        let State::Watching { events, started, works, deadline, .. } = &mut self.state else { return Next::List };
        let is_due = until(self.list_at);
        let works = until((!*works).then(|| *started + WORKS));
        tokio::select! {
            biased;
            // the sender lives as long as this
            _ = self.incarnation.changed() => Next::Restored,
            () = is_due => Next::List,
            () = works => Next::Works,
            next = timeout_at(*deadline, events.next()) => match next {
                Ok(Some(Ok(event))) => Next::Event(event),
                Ok(Some(Err(error))) => Next::End(Some(error.into())),
                Ok(None) => Next::End(None),
                Err(_) => Next::End(Some(WatchError::Transport)),
            },
        }
    }

    /// The watch showed this resourceVersion, from which it is resumed. Returns whether what has it is news: a watch never
    /// goes back (KEP-5504), so that one which does shows an older state again. It is left out, and everything is listed
    /// again, since what follows it may be missing too.
    fn observe(&mut self, shown: String) -> bool {
        let State::Watching { version, shown_at, .. } = &mut self.state else { return false };
        // a watch that begins without a version shows no deletion of before
        if shown.is_empty() {
            return true;
        }
        if is_lower(&shown, parse(version)) {
            tracing::warn!(
                what = self.resource,
                shown,
                after = version,
                "a watch went back, everything is listed again"
            );
            self.list_again();
            return false;
        }
        self.restores.observe(self.resource, &shown);
        (*version, *shown_at) = (shown, Some(Instant::now()));
        true
    }

    /// The watch ended: by its own timeout, or not.
    async fn ended(&mut self, error: Option<WatchError>) -> Result<(), WatchError> {
        let State::Watching { version, started, shown_at, works, .. } =
            std::mem::replace(&mut self.state, State::first_page(None))
        else {
            return Ok(());
        };
        let reached = if works { Reached::Works } else { Reached::Accepted };
        if let Some(error) = error {
            return self.failed(version, error, reached);
        }
        if started.elapsed() + EARLY < Duration::from_secs(WATCH_SECONDS.into()) {
            let error = if works { WatchError::Early } else { WatchError::Cut };
            return self.failed(version, error, reached);
        }
        if self.restores.is_behind(self.resource) {
            return Ok(());
        }
        // a watch that works makes lists that fail no cheaper
        if !self.has_list_failed {
            self.list_interval = LIST_INTERVAL.0;
        }
        self.state = State::Listed { version };
        if shown_at.is_some_and(|at| at.elapsed() < LAST_BOOKMARK) {
            return Ok(());
        }
        // it may show nothing for long because it is broken, which only a list finds out
        self.list_within(LIST_INTERVAL.1);
        self.probe().await
    }

    /// The watch from this resourceVersion failed. It is resumed, so that changes are not delayed, and everything is listed
    /// again soon: what happened meanwhile may not be in the watch.
    fn failed(&mut self, version: String, error: WatchError, reached: Reached) -> Result<(), WatchError> {
        if reached == Reached::Works || (error.is_gone() && !self.is_gone) {
            self.health.watch_ended(&error);
        } else {
            self.health.watch_failed(&error, reached == Reached::Accepted);
        }
        if error.is_gone() || version.is_empty() {
            self.state = State::first_page(None);
            self.is_gone = error.is_gone();
        } else {
            self.state = State::Listed { version };
            self.list_again();
        }
        Err(error)
    }
}

/// When a watch is dead that shows nothing from now on.
fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(WATCH_SECONDS.into()) + LATE
}
