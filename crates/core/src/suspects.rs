//! Which credentials wait after a start, because the process before ended while they were being reconciled.
//!
//! One of them may have crashed it, and would do so again before the others are served. Which one is not known, and most
//! often none is to blame: the node went down, or memory ran out. So those suspected for the first time wait for seconds
//! only, and are reconciled one after the other, so that the next crash names one.

use std::time::Duration;

/// How long suspects of one crash wait at least: the first reconciliation of the others may end at once and go on when
/// their authority is known, which takes a second or two after a start.
pub const SETTLE: Duration = Duration::from_secs(3);
/// How long they wait at most for the others. Not until the last of these was served: a thousand credentials of a slow
/// authority take minutes, and a suspect that is not to blame must not lose its token.
pub const GRACE: Duration = Duration::from_secs(10);
/// How long a suspect of two crashes waits; twice as long after each further one.
pub const HELD: Duration = Duration::from_secs(60);
/// The longest wait.
pub const HELD_MAX: Duration = Duration::from_secs(3600);
/// A suspect of one crash is alone under way for so long: a crash comes at once, and those behind it wait.
pub const ALONE: Duration = Duration::from_secs(2);
/// The same for a suspect of several crashes: longer than a token request may take by default.
pub const ALONE_AGAIN: Duration = Duration::from_secs(30);
/// A suspect that waits for something else than the time asks again after this.
pub const ASK_AGAIN: Duration = Duration::from_millis(200);
/// So long after a reconciliation that ended, a suspect is one no more. Not at once: a crash may come in a later step,
/// once an authority has answered, and would be the first one each time.
pub const PROBATION: Duration = Duration::from_secs(600);
/// So many suspects are kept: as many as credentials can be worked on at the same time.
pub const SUSPECTS_MAX: usize = 256;

/// What a process leaves behind about one credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Its reconciliation had begun and not ended.
    UnderWay,
    /// It was suspected, and held back.
    Held,
    /// It was suspected, and reconciled without a crash since.
    Released,
}

/// How many crashes a credential is suspected of, from what the last process left behind about it: under way when it
/// ended, with `crashes` before that. None: it is not suspected.
#[must_use]
pub fn crashes(left: Left, crashes: u32) -> Option<u32> {
    match left {
        Left::UnderWay => Some(crashes.saturating_add(1)),
        Left::Held => Some(crashes),
        Left::Released => None,
    }
}

/// What happened since the process leads.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Since then.
    pub leading_for: Duration,
    /// Every credential that is not suspected was reconciled once, and none is being reconciled.
    pub others_served: bool,
    /// The suspects that are being reconciled, if any.
    pub under_way: Option<UnderWay>,
}

/// Suspects that are being reconciled.
#[derive(Clone, Copy, Debug)]
pub struct UnderWay {
    /// The most crashes that one of them is suspected of.
    pub crashes: u32,
    /// Since the last of them began.
    pub since: Duration,
}

/// How long a credential that is suspected of so many crashes waits, and asks again; `None`: it is reconciled now.
#[must_use]
pub fn wait(crashes: u32, situation: &Situation) -> Option<Duration> {
    let is_first = crashes <= 1;
    let longest = if is_first && situation.others_served { SETTLE } else { longest_wait(crashes) };
    let left = longest.saturating_sub(situation.leading_for);
    if !left.is_zero() {
        return Some(if is_first { left.min(ASK_AGAIN) } else { left });
    }
    let under_way = situation.under_way?;
    let alone = if crashes.max(under_way.crashes) <= 1 { ALONE } else { ALONE_AGAIN };
    (under_way.since < alone).then_some(ASK_AGAIN)
}

/// How long a credential that is suspected of so many crashes waits at most, if other suspects do not hold it up.
#[must_use]
pub fn longest_wait(crashes: u32) -> Duration {
    match crashes {
        0 | 1 => GRACE,
        _ => HELD.saturating_mul(1_u32.checked_shl(crashes - 2).unwrap_or(u32::MAX)).min(HELD_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn after(leading_for: Duration) -> Situation {
        Situation { leading_for, others_served: false, under_way: None }
    }

    fn alongside(crashes: u32, since: Duration) -> Situation {
        let under_way = Some(UnderWay { crashes, since });
        Situation { leading_for: HELD_MAX, others_served: true, under_way }
    }

    #[test]
    fn what_was_under_way_is_suspected_and_what_ended_well_is_not() {
        assert_eq!(crashes(Left::UnderWay, 0), Some(1));
        assert_eq!(crashes(Left::UnderWay, 3), Some(4));
        assert_eq!(crashes(Left::Held, 2), Some(2), "the crash of another is not its own");
        assert_eq!(crashes(Left::Released, 2), None);
        assert_eq!(crashes(Left::UnderWay, u32::MAX), Some(u32::MAX));
    }

    #[test]
    fn first_time_suspect_waits_for_the_others_but_no_longer_than_seconds() {
        assert_eq!(wait(1, &after(Duration::ZERO)), Some(ASK_AGAIN));
        assert_eq!(wait(1, &after(GRACE - ASK_AGAIN / 2)), Some(ASK_AGAIN / 2));
        assert_eq!(wait(1, &after(GRACE)), None);
        let served = |leading_for| wait(1, &Situation { others_served: true, ..after(leading_for) });
        assert_eq!([Duration::ZERO, SETTLE].map(served), [Some(ASK_AGAIN), None]);
    }

    #[test]
    fn suspect_of_several_crashes_waits_twice_as_long_after_each_though_the_others_were_served() {
        let waits = |crashes| wait(crashes, &Situation { others_served: true, ..after(Duration::ZERO) });
        assert_eq!([2, 3, 4, 7].map(waits), [60, 120, 240, 1920].map(|wait| Some(seconds(wait))));
        assert_eq!([8, 40, u32::MAX].map(waits), [Some(HELD_MAX); 3]);
        assert_eq!(wait(2, &after(seconds(59))), Some(seconds(1)));
        assert_eq!(wait(2, &after(HELD)), None);
    }

    #[test]
    fn suspects_are_under_way_one_at_a_time() {
        assert_eq!(wait(1, &alongside(1, Duration::ZERO)), Some(ASK_AGAIN));
        assert_eq!(wait(1, &alongside(1, ALONE)), None, "one that hangs does not hold up the others");
        for (ours, theirs) in [(2, 1), (1, 2), (2, 2)] {
            assert_eq!(wait(ours, &alongside(theirs, ALONE_AGAIN - ALONE)), Some(ASK_AGAIN), "{ours} beside {theirs}");
            assert_eq!(wait(ours, &alongside(theirs, ALONE_AGAIN)), None, "{ours} beside {theirs}");
        }
    }
}
