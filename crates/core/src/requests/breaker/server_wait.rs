//! The wait that an authorization server asks all its clients for, and which requests are sent despite it.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::conditions::Reason;

use crate::requests::request::Now;

/// The longest wait that a server may ask all its clients for.
const SERVER_WAIT_MAX: TimeDelta = TimeDelta::hours(1);
/// A wait is reported only if it is longer than this: a short wait does not count as a failure. Nor is a longer one
/// reported again within this time.
const REPORTED: Duration = Duration::from_secs(10);

/// A wait that the server asked all its clients for (`Retry-After`, RFC 9110 section 10.2.3).
#[derive(Clone, Copy, Debug)]
pub struct ServerWait {
    /// When the first of consecutive waits began.
    first: Instant,
    /// The end of the wait.
    pub until: Instant,
    /// Why the server asked for it.
    pub reason: Reason,
    /// When the requests that wait were reported last because of it.
    reported_at: Option<Instant>,
    /// Whether they are to be reported once more, as soon as that is not too soon after the last time: some joined when
    /// the wait had nearly ended, before it was prolonged.
    owes_report: bool,
}

impl ServerWait {
    /// The wait that a server asks for, after this one before it, which may have ended, and whether the requests that
    /// wait are to be reported now; `None` if it ends no later. Waits that follow each other are together at most as long
    /// as the longest single wait.
    pub(super) fn asked(before: Option<Self>, reason: Reason, wait: TimeDelta, now: Instant) -> Option<(Self, bool)> {
        let first = before.map_or(now, |before| before.first);
        let longest = SERVER_WAIT_MAX.to_std().unwrap_or_default();
        let until = now + wait.min(SERVER_WAIT_MAX).to_std().unwrap_or_default();
        let until = until.min(first + longest);
        if until <= now || before.is_some_and(|before| before.until >= until) {
            return None;
        }
        let reported_at = before.and_then(|before| before.reported_at);
        // all have reported a long one, except for those that joined when it had nearly ended
        let is_known = before.is_some_and(|before| before.is_long(now) && !before.owes_report);
        let mut wait = Self { first, until, reason, reported_at, owes_report: !is_known };
        let is_reported = wait.give_report(now);
        Some((wait, is_reported))
    }

    /// Reports the requests that wait, if that is owed and not too soon. Returns whether it does.
    pub(super) fn give_report(&mut self, now: Instant) -> bool {
        if !self.owes_report || self.report_due().is_some_and(|due| now < due) {
            return false;
        }
        // those that join a long wait know of it
        self.owes_report = false;
        let is_given = self.is_long(now);
        if is_given {
            self.reported_at = Some(now);
        }
        is_given
    }

    /// When a report that is owed is due; `None` if none is owed, or immediately.
    pub(super) fn report_due(&self) -> Option<Instant> {
        self.reported_at.filter(|_| self.owes_report).map(|at| at + REPORTED)
    }

    /// Whether it is long enough to be reported.
    #[must_use]
    pub fn is_long(&self, now: Instant) -> bool {
        self.until.saturating_duration_since(now) > REPORTED
    }

    /// When a request may be sent despite the wait: after half of the validity that its token had left when the first of
    /// consecutive waits began. Counted from the last of them, each response to one client would delay the tokens of all
    /// others once more, until they expire.
    #[must_use]
    pub fn allows(&self, deadline: DateTime<Utc>, now: Now) -> Instant {
        if deadline <= now.wall {
            return self.until;
        }
        let left = (deadline - self.allows_up_to(now)).max(TimeDelta::zero());
        // rounded up: at this instant `allows_up_to` has reached the deadline
        let half = ((left + TimeDelta::nanoseconds(1)) / 2).to_std().unwrap_or_default();
        (now.monotonic + half).min(self.until)
    }

    /// The latest expiry of a token that may be requested despite the wait: the inverse of [`Self::allows`]. A token that
    /// has as much left as has passed since the first wait began has lost half. That is measured by what the wall clock
    /// shows now, not by what it showed then: it may have been set since, or the machine may have slept.
    #[must_use]
    pub fn allows_up_to(&self, now: Now) -> DateTime<Utc> {
        let passed = now.monotonic.saturating_duration_since(self.first);
        now.wall + TimeDelta::from_std(passed).unwrap_or_default()
    }
}
