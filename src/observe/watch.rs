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
mod open;

use std::{collections::VecDeque, fmt::Debug, pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use itwin_api::digest;
use itwin_core::revisions::Incarnation;
use kube::{Api, Resource, api::WatchEvent, runtime::watcher::Event};
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use self::health::{ANSWER, Health, WatchError};
use crate::restores::Restores;

/// A watch ends and is resumed after this, in seconds: load balancers drop idle connections without a notice
/// (Azure/kars#456), and a connection that shows nothing for longer is known to be dead.
pub const WATCH_SECONDS: u32 = 60;
/// A watch without an answer or a failure for this long has died without a notice.
pub const WATCH_LIMIT: Duration = Duration::from_secs(180);
/// Objects of one page of a list; the client makes smaller pages of large objects ([`crate::runtime::client`]).
const PAGE_LIMIT: u32 = 100;
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
/// A list goes on after a page that failed, unless it began longer ago: the API server forgets it after 5 to 10 minutes, and
/// may not say so.
const CONTINUES: Duration = Duration::from_secs(240);
/// A list begins again after this many answers of HTTP 5xx to the request for one page, and in the end after this many
/// where lists keep failing: each costs all pages before it too.
const PAGE_FAILURES: (u32, u32) = (4, 32);

type Events<K> = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<K>>> + Send>>;

enum State<K> {
    /// This page is to be requested.
    Listing(Page),
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
        Self::Listing(Page { next: None, resume })
    }
}

/// A page of a list.
#[derive(Clone)]
struct Page {
    /// How the list goes on to it; none where it is the first one.
    next: Option<Continue>,
    /// The watch is resumed from this resourceVersion if the list fails.
    resume: Option<String>,
}

/// How a list goes on after a page of it.
#[derive(Clone)]
struct Continue {
    token: String,
    /// When its first page was accepted.
    began: Instant,
    /// How often the API server answered the request for this page with HTTP 5xx.
    failures: u32,
    /// A page of this list failed while a watch could go on, and was requested again.
    has_waited: bool,
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
    /// How many pages of one list were accepted at most since a list ended.
    reached: u32,
    /// When a list ended last, or failed while a watch went on.
    listed_at: Option<Instant>,
    /// When everything is listed again.
    list_at: Option<Instant>,
    /// A list is made again at most this often: watches that keep failing must not cost a list each.
    list_interval: Duration,
    /// The last list failed while a watch went on.
    has_list_failed: bool,
    /// A list begins again after this many answers of HTTP 5xx to the request for one page.
    page_failures: u32,
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
            has_list_failed: false,
            page_failures: PAGE_FAILURES.0,
            received: VecDeque::new(),
            retry: RETRY.0,
            is_gone: false,
            was_older: false,
            is_restored: false,
            pages: 0,
            reached: 0,
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
                // a page is no list: others of it may fail, in each list
                if !self.is_gone && !matches!(event, Event::Init | Event::InitApply(_)) {
                    self.retry = RETRY.0;
                }
                return event;
            }
            if let Err(error) = self.step().await {
                tracing::warn!(what = self.resource, "watch failed, it is made again: {error}");
                let most = if error.is_gone() { GONE_RETRY } else { RETRY.1 };
                self.retry = self.retry.min(most);
                sleep(self.retry.max(error.asked_wait())).await;
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
            State::Listing(page) => {
                let page = page.clone();
                self.list(page).await
            }
            State::Listed { version } => {
                let version = version.clone();
                self.start(version).await
            }
            State::Watching { .. } => self.watch().await,
        }
    }
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
