//! The clocks of the process. Everything that compares with a token or with a Kubernetes object uses the wall clock;
//! everything that measures an interval uses the monotonic one, which nobody sets.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

/// The wall clock and the monotonic clock.
///
/// The monotonic clock is that of the runtime, so that whoever pauses or advances the runtime steers it; the wall clock
/// is given when the process starts.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>);

impl Clock {
    /// The clocks of the system.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn system() -> Self {
        Self::new(Utc::now)
    }

    /// A wall clock that is read by `wall`.
    pub fn new(wall: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self(Arc::new(wall))
    }

    /// The time of the day, which can be set, and may differ from that of other machines.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        (self.0)()
    }

    /// An instant to measure intervals from.
    #[must_use]
    pub fn monotonic(&self) -> Instant {
        Instant::now()
    }
}
