//! A list that a watch keeps up to date, as `kube::runtime::watcher` does, with one difference: a watch that did not end
//! by its own timeout is not trusted.
//!
//! After a cluster was restored from a backup, the API server accepts a watch from a resourceVersion that is yet to
//! come, keeps it open, and sends neither events nor bookmarks until the new revisions have passed it. So everything is
//! listed again once a watch has failed or ended too early, or [`Restores`] noticed a restore; and a watch without a
//! bookmark at its end is not resumed before a short list has shown that the resourceVersion is not lower than before. What
//! a watch shows is left out where it goes back.

pub mod health;
mod list;

use std::{collections::VecDeque, fmt::Debug, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use itwin_api::digest;
use itwin_core::revisions::{Incarnation, parse};
use kube::{
    Api, Resource, ResourceExt,
    api::{WatchEvent, WatchParams},
    runtime::watcher::Event,
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use self::health::{ANSWER, Health, WatchError};
use crate::{
    clock::until,
    restores::{Restores, is_lower},
};

/// A watch ends and is resumed after this, in seconds: load balancers drop idle connections without a notice
/// (Azure/kars#456), and a connection that shows nothing for longer is known to be dead.
pub const WATCH_SECONDS: u32 = 60;
/// A watch without an answer or a failure for this long has died without a notice.
pub const WATCH_LIMIT: Duration = Duration::from_secs(180);
/// A watch that was open for so long works, as does one that showed an event or a bookmark: often nothing happens that it
/// could show. One that was merely accepted may break at once, again and again.
const WORKS: Duration = Duration::from_secs(15);
/// How much later than its timeout a watch may end.
const LATE: Duration = Duration::from_secs(5);
/// How much earlier than its timeout a watch may end that is resumed: the timeout counts from the request.
const EARLY: Duration = Duration::from_secs(1);
/// The API server sends a bookmark 2 s before the timeout of a watch, unless no revision is newer than the watch.
const LAST_BOOKMARK: Duration = Duration::from_secs(5);
/// Objects of one page of a list; the client makes smaller pages of large objects ([`crate::runtime::client`]).
const PAGE: u32 = 100;
/// Waits between attempts: at most half of the 5 s after which a watch that fails is reported, so that it was made again
/// by then, also where the first failure that counts comes at the end of an outage.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(2500));
/// The longest wait where each watch is refused with 410: what changes is only seen in lists then, and each costs all
/// objects.
const GONE_RETRY: Duration = Duration::from_secs(60);
/// A list is made again at most this often where watches fail, and in the end where they keep failing.
const LIST_INTERVAL: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));
/// The watches of all namespaces that ended together list again within this.
const SPREAD: Duration = Duration::from_secs(5);

type Events<K> = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<K>>> + Send>>;

enum State<K> {
    /// The first page, or the one of this token, is to be requested.
    Listing {
        continue_token: Option<String>,
        /// The watch is resumed from this resourceVersion if the list fails.
        resume: Option<String>,
    },
    /// The watch from this resourceVersion is to be started.
    Listed { version: String },
    Watching {
        version: String,
        events: Events<K>,
        started: Instant,
        shown_at: Option<Instant>,
        /// It has shown anything, or was open for long enough.
        works: bool,
        /// It is dead if it has shown nothing more by then.
        deadline: Instant,
    },
}

impl<K> State<K> {
    /// A list begins.
    fn first_page(resume: Option<String>) -> Self {
        Self::Listing { continue_token: None, resume }
    }
}

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

/// The events of one resource, in one namespace or all.
pub struct Watch<K> {
    api: Api<K>,
    resource: &'static str,
    restores: Arc<Restores>,
    health: Health,
    incarnation: watch::Receiver<Incarnation>,
    state: State<K>,
    /// Events that were received and not returned yet.
    received: VecDeque<Event<K>>,
    retry: Duration,
    /// A watch was too old (410), and none worked since: lists do not shorten the wait, and the next 410 is a failure.
    is_gone: bool,
    /// The last list was older than what was shown before. An API server may do that once; twice is a restore.
    was_older: bool,
    /// The cluster was restored since the last list.
    is_restored: bool,
    /// How many pages of the list under way were accepted.
    pages: u32,
    /// After how many pages the last list failed, if one did and no later page was accepted since.
    failed_after: u32,
    /// When a list ended last, or failed while a watch went on.
    listed_at: Option<Instant>,
    /// When everything is listed again.
    list_at: Option<Instant>,
    /// A list is made again at most this often: watches that keep failing must not cost a list each.
    list_interval: Duration,
    /// A part of [`SPREAD`].
    spread: Duration,
}

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Nothing was listed yet. `resource` is the name of the resource.
    pub fn new(api: Api<K>, resource: &'static str, restores: Arc<Restores>, health: Health) -> Self {
        Self {
            spread: SPREAD.mul_f64(digest::unit_interval(["list", api.resource_url()])),
            incarnation: restores.subscribe(),
            api,
            resource,
            restores,
            health,
            state: State::first_page(None),
            list_interval: LIST_INTERVAL.0,
            received: VecDeque::new(),
            retry: RETRY.0,
            is_gone: false,
            was_older: false,
            is_restored: false,
            pages: 0,
            failed_after: 0,
            listed_at: None,
            list_at: None,
        }
    }

    /// Those who receive the events have taken in the first list.
    pub fn listed(&self) {
        self.health.listed();
    }

    /// The next event. Failures are logged and retried.
    pub async fn next(&mut self) -> Event<K> {
        loop {
            if let Some(event) = self.received.pop_front() {
                if !self.is_gone {
                    self.retry = RETRY.0;
                }
                return event;
            }
            if let Err(error) = self.step().await {
                tracing::warn!(what = self.resource, "watch failed, it is made again: {error}");
                let most = if error.is_gone() { GONE_RETRY } else { RETRY.1 };
                self.retry = self.retry.min(most);
                sleep(self.retry).await;
                self.retry = (self.retry * 2).min(most);
            }
        }
    }

    async fn step(&mut self) -> Result<(), WatchError> {
        let is_due = self.list_at.is_some_and(|at| at <= Instant::now());
        if is_due {
            self.list_now();
        }
        match &self.state {
            State::Listing { continue_token, resume } => {
                let (token, resume) = (continue_token.clone(), resume.clone());
                self.list(token, resume).await
            }
            State::Listed { version } => {
                let version = version.clone();
                self.start(version).await
            }
            State::Watching { .. } => self.watch().await,
        }
    }

    async fn start(&mut self, version: String) -> Result<(), WatchError> {
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

    async fn watch(&mut self) -> Result<(), WatchError> {
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
        self.list_interval = LIST_INTERVAL.0;
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

/// The answer to a request, if it comes in time.
async fn answered<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, WatchError> {
    match timeout(ANSWER, request).await {
        Ok(answer) => answer.map_err(WatchError::from),
        Err(_) => Err(WatchError::Silence),
    }
}

#[cfg(test)]
mod tests;
