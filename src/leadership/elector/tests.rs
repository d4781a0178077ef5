//! The durations of the election leave room for one another.

use itwin_core::election::{JITTER, LONGEST_LEASE, SILENCE};

use super::*;
use crate::leadership::lease::DEADLINE;

/// The contract: a killed leader is replaced within this.
const FAILOVER: Duration = Duration::from_secs(20);

#[test]
fn leader_stops_before_another_may_start() {
    // a renewal that begins just within the limit ends with it, and may be carried out a little later
    assert!(RENEW_WITHIN + DEADLINE <= LEASE);
    assert!(VALIDITY < LEASE && RENEW_WITHIN <= VALIDITY, "what cannot renew ends by itself, what can goes on");
    assert!(LEASE <= LONGEST_LEASE, "a standby waits for the whole of our own Lease");
}

#[test]
fn killed_leader_is_replaced_in_time_even_where_calls_take_their_whole_deadline() {
    // the leader ends just after a renewal, which the standby's next read brings; then one write takes the Lease
    let observed = PERIOD.mul_f64(SILENCE + JITTER) + DEADLINE;
    assert!(observed + LEASE + DEADLINE <= FAILOVER);
}

#[test]
fn standby_that_is_shown_each_renewal_need_not_read() {
    assert!(PERIOD + Duration::from_millis(400) < PERIOD.mul_f64(SILENCE), "also where a call takes its time");
    assert!(RETRY < PERIOD && DEADLINE < STEP_DOWN);
}

#[test]
fn leader_can_try_again_after_a_call_that_was_not_answered() {
    assert!(PERIOD + 3 * DEADLINE <= RENEW_WITHIN);
}

#[test]
fn leader_survives_an_outage_of_seven_seconds() {
    assert!(PERIOD + Duration::from_secs(7) <= RENEW_WITHIN);
}

#[test]
fn two_starts_of_one_pod_are_two_candidates() {
    assert_ne!(identity(), identity());
}
