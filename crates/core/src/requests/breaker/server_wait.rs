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
    pub(super) first: Instant,
    /// When the server asked for it.
    pub since: Now,
    /// The end of the wait.
    pub until: Instant,
    /// Why the server asked for it.
    pub reason: Reason,
}

impl ServerWait {
    /// When a request may be sent despite the wait: after half of the remaining validity of its token.
    #[must_use]
    pub fn allows(&self, deadline: DateTime<Utc>) -> Instant {
        let left = (deadline - self.since.wall).max(TimeDelta::zero());
        let half = (left / 2).to_std().unwrap_or_default();
        if half.is_zero() { self.until } else { (self.since.monotonic + half).min(self.until) }
    }
}
