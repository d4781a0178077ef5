//! Renewal on request, and no renewal without a reason.

use anyhow::Result;
use serde_json::{Value, json};
use testbed::api_proxy::fault::{Fault, Rule};

use crate::fixture::{Fixture, NAME, PATIENCE, SOON, condition};

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
    // reported once, and not again by the next process
    fixture.renew_now(NAME, &"x".repeat(65)).await?;
    let reported = async || fixture.events().await.ok()?.iter().any(|reason| reason == "InvalidObject").then_some(());
    testbed::eventually("the event", SOON, reported).await?;
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
async fn renewal_on_request_that_cannot_be_made_is_echoed_too() -> Result<()> {
    let fixture = Fixture::ready("renew-unread").await?;
    let rule = Rule::new("get secrets", Fault::Refused(500)).of(&format!("{NAME}-client")).lasting(PATIENCE * 10);
    let rule = fixture.proxy().play(rule);
    fixture.renew_now(NAME, "1").await?;
    let status = fixture
        .eventually("the value in status.lastRenewRequest", PATIENCE, async || {
            fixture.status().await.ok().filter(|status| status["lastRenewRequest"] == "1")
        })
        .await?;
    let renewed = condition(&status, "Renewed").map(|(status, reason, _)| (status, reason));
    assert_eq!(renewed, Some(("False".to_owned(), "SecretReadFailed".to_owned())), "written at the same time");
    fixture.proxy().stop(&rule);
    fixture.wait_condition("Renewed", "True", "TokenIssued", PATIENCE * 2).await?;
    fixture
        .eventually("the token that was asked for", PATIENCE, async || {
            (fixture.token_requests().await.ok()?.len() == 2).then_some(())
        })
        .await
}

#[tokio::test]
async fn renewal_on_request_that_failed_is_made_after_a_restart_and_not_reported_as_made_before() -> Result<()> {
    let mut fixture = Fixture::ready("renew-restart").await?;
    let first = fixture.token().await?;
    // the client Secret stays as it is: nothing but the request can show that the server knows the client again
    let registered = std::mem::replace(&mut fixture.client.client_secret, "of-another-client".to_owned());
    fixture.register().await?;
    fixture.renew_now(NAME, "1").await?;
    fixture.wait_condition("Renewed", "False", "InvalidClient", SOON).await?;
    assert_eq!(fixture.status().await?["lastRenewRequest"], "1");

    fixture.stop();
    fixture.client.client_secret = registered;
    fixture.register().await?;
    fixture.start().await?;
    // at most half a minute of the backoff is taken over
    let token = fixture
        .eventually("Renewed that is True again", PATIENCE * 2, async || {
            let status = fixture.status().await.ok()?;
            let token = fixture.token().await.ok()?;
            condition(&status, "Renewed").filter(|(holds, ..)| holds == "True").map(|_| token)
        })
        .await?;
    assert_ne!(token, first, "Renewed is True without the token that was asked for");
    assert_eq!(fixture.status().await?["consecutiveFailures"], 0);
    Ok(())
}

/// A credential with this spec, and tokens that live for so many seconds.
async fn with_lifetime(prefix: &str, lifetime: u32, spec: &Value) -> Result<Fixture> {
    let mut fixture = Fixture::new(prefix).await?;
    fixture.client.lifetime = lifetime;
    fixture.register().await?;
    fixture.apply_credential(spec).await?;
    Ok(fixture)
}

#[tokio::test]
async fn tokens_too_short_for_the_minimum_validity_are_reported() -> Result<()> {
    let fixture = with_lifetime("too-short", 60, &json!({"minimumValidity": "30s"})).await?;
    let message = fixture.wait_condition("Ready", "False", "LifetimeTooShort", PATIENCE).await?;
    assert!(message.contains("60 s") && message.contains("set spec.minimumValidity to 27s or less"), "{message}");
    assert!(fixture.secret().await?.is_some(), "the token is still written");
    fixture.wait_condition("Renewed", "True", "TokenIssued", SOON).await?;
    fixture
        .eventually("the event", PATIENCE, async || {
            fixture.events().await.ok()?.iter().any(|reason| reason == "LifetimeTooShort").then_some(())
        })
        .await?;
    // what the message says is right
    fixture.apply_credential(&json!({"minimumValidity": "26s"})).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn tokens_of_five_minutes_are_ready_with_the_defaults() -> Result<()> {
    let fixture = with_lifetime("five-minutes", 300, &json!({})).await?;
    fixture.wait_ready().await?;
    let status = fixture.status().await?;
    let time = |field: &str| chrono::DateTime::parse_from_rfc3339(status[field].as_str().unwrap_or_default());
    let left = (time("expiresAt")? - time("usableUntil")?).num_seconds();
    assert!((74..=75).contains(&left), "a quarter of the lifetime: {left} s");
    assert!(time("renewAt")? < time("usableUntil")?);
    Ok(())
}

#[tokio::test]
async fn renewal_that_is_brought_down_to_half_of_the_lifetime_is_reported() -> Result<()> {
    let fixture = with_lifetime("half", 300, &json!({"renewBefore": "4m"})).await?;
    let message = fixture.wait_condition("Ready", "True", "TokenValid", PATIENCE).await?;
    assert!(message.contains("set spec.renewBefore to 1") && message.contains("s or less"), "{message}");
    fixture
        .eventually("the event", PATIENCE, async || {
            fixture.events().await.ok()?.iter().any(|reason| reason == "LifetimeTooShort").then_some(())
        })
        .await
}
