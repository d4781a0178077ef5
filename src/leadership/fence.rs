//! The leadership fence: the right to write, without limit where one process runs alone, else only while its Lease is
//! fresh.
//!
//! A process that was stopped for longer than its Lease, or cannot reach the API server, learns late that another one
//! leads. So the right ends by the monotonic clock alone, before another process may begin.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The right to write. Clones share it.
#[derive(Clone)]
pub struct LeadershipFence(Option<Arc<Term>>);

struct Term {
    /// How long one renewal of the Lease lasts.
    validity: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
enum State {
    NotElected,
    Renewed(Instant),
    Ended,
}

impl LeadershipFence {
    /// For a process that runs alone.
    #[must_use]
    pub fn unlimited() -> Self {
        Self(None)
    }

    /// For a process that must be elected: each renewal gives the right to write for `validity`, none at first.
    #[must_use]
    pub fn elected(validity: Duration) -> Self {
        Self(Some(Arc::new(Term { validity, state: Mutex::new(State::NotElected) })))
    }

    /// The Lease was renewed by a request that was sent at `sent`. Nothing renews a right that has ended.
    pub fn renew(&self, sent: Instant) {
        self.change(|state| match state {
            State::Ended => State::Ended,
            _ => State::Renewed(sent),
        });
    }

    /// The Lease was lost or released, for good.
    pub fn end(&self) {
        self.change(|_| State::Ended);
    }

    /// Whether this process may write now.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.held_at(Instant::now())
    }

    fn held_at(&self, now: Instant) -> bool {
        let Some(term) = &self.0 else { return true };
        match *term.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Renewed(renewed) => now.saturating_duration_since(renewed) < term.validity,
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

    #[test]
    fn lone_process_may_always_write() {
        assert!(LeadershipFence::unlimited().holds());
    }

    #[test]
    fn right_begins_with_a_renewal_and_ends_by_the_clock() {
        let fence = LeadershipFence::elected(VALIDITY);
        let sent = Instant::now();
        assert!(!fence.held_at(sent), "not elected yet");
        fence.renew(sent);
        assert!(fence.held_at(sent + VALIDITY - Duration::from_millis(1)));
        assert!(!fence.held_at(sent + VALIDITY), "by the clock alone");
    }

    #[test]
    fn right_that_was_given_up_is_gone_for_all_and_for_good() {
        let fence = LeadershipFence::elected(VALIDITY);
        let shared = fence.clone();
        fence.renew(Instant::now());
        shared.end();
        assert!(!fence.holds());
        fence.renew(Instant::now());
        assert!(!fence.holds(), "releasing the Lease is a write too, and no renewal");
    }
}
