//! Policies that were there before the first token: what admission makes of the Secret in the write that creates it, or
//! adopts it, is noticed as in any later write.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use testbed::objects;

use super::{
    apply_policy, assert_requests_slow_down, replacing, serves_mutating_policies, wait_effective, wait_restored,
};
use crate::fixture::{Fixture, NAME, PATIENCE, SOON};

/// A conflict is reported within this, although there is a second between the token requests that come before it.
const REPORTED: Duration = SOON.saturating_mul(2);

#[tokio::test]
async fn token_that_a_policy_has_always_replaced_is_never_ready_and_costs_a_bounded_number_of_tokens() -> Result<()> {
    if !serves_mutating_policies()? {
        return Ok(());
    }
    let fixture = Fixture::new("always-rewritten").await?;
    {
        let _policy = apply_policy(&fixture, "MutatingAdmissionPolicy", replacing("access_token")).await?;
        wait_effective(&fixture).await?;
        fixture.apply_credential(&json!({})).await?;
        fixture.wait_condition("Ready", "False", "SecretConflict", REPORTED).await?;
        let message = fixture.wait_condition("Renewed", "False", "SecretConflict", SOON).await?;
        assert!(message.contains("admission policy"), "{message}");
        assert_eq!(fixture.token().await?, "other");
        assert_requests_slow_down(&fixture).await?;
    }
    wait_restored(&fixture).await
}

#[tokio::test]
async fn data_that_a_policy_has_always_changed_is_reported_and_costs_no_second_token() -> Result<()> {
    if !serves_mutating_policies()? {
        return Ok(());
    }
    let fixture = Fixture::new("always-changed").await?;
    let scope = async || fixture.data().await.ok()?.remove("scope");
    {
        let _policy = apply_policy(&fixture, "MutatingAdmissionPolicy", replacing("scope")).await?;
        wait_effective(&fixture).await?;
        fixture.apply_credential(&json!({})).await?;
        let message = fixture.wait_condition("Renewed", "False", "SecretConflict", REPORTED).await?;
        assert!(message.contains("admission policy"), "{message}");
        fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
        assert_eq!(scope().await.context("no scope")?, "other");
    }
    let restored = async || scope().await.filter(|scope| scope == "itwin-platform");
    fixture.eventually("the scope", PATIENCE * 3, restored).await?;
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn token_that_a_policy_replaces_in_a_secret_that_is_adopted_is_never_ready() -> Result<()> {
    if !serves_mutating_policies()? {
        return Ok(());
    }
    let fixture = Fixture::new("adopted-rewritten").await?;
    // without data, no other manager is shown as a writer of it
    let mut offered = objects::secret(NAME, &json!({}));
    offered["metadata"]["annotations"] = json!({"credentials.itwin.dev/adopt": NAME});
    fixture.namespace.apply(&offered).await?;
    let _policy = apply_policy(&fixture, "MutatingAdmissionPolicy", replacing("access_token")).await?;
    wait_effective(&fixture).await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_condition("Ready", "False", "SecretConflict", REPORTED).await?;
    assert_requests_slow_down(&fixture).await
}

#[tokio::test]
async fn token_that_a_policy_replaces_in_a_secret_that_was_missing_at_a_start_is_never_ready() -> Result<()> {
    if !serves_mutating_policies()? {
        return Ok(());
    }
    let mut fixture = Fixture::ready("missing-rewritten").await?;
    fixture.stop();
    fixture.namespace.kubectl(&["delete", "secret", NAME]).await?;
    let _policy = apply_policy(&fixture, "MutatingAdmissionPolicy", replacing("access_token")).await?;
    wait_effective(&fixture).await?;
    fixture.start().await?;
    fixture.wait_condition("Ready", "False", "SecretConflict", REPORTED).await?;
    assert_requests_slow_down(&fixture).await
}
