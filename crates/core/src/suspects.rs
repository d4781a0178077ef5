//! How long a credential is held back after a crash because the previous process was reconciling it.
//!
//! One of these suspects may have crashed the process, and would crash it again before the other credentials are
//! reconciled. It is not known which one, and usually none is the cause: the node failed, or memory ran out. So
//! suspects of a first crash wait only for seconds, and are reconciled one after the other, so that another crash
//! identifies the cause.

use std::time::Duration;

/// The shortest wait of suspects of one crash. The first reconciliation of other credentials may end early and continue
/// when their authority is ready, which takes a second or two after a start.
pub const SETTLE: Duration = Duration::from_secs(3);
/// The longest time that suspects of one crash wait for the others. They do not wait until all others are reconciled: a
/// thousand credentials of a slow authority take minutes, and the token of an innocent suspect must not expire.
pub const GRACE: Duration = Duration::from_secs(10);
/// How long a suspect of two crashes waits. The time doubles with each further crash.
pub const HELD: Duration = Duration::from_secs(60);
/// The longest wait.
pub const HELD_MAX: Duration = Duration::from_secs(3600);
/// How long a suspect of one crash is reconciled before the next suspect starts: a crash usually follows immediately.
pub const ALONE: Duration = Duration::from_secs(2);
/// The same for a suspect of several crashes: longer than the default deadline of a token request.
pub const ALONE_AGAIN: Duration = Duration::from_secs(30);
/// The requeue interval of a suspect that waits for an event instead of a time.
pub const REQUEUE: Duration = Duration::from_millis(200);
/// How long after its reconciliation a credential stops being a suspect. It does not stop immediately: a later step,
/// after the response of an authority, may cause the crash, and each crash would count as the first.
pub const PROBATION: Duration = Duration::from_secs(600);
/// The number of suspects that are kept: as many as credentials can be reconciled at the same time.
pub const SUSPECTS_MAX: usize = 256;

/// What the crash journal of a process says about one credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Its reconciliation started and did not end.
    UnderWay,
    /// It was a suspect and held back.
    Held,
    /// It was a suspect and has been reconciled without a crash.
    Released,
}

/// The number of crashes that a credential is a suspect of, from what the previous process left behind; `crashes` is
/// the number before that. `None` if it is not a suspect.
#[must_use]
pub fn crashes(left: Left, crashes: u32) -> Option<u32> {
    match left {
        Left::UnderWay => Some(crashes.saturating_add(1)),
        Left::Held => Some(crashes),
        Left::Released => None,
    }
}

/// What happened since the process became leader.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// How long the process has been leader.
    pub leading_for: Duration,
    /// Every other credential was reconciled once, and none is being reconciled.
    pub others_served: bool,
    /// The suspects that are being reconciled, if any.
    pub under_way: Option<UnderWay>,
}

/// Suspects that are being reconciled.
#[derive(Clone, Copy, Debug)]
pub struct UnderWay {
    /// The largest number of crashes that one of them is a suspect of.
    pub crashes: u32,
    /// The time since the last of them started.
    pub since: Duration,
}

/// When to requeue a suspect of this many crashes; `None` if it is reconciled now.
#[must_use]
pub fn wait(crashes: u32, situation: &Situation) -> Option<Duration> {
    let is_first = crashes <= 1;
    let longest = if is_first && situation.others_served { SETTLE } else { longest_wait(crashes) };
    let left = longest.saturating_sub(situation.leading_for);
    if !left.is_zero() {
        return Some(if is_first { left.min(REQUEUE) } else { left });
    }
    let under_way = situation.under_way?;
    let alone = if crashes.max(under_way.crashes) <= 1 { ALONE } else { ALONE_AGAIN };
    (under_way.since < alone).then_some(REQUEUE)
}

/// The longest time that a suspect of this many crashes is held back, unless it waits for other suspects.
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
    fn credential_under_way_in_a_crash_is_a_suspect_and_one_reconciled_without_a_crash_is_not() {
        assert_eq!(crashes(Left::UnderWay, 0), Some(1));
        assert_eq!(crashes(Left::UnderWay, 3), Some(4));
        assert_eq!(crashes(Left::Held, 2), Some(2), "it did not cause the crash of another");
        assert_eq!(crashes(Left::Released, 2), None);
        assert_eq!(crashes(Left::UnderWay, u32::MAX), Some(u32::MAX));
    }

    #[test]
    fn suspect_of_one_crash_waits_for_the_others_but_only_for_seconds() {
        assert_eq!(wait(1, &after(Duration::ZERO)), Some(REQUEUE));
        assert_eq!(wait(1, &after(GRACE - REQUEUE / 2)), Some(REQUEUE / 2));
        assert_eq!(wait(1, &after(GRACE)), None);
        let served = |leading_for| wait(1, &Situation { others_served: true, ..after(leading_for) });
        assert_eq!([Duration::ZERO, SETTLE].map(served), [Some(REQUEUE), None]);
    }

    #[test]
    fn wait_of_a_suspect_of_several_crashes_doubles_even_if_the_others_were_served() {
        let waits = |crashes| wait(crashes, &Situation { others_served: true, ..after(Duration::ZERO) });
        assert_eq!([2, 3, 4, 7].map(waits), [60, 120, 240, 1920].map(|wait| Some(seconds(wait))));
        assert_eq!([8, 40, u32::MAX].map(waits), [Some(HELD_MAX); 3]);
        assert_eq!(wait(2, &after(seconds(59))), Some(seconds(1)));
        assert_eq!(wait(2, &after(HELD)), None);
    }

    #[test]
    fn suspects_are_reconciled_one_at_a_time() {
        assert_eq!(wait(1, &alongside(1, Duration::ZERO)), Some(REQUEUE));
        assert_eq!(wait(1, &alongside(1, ALONE)), None, "a suspect that hangs does not block the others");
        for (ours, theirs) in [(2, 1), (1, 2), (2, 2)] {
            assert_eq!(wait(ours, &alongside(theirs, ALONE_AGAIN - ALONE)), Some(REQUEUE), "{ours} and {theirs}");
            assert_eq!(wait(ours, &alongside(theirs, ALONE_AGAIN)), None, "{ours} and {theirs}");
        }
    }
}
