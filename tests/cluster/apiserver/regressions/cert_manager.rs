//! cert-manager/cert-manager: renewal loops, backoffs longer than a lifetime, two owners of one Secret. Its memory
//! (#4722) is among the tests with their own control plane.

use anyhow::{Context, Result};
use chrono::TimeDelta;
use itwin_api::conditions::Reason;
use itwin_core::{action::Action, backoff, decide::decide, policy::RenewBefore};
use serde_json::json;
use testbed::eventually;

use super::{at, holding, policy, token_metadata};
use crate::{
    audit::{calls, calls_since},
    fixture::{Fixture, NAME, PATIENCE, SOON},
};

/// Whether a token is kept right after it was issued, and until which second.
fn kept_until(lifetime: i64, renew_before: RenewBefore) -> Option<i64> {
    match decide(&holding(token_metadata(lifetime), policy(renew_before)), at(1)) {
        Action::UpToDate { renew_at } => renew_at.map(|at_| (at_ - at(0)).num_seconds()),
        _ => None,
    }
}

#[test]
fn cert_manager_1122_lifetime_shorter_than_renew_before_is_no_loop() {
    let kept = kept_until(600, RenewBefore::Fixed(TimeDelta::hours(1)));
    assert!(kept.is_some_and(|second| (270..=300).contains(&second)), "half of its lifetime at least: {kept:?}");
}

#[test]
fn cert_manager_3813_lifetime_equal_to_renew_before_is_no_loop() {
    let kept = kept_until(3600, RenewBefore::Fixed(TimeDelta::hours(1)));
    assert!(kept.is_some_and(|second| (1620..=1800).contains(&second)), "{kept:?}");
}

#[test]
fn cert_manager_4423_new_token_is_not_due_with_any_real_lifetime() {
    for lifetime in [3, 10, 60, 301, 599, 3600, 86_400, 31_536_000] {
        for requested in [RenewBefore::Default, RenewBefore::Percentage(50), RenewBefore::Fixed(TimeDelta::days(400))] {
            assert!(
                kept_until(lifetime, requested).is_some(),
                "a token of {lifetime} s is requested again immediately"
            );
        }
    }
}

#[test]
fn cert_manager_7741_the_lifetime_that_counts_is_the_real_one() {
    // requested for a day, issued for an hour: the policy applies to the hour
    let kept = kept_until(3600, RenewBefore::Percentage(25));
    assert!(kept.is_some_and(|second| (2520..=2700).contains(&second)), "{kept:?}");
}

/// The first waits of a credential whose token is valid for this many seconds more.
fn attempts_before_expiry(left: i64, reason: Reason) -> u32 {
    let (mut left, mut failures) = (TimeDelta::seconds(left), 0);
    loop {
        failures += 1;
        left -= backoff::delay(failures, left, reason, None, "2a9f4d3e");
        if left <= TimeDelta::zero() {
            return failures - 1;
        }
    }
}

#[test]
fn cert_manager_4786_first_backoff_is_shorter_than_the_lifetime_of_the_credential() {
    assert!(
        backoff::delay(1, TimeDelta::seconds(20), Reason::InvalidClient, None, "2a9f4d3e") <= TimeDelta::seconds(1)
    );
    assert!(attempts_before_expiry(20, Reason::InvalidClient) >= 3);
}

#[test]
fn cert_manager_7416_many_earlier_failures_do_not_lengthen_it_beyond_what_is_left() {
    let wait = backoff::delay(1000, TimeDelta::minutes(6), Reason::ServerError, None, "2a9f4d3e");
    assert!(wait <= TimeDelta::minutes(1), "{wait}");
}

#[test]
fn cert_manager_8259_there_are_attempts_left_for_every_lifetime() {
    for left in [8, 30, 300, 3600, 86_400] {
        for reason in [Reason::ServerError, Reason::RequestRejected, Reason::SecretWriteFailed] {
            assert!(attempts_before_expiry(left, reason) >= 3, "{left} s left, {reason:?}");
        }
    }
}

/// Creates two credentials that write one Secret with different content.
async fn two_owners(fixture: &Fixture) -> Result<()> {
    fixture.apply_credential(&json!({"secretTemplate": {"labels": {"of": "first"}}})).await?;
    fixture.wait_ready().await?;
    let second = json!({
        "secretName": NAME,
        "clientCredentialsRef": {"name": "agent-client"},
        "secretTemplate": {"labels": {"of": "second"}},
    });
    fixture.namespace.apply(&fixture.namespace.credential("second", &second)).await?;
    fixture.wait_condition_of("second", "Renewed", "False", "SecretNotOwned", SOON).await.map(drop)
}

#[tokio::test]
async fn cert_manager_5675_two_owners_of_one_secret_do_not_overwrite_each_other() -> Result<()> {
    let fixture = Fixture::new("tug-of-war").await?;
    two_owners(&fixture).await?;
    let before = (fixture.secret().await?, calls(&fixture.namespace)?.len());
    let failures = async || fixture.status_of("second").await.ok()?["consecutiveFailures"].as_i64();
    eventually("four attempts of the second", PATIENCE, async || failures().await.filter(|count| *count >= 4)).await?;
    assert_eq!(fixture.secret().await?, before.0);
    let writes: Vec<_> = calls_since(&fixture.namespace, before.1)?
        .into_iter()
        .filter(|call| call.is_write() && call.resource == "secrets")
        .collect();
    assert!(writes.is_empty(), "{writes:?}");
    Ok(())
}

#[tokio::test]
async fn cert_manager_4375_second_owner_asks_the_authority_for_nothing() -> Result<()> {
    let fixture = Fixture::new("second-owner").await?;
    two_owners(&fixture).await?;
    fixture.renew_now("second", "1").await?;
    eventually("the requested attempt", SOON, async || {
        let status = fixture.status_of("second").await.ok()?;
        (status["lastRenewRequest"] == "1").then_some(())
    })
    .await?;
    assert_eq!(fixture.token_requests().await?.len(), 1);
    let secret = fixture.secret().await?.context("no Secret")?;
    assert_eq!(secret["metadata"]["labels"]["of"], "first");
    Ok(())
}
