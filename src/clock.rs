//! The clocks of the process. Code that compares times with those of tokens or Kubernetes objects uses the wall clock;
//! code that measures intervals uses the monotonic clock, which cannot be set.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

/// The wall clock and the monotonic clock.
///
/// The monotonic clock is that of the runtime, so that tests that pause or advance the runtime control it. The source
/// of the wall clock is passed in when the process starts.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>);

impl Clock {
    /// The system clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the only place")]
    pub fn system() -> Self {
        Self::new(Utc::now)
    }

    /// A wall clock that calls `wall`.
    pub fn new(wall: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self(Arc::new(wall))
    }

    /// The current time of the wall clock, which can be set and may differ from that of other machines.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        (self.0)()
    }

    /// The current instant of the monotonic clock.
    #[must_use]
    pub fn monotonic(&self) -> Instant {
        Instant::now()
    }
}
