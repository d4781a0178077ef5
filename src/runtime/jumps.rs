//! Jumps of the wall clock: it was set, or the machine slept.
//!
//! Timers run on the monotonic clock, which is not set and does not advance while a machine sleeps, so that what is due by
//! the wall clock would be noticed late.

use std::time::Duration;

use chrono::TimeDelta;

use crate::clock::Clock;

/// The interval between two reads of the clocks.
const INTERVAL: Duration = Duration::from_secs(5);
/// Less than this is the usual correction of a clock.
const TOLERANCE: TimeDelta = TimeDelta::seconds(2);

/// Calls `jumped` after each jump, with how far the wall clock went ahead of the monotonic one, or fell behind.
pub async fn watch(clock: &Clock, mut jumped: impl FnMut(TimeDelta)) {
    loop {
        let (wall, monotonic) = (clock.now(), clock.monotonic());
        tokio::time::sleep(INTERVAL).await;
        let elapsed = TimeDelta::from_std(clock.monotonic() - monotonic).unwrap_or(TimeDelta::MAX);
        let jump = (clock.now() - wall) - elapsed;
        if jump.abs() > TOLERANCE {
            jumped(jump);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    };

    use chrono::DateTime;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn jumps_in_both_directions_are_noticed_and_corrections_are_not() {
        let (offset, start) = (Arc::new(AtomicI64::new(0)), Instant::now());
        let read = offset.clone();
        let clock = Clock::new(move || {
            let elapsed = i64::try_from(start.elapsed().as_secs()).expect("in range");
            DateTime::from_timestamp(1_800_000_000 + elapsed + read.load(Ordering::SeqCst), 0).expect("in range")
        });
        let mut jumps = Vec::new();
        let steps = async {
            for step in [1, 3601, 3601, 1] {
                offset.store(step, Ordering::SeqCst);
                tokio::time::sleep(INTERVAL * 2).await;
            }
        };
        tokio::select! {
            biased;
            () = watch(&clock, |jump| jumps.push(jump.num_seconds())) => {}
            () = steps => {}
        }
        assert_eq!(jumps, [3600, -3600]);
    }
}
