//! A watch of Secrets that fails: until it works again, what it showed is read instead, as often as without a watch.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::digest;

use super::RetryState;
use crate::failure::Failure;

/// What the watch showed before it failed is read again within this. A watch may have been silent for a minute before
/// that, and five minutes are promised where Secrets are not watched.
const SHOWN_FOR: TimeDelta = TimeDelta::seconds(225);

/// That a watch of Secrets fails, for all credentials of its namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwatched {
    /// Since when.
    pub since: DateTime<Utc>,
    /// From when on what the watch showed is read again: since then, or since this process acts, if that is later.
    pub read_from: DateTime<Utc>,
    /// How it fails.
    pub failure: Failure,
}

impl Unwatched {
    /// Until when the credential of this UID makes do with what the watch showed, if that is to come: the first reads are
    /// spread over time, so that a watch that fails is no storm.
    #[must_use]
    pub fn shown_until(&self, uid: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let spread = SHOWN_FOR.num_milliseconds() as f64 * digest::unit_interval(["unwatched", uid]);
        let until = self.read_from + TimeDelta::milliseconds(spread as i64);
        // a time later than now was noted before the clock was set back
        (self.read_from <= now && now < until).then_some(until)
    }
}

impl RetryState {
    /// Notes how the watch of the credential's Secrets fails, if it does.
    pub fn set_unwatched(&mut self, unwatched: Option<Arc<Unwatched>>) {
        self.unwatched = unwatched;
    }

    /// How the watch of the credential's Secrets fails, if it does.
    #[must_use]
    pub fn unwatched(&self) -> Option<&Unwatched> {
        self.unwatched.as_deref()
    }
}
