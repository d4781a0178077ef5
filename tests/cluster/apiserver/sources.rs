//! Changes of what a token depends on: the client Secret, and what is requested.

use anyhow::Result;
use itwin_credential_operator::clock::Clock;
use serde_json::json;
use testbed::eventually;

use crate::fixture::{Fixture, PATIENCE, SOON};

#[tokio::test]
async fn rotated_client_secret_gives_a_new_token_and_a_label_does_not() -> Result<()> {
    let mut fixture = Fixture::ready("rotate").await?;
    let first = fixture.token().await?;
    fixture.namespace.kubectl(&["label", "secret", "agent-client", "touched=1"]).await?;
    fixture.client.client_secret = "rotated-and-long-enough-for-any-server".to_owned();
    fixture.register().await?;
    // the label alone caused a reconciliation, but no request
    eventually("a read of the client Secret", SOON, async || {
        let metrics = fixture.operator.get("/metrics").await.ok()?;
        let reads = r#"itwin_kubernetes_requests_total{resource="secrets",result="success",verb="get"}"#;
        metrics
            .lines()
            .find(|line| line.starts_with(reads))?
            .rsplit(' ')
            .next()?
            .parse::<u32>()
            .ok()
            .filter(|reads| *reads >= 3)
    })
    .await?;
    assert_eq!(fixture.token_requests().await?.len(), 1);
    fixture.apply_client_secret().await?;
    fixture.wait_token_other_than(&first, SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn only_what_changes_the_token_asks_for_one() -> Result<()> {
    let mut fixture = Fixture::ready("spec").await?;
    let first = fixture.token().await?;
    fixture.client.scope = "itwin-platform imodels:read".to_owned();
    fixture.register().await?;
    fixture.apply_credential(&json!({"renewBeforePercentage": 20})).await?;
    eventually("the new generation's status", SOON, async || {
        fixture.status().await.ok().filter(|status| status["observedGeneration"] == 2)
    })
    .await?;
    assert_eq!(fixture.token().await?, first, "a renewal policy is no reason (vault-secrets-operator#1051)");
    fixture.apply_credential(&json!({"scopes": ["imodels:read", "itwin-platform"]})).await?;
    fixture.wait_token_other_than(&first, SOON).await?;
    let requests = fixture.token_requests().await?;
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].scope.as_deref(), Some("imodels:read itwin-platform"));
    Ok(())
}

#[tokio::test]
async fn reduced_scope_is_refused_and_the_old_token_stays() -> Result<()> {
    let fixture = Fixture::ready("scope").await?;
    let before = fixture.secret().await?;
    // the server silently drops the scopes that the client may not have
    fixture.apply_credential(&json!({"scopes": ["itwin-platform", "unheard-of"]})).await?;
    let message = fixture.wait_condition("Renewed", "False", "ScopeReduced", SOON).await?;
    assert!(message.contains("unheard-of"), "{message}");
    assert_eq!(fixture.secret().await?, before);
    Ok(())
}

#[tokio::test]
async fn without_a_watch_of_secrets_a_manual_edit_is_reverted_at_the_next_renewal() -> Result<()> {
    let mut fixture = Fixture::bare_with("unwatched", &["--watch-secrets=false"]).await?;
    fixture.client.lifetime = 20;
    fixture.with_surroundings().await?;
    fixture.apply_credential(&json!({"minimumValidity": "5s"})).await?;
    fixture.wait_ready().await?;
    let due = fixture.status().await?["renewAt"].as_str().unwrap_or_default().to_owned();
    let edit = r#"{"stringData":{"access_token":"garbage"}}"#;
    fixture.namespace.kubectl(&["patch", "secret", "agent", "--type=merge", "-p", edit]).await?;
    eventually("a valid token again", PATIENCE, async || fixture.token().await.ok().filter(|token| token != "garbage"))
        .await?;
    let due = chrono::DateTime::parse_from_rfc3339(&due)?;
    assert!(Clock::system().now() >= due, "without a watch it is noticed when the renewal is due, at {due}");
    assert_eq!(fixture.token_requests().await?.len(), 2, "by one renewal");
    Ok(())
}
