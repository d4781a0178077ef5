//! The clocks of the process. Code that compares times with those of tokens or Kubernetes objects uses the wall clock;
//! code that measures intervals uses the monotonic clock, which cannot be set.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

/// Waits until this instant of the monotonic clock, or indefinitely.
pub async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The wall clock, the monotonic clock, and the clock since the start of the machine.
///
/// The monotonic clock is that of the runtime, so that tests that pause or advance the runtime control it. The sources
/// of the others are passed in when the process starts.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>,
    since_boot: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Clock {
    /// The system clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the only place")]
    pub fn system() -> Self {
        Self::new(Utc::now).with_since_boot(since_boot)
    }

    /// A wall clock that calls `wall`, on a machine that never sleeps.
    pub fn new(wall: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        let began = Instant::now();
        Self { wall: Arc::new(wall), since_boot: Arc::new(move || began.elapsed()) }
    }

    /// The same on a machine whose time since its start is `since_boot`.
    #[must_use]
    pub fn with_since_boot(self, since_boot: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self { since_boot: Arc::new(since_boot), ..self }
    }

    /// The current time of the wall clock, which can be set and may differ from that of other machines.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        (self.wall)()
    }

    /// The time since the machine started. It cannot be set, and unlike the monotonic clock it goes on while the machine
    /// sleeps.
    #[must_use]
    pub fn since_boot(&self) -> Duration {
        (self.since_boot)()
    }

    /// The current instant of the monotonic clock.
    #[must_use]
    pub fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// `CLOCK_BOOTTIME`, which Linux has had since version 2.6.39.
#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

/// Another system has no such clock, and is used for development only.
#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn time_since_the_start_of_the_machine_goes_on() {
        let clock = Clock::system();
        let before = clock.since_boot();
        assert!(before > Duration::ZERO);
        // after the other clock was read, so that no less passes on it
        let monotonic = std::time::Instant::now();
        while monotonic.elapsed() < Duration::from_millis(5) {}
        let passed = clock.since_boot() - before;
        assert!(passed >= Duration::from_millis(5), "{passed:?}");
    }
}
