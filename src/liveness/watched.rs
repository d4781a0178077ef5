//! One watch: when it worked last, how it fails, and what its lists are worth.
//!
//! A watch works once it shows an event or a bookmark, or was open for a while. That alone is a sign of life and ends an
//! interruption. A list shows what there is in that moment and nothing of what changes later, and a watch that was
//! merely accepted may break immediately, each time.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

/// Watches that began to fail so often before one worked fail until one works, though some are accepted. One that was
/// accepted and failed may have met an API server that was about to end.
const ENOUGH: u32 = 2;

/// How a request of a watch failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// For users.
    pub message: String,
    /// The API server does not allow it.
    pub is_forbidden: bool,
}

/// That nothing is watched: requests failed, and no watch works since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interruption {
    /// How many interruptions ended before: failures of two of them do not belong together.
    pub number: u64,
    /// How many lists failed without progress in between.
    pub lists: u32,
    /// How many watches failed. A list ends none of these failures.
    pub watches: u32,
    /// How often lists made progress up to now: failures before and after it do not belong together.
    pub progress: u64,
    /// How the last request failed.
    pub trouble: Trouble,
    /// The API server answered the last one.
    pub is_answer: bool,
    /// A watch was accepted after it, and is not known to work yet.
    pub is_open: bool,
}

/// What the objects that a watch showed are worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// There are no others.
    Complete,
    /// There may be others: the watch began only just now.
    Pending,
    /// There may be others, and that has been so for a while; how the last request failed, if it was answered.
    Incomplete(Option<Trouble>),
}

/// A watch.
pub(super) struct Watched {
    pub(super) resource: &'static str,
    /// When it was started.
    started: Instant,
    /// When it worked last, or was started.
    pub(super) last_sign: Instant,
    /// Its first list was complete.
    pub(super) is_listed: bool,
    /// Since when it fails, if it does, and how the last request failed.
    pub(super) failing: Option<(Instant, Trouble)>,
    /// What it showed was called incomplete, which is not over.
    is_called_incomplete: bool,
    /// How often watches began to fail since one worked.
    broken: u32,
    /// How it was interrupted, if it does not work since.
    pub(super) interruption: Option<Interruption>,
    /// How many interruptions ended.
    interruptions: u64,
    /// How often lists made progress.
    progress: u64,
    /// When a page of a list was accepted last, if one was.
    list_accepted_at: Option<Instant>,
    /// When a watch was accepted last, if one was.
    opened_at: Option<Instant>,
    /// When the watch was requested that did not fail yet, and is not known to work.
    requested_at: Option<Instant>,
    /// Of the watches that failed since one worked: how long after its request the latest one did.
    lasted: Duration,
    /// A watch was accepted once.
    opened: watch::Sender<bool>,
    /// How often a failure of watches was over.
    recoveries: watch::Sender<u64>,
}

impl Watched {
    /// One that is started now.
    pub(super) fn new(resource: &'static str) -> Self {
        let now = Instant::now();
        Self {
            resource,
            started: now,
            last_sign: now,
            is_listed: false,
            failing: None,
            is_called_incomplete: false,
            broken: 0,
            interruption: None,
            interruptions: 0,
            progress: 0,
            list_accepted_at: None,
            opened_at: None,
            requested_at: None,
            lasted: Duration::ZERO,
            opened: watch::Sender::new(false),
            recoveries: watch::Sender::new(0),
        }
    }

    /// It works. Returns whether that ends an interruption.
    pub(super) fn works(&mut self) -> bool {
        self.last_sign = Instant::now();
        (self.requested_at, self.lasted) = (None, Duration::ZERO);
        self.failing = None;
        if std::mem::take(&mut self.broken) >= ENOUGH || self.is_called_incomplete {
            self.recovers();
        }
        let ends = self.interruption.take().is_some();
        self.interruptions = self.interruptions.saturating_add(u64::from(ends));
        ends
    }

    /// A list failed.
    pub(super) fn list_failed(&mut self, trouble: Trouble, is_answer: bool) {
        self.fails(trouble.clone());
        let interruption = self.interrupted(trouble, is_answer);
        interruption.lists = interruption.lists.saturating_add(1);
    }

    /// A watch is requested.
    pub(super) fn requested(&mut self) {
        self.requested_at = Some(Instant::now());
    }

    /// A watch was refused, or failed.
    pub(super) fn watch_failed(&mut self, trouble: Trouble, is_answer: bool) {
        self.lasted = self.requested_at.take().map_or(self.lasted, |at| self.lasted.max(at.elapsed()));
        if self.fails(trouble.clone()) {
            self.broken = self.broken.saturating_add(1);
        }
        let interruption = self.interrupted(trouble, is_answer);
        interruption.watches = interruption.watches.saturating_add(1);
    }

    /// A page of a list was accepted, which says nothing of watches.
    pub(super) fn list_accepted(&mut self) {
        self.list_accepted_at = Some(Instant::now());
        if !self.is_unwatched() {
            self.failing = None;
        }
    }

    /// A watch was accepted. It counts for one that works until it breaks, unless others did so before it.
    pub(super) fn opened(&mut self) {
        self.opened.send_replace(true);
        self.opened_at = Some(Instant::now());
        if let Some(interruption) = &mut self.interruption {
            interruption.is_open = true;
        }
        let recovers = self.broken < ENOUGH && self.failing.take().is_some();
        // a list that failed may have been all, and the watch late
        if recovers && (self.is_unwatched() || self.is_called_incomplete) {
            self.recovers();
        }
    }

    /// What lists failed for before is over. Returns whether one had failed.
    pub(super) fn list_progressed(&mut self) -> bool {
        self.progress = self.progress.saturating_add(1);
        let progress = self.progress;
        self.interruption.as_mut().is_some_and(|interruption| {
            interruption.progress = progress;
            std::mem::take(&mut interruption.lists) > 0
        })
    }

    /// Becomes true with the first watch that is accepted.
    pub(super) fn is_opened(&self) -> watch::Receiver<bool> {
        self.opened.subscribe()
    }

    /// Changes each time that a failure of watches is over.
    pub(super) fn recoveries(&self) -> watch::Receiver<u64> {
        self.recoveries.subscribe()
    }

    /// Whether no watch failed since one worked, and that is not longer ago than this.
    pub(super) fn worked_within(&self, limit: Duration) -> bool {
        !self.is_unwatched() && self.last_sign.elapsed() <= limit
    }

    /// What the objects are worth that it showed. A start and a failure count after `grace`.
    pub(super) fn listing(&mut self, grace: Duration) -> Listing {
        let incomplete = || Listing::Incomplete(self.trouble());
        let listing = match &self.failing {
            _ if !self.is_listed && self.started.elapsed() < grace => Listing::Pending,
            _ if !self.is_listed => incomplete(),
            Some((since, _)) if since.elapsed() >= grace => incomplete(),
            _ => Listing::Complete,
        };
        // while the first list is awaited, its end shows what there is
        self.is_called_incomplete |= self.is_listed && listing != Listing::Complete;
        listing
    }

    /// Whether a watch was accepted within this.
    pub(super) fn was_opened_within(&self, limit: Duration) -> bool {
        self.opened_at.is_some_and(|at| at.elapsed() < limit)
    }

    /// Of the watches that failed since one worked: how long after its request the latest one did.
    pub(super) fn lasted(&self) -> Duration {
        self.lasted
    }

    /// Whether a page of a list was accepted within this.
    pub(super) fn list_was_accepted_within(&self, limit: Duration) -> bool {
        self.list_accepted_at.is_some_and(|at| at.elapsed() < limit)
    }

    /// Whether a page of a list was accepted after this instant.
    pub(super) fn list_was_accepted_after(&self, instant: Instant) -> bool {
        self.list_accepted_at.is_some_and(|at| at > instant)
    }

    /// How the last request failed, if it did.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.failing.as_ref().map(|(_, trouble)| trouble.clone())
    }

    /// Whether a watch failed since one worked.
    fn is_unwatched(&self) -> bool {
        self.interruption.as_ref().is_some_and(|interruption| interruption.watches > 0)
    }

    fn recovers(&mut self) {
        self.is_called_incomplete = false;
        self.recoveries.send_modify(|count| *count = count.saturating_add(1));
    }

    /// A request failed. Returns whether it is the first one.
    fn fails(&mut self, trouble: Trouble) -> bool {
        let since = self.failing.take().map(|(since, _)| since);
        self.failing = Some((since.unwrap_or_else(Instant::now), trouble));
        since.is_none()
    }

    fn interrupted(&mut self, trouble: Trouble, is_answer: bool) -> &mut Interruption {
        let (number, progress) = (self.interruptions, self.progress);
        let interruption = self.interruption.get_or_insert_with(|| Interruption {
            number,
            lists: 0,
            watches: 0,
            progress,
            trouble: trouble.clone(),
            is_answer,
            is_open: false,
        });
        (interruption.progress, interruption.trouble) = (progress, trouble);
        (interruption.is_answer, interruption.is_open) = (is_answer, false);
        interruption
    }
}
