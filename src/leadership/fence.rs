//! The right to act: without limit where one process runs alone, else only while its lease is fresh.
//!
//! A process that was stopped for longer than its lease, or cannot reach the API server, learns late that another one
//! leads. So the right ends by the clock alone, before another may begin; nobody has to be told.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The right to act. Clones share it.
#[derive(Clone)]
pub struct Mandate(Option<Arc<Term>>);

struct Term {
    /// How long one renewal of the lease lasts.
    validity: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
enum State {
    NotElected,
    Renewed(Instant),
    Ended,
}

impl Mandate {
    /// For a process that runs alone.
    #[must_use]
    pub fn unlimited() -> Self {
        Self(None)
    }

    /// For a process that must be elected: each renewal gives the right to act for `validity`, none at first.
    #[must_use]
    pub fn elected(validity: Duration) -> Self {
        Self(Some(Arc::new(Term { validity, state: Mutex::new(State::NotElected) })))
    }

    /// The lease was renewed by a request that was sent at `sent`. Nothing renews a right that has ended.
    pub fn renew(&self, sent: Instant) {
        self.change(|state| match state {
            State::Ended => State::Ended,
            _ => State::Renewed(sent),
        });
    }

    /// The lease was lost or given up, for good.
    pub fn end(&self) {
        self.change(|_| State::Ended);
    }

    /// Whether this process may act now.
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
    fn lone_process_may_always_act() {
        assert!(Mandate::unlimited().holds());
    }

    #[test]
    fn right_begins_with_a_renewal_and_ends_by_the_clock() {
        let mandate = Mandate::elected(VALIDITY);
        let sent = Instant::now();
        assert!(!mandate.held_at(sent), "nobody was elected yet");
        mandate.renew(sent);
        assert!(mandate.held_at(sent + VALIDITY - Duration::from_millis(1)));
        assert!(!mandate.held_at(sent + VALIDITY), "without being told by anybody");
    }

    #[test]
    fn right_that_was_given_up_is_gone_for_all_and_for_good() {
        let mandate = Mandate::elected(VALIDITY);
        let shared = mandate.clone();
        mandate.renew(Instant::now());
        shared.end();
        assert!(!mandate.holds());
        mandate.renew(Instant::now());
        assert!(!mandate.holds(), "giving the lease up is a write too, and no renewal");
    }
}
