//! The wait that an authorization server asks all its clients for, and which requests are sent despite it.

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::conditions::Reason;

use crate::requests::request::Now;

/// The longest wait that a server may ask all its clients for.
pub(super) const SERVER_WAIT_MAX: TimeDelta = TimeDelta::hours(1);

/// A wait that the server asked all its clients for (`Retry-After`, RFC 9110 section 10.2.3).
#[derive(Clone, Copy, Debug)]
pub struct ServerWait {
    /// When the first of consecutive waits began.
    pub(super) first: Now,
    /// The end of the wait.
    pub until: Instant,
    /// Why the server asked for it.
    pub reason: Reason,
}

impl ServerWait {
    /// When a request may be sent despite the wait: after half of the validity that its token had left when the first of
    /// consecutive waits began. Counted from the last of them, each response to one client would delay the tokens of all
    /// others once more, until they expire.
    #[must_use]
    pub fn allows(&self, deadline: DateTime<Utc>) -> Instant {
        let left = (deadline - self.first.wall).max(TimeDelta::zero());
        // rounded up: at this instant `allows_up_to` has reached the deadline
        let half = ((left + TimeDelta::nanoseconds(1)) / 2).to_std().unwrap_or_default();
        if half.is_zero() { self.until } else { (self.first.monotonic + half).min(self.until) }
    }

    /// The latest expiry of a token that may be requested despite the wait: the inverse of [`Self::allows`].
    #[must_use]
    pub fn allows_up_to(&self, now: Instant) -> DateTime<Utc> {
        let passed = now.saturating_duration_since(self.first.monotonic);
        self.first.wall + TimeDelta::from_std(passed).unwrap_or_default() * 2
    }
}
