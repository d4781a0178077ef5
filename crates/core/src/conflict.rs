//! Conflicts with another client that keeps changing a Secret: consecutive reverts get a growing backoff and are
//! reported.

use chrono::{DateTime, TimeDelta, Utc};

/// Consecutive reverts before they are a conflict. A manual edit that is repeated once or twice is not a conflict.
const ROUNDS: u32 = 3;
/// A conflict ends when a Secret needs no revert for this long after the backoff.
const QUIET: TimeDelta = TimeDelta::seconds(60);

/// Consecutive reverts of one Secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reverts {
    count: u32,
    /// Generation of the spec: a write for a new spec is not a revert.
    generation: i64,
    /// The time of the last revert.
    last: Option<DateTime<Utc>>,
    /// The backoff that followed it.
    wait: TimeDelta,
}

impl Reverts {
    /// Records a revert. Returns how many reverts there are beyond those of manual edits; zero if there is no conflict.
    pub fn record(&mut self, generation: i64, now: DateTime<Utc>) -> u32 {
        if self.generation != generation || !self.follows(now) {
            *self = Self { generation, ..Self::default() };
        }
        self.count = self.count.saturating_add(1);
        self.last = Some(now);
        self.count.saturating_sub(ROUNDS)
    }

    /// Sets the backoff that follows the last revert.
    pub fn set_backoff(&mut self, wait: TimeDelta) {
        self.wait = wait;
    }

    /// When the conflict ends if no further revert is needed; `None` if there is no conflict.
    #[must_use]
    pub fn conflict_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let last = self.last.filter(|_| self.count > ROUNDS && self.follows(now))?;
        Some(last + self.wait + QUIET)
    }

    /// Whether a revert at `now` follows the last one. If the last one is in the future, the clock was set back.
    fn follows(&self, now: DateTime<Utc>) -> bool {
        self.last.is_some_and(|last| last <= now && now < last + self.wait + QUIET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    #[test]
    fn fourth_consecutive_revert_is_a_conflict_that_ends_after_a_quiet_time() {
        let mut reverts = Reverts::default();
        let excess: Vec<u32> = (0..5).map(|second| reverts.record(1, at(second))).collect();
        assert_eq!(excess, [0, 0, 0, 1, 2]);
        reverts.set_backoff(TimeDelta::seconds(10));
        assert_eq!(reverts.conflict_until(at(73)), Some(at(4 + 10 + 60)));
        assert_eq!(reverts.conflict_until(at(74)), None);
        assert_eq!(reverts.record(1, at(74)), 0, "a first revert");
    }

    #[test]
    fn occasional_edits_and_changes_of_the_spec_are_not_a_conflict() {
        let mut reverts = Reverts::default();
        assert!((0..20).all(|round| reverts.record(1, at(round * 61)) == 0));
        assert!((0..20).all(|generation| reverts.record(generation, at(0)) == 0));
        assert_eq!(reverts.conflict_until(at(0)), None);
    }

    #[test]
    fn clock_that_was_set_back_ends_a_conflict() {
        let mut reverts = Reverts::default();
        assert!((0..9).map(|second| reverts.record(1, at(second))).any(|excess| excess > 0));
        assert_eq!(reverts.conflict_until(at(-3600)), None);
    }
}
