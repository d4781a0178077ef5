//! The durations of the election leave room for one another.

use itwin_core::election::{JITTER, LONGEST_LEASE, SILENCE};

use super::*;
use crate::leadership::lease::{DEADLINE, SLOW_DEADLINE};

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
    // the leader ends just after a renewal, which a read just misses and the next one brings; then one write takes the Lease
    assert!(DEADLINE + RETRY <= PERIOD.mul_f64(SILENCE), "the one does not put off the other");
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
fn leader_goes_on_where_each_renewal_takes_the_longer_deadline() {
    // the next renewal is sent with the answer to the last one, since it is due by then
    assert!(DEADLINE < SLOW_DEADLINE && PERIOD <= SLOW_DEADLINE);
    assert!(2 * SLOW_DEADLINE <= RENEW_WITHIN, "it is answered before the leader gives up");
}

#[test]
fn leader_survives_an_outage_of_six_seconds() {
    // the call that succeeds is the first one after the outage
    assert!(PERIOD + Duration::from_secs(6) + RETRY <= RENEW_WITHIN);
}

#[test]
fn documented_times_are_those_of_the_election() {
    let page = |name: &str| {
        let text = std::fs::read_to_string(format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"))).expect("a page");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let seconds = |duration: Duration| duration.as_secs();
    let (soonest, latest) = (PERIOD.mul_f64(SILENCE).as_secs_f64(), PERIOD.mul_f64(SILENCE + JITTER).as_secs_f64());
    let operating = [
        format!("another replica leads within {} seconds", seconds(FAILOVER)),
        format!("it gives up after {} s and exits", seconds(RENEW_WITHIN)),
        format!("once its last renewal of the Lease is {} s old", seconds(VALIDITY)),
        format!("An idle leader renews the Lease every {} s.", seconds(PERIOD)),
        format!("reads the Lease every {soonest:.2} to {latest:.2} s"),
    ];
    let architecture = [
        format!("It renews the Lease every {} s.", seconds(PERIOD)),
        format!("extends a leadership fence of {} s", seconds(VALIDITY)),
    ];
    for (name, sentences) in [("operating.md", &operating[..]), ("architecture.md", &architecture[..])] {
        let text = page(name);
        for sentence in sentences {
            assert!(text.contains(sentence), "docs/{name} does not say {sentence:?}");
        }
    }
}

#[test]
fn two_starts_of_one_pod_are_two_candidates() {
    assert_ne!(identity(), identity());
}
