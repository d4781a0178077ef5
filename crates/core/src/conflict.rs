//! Reverts of what others change in a Secret: where changes go on, the next revert waits for a growing backoff, and who
//! makes them is reported. A revert that the API server refuses is a failure of its own.
//!
//! None of that holds up a token request: a renewal is due whether or not someone fights over labels.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::conditions::Reason;

use crate::{failure::Failure, streak::Streak, withheld::Withheld};

/// Consecutive reverts that are a conflict. A manual edit that is repeated once is not one.
const ROUNDS: u32 = 3;
/// A revert within so long after the last one, and its backoff, follows it: others reconcile at intervals of minutes.
const WINDOW: TimeDelta = TimeDelta::minutes(15);
/// A conflict ends when a Secret needs no revert for this long after the backoff.
const QUIET: TimeDelta = TimeDelta::seconds(60);

/// Consecutive reverts of one Secret.
#[derive(Clone, Debug, Default)]
pub struct Reverts {
    count: u32,
    /// Generation of the spec: a write for a new spec is not a revert.
    generation: i64,
    /// The time of the last revert.
    last: Option<DateTime<Utc>>,
    /// The backoff that followed it.
    wait: TimeDelta,
    /// The conflict as it was reported last.
    conflict: Option<Streak>,
    /// The last reverts were refused.
    refused: Option<Streak>,
    /// What of the template the API server refuses.
    withheld: Withheld,
}

impl Reverts {
    /// What a start takes over of a conflict that an earlier process reported: the next revert is one too many again.
    #[must_use]
    pub fn recall(generation: i64, now: DateTime<Utc>) -> Self {
        Self { count: ROUNDS - 1, generation, last: Some(now), ..Self::default() }
    }

    /// Forgets what concerns an earlier generation of the spec: a label that was refused may be another one now.
    pub fn for_generation(&mut self, generation: i64) {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
    }

    /// Keeps what concerns the generation before this one, which has the same spec.
    pub fn keep_for_generation(&mut self, generation: i64) {
        self.generation = generation;
    }

    /// Records a revert. Returns how many consecutive ones there are that are a conflict, including this one; zero if
    /// there is no conflict.
    pub fn record(&mut self, generation: i64, now: DateTime<Utc>) -> u32 {
        self.for_generation(generation);
        if !self.follows(now) {
            let (refused, withheld) = (self.refused.take(), self.withheld);
            *self = Self { generation, refused, withheld, ..Self::default() };
        } else if self.conflict.is_some() && self.conflict_until(now).is_none() {
            // it was over: it is reported again, and the backoff begins again
            self.count = ROUNDS - 1;
        }
        self.count = self.count.saturating_add(1);
        self.last = Some(now);
        (self.count + 1).saturating_sub(ROUNDS)
    }

    /// The last revert is one too many: the next one waits.
    pub fn in_conflict(&mut self, excess: u32, failure: Failure, wait: TimeDelta, now: DateTime<Utc>) {
        self.wait = wait;
        self.conflict = Some(Streak::after(excess, failure, wait, now));
    }

    /// How often the last reverts were refused.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.refused.as_ref().map_or(0, |refused| refused.count)
    }

    /// The API server refused a revert: the next try waits.
    pub fn refused(&mut self, failure: Failure, wait: TimeDelta, now: DateTime<Utc>) {
        self.refused = Some(Streak::after(self.failures().saturating_add(1), failure, wait, now));
    }

    /// Whether the last revert was refused since the Secret is immutable: that holds up its data alone.
    #[must_use]
    pub fn is_refused_as_immutable(&self) -> bool {
        self.refused.as_ref().is_some_and(|refused| refused.failure.reason == Reason::SecretImmutable)
    }

    /// What of the template is withheld from the Secret, since the API server refuses it.
    #[must_use]
    pub fn withheld(&self) -> Withheld {
        self.withheld
    }

    /// Why the API server refuses a part of the template, as long as it is withheld.
    #[must_use]
    pub fn refused_template(&self) -> Option<&Failure> {
        self.refused.as_ref().filter(|_| self.withheld != Withheld::Nothing).map(|refused| &refused.failure)
    }

    /// The API server refused a write with more of the template than this withholds.
    pub fn withhold(&mut self, withheld: Withheld) {
        self.withheld = withheld;
    }

    /// Nothing is left to be reverted.
    pub fn all_reverted(&mut self) {
        self.refused = None;
        self.withheld = Withheld::Nothing;
    }

    /// What is to be reported, if anything is.
    #[must_use]
    pub fn failing(&self, now: DateTime<Utc>) -> Option<&Streak> {
        let conflict = self.conflict.as_ref().filter(|_| self.conflict_until(now).is_some());
        self.refused.as_ref().or(conflict)
    }

    /// No revert before this instant.
    #[must_use]
    pub fn not_before(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        [&self.conflict, &self.refused].into_iter().flatten().filter_map(|streak| streak.until(now)).max()
    }

    /// No Secret that others keep deleting or tampering with is restored before this instant. That a revert was refused
    /// holds back no token.
    #[must_use]
    pub fn restore_not_before(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.conflict.as_ref().and_then(|conflict| conflict.until(now))
    }

    /// When the conflict ends if no further revert is needed; `None` if there is no conflict.
    #[must_use]
    pub fn conflict_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let last = self.last.filter(|last| self.conflict.is_some() && *last <= now)?;
        Some(last + self.wait + QUIET).filter(|until| *until > now)
    }

    /// Whether a revert at `now` follows the last one. If the last one is in the future, the clock was set back.
    fn follows(&self, now: DateTime<Utc>) -> bool {
        self.last.is_some_and(|last| last <= now && now < last + self.wait + WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    fn failure() -> Failure {
        Failure::new(Reason::SecretConflict, "changed repeatedly")
    }

    #[test]
    fn third_consecutive_revert_is_a_conflict_that_ends_after_a_quiet_time() {
        let mut reverts = Reverts::default();
        let excess: Vec<u32> = (0..4).map(|second| reverts.record(1, at(second))).collect();
        assert_eq!(excess, [0, 0, 1, 2]);
        assert_eq!(reverts.failing(at(3)), None, "not reported yet");
        reverts.in_conflict(2, failure(), TimeDelta::seconds(10), at(3));
        assert_eq!(reverts.not_before(at(3)), Some(at(13)));
        assert_eq!(reverts.conflict_until(at(72)), Some(at(3 + 10 + 60)));
        assert_eq!(reverts.failing(at(72)).map(|streak| streak.count), Some(2));
        assert_eq!((reverts.conflict_until(at(73)), reverts.failing(at(73))), (None, None));
        assert_eq!(reverts.record(1, at(73)), 1, "it goes on, with a short wait");
        assert_eq!(reverts.record(1, at(73 + 901 + 10)), 0, "a first revert");
    }

    #[test]
    fn changes_at_intervals_of_minutes_are_a_conflict_and_those_of_the_spec_are_not() {
        let mut reverts = Reverts::default();
        assert_eq!((0..3).map(|round| reverts.record(1, at(round * 600))).max(), Some(1));
        assert!((0..20).all(|generation| reverts.record(generation, at(0)) == 0));
        assert_eq!(reverts.conflict_until(at(0)), None);
    }

    #[test]
    fn revert_that_is_refused_is_reported_until_one_succeeds_or_none_is_needed() {
        let mut reverts = Reverts::default();
        for count in 1..3 {
            reverts.refused(failure(), TimeDelta::seconds(5), at(0));
            assert_eq!(reverts.failing(at(3600)).map(|streak| streak.count), Some(count));
        }
        assert_eq!((reverts.not_before(at(4)), reverts.restore_not_before(at(4))), (Some(at(5)), None));
        let mut changed = reverts.clone();
        changed.for_generation(1);
        assert_eq!((changed.not_before(at(4)), changed.failing(at(4))), (None, None), "another spec");
        reverts.all_reverted();
        assert_eq!((reverts.failing(at(1)), reverts.not_before(at(1))), (None, None));
        reverts.for_generation(1);
        reverts.refused(failure(), TimeDelta::seconds(5), at(1));
        reverts.withhold(Withheld::Metadata);
        reverts.record(1, at(6));
        assert_eq!(reverts.failing(at(6)).map(|streak| streak.count), Some(1), "another part was reverted");
        assert_eq!(reverts.withheld(), Withheld::Metadata);
        reverts.all_reverted();
        assert_eq!((reverts.failing(at(6)), reverts.withheld()), (None, Withheld::Nothing));
    }

    #[test]
    fn conflict_of_an_earlier_process_goes_on_with_the_first_revert_unless_that_is_late() {
        assert_eq!(Reverts::recall(1, at(0)).record(1, at(60)), 1);
        assert_eq!(Reverts::recall(1, at(0)).record(1, at(900)), 0);
        assert_eq!(Reverts::recall(1, at(0)).record(2, at(60)), 0, "another spec");
        assert_eq!(Reverts::recall(1, at(0)).failing(at(0)), None, "nothing is known of it yet");
    }

    #[test]
    fn failure_for_an_immutable_secret_is_no_other_failure() {
        let mut reverts = Reverts::default();
        for (reason, expected) in [(Reason::SecretImmutable, true), (Reason::SecretWriteFailed, false)] {
            reverts.refused(Failure::new(reason, "refused"), TimeDelta::seconds(5), at(0));
            assert_eq!(reverts.is_refused_as_immutable(), expected);
        }
    }

    #[test]
    fn clock_that_was_set_back_ends_a_conflict() {
        let mut reverts = Reverts::default();
        assert!((0..9).map(|second| reverts.record(1, at(second))).any(|excess| excess > 0));
        reverts.in_conflict(1, failure(), TimeDelta::seconds(5), at(9));
        assert_eq!((reverts.conflict_until(at(-3600)), reverts.not_before(at(-3600))), (None, None));
    }
}
