//! How long to wait after a failure.
//!
//! The wait is kept within what is left of the old token, so that there are always several tries before it expires: a
//! backoff that starts at an hour is longer than the life of what it should renew (cert-manager/cert-manager#4786).

use chrono::TimeDelta;
use itwin_api::{conditions::Reason, digest};

/// The first wait, and the shortest: at most one attempt a second for each credential.
pub const FLOOR: TimeDelta = TimeDelta::seconds(1);
/// The shortest time between two renewals that a user asks for through the annotation: a program that changes it in a
/// loop must not use up what others need.
pub const ON_REQUEST_FLOOR: TimeDelta = TimeDelta::seconds(10);
/// The longest wait while a token is valid, and after rejections.
const CEILING: TimeDelta = TimeDelta::minutes(5);
/// The longest wait after faults of the server, once no valid token is left.
const CEILING_WITHOUT_TOKEN: TimeDelta = TimeDelta::minutes(1);
/// A wait is at most this fraction of what is left: 1/6 leaves at least three tries before expiry.
const LEFT_FRACTION: i32 = 6;
/// A server may ask for a wait of at most this fraction of what is left: 1/2.
const RETRY_AFTER_FRACTION: i32 = 2;
/// A server may ask for a wait of at most this.
const RETRY_AFTER_CEILING: TimeDelta = TimeDelta::hours(1);

/// How long to wait before the next attempt.
///
/// `failures` counts the consecutive failed attempts, this one included; `left` is what is left of the token in the
/// Secret, zero where there is none; `retry_after` is what the server asked for; `uid` seeds the jitter.
#[must_use]
pub fn delay(failures: u32, left: TimeDelta, reason: Reason, retry_after: Option<TimeDelta>, uid: &str) -> TimeDelta {
    let doubled = FLOOR * 2_i32.pow(failures.saturating_sub(1).min(20));
    let jitter = 0.5 + 0.5 * digest::unit_interval(["retry", uid, &failures.to_string()]);
    let capped = doubled.min(ceiling(left, reason));
    let jittered = TimeDelta::milliseconds((capped.num_milliseconds() as f64 * jitter) as i64);
    jittered.max(asked_for(retry_after, left)).max(FLOOR)
}

fn ceiling(left: TimeDelta, reason: Reason) -> TimeDelta {
    if left > TimeDelta::zero() {
        CEILING.min(left / LEFT_FRACTION)
    } else if is_fault_of_the_server(reason) {
        CEILING_WITHOUT_TOKEN
    } else {
        CEILING
    }
}

fn asked_for(retry_after: Option<TimeDelta>, left: TimeDelta) -> TimeDelta {
    let asked = retry_after.unwrap_or_else(TimeDelta::zero).min(RETRY_AFTER_CEILING);
    if left > TimeDelta::zero() { asked.min(left / RETRY_AFTER_FRACTION) } else { asked }
}

/// Whether the other side is at fault, so that time alone may fix it soon.
fn is_fault_of_the_server(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ServerError
            | Reason::RateLimited
            | Reason::Timeout
            | Reason::ConnectionFailed
            | Reason::TLSFailed
            | Reason::RedirectRefused
            | Reason::MalformedResponse
            | Reason::AuthorityNotReady
            | Reason::SecretConflict
            | Reason::SecretWriteFailed
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_wait_is_a_second_and_waits_grow_to_the_ceiling() {
        let waits: Vec<_> =
            (1..12).map(|n| delay(n, TimeDelta::hours(10), Reason::InvalidClient, None, "uid")).collect();
        assert_eq!(waits[0], FLOOR);
        assert!(waits[10] > CEILING / 2 && waits[10] <= CEILING);
    }

    #[test]
    fn without_a_token_faults_of_the_server_wait_a_minute_and_rejections_five() {
        let wait = |reason| (1..64).map(|n| delay(n, TimeDelta::zero(), reason, None, "uid")).max();
        assert!(wait(Reason::ServerError) <= Some(TimeDelta::minutes(1)));
        assert!(wait(Reason::InvalidClient) > Some(TimeDelta::minutes(2)));
    }

    #[test]
    fn retry_after_is_obeyed_up_to_half_of_what_is_left_and_an_hour() {
        let wait = |left, asked| delay(1, left, Reason::RateLimited, Some(asked), "uid");
        assert_eq!(wait(TimeDelta::minutes(40), TimeDelta::minutes(10)), TimeDelta::minutes(10));
        assert_eq!(wait(TimeDelta::minutes(10), TimeDelta::minutes(10)), TimeDelta::minutes(5));
        assert_eq!(wait(TimeDelta::zero(), TimeDelta::days(400)), TimeDelta::hours(1));
    }

    proptest! {
        #[test]
        fn at_least_three_tries_before_expiry(
            left_seconds in 8_i64..1_000_000,
            failures in 1_u32..10_000,
            retry_after in proptest::option::of(0_i64..1_000_000),
            uid in "[a-z0-9-]{1,36}",
        ) {
            let mut left = TimeDelta::seconds(left_seconds);
            for n in 0..3 {
                left -= delay(failures + n, left, Reason::ServerError, retry_after.map(TimeDelta::seconds), &uid);
                prop_assert!(left > TimeDelta::zero(), "try {n} comes after expiry");
            }
        }

        #[test]
        fn never_more_than_one_try_a_second(failures in 0_u32..u32::MAX, left in 0_i64..1_000_000) {
            prop_assert!(delay(failures, TimeDelta::seconds(left), Reason::Timeout, None, "uid") >= FLOOR);
        }
    }
}
