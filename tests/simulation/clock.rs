//! The clocks of a simulation: the monotonic one is tokio's, which is paused; wall clocks run with it and can be set.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use itwin_credential_operator::clock::Clock;
use tokio::time::Instant;

/// When every scenario begins.
const START: i64 = 1_800_000_000;

/// The true time, and the wall clock of the machine that the operator runs on.
#[derive(Clone)]
pub struct Clocks {
    began: Instant,
    /// By how much the wall clock of the operator is ahead, in milliseconds.
    ahead: Arc<AtomicI64>,
    /// How long the machines slept, in milliseconds: monotonic clocks stop meanwhile.
    slept: Arc<AtomicI64>,
    /// The wall clock of the operator was set.
    was_set: Arc<AtomicBool>,
}

impl Clocks {
    /// Clocks that show the same time.
    pub fn new() -> Self {
        Self { began: Instant::now(), ahead: Arc::default(), slept: Arc::default(), was_set: Arc::default() }
    }

    /// The true time, which servers have.
    pub fn now(&self) -> DateTime<Utc> {
        let start = DateTime::from_timestamp(START, 0).expect("in range");
        let slept = TimeDelta::milliseconds(self.slept.load(Ordering::Relaxed));
        start + slept + TimeDelta::from_std(self.began.elapsed()).expect("a short scenario")
    }

    /// All machines sleep for so long: the time goes on, and monotonic clocks stop.
    pub fn sleep(&self, time: TimeDelta) {
        self.slept.fetch_add(time.num_milliseconds(), Ordering::Relaxed);
    }

    fn slept(&self) -> u64 {
        self.slept.load(Ordering::Relaxed).unsigned_abs()
    }

    /// Sets the wall clock of the operator so far ahead of the true time, or behind it.
    pub fn set_ahead(&self, ahead: TimeDelta) {
        self.was_set.store(true, Ordering::Relaxed);
        self.ahead.store(ahead.num_milliseconds(), Ordering::Relaxed);
    }

    /// By how much it is ahead.
    pub fn ahead(&self) -> TimeDelta {
        TimeDelta::milliseconds(self.ahead.load(Ordering::Relaxed))
    }

    /// Whether the wall clock of the operator was always right, so that the times in statuses are.
    pub fn were_right(&self) -> bool {
        !self.was_set.load(Ordering::Relaxed)
    }

    /// The clocks of the operator.
    pub fn of_operator(&self) -> Clock {
        let (clocks, machine) = (self.clone(), self.clone());
        let since_boot = move || machine.began.elapsed() + Duration::from_millis(machine.slept());
        Clock::new(move || clocks.now() + clocks.ahead()).with_since_boot(since_boot)
    }
}
