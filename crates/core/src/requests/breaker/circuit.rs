//! An open circuit: how long nothing is sent, and what a failed probe makes of it.

use std::time::{Duration, Instant};

use itwin_api::conditions::Reason;

/// The first and the longest open interval. The interval doubles with each failed probe that shows something.
pub(super) const OPEN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// An open circuit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circuit {
    pub(super) until: Instant,
    pub(super) interval: Duration,
    pub(super) reason: Reason,
    pub(super) is_probing: bool,
    pub(super) last_probe: Instant,
}

impl Circuit {
    pub(super) fn open(now: Instant, interval: Duration, reason: Reason) -> Self {
        Self { until: now + interval, interval, reason, is_probing: false, last_probe: now }
    }

    /// The circuit after a failure with this reason; `None` if the request was not a probe but was sent before the
    /// circuit opened. The next interval `is_longer`, or as long as this one.
    pub(super) fn after_failure(self, is_probe: bool, is_longer: bool, now: Instant, reason: Reason) -> Option<Self> {
        let interval = if is_longer { (self.interval * 2).min(OPEN.1) } else { self.interval };
        (is_probe && self.is_probing).then(|| Self::open(now, interval, reason))
    }
}
