//! When a token is renewed.
//!
//! All times are fractions of the token's actual lifetime. A fixed buffer fits tokens of either one minute or one day,
//! not both (openfga/java-sdk#388), and a requested lifetime that differs from the actual one causes renewal loops
//! (cert-manager/cert-manager#1122, #4423).

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::digest;

use crate::{
    observed::ObservedState,
    policy::{Policy, RenewBefore},
    token::TokenMetadata,
};

/// By default, a token is renewed when this fraction of its lifetime remains: 1/3.
const DEFAULT_FRACTION: i32 = 3;
/// A token is renewed at most this fraction of its lifetime before expiry: 1/2.
const MAX_FRACTION: i32 = 2;
/// The jitter is at most this fraction of the lifetime: 1/20. It spreads the renewals of credentials that were created
/// together.
const JITTER_FRACTION: i32 = 20;

/// `minimumValidity` where the spec does not set it, unless the fraction below of the lifetime is shorter.
const DEFAULT_MINIMUM_VALIDITY: TimeDelta = TimeDelta::minutes(5);
/// The default of `minimumValidity` is at most this fraction of the lifetime, 1/4: less than the default time of renewal,
/// so that the defaults fit tokens of any lifetime.
const DEFAULT_MINIMUM_VALIDITY_FRACTION: i32 = 4;
/// The time that a renewal itself takes, during which `minimumValidity` must be left too: this fraction of the lifetime,
/// 1/20, ...
const WINDOW_FRACTION: i32 = 20;
/// ... but no longer than this, which is enough for a request that is answered only just in time, and for its write.
const WINDOW_MAX: TimeDelta = TimeDelta::minutes(1);

/// The shortest time between a token request and the renewal: tokens with a lifetime of a second would cause a hot loop
/// (SlinkyProject/slurm-operator#241). The times of token metadata are truncated to whole seconds, so that at least one
/// second passes.
const FLOOR: TimeDelta = TimeDelta::seconds(2);

/// The time that a token of this lifetime is guaranteed to be valid for.
#[must_use]
pub fn minimum_validity(policy: &Policy, lifetime: TimeDelta) -> TimeDelta {
    policy
        .minimum_validity
        .unwrap_or_else(|| DEFAULT_MINIMUM_VALIDITY.min(lifetime / DEFAULT_MINIMUM_VALIDITY_FRACTION))
}

/// How long before its expiry a token of this lifetime is renewed, without jitter.
///
/// It leaves `minimumValidity` during the renewal too, so that the guarantee to workloads always holds, but it is at
/// most half of the lifetime, regardless of the policy.
#[must_use]
pub fn renew_before(policy: &Policy, lifetime: TimeDelta) -> TimeDelta {
    wanted(policy, lifetime).max(needed(policy, lifetime)).min(lifetime / MAX_FRACTION)
}

/// What the spec asks for.
fn wanted(policy: &Policy, lifetime: TimeDelta) -> TimeDelta {
    match policy.renew_before {
        RenewBefore::Default => lifetime / DEFAULT_FRACTION,
        RenewBefore::Fixed(time) => time,
        RenewBefore::Percentage(percentage) => lifetime * percentage / 100,
    }
}

/// What `minimumValidity` needs.
fn needed(policy: &Policy, lifetime: TimeDelta) -> TimeDelta {
    minimum_validity(policy, lifetime) + window(lifetime)
}

fn window(lifetime: TimeDelta) -> TimeDelta {
    (lifetime / WINDOW_FRACTION).min(WINDOW_MAX)
}

/// Why a token is renewed at another time than the spec asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adjustment {
    /// Earlier, so that `minimumValidity` is left.
    Earlier,
    /// Later, at half of the lifetime.
    Later,
}

/// Whether tokens of this lifetime are renewed at another time than the spec asks for. Its defaults ask for nothing.
#[must_use]
pub fn adjustment(policy: &Policy, lifetime: TimeDelta) -> Option<Adjustment> {
    let (wanted, effective) = (wanted(policy, lifetime), renew_before(policy, lifetime));
    match policy.renew_before {
        RenewBefore::Default => None,
        _ if wanted > effective => Some(Adjustment::Later),
        _ if wanted < effective => Some(Adjustment::Earlier),
        _ => None,
    }
}

/// When the token is renewed. Token, policy and the credential's UID determine it, so that every replica of the
/// operator calculates the same time.
#[must_use]
pub fn renew_at(token_metadata: &TokenMetadata, policy: &Policy, uid: &str) -> DateTime<Utc> {
    let lifetime = token_metadata.lifetime();
    let desired = token_metadata.expires_at - renew_before(policy, lifetime) - jitter(lifetime, uid);
    desired.max(token_metadata.issued_at + FLOOR)
}

/// The wait after the authorization server returned the token that the Secret holds, which is valid for `left`: an eighth
/// of that, so that there are many tries before it expires, but at least a second.
#[must_use]
pub fn after_same_token(left: TimeDelta) -> TimeDelta {
    (left / 8).max(TimeDelta::seconds(1))
}

/// A part of `lifetime / 20` that the UID determines.
fn jitter(lifetime: TimeDelta, uid: &str) -> TimeDelta {
    let milliseconds = (lifetime / JITTER_FRACTION).num_milliseconds() as f64 * digest::unit_interval(["renew", uid]);
    TimeDelta::milliseconds(milliseconds as i64)
}

/// The instant after which, by the clock alone, the status of the credential changes or a restart is due.
#[must_use]
pub fn next_change(observed: &ObservedState, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    observed.held_for_spec()?;
    let restart = observed.restart.wait().and_then(|wait| now.checked_add_signed(TimeDelta::from_std(wait).ok()?));
    [next_ready_change(observed, now), restart].into_iter().flatten().filter(|at| *at > now).min()
}

/// The instant after which `Ready` changes by the clock alone.
#[must_use]
pub fn next_ready_change(observed: &ObservedState, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let token_metadata = observed.held_for_spec()?;
    [falls_below(observed, token_metadata), token_metadata.expires_at].into_iter().filter(|at| *at > now).min()
}

/// Whether the token is no longer valid for as long as workloads may count on.
#[must_use]
pub fn has_fallen_below(observed: &ObservedState, now: DateTime<Utc>) -> bool {
    observed.held_for_spec().is_some_and(|token_metadata| falls_below(observed, token_metadata) <= now)
}

/// A token with exactly the minimum validity left is still good: a moment later it is not.
fn falls_below(observed: &ObservedState, token_metadata: &TokenMetadata) -> DateTime<Utc> {
    let minimum_validity = minimum_validity(&observed.desired.policy, token_metadata.lifetime());
    token_metadata.expires_at - minimum_validity + TimeDelta::milliseconds(1)
}

/// Whether tokens of this lifetime cannot satisfy `minimumValidity`: they are renewed at half of their lifetime at the
/// earliest.
#[must_use]
pub fn is_too_short(policy: &Policy, lifetime: TimeDelta) -> bool {
    needed(policy, lifetime) > lifetime / MAX_FRACTION
}

/// The longest `minimumValidity` that tokens of this lifetime satisfy.
#[must_use]
pub fn longest_minimum_validity(lifetime: TimeDelta) -> TimeDelta {
    lifetime / MAX_FRACTION - window(lifetime)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    fn token_metadata(lifetime: i64) -> TokenMetadata {
        TokenMetadata {
            request: "".into(),
            issuer: "".into(),
            authority: Some("ims".into()),
            client_reference: Some("client/keys".into()),
            client_version: "".into(),
            issued_at: at(0),
            expires_at: at(lifetime),
        }
    }

    fn policy(renew_before: RenewBefore, minimum_validity: i64) -> Policy {
        Policy { renew_before, minimum_validity: Some(TimeDelta::seconds(minimum_validity)) }
    }

    #[test]
    fn default_is_a_third_of_the_lifetime() {
        let policy = policy(RenewBefore::Default, 300);
        assert_eq!(renew_before(&policy, TimeDelta::seconds(3600)), TimeDelta::seconds(1200));
    }

    #[test]
    fn more_than_half_is_limited_to_half() {
        let policy = policy(RenewBefore::Fixed(TimeDelta::seconds(3000)), 300);
        assert_eq!(renew_before(&policy, TimeDelta::seconds(3600)), TimeDelta::seconds(1800));
    }

    #[test]
    fn token_is_renewed_before_it_is_valid_for_less_than_the_minimum_validity() {
        // with a twentieth of the lifetime for the renewal itself, at most a minute
        for (renew, lifetime, before) in [
            (RenewBefore::Default, 720, 336),
            (RenewBefore::Fixed(TimeDelta::seconds(300)), 720, 336),
            (RenewBefore::Percentage(1), 3600, 360),
            (RenewBefore::Fixed(TimeDelta::seconds(1)), 86_400, 360),
        ] {
            let before = TimeDelta::seconds(before);
            assert_eq!(renew_before(&policy(renew, 300), TimeDelta::seconds(lifetime)), before, "{renew:?}");
        }
    }

    #[test]
    fn half_of_the_lifetime_that_leaves_no_time_for_a_renewal_is_too_short() {
        let policy = policy(RenewBefore::Default, 300);
        for (lifetime, longest, expected) in
            [(600, 270, true), (666, 299, true), (667, 300, false), (3600, 1740, false)]
        {
            let lifetime = TimeDelta::seconds(lifetime);
            assert_eq!(longest_minimum_validity(lifetime).num_seconds(), longest, "{lifetime}");
            assert_eq!(is_too_short(&policy, lifetime), expected, "{lifetime}");
        }
    }

    #[test]
    fn default_minimum_validity_fits_tokens_of_any_lifetime() {
        for (lifetime, expected) in [(3600, 300), (1200, 300), (300, 75), (60, 15)] {
            let (lifetime, expected) = (TimeDelta::seconds(lifetime), TimeDelta::seconds(expected));
            let policy = Policy { renew_before: RenewBefore::Default, minimum_validity: None };
            assert_eq!(minimum_validity(&policy, lifetime), expected);
            assert!(!is_too_short(&policy, lifetime), "{lifetime}");
            assert_eq!(renew_before(&policy, lifetime), lifetime / 3, "{lifetime}");
        }
    }

    #[test]
    fn time_that_differs_from_the_wanted_one_is_an_adjustment() {
        for (renew, expected) in [
            (RenewBefore::Default, None),
            (RenewBefore::Fixed(TimeDelta::seconds(1800)), None),
            (RenewBefore::Fixed(TimeDelta::seconds(1801)), Some(Adjustment::Later)),
            (RenewBefore::Fixed(TimeDelta::seconds(360)), None),
            (RenewBefore::Fixed(TimeDelta::seconds(359)), Some(Adjustment::Earlier)),
            (RenewBefore::Percentage(5), Some(Adjustment::Earlier)),
        ] {
            assert_eq!(adjustment(&policy(renew, 300), TimeDelta::seconds(3600)), expected, "{renew:?}");
        }
    }

    #[test]
    fn tokens_with_a_lifetime_of_a_second_are_not_renewed_immediately() {
        for lifetime in 0..4 {
            let at = renew_at(&token_metadata(lifetime), &policy(RenewBefore::Default, 300), "uid");
            assert!(at >= token_metadata(lifetime).issued_at + FLOOR, "{lifetime} s");
        }
    }

    proptest! {
        #[test]
        fn renewal_is_after_issue_and_before_expiry(
            // shorter tokens expire before anyone can use them
            lifetime in 3_i64..10_000_000,
            percentage in 1..=50_i32,
            minimum_validity in 0_i64..86_400,
            uid in "[a-z0-9-]{1,36}",
        ) {
            let token_metadata = token_metadata(lifetime);
            for desired in [
                RenewBefore::Default,
                RenewBefore::Percentage(percentage),
                RenewBefore::Fixed(TimeDelta::seconds(minimum_validity.max(1))),
            ] {
                let at = renew_at(&token_metadata, &policy(desired, minimum_validity), &uid);
                let left = token_metadata.expires_at - at;
                prop_assert!(at > token_metadata.issued_at, "a renewal at or before the issue would be a loop");
                prop_assert!(left > TimeDelta::zero(), "a renewal after expiry is too late");
                // half, and the jitter of a twentieth
                prop_assert!(left <= token_metadata.lifetime() * 11 / 20);
            }
        }
    }
}
