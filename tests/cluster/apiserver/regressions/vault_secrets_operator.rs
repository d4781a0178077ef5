//! hashicorp/vault-secrets-operator: late renewals, restarts that request everything again, lost Secrets. Its memory
//! (#969) is among the tests with their own control plane.

use anyhow::Result;
use itwin_core::{
    action::{Action, Fetch},
    decide::decide,
    policy::RenewBefore,
    schedule,
};
use serde_json::json;
use testbed::eventually;

use super::{at, holding, policy, token_metadata};
use crate::fixture::{Fixture, NAME, PATIENCE, SOON};

#[tokio::test]
async fn vault_secrets_operator_610_renewals_are_not_late() -> Result<()> {
    let mut fixture = Fixture::new("late").await?;
    fixture.client.lifetime = 10;
    fixture.register().await?;
    fixture.apply_credential(&json!({"minimumValidity": "1s"})).await?;
    let series = "itwin_credential_renewal_lateness_seconds";
    eventually("two renewals", PATIENCE, async || {
        (fixture.metric(&format!("{series}_count")).await.ok()? >= 2.0).then_some(())
    })
    .await?;
    let (count, sum) =
        (fixture.metric(&format!("{series}_count")).await?, fixture.metric(&format!("{series}_sum")).await?);
    assert!(sum / count < 2.0, "{} s late on average", sum / count);
    let left = "itwin_credential_validity_at_replacement_seconds";
    let (count, sum) = (fixture.metric(&format!("{left}_count")).await?, fixture.metric(&format!("{left}_sum")).await?);
    assert!(sum / count > 1.0, "{} s left on average when a token is replaced", sum / count);
    Ok(())
}

#[test]
fn vault_secrets_operator_364_due_token_is_renewed_at_the_first_reconcile() {
    let observed = holding(token_metadata(3600), policy(RenewBefore::Default));
    let due = schedule::renew_at(&token_metadata(3600), &observed.desired.policy, &observed.uid);
    assert_eq!(decide(&observed, due), Action::Fetch(Fetch::Client), "the first step of a renewal");
    assert_eq!(
        decide(&observed, at(3600) + chrono::TimeDelta::days(1)),
        Action::Fetch(Fetch::Client),
        "also after a long sleep"
    );
}

#[test]
fn vault_secrets_operator_275_jitter_only_brings_a_renewal_forward() {
    let requested = policy(RenewBefore::Percentage(50));
    for uid in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let renew_at = schedule::renew_at(&token_metadata(3600), &requested, uid);
        assert!(renew_at <= at(1800), "{uid}: {renew_at}");
    }
}

/// Creates credentials with tokens of different lifetimes; returns the number of token requests.
async fn several(prefix: &str) -> Result<(Fixture, usize)> {
    let fixture = Fixture::ready(prefix).await?;
    let client = json!({"clientCredentialsRef": {"name": "agent-client"}});
    fixture.create_credentials((0..4).map(|number| format!("more-{number}")), &client).await?;
    for number in 0..4 {
        fixture.wait_condition_of(&format!("more-{number}"), "Ready", "True", "TokenValid", SOON).await?;
    }
    let requests = fixture.token_requests().await?.len();
    Ok((fixture, requests))
}

async fn wait_for_five_reconciles(fixture: &Fixture) -> Result<()> {
    eventually("a reconciliation of each", PATIENCE, async || {
        (fixture.metric("itwin_reconciles_total").await.ok()? >= 5.0).then_some(())
    })
    .await
}

#[tokio::test]
async fn vault_secrets_operator_285_restart_asks_for_nothing() -> Result<()> {
    let (mut fixture, requests) = several("restart-all").await?;
    fixture.restart().await?;
    wait_for_five_reconciles(&fixture).await?;
    assert_eq!(fixture.token_requests().await?.len(), requests);
    Ok(())
}

#[tokio::test]
async fn vault_secrets_operator_734_consecutive_restarts_ask_for_nothing() -> Result<()> {
    let (mut fixture, requests) = several("restart-often").await?;
    for _ in 0..3 {
        fixture.restart().await?;
        wait_for_five_reconciles(&fixture).await?;
    }
    assert_eq!(fixture.token_requests().await?.len(), requests);
    Ok(())
}

#[tokio::test]
async fn vault_secrets_operator_959_restart_without_a_status_asks_for_nothing() -> Result<()> {
    let (mut fixture, requests) = several("restart-bare").await?;
    fixture.stop();
    // as after a restore from a backup, which contains no status
    let nothing = r#"[{"op":"remove","path":"/status"}]"#;
    fixture.namespace.kubectl(&["patch", "itcred", NAME, "--subresource=status", "--type=json", "-p", nothing]).await?;
    fixture.start().await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    wait_for_five_reconciles(&fixture).await?;
    assert_eq!(fixture.token_requests().await?.len(), requests);
    Ok(())
}

#[tokio::test]
async fn vault_secrets_operator_1051_changing_the_renewal_percentage_requests_nothing() -> Result<()> {
    let fixture = Fixture::ready("percentage").await?;
    let before = fixture.secret().await?;
    for percentage in [10, 50, 33] {
        fixture.apply_credential(&json!({"renewBeforePercentage": percentage})).await?;
    }
    eventually("the last generation's status", SOON, async || {
        fixture.status().await.ok().filter(|status| status["observedGeneration"] == 4)
    })
    .await?;
    assert_eq!(fixture.secret().await?, before);
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn vault_secrets_operator_228_deleted_secret_is_restored_whenever_it_was_deleted() -> Result<()> {
    let mut fixture = Fixture::ready("deleted").await?;
    fixture.namespace.kubectl(&["delete", "secret", NAME]).await?;
    eventually("the Secret", SOON, async || fixture.token().await.ok()).await?;
    fixture.stop();
    fixture.namespace.kubectl(&["delete", "secret", NAME]).await?;
    fixture.start().await?;
    eventually("the Secret", SOON, async || fixture.token().await.ok()).await?;
    Ok(())
}
