//! Writers that fight with the operator over a Secret or a status: a good token stays good.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::eventually;

use crate::fixture::{Fixture, NAME, PATIENCE, SOON};

#[tokio::test]
async fn edits_under_the_name_of_the_operator_are_reverted() -> Result<()> {
    let fixture = Fixture::ready("impostor").await?;
    let token = fixture.token().await?;
    let patch = async |patch: Value| {
        let manager = "--field-manager=itwin-credential-operator";
        let edit = ["patch", "secret", NAME, "--type=merge", manager, "-p", &patch.to_string()];
        fixture.namespace.kubectl(&edit).await
    };
    let annotation = |secret: &Value| secret["metadata"]["annotations"]["credentials.itwin.dev/expires-at"].clone();
    let before = annotation(&fixture.secret().await?.context("no Secret")?);

    let later = json!({"metadata": {"annotations": {"credentials.itwin.dev/expires-at": "2099-01-01T00:00:00Z"}}});
    patch(later).await?;
    eventually("the annotation", SOON, async || (annotation(&fixture.secret().await.ok()??) == before).then_some(()))
        .await
        .with_context(|| fixture.operator.process.log_tail())?;
    patch(json!({"stringData": {"scope": "everything"}})).await?;
    eventually("the scope", SOON, async || (fixture.data().await.ok()?["scope"] == "itwin-platform").then_some(()))
        .await?;
    assert_eq!((fixture.token().await?, fixture.token_requests().await?.len()), (token, 1), "no token for that");
    patch(json!({"stringData": {"access_token": "garbage"}})).await?;
    fixture.wait_token_other_than("garbage", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn token_that_is_edited_together_with_the_owner_reference_is_replaced() -> Result<()> {
    let fixture = Fixture::ready("edited-owner").await?;
    let edit = json!({"metadata": {"ownerReferences": null}, "stringData": {"access_token": "garbage"}}).to_string();
    fixture.namespace.kubectl(&["patch", "secret", NAME, "--type=merge", "-p", &edit]).await?;
    fixture.wait_token_other_than("garbage", SOON).await?;
    let secret = fixture.secret().await?.context("no Secret")?;
    assert!(secret["metadata"]["ownerReferences"].is_array(), "{}", secret["metadata"]);
    Ok(())
}

#[tokio::test]
async fn conditions_of_others_stay() -> Result<()> {
    let fixture = Fixture::ready("conditions").await?;
    let mut status = fixture.status().await?;
    let theirs = json!({
        "type": "Audited",
        "status": "True",
        "reason": "Audited",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    status["conditions"].as_array_mut().context("no conditions")?.push(theirs);
    let patch = json!({"status": {"conditions": status["conditions"]}}).to_string();
    let edit = ["patch", "itcred", NAME, "--subresource=status", "--type=merge", "-p", &patch];
    fixture.namespace.kubectl(&edit).await?;
    let first = fixture.token().await?;
    fixture.renew_now(NAME, "1").await?;
    fixture.wait_token_other_than(&first, PATIENCE).await?;
    eventually("the status of the renewal", SOON, async || {
        fixture.status().await.ok().filter(|status| status["lastRenewRequest"] == "1")
    })
    .await?;
    let types = ["get", "itcred", NAME, "-o", "jsonpath={.status.conditions[*].type}"];
    assert_eq!(fixture.namespace.kubectl(&types).await?, "Ready Renewed Audited");
    Ok(())
}
