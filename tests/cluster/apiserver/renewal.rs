//! Renewal on request, and no renewal without a reason.

use anyhow::Result;
use serde_json::json;

use crate::fixture::{Fixture, NAME, PATIENCE, SOON};

#[tokio::test]
async fn renewal_on_request_happens_once_for_each_value() -> Result<()> {
    let fixture = Fixture::ready("renew-now").await?;
    let first = fixture.token().await?;
    fixture.renew_now(NAME, "1").await?;
    let second = fixture.wait_token_other_than(&first, SOON).await?;
    // the next request waits, so that a loop over the annotation uses no capacity that others need
    fixture.renew_now(NAME, "2").await?;
    fixture.wait_token_other_than(&second, PATIENCE).await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", SOON).await?;
    let echoed = testbed::eventually("status.lastRenewRequest", SOON, async || {
        fixture.status().await.ok().filter(|status| status["lastRenewRequest"] == "2")
    });
    echoed.await?;
    let at: Vec<i64> = fixture.token_requests().await?.iter().map(|request| request.at).collect();
    assert_eq!(at.len(), 3);
    assert!(at[2] - at[1] >= 10_000, "{} ms between two renewals on request", at[2] - at[1]);
    Ok(())
}

#[tokio::test]
async fn longer_renew_annotation_is_reported_once_and_renews_nothing() -> Result<()> {
    let fixture = Fixture::ready("renew-long").await?;
    let first = fixture.token().await?;
    let reported =
        async || Some(fixture.events().await.ok()?.iter().filter(|reason| *reason == "InvalidObject").count());
    fixture.renew_now(NAME, &"x".repeat(65)).await?;
    testbed::eventually("the event", SOON, async || reported().await.filter(|count| *count == 1)).await?;
    fixture.renew_now(NAME, &"y".repeat(100_000)).await?;
    fixture.renew_now(NAME, &"z".repeat(64)).await?;
    fixture.wait_token_other_than(&first, SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 2);
    assert_eq!(reported().await, Some(1));
    let notes = ["get", "events.events.k8s.io", "-o", r"jsonpath={.items[?(@.reason=='InvalidObject')].note}"];
    let note = fixture.namespace.kubectl(&notes).await?;
    assert!(note.contains("credentials.itwin.dev/renew has more than 64 characters"), "{note}");
    Ok(())
}

#[tokio::test]
async fn restart_asks_for_nothing_and_writes_nothing() -> Result<()> {
    let mut fixture = Fixture::ready("restart").await?;
    let before = (fixture.secret().await?, fixture.namespace.get("itcred", "agent").await?);
    fixture.restart().await?;
    // the new process acts upon a change, so it has reconciled everything
    fixture.namespace.kubectl(&["label", "itcred", "agent", "changed=1"]).await?;
    testbed::eventually("a reconcile by the new process", PATIENCE, async || {
        let metrics = fixture.operator.get("/metrics").await.ok()?;
        let reconciles: f64 = metrics
            .lines()
            .find(|line| line.starts_with("itwin_reconciles_total"))?
            .rsplit(' ')
            .next()?
            .parse()
            .ok()?;
        (reconciles >= 2.0).then_some(())
    })
    .await?;
    assert_eq!(fixture.token_requests().await?.len(), 1);
    assert_eq!(fixture.secret().await?, before.0);
    let status = |object: &Option<serde_json::Value>| object.as_ref().map(|object| object["status"].clone());
    assert_eq!(status(&fixture.namespace.get("itcred", "agent").await?), status(&before.1));
    let metrics = fixture.operator.get("/metrics").await?;
    // authorities are cluster-scoped: those of other tests come and go meanwhile
    let calls: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("itwin_kubernetes_requests_total{") && !line.contains("itwinauthorities"))
        .collect();
    assert!(calls.is_empty(), "not one call but the watches: {calls:?}");
    Ok(())
}

#[tokio::test]
async fn suspended_credential_keeps_its_secret_and_asks_for_nothing() -> Result<()> {
    let fixture = Fixture::ready("suspend").await?;
    let before = fixture.secret().await?;
    fixture.apply_credential(&json!({"suspend": true, "scopes": ["imodels:read"]})).await?;
    fixture.wait_condition("Ready", "False", "Suspended", SOON).await?;
    assert_eq!(fixture.secret().await?, before);
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn tokens_too_short_for_the_minimum_validity_are_reported() -> Result<()> {
    let mut fixture = Fixture::new("too-short").await?;
    fixture.client.lifetime = 60;
    fixture.register().await?;
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Ready", "False", "LifetimeTooShort", SOON).await?;
    assert!(message.contains("60 s") && message.contains("minimumValidity"), "{message}");
    assert!(fixture.secret().await?.is_some(), "the token is still written");
    Ok(())
}
