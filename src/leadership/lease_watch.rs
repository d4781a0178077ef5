//! When a standby watches the Lease, by which it learns of each renewal, and at once of a release, without reading.
//!
//! A watch that goes silent looks like a leader that died. So it only postpones reads: a standby that nothing has shown the
//! Lease for longer than a leader takes to renew it reads it, and a read that finds what the watch did not show ends the
//! watch.

use std::time::Duration;

use futures::{StreamExt, future, stream::BoxStream};
use tokio::time::Instant;

use super::lease::News;

/// The wait before a watch is made again, and the longest one where each fails: the Lease is read meanwhile.
const AGAIN: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(60));

/// The watch of a standby.
pub(super) struct LeaseWatch {
    events: Option<BoxStream<'static, News>>,
    /// No other one is made before this.
    not_before: Instant,
    /// The wait after the next one that fails.
    wait: Duration,
}

impl LeaseWatch {
    /// None was made yet.
    pub(super) fn new() -> Self {
        Self { events: None, not_before: Instant::now(), wait: AGAIN.0 }
    }

    /// Whether there is none, and one may be made.
    pub(super) fn is_due(&self) -> bool {
        self.events.is_none() && Instant::now() >= self.not_before
    }

    /// One was made.
    pub(super) fn open(&mut self, events: BoxStream<'static, News>) {
        (self.events, self.not_before) = (Some(events), Instant::now() + AGAIN.0);
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
        self.wait = AGAIN.0;
    }

    /// It ended, or is not to be trusted.
    pub(super) fn close(&mut self) {
        self.events = None;
    }

    /// A read found what it did not show: it is late, or shows nothing any more.
    pub(super) fn missed(&mut self) {
        if self.events.is_some() {
            self.failed();
        }
    }

    /// It failed. Returns whether it is the first one in a row.
    pub(super) fn failed(&mut self) -> bool {
        let is_first = self.wait == AGAIN.0;
        self.close();
        self.not_before = Instant::now() + self.wait;
        self.wait = (self.wait * 2).min(AGAIN.1);
        is_first
    }
}
