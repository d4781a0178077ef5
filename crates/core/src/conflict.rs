//! Another writer that keeps changing what the operator writes: what is reverted again and again is reverted with growing
//! backoff, and reported.

use chrono::{DateTime, TimeDelta, Utc};

/// Reverts that follow each other before they are a conflict. An edit by hand, and a second try, are none.
const ROUNDS: u32 = 3;
/// A Secret that needed no revert for this long after the backoff is left alone by now.
const CALM: TimeDelta = TimeDelta::seconds(60);

/// Reverts of one Secret that follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reverts {
    count: u32,
    /// Generation of the spec: what the operator rewrites for a new spec is no revert.
    generation: i64,
    /// When the last one was made.
    last: Option<DateTime<Utc>>,
    /// The backoff that followed it.
    wait: TimeDelta,
}

impl Reverts {
    /// Notes a revert. Returns by how many there are more than an edit by hand explains; zero where it is no conflict.
    pub fn note(&mut self, generation: i64, now: DateTime<Utc>) -> u32 {
        if self.generation != generation || !self.follows(now) {
            *self = Self { generation, ..Self::default() };
        }
        self.count = self.count.saturating_add(1);
        self.last = Some(now);
        self.count.saturating_sub(ROUNDS)
    }

    /// The backoff that follows the last revert.
    pub fn back_off(&mut self, wait: TimeDelta) {
        self.wait = wait;
    }

    /// The end of the conflict, should no further revert be needed; `None` where there is none.
    #[must_use]
    pub fn conflict_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let last = self.last.filter(|_| self.count > ROUNDS && self.follows(now))?;
        Some(last + self.wait + CALM)
    }

    /// Whether a revert now would follow the last one. A time to come is of a clock that was ahead.
    fn follows(&self, now: DateTime<Utc>) -> bool {
        self.last.is_some_and(|last| last <= now && now < last + self.wait + CALM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    #[test]
    fn fourth_revert_in_a_row_is_a_conflict_and_it_ends_with_calm() {
        let mut reverts = Reverts::default();
        let excess: Vec<u32> = (0..5).map(|second| reverts.note(1, at(second))).collect();
        assert_eq!(excess, [0, 0, 0, 1, 2]);
        reverts.back_off(TimeDelta::seconds(10));
        assert_eq!(reverts.conflict_until(at(73)), Some(at(4 + 10 + 60)));
        assert_eq!(reverts.conflict_until(at(74)), None);
        assert_eq!(reverts.note(1, at(74)), 0, "a new one");
    }

    #[test]
    fn edits_now_and_then_and_changes_of_the_spec_are_no_conflict() {
        let mut reverts = Reverts::default();
        assert!((0..20).all(|round| reverts.note(1, at(round * 61)) == 0));
        assert!((0..20).all(|generation| reverts.note(generation, at(0)) == 0));
        assert_eq!(reverts.conflict_until(at(0)), None);
    }

    #[test]
    fn clock_that_was_set_back_ends_a_conflict() {
        let mut reverts = Reverts::default();
        assert!((0..9).map(|second| reverts.note(1, at(second))).any(|excess| excess > 0));
        assert_eq!(reverts.conflict_until(at(-3600)), None);
    }
}
