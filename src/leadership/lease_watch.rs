//! When a standby watches the Lease, by which it learns of each renewal, and at once of a release, without reading.
//!
//! A watch that goes silent looks like a leader that died. So it only postpones reads: a standby that nothing has shown the
//! Lease for longer than a leader takes to renew it reads it, and a read that finds what the watch did not show ends the
//! watch.

use std::time::Duration;

use futures::{FutureExt, StreamExt, future, stream::BoxStream};
use tokio::time::Instant;

use super::lease::News;

/// The wait before a watch is made again, and the longest one where each fails: the Lease is read meanwhile.
const AGAIN: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(60));

/// The watch of a standby.
pub(super) struct LeaseWatch {
    events: Option<BoxStream<'static, News>>,
    /// This one showed the Lease.
    has_shown: bool,
    /// No other one is made before this.
    not_before: Instant,
    /// The wait after the next one that fails.
    wait: Duration,
}

impl LeaseWatch {
    /// None was made yet.
    pub(super) fn new() -> Self {
        Self { events: None, has_shown: false, not_before: Instant::now(), wait: AGAIN.0 }
    }

    /// Whether there is none, and one may be made.
    pub(super) fn is_due(&self) -> bool {
        self.events.is_none() && Instant::now() >= self.not_before
    }

    /// One was made.
    pub(super) fn open(&mut self, events: BoxStream<'static, News>) {
        (self.events, self.has_shown, self.not_before) = (Some(events), false, Instant::now() + AGAIN.0);
    }

    /// What it shows next; `None` where it ended.
    pub(super) async fn next(&mut self) -> Option<News> {
        match &mut self.events {
            Some(events) => events.next().await,
            None => future::pending().await,
        }
    }

    /// It showed the Lease.
    pub(super) fn showed(&mut self) {
        (self.has_shown, self.wait) = (true, AGAIN.0);
    }

    /// It ended, or is not to be trusted.
    pub(super) fn close(&mut self) {
        self.events = None;
    }

    /// A read found this version, which it did not show: unless it has that at hand, it is late, or shows nothing any more.
    /// One that showed something before is made again at once, since a release that no watch shows is followed late.
    pub(super) fn missed(&mut self, version: Option<&str>) {
        let Some(events) = &mut self.events else { return };
        let is_found = |news: &News| {
            news.as_ref().is_ok_and(|lease| version.is_some() && lease.metadata.resource_version.as_deref() == version)
        };
        // what is older is known by now
        while let Some(Some(news)) = events.next().now_or_never() {
            if is_found(&news) {
                return;
            }
        }
        if self.has_shown {
            self.close();
            self.not_before = Instant::now();
        } else {
            self.failed();
        }
    }

    /// It failed. Returns whether it is the first of consecutive ones.
    pub(super) fn failed(&mut self) -> bool {
        let is_first = self.wait == AGAIN.0;
        self.close();
        self.not_before = Instant::now() + self.wait;
        self.wait = (self.wait * 2).min(AGAIN.1);
        is_first
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use serde_json::json;

    use super::*;

    fn watch(versions: &[&str]) -> LeaseWatch {
        let lease = |version: &&str| -> News {
            let object = json!({"metadata": {"name": "lease", "resourceVersion": version}});
            Ok(serde_json::from_value(object).expect("a Lease"))
        };
        let events: Vec<News> = versions.iter().map(lease).collect();
        let mut watch = LeaseWatch::new();
        watch.open(stream::iter(events).chain(stream::pending()).boxed());
        watch
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_watch_has_at_hand_is_not_missed() {
        let mut watch = watch(&["7", "8", "9"]);
        watch.missed(Some("8"));
        assert!(watch.events.is_some());
        let next = watch.next().now_or_never().flatten().and_then(Result::ok);
        assert_eq!(next.and_then(|lease| lease.metadata.resource_version).as_deref(), Some("9"), "it goes on");
        watch.missed(Some("10"));
        assert!(watch.events.is_none() && !watch.is_due());
    }

    #[tokio::test(start_paused = true)]
    async fn watch_that_was_late_is_made_again_at_once_if_it_showed_anything() {
        let mut watch = watch(&[]);
        watch.showed();
        watch.missed(Some("9"));
        assert!(watch.is_due());
        watch.open(stream::pending().boxed());
        watch.missed(Some("10"));
        assert!(!watch.is_due(), "it shows nothing");
        tokio::time::advance(AGAIN.0).await;
        assert!(watch.is_due());
    }
}
