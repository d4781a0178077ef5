//! How a watch lists everything: page by page, again where what it has shown may be incomplete, and how often.

use std::{fmt::Debug, time::Duration};

use itwin_core::revisions::parse;
use kube::{
    Resource,
    api::{ListParams, ObjectList},
    runtime::watcher::Event,
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::{
    CONTINUES, Continue, LIST_INTERVAL, PAGE_FAILURES, PAGE_LIMIT, Page, RETRY, State, Watch, answered,
    health::WatchError,
};
use crate::restores::is_lower;

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Requests one page of the list.
    pub(super) async fn list(&mut self, page: Page) -> Result<(), WatchError> {
        let is_first = page.next.is_none();
        if is_first {
            self.pages = 0;
            self.incarnation.mark_unchanged();
        }
        let known = self.restores.highest(self.resource);
        let continue_token = page.next.as_ref().map(|next| next.token.clone());
        let params = ListParams { limit: Some(PAGE_LIMIT), continue_token, ..ListParams::default() };
        let (version, list) = match self.request_list(&params, self.pages.saturating_add(1)).await {
            Ok(answer) => answer,
            Err(error) => return self.page_failed(page, error).await,
        };
        self.pages = self.pages.saturating_add(1);
        let mut resume = page.resume;
        if is_first {
            if !self.was_older && is_lower(&version, known) {
                self.was_older = true;
                return Err(WatchError::Older);
            }
            self.was_older = false;
            self.list_at = None;
            self.observe_latest(&version, known);
            self.received.push_back(Event::Init);
            // a watch from a version that is yet to come shows nothing
            resume = resume.filter(|resume| !is_lower(&version, parse(resume)));
        }
        self.received.extend(list.items.into_iter().map(Event::InitApply));
        self.state = match list.metadata.continue_.filter(|token| !token.is_empty()) {
            // those who receive the list wait for its end
            Some(token) => {
                let (began, has_waited) =
                    page.next.map_or_else(|| (Instant::now(), false), |next| (next.began, next.has_waited));
                State::Listing(Page { next: Some(Continue { token, began, failures: 0, has_waited }), resume })
            }
            None => {
                self.received.push_back(Event::InitDone);
                (self.listed_at, self.reached) = (Some(Instant::now()), 0);
                (self.has_list_failed, self.page_failures) = (false, PAGE_FAILURES.0);
                State::Listed { version }
            }
        };
        Ok(())
    }

    /// A page failed. It alone is requested again, as long as the list can go on: one that begins again costs all pages before
    /// it too. A watch that could go on waits for that only once for each list, and not for long.
    async fn page_failed(&mut self, page: Page, error: WatchError) -> Result<(), WatchError> {
        let Page { next, resume } = page;
        let next = next.and_then(|next| self.page_again(next, &error));
        self.state = match (next, resume) {
            (Some(next), None) => State::Listing(Page { next: Some(next), resume: None }),
            (Some(next), resume) if !next.has_waited && error.may_end_within(RETRY.1) => {
                State::Listing(Page { next: Some(Continue { has_waited: true, ..next }), resume })
            }
            (_, Some(version)) => {
                self.list_failed(version, &error);
                // the watch is requested no sooner than the API server asks for, but what changes is not missed for long
                sleep(error.asked_wait().min(RETRY.1)).await;
                return Ok(());
            }
            (_, None) => State::first_page(None),
        };
        Err(error)
    }

    /// How the list goes on to the page that failed, if it can: not after a restore, and not for long where the API server
    /// cannot answer.
    fn page_again(&mut self, next: Continue, error: &WatchError) -> Option<Continue> {
        let is_restored = matches!(self.incarnation.has_changed(), Ok(true));
        if is_restored || error.ends_list() || next.began.elapsed() >= CONTINUES {
            return None;
        }
        let failures = next.failures.saturating_add(u32::from(error.is_of_server()));
        if failures >= self.page_failures {
            self.page_failures = (self.page_failures * 2).min(PAGE_FAILURES.1);
            return None;
        }
        Some(Continue { failures, ..next })
    }

    /// A list failed: a watch that works goes on without it. Lists may fail for long where watches do not, such as for one
    /// Secret that cannot be decrypted. What the list showed up to then is no longer news once the watch shows what happened
    /// before it; those who receive both keep what is newer, and drop nothing before the end of a whole list.
    fn list_failed(&mut self, version: String, error: &WatchError) {
        tracing::warn!(what = self.resource, "list failed, the watch goes on without it: {error}");
        self.state = State::Listed { version };
        // a watch that fails too does not make it sooner
        (self.listed_at, self.list_at) = (Some(Instant::now()), None);
        self.list_within(self.list_interval);
        // the next one may fail too, and costs all pages up to there
        (self.list_interval, self.has_list_failed) = ((self.list_interval * 2).min(LIST_INTERVAL.1), true);
    }

    /// Everything is listed now, unless that is under way.
    pub(super) fn list_now(&mut self) {
        let state = std::mem::replace(&mut self.state, State::first_page(None));
        self.state = match state {
            State::Listing(_) => state,
            State::Listed { version } | State::Watching { version, .. } => {
                // after a restore it may be one that is yet to come
                let is_usable = !version.is_empty() && !self.is_restored;
                State::first_page(Some(version).filter(|_| is_usable))
            }
        };
        self.is_restored = false;
    }

    /// A list, or the page of one that has so many up to it, and its resourceVersion. Pages may fail again and again, such as
    /// for a Secret that cannot be decrypted: that pages are accepted each time which were accepted before is no progress.
    async fn request_list(&mut self, params: &ListParams, pages: u32) -> Result<(String, ObjectList<K>), WatchError> {
        let list = answered(self.api.list(params)).await.and_then(|list| {
            let version = list.metadata.resource_version.clone().filter(|version| !version.is_empty());
            Ok((version.ok_or(WatchError::NoVersion)?, list))
        });
        match &list {
            Ok(_) => {
                self.health.list_accepted();
                if pages > self.reached {
                    self.reached = pages;
                    self.health.list_progressed();
                }
            }
            Err(error) => self.health.list_failed(error),
        }
        list
    }

    /// A restore that this list shows is no reason to make it again.
    fn observe_latest(&mut self, version: &str, known: Option<u64>) {
        if self.restores.observe_latest(self.resource, version, known) {
            self.incarnation.mark_unchanged();
        }
    }

    /// A short list shows whether the resourceVersion of a watch that showed nothing is one that is yet to come.
    pub(super) async fn probe(&mut self) -> Result<(), WatchError> {
        let known = self.restores.highest(self.resource);
        let (version, _) = self.request_list(&ListParams { limit: Some(1), ..ListParams::default() }, 0).await?;
        if is_lower(&version, known) {
            self.state = State::first_page(None);
        }
        Ok(())
    }

    /// Everything is listed again soon, and later each time.
    pub(super) fn list_again(&mut self) {
        let since_list = self.listed_at.map_or(self.list_interval, |at| at.elapsed());
        let wait = self.list_interval.saturating_sub(since_list);
        // one that is planned for other reasons may be later
        if self.list_at.is_none_or(|at| at > Instant::now() + wait.max(self.spread)) {
            self.list_within(wait);
            self.list_interval = (self.list_interval * 2).min(LIST_INTERVAL.1);
        }
    }

    /// Everything is listed again after this wait and the spread, unless it is sooner.
    pub(super) fn list_within(&mut self, wait: Duration) {
        let at = Instant::now() + wait.max(self.spread);
        self.list_at = Some(self.list_at.map_or(at, |list_at| list_at.min(at)));
    }
}
