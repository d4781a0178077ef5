//! The leadership fence: the right to write, without limit where one process runs alone, else only while its Lease is
//! fresh.
//!
//! A process that was stopped for longer than its Lease, or cannot reach the API server, learns late that another one
//! leads. So the right ends by the clock alone, before another process may begin: by the monotonic clock, and by the time
//! since the machine started, which goes on while the machine sleeps and the monotonic clock does not.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::clock::Clock;

/// The right to write. Clones share it.
#[derive(Clone)]
pub struct LeadershipFence(Option<Arc<Term>>);

struct Term {
    /// How long one renewal of the Lease lasts.
    validity: Duration,
    clock: Clock,
    state: Mutex<State>,
    /// The last renewal of the Lease was not answered as it may be.
    is_failing: AtomicBool,
}

#[derive(Clone, Copy)]
enum State {
    NotElected,
    Renewed(Moment),
    Ended,
}

/// When a renewal of the Lease was sent, on both clocks.
#[derive(Clone, Copy)]
pub struct Moment {
    monotonic: Instant,
    since_boot: Duration,
}

impl Moment {
    /// The present one.
    #[must_use]
    pub fn now(clock: &Clock) -> Self {
        Self { monotonic: clock.monotonic(), since_boot: clock.since_boot() }
    }

    /// The time since then, on the clock on which more has passed.
    fn elapsed(self, now: Self) -> Duration {
        let monotonic = now.monotonic.saturating_duration_since(self.monotonic);
        monotonic.max(now.since_boot.saturating_sub(self.since_boot))
    }
}

impl LeadershipFence {
    /// For a process that runs alone.
    #[must_use]
    pub fn unlimited() -> Self {
        Self(None)
    }

    /// For a process that must be elected: each renewal gives the right to write for `validity`, none at first.
    #[must_use]
    pub fn elected(validity: Duration, clock: Clock) -> Self {
        let state = Mutex::new(State::NotElected);
        Self(Some(Arc::new(Term { validity, clock, state, is_failing: AtomicBool::new(false) })))
    }

    /// The present moment, for a renewal that is sent now; none where there is nothing to renew.
    #[must_use]
    pub fn moment(&self) -> Option<Moment> {
        self.0.as_ref().map(|term| Moment::now(&term.clock))
    }

    /// The Lease was renewed by a request that was sent at `sent`. Nothing renews a right that has ended.
    pub fn renew(&self, sent: Moment) {
        self.renewal_answered(true);
        self.change(|state| match state {
            State::Ended => State::Ended,
            _ => State::Renewed(sent),
        });
    }

    /// A renewal of the Lease was answered, or failed: the right goes on, but the API server may not be able to write.
    pub fn renewal_answered(&self, answered: bool) {
        if let Some(term) = &self.0 {
            term.is_failing.store(!answered, Ordering::Release);
        }
    }

    /// The Lease was lost or released, for good.
    pub fn end(&self) {
        self.change(|_| State::Ended);
    }

    /// Whether this process may write now.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.moment().is_none_or(|now| self.held_at(now))
    }

    /// Whether the Lease was renewed by a request that was sent less than this ago, and no later one failed; false for a
    /// process that runs alone.
    #[must_use]
    pub fn was_renewed_within(&self, time: Duration) -> bool {
        let Some(term) = &self.0 else { return false };
        let state = *term.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_failing = term.is_failing.load(Ordering::Acquire);
        !is_failing && matches!(state, State::Renewed(renewed) if renewed.elapsed(Moment::now(&term.clock)) < time)
    }

    fn held_at(&self, now: Moment) -> bool {
        let Some(term) = &self.0 else { return true };
        match *term.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Renewed(renewed) => renewed.elapsed(now) < term.validity,
            State::NotElected | State::Ended => false,
        }
    }

    fn change(&self, change: impl FnOnce(State) -> State) {
        if let Some(term) = &self.0 {
            let mut state = term.state.lock().unwrap_or_else(PoisonError::into_inner);
            *state = change(*state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALIDITY: Duration = Duration::from_secs(12);
    const MOMENT: Duration = Duration::from_millis(1);

    fn fence() -> LeadershipFence {
        LeadershipFence::elected(VALIDITY, Clock::system())
    }

    fn present() -> Moment {
        Moment::now(&Clock::system())
    }

    /// So much later on the monotonic clock, and by the time since the start of the machine.
    fn later(at: Moment, monotonic: Duration, since_boot: Duration) -> Moment {
        Moment { monotonic: at.monotonic + monotonic, since_boot: at.since_boot + since_boot }
    }

    #[test]
    fn lone_process_may_always_write() {
        assert!(LeadershipFence::unlimited().holds());
    }

    #[test]
    fn right_begins_with_a_renewal_and_ends_by_the_clock() {
        let (fence, sent) = (fence(), present());
        assert!(!fence.held_at(sent), "not elected yet");
        fence.renew(sent);
        assert!(fence.held_at(later(sent, VALIDITY - MOMENT, VALIDITY - MOMENT)));
        assert!(!fence.held_at(later(sent, VALIDITY, VALIDITY)), "by the clock alone");
        assert!(!fence.held_at(later(sent, VALIDITY, Duration::ZERO)), "on a system without the other clock");
        assert!(fence.was_renewed_within(VALIDITY) && !fence.was_renewed_within(Duration::ZERO));
    }

    #[test]
    fn renewal_that_failed_ends_no_right_and_shows_that_writes_may_fail() {
        let (fence, sent) = (fence(), present());
        fence.renew(sent);
        fence.renewal_answered(false);
        assert!(fence.held_at(sent) && !fence.was_renewed_within(VALIDITY));
        fence.renew(sent);
        assert!(fence.was_renewed_within(VALIDITY), "the next one succeeded");
    }

    #[test]
    fn right_ends_while_the_machine_sleeps() {
        let (fence, sent) = (fence(), present());
        fence.renew(sent);
        assert!(fence.held_at(later(sent, MOMENT, VALIDITY - MOMENT)), "a short sleep");
        assert!(!fence.held_at(later(sent, MOMENT, VALIDITY)), "the monotonic clock did not advance");
        let awake = later(sent, MOMENT, VALIDITY * 2);
        fence.renew(awake);
        assert!(fence.held_at(later(awake, MOMENT, MOMENT)), "the Lease was renewed after it");
    }

    #[test]
    fn right_that_was_given_up_is_gone_for_all_and_for_good() {
        let fence = fence();
        let shared = fence.clone();
        fence.renew(present());
        shared.end();
        assert!(!fence.holds());
        fence.renew(present());
        assert!(!fence.holds(), "releasing the Lease is a write too, and no renewal");
    }
}
