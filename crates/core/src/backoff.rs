//! The backoff after a failed attempt.
//!
//! The backoff depends on the remaining validity of the current token, so that there are always several attempts before
//! it expires. A backoff that starts at an hour can be longer than the lifetime of what it should renew
//! (cert-manager/cert-manager#4786).

use chrono::TimeDelta;
use itwin_api::{conditions::Reason, digest};

/// The first and shortest backoff: at most one attempt per second for each credential.
pub const FLOOR: TimeDelta = TimeDelta::seconds(1);
/// The shortest time between two renewals on request. A program that changes the annotation in a loop must not use up
/// the rate limit of others.
pub const ON_REQUEST_FLOOR: TimeDelta = TimeDelta::seconds(10);
/// The longest backoff while a token is valid, and after rejections.
const CEILING: TimeDelta = TimeDelta::minutes(5);
/// The longest backoff after transient failures if there is no valid token.
const CEILING_WITHOUT_TOKEN: TimeDelta = TimeDelta::minutes(1);
/// The backoff is at most this fraction of the remaining validity: 1/6, which allows at least three attempts before
/// expiry.
const LEFT_FRACTION: i32 = 6;
/// The longest wait that a server may ask for, as a fraction of the remaining validity: 1/2.
const RETRY_AFTER_FRACTION: i32 = 2;
/// The longest wait that a server may ask for.
const RETRY_AFTER_CEILING: TimeDelta = TimeDelta::hours(1);

/// The backoff before the next attempt.
///
/// `failures` is the number of consecutive failed attempts, including this one. `left` is the remaining validity of the
/// token in the Secret, zero if there is none. `retry_after` is the wait that the server asked for. `uid` seeds the
/// jitter.
#[must_use]
pub fn delay(failures: u32, left: TimeDelta, reason: Reason, retry_after: Option<TimeDelta>, uid: &str) -> TimeDelta {
    let doubled = FLOOR * 2_i32.pow(failures.saturating_sub(1).min(20));
    let jitter = 0.5 + 0.5 * digest::unit_interval(["retry", uid, &failures.to_string()]);
    let capped = doubled.min(ceiling(left, reason));
    let jittered = TimeDelta::milliseconds((capped.num_milliseconds() as f64 * jitter) as i64);
    jittered.max(server_wait(retry_after, left)).max(FLOOR)
}

fn ceiling(left: TimeDelta, reason: Reason) -> TimeDelta {
    if left > TimeDelta::zero() {
        CEILING.min(left / LEFT_FRACTION)
    } else if is_transient(reason) {
        CEILING_WITHOUT_TOKEN
    } else {
        CEILING
    }
}

fn server_wait(retry_after: Option<TimeDelta>, left: TimeDelta) -> TimeDelta {
    let wait = retry_after.unwrap_or_else(TimeDelta::zero).min(RETRY_AFTER_CEILING);
    if left > TimeDelta::zero() { wait.min(left / RETRY_AFTER_FRACTION) } else { wait }
}

/// Whether the failure is not caused by configuration, so that it may soon pass without a fix.
fn is_transient(reason: Reason) -> bool {
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
            | Reason::SecretReadFailed
            | Reason::SecretWriteFailed
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_backoff_is_a_second_and_backoffs_grow_to_the_ceiling() {
        let waits: Vec<_> =
            (1..12).map(|n| delay(n, TimeDelta::hours(10), Reason::InvalidClient, None, "uid")).collect();
        assert_eq!(waits[0], FLOOR);
        assert!(waits[10] > CEILING / 2 && waits[10] <= CEILING);
    }

    #[test]
    fn without_a_token_backoff_is_a_minute_for_the_server_and_five_for_rejections() {
        let wait = |reason| (1..64).map(|n| delay(n, TimeDelta::zero(), reason, None, "uid")).max();
        assert!(wait(Reason::ServerError) <= Some(TimeDelta::minutes(1)));
        assert!(wait(Reason::InvalidClient) > Some(TimeDelta::minutes(2)));
    }

    #[test]
    fn retry_after_is_honored_up_to_half_of_the_remaining_validity_and_an_hour() {
        let wait = |left, retry_after| delay(1, left, Reason::RateLimited, Some(retry_after), "uid");
        assert_eq!(wait(TimeDelta::minutes(40), TimeDelta::minutes(10)), TimeDelta::minutes(10));
        assert_eq!(wait(TimeDelta::minutes(10), TimeDelta::minutes(10)), TimeDelta::minutes(5));
        assert_eq!(wait(TimeDelta::zero(), TimeDelta::days(400)), TimeDelta::hours(1));
    }

    proptest! {
        #[test]
        fn at_least_three_attempts_before_expiry(
            left_seconds in 8_i64..1_000_000,
            failures in 1_u32..10_000,
            retry_after in proptest::option::of(0_i64..1_000_000),
            uid in "[a-z0-9-]{1,36}",
        ) {
            let mut left = TimeDelta::seconds(left_seconds);
            for n in 0..3 {
                left -= delay(failures + n, left, Reason::ServerError, retry_after.map(TimeDelta::seconds), &uid);
                prop_assert!(left > TimeDelta::zero(), "attempt {n} is after expiry");
            }
        }

        #[test]
        fn never_more_than_one_attempt_per_second(failures in 0_u32..u32::MAX, left in 0_i64..1_000_000) {
            prop_assert!(delay(failures, TimeDelta::seconds(left), Reason::Timeout, None, "uid") >= FLOOR);
        }
    }
}
