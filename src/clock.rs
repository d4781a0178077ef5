//! The one place that reads the wall clock.

use chrono::{DateTime, Utc};

/// The current instant.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}
