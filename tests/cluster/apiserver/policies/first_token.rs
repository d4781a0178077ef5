//! Policies that were there before the first token: what admission makes of the Secret in the write that creates it, or
//! adopts it, is noticed as in any later write.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use testbed::{
    api_proxy::fault::{Fault, Rule},
    objects,
};

use super::{
    apply_policy, assert_requests_slow_down, replacing, serves_mutating_policies, wait_effective, wait_restored,
};
use crate::fixture::{Fixture, NAME, PATIENCE, SOON, condition};

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
async fn token_that_a_policy_has_always_replaced_is_not_ready_while_the_secret_cannot_be_read() -> Result<()> {
    if !serves_mutating_policies()? {
        return Ok(());
    }
    let fixture = Fixture::new("rewritten-unread").await?;
    let _policy = apply_policy(&fixture, "MutatingAdmissionPolicy", replacing("access_token")).await?;
    wait_effective(&fixture).await?;
    let refused = Rule::new("get secrets", Fault::Refused(500)).of(NAME).lasting(PATIENCE * 10);
    let rule = fixture.proxy().play(refused);
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Ready", "False", "SecretReadFailed", REPORTED).await?;
    assert!(message.contains("could not be checked since"), "{message}");
    assert_eq!((fixture.token().await?.as_str(), fixture.token_requests().await?.len()), ("other", 1));
    fixture.proxy().stop(&rule);
    fixture.wait_condition("Ready", "False", "SecretConflict", PATIENCE * 2).await.map(drop)
}

/// Asserts that `Ready` of the credential, which is being deleted, is False after another reconcile.
async fn assert_held_and_not_ready(fixture: &Fixture, finalizer: &str) -> Result<()> {
    let reported = async || {
        let (ready, _, message) = condition(&fixture.status().await.ok()?, "Ready")?;
        message.contains(finalizer).then_some(ready)
    };
    let ready = fixture.eventually("a status that names the finalizer", PATIENCE, async || reported().await).await?;
    fixture.reconcile().await?;
    let later = reported().await.context("no status of a credential that is being deleted")?;
    assert_eq!((&*ready, &*later), ("False", "False"));
    Ok(())
}

#[tokio::test]
async fn token_that_a_policy_replaced_does_not_become_ready_when_its_credential_is_deleted_and_held() -> Result<()> {
    const FINALIZER: &str = "example.com/held";
    if !serves_mutating_policies()? {
        return Ok(());
    }
    let mut fixture = Fixture::new("rewritten-held").await?;
    let _policy = apply_policy(&fixture, "MutatingAdmissionPolicy", replacing("access_token")).await?;
    wait_effective(&fixture).await?;
    let mut held = fixture.namespace.credential(NAME, &json!({}));
    held["metadata"]["finalizers"] = json!([FINALIZER]);
    fixture.namespace.apply(&held).await?;
    fixture.wait_condition("Ready", "False", "SecretConflict", REPORTED).await?;
    fixture.namespace.kubectl(&["delete", "itcred", NAME, "--wait=false"]).await?;
    assert_held_and_not_ready(&fixture, FINALIZER).await?;
    // nor for a process that starts then
    fixture.restart().await?;
    assert_held_and_not_ready(&fixture, FINALIZER).await?;
    let release = r#"{"metadata":{"finalizers":null}}"#;
    fixture.namespace.kubectl(&["patch", "itcred", NAME, "--type=merge", "-p", release]).await.map(drop)
}

#[tokio::test]
async fn token_that_a_policy_replaced_is_not_ready_at_a_start_before_the_secret_is_read() -> Result<()> {
    if !serves_mutating_policies()? {
        return Ok(());
    }
    let mut fixture = Fixture::new("rewritten-start").await?;
    let _policy = apply_policy(&fixture, "MutatingAdmissionPolicy", replacing("access_token")).await?;
    wait_effective(&fixture).await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_condition("Ready", "False", "SecretConflict", REPORTED).await?;
    fixture.stop();
    let refused = Rule::new("get secrets", Fault::Refused(500)).of(NAME).lasting(PATIENCE * 10);
    let rule = fixture.proxy().play(refused);
    let before = fixture.token_requests().await?.len();
    fixture.start().await?;
    fixture.wait_condition("Ready", "False", "SecretReadFailed", PATIENCE * 2).await?;
    assert_eq!(fixture.token_requests().await?.len(), before, "the read comes before all requests");
    fixture.proxy().stop(&rule);
    fixture.wait_condition("Ready", "False", "SecretConflict", PATIENCE * 2).await.map(drop)
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
