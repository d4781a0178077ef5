//! Consecutive failures of one kind of work.

use chrono::{DateTime, TimeDelta, Utc};

use crate::failure::Failure;

/// Consecutive failures, and the backoff that follows the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streak {
    /// How many.
    pub count: u32,
    /// When the last one happened.
    pub failed_at: DateTime<Utc>,
    /// The last one.
    pub failure: Failure,
    /// The end of the backoff.
    not_before: DateTime<Utc>,
}

impl Streak {
    /// The streak after another failure, with the backoff that follows it.
    #[must_use]
    pub fn after(count: u32, failure: Failure, wait: TimeDelta, now: DateTime<Utc>) -> Self {
        Self { count, failed_at: now, failure, not_before: now + wait }
    }

    /// The end of the backoff, if it is to come. A failure that was noted later than now was noted before the clock was
    /// set back: its backoff binds no one, else attempts would cease for as long.
    #[must_use]
    pub fn until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        (self.failed_at <= now && now < self.not_before).then_some(self.not_before)
    }
}

#[cfg(test)]
mod tests {
    use itwin_api::conditions::Reason;

    use super::*;

    #[test]
    fn backoff_ends_with_its_time_and_with_a_clock_that_is_set_back() {
        let at = |second: i64| DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range");
        let streak = Streak::after(1, Failure::new(Reason::Timeout, "late"), TimeDelta::seconds(10), at(0));
        assert_eq!([-1, 0, 9, 10].map(|second| streak.until(at(second))), [None, Some(at(10)), Some(at(10)), None]);
    }
}
