//! Renewal: in time, for ever, exactly as often as the policy says; and not at all where nothing is due.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use itwin_credential_operator::clock::now;
use serde_json::json;

use crate::fixture::{Fixture, PATIENCE, SOON};

/// One token as it stood in the Secret.
struct Seen {
    issued_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    renew_at: Option<DateTime<Utc>>,
}

fn time(value: &serde_json::Value) -> Result<DateTime<Utc>> {
    Ok(DateTime::parse_from_rfc3339(value.as_str().context("no time")?)?.to_utc())
}

#[tokio::test]
async fn short_lived_token_is_renewed_in_time_for_three_lifetimes() -> Result<()> {
    const LIFETIME: i64 = 30;
    let mut fixture = Fixture::new("renewal").await?;
    fixture.client.lifetime = 30;
    fixture.register().await?;
    fixture.apply_credential(&json!({"minimumValidity": "5s"})).await?;
    fixture.wait_ready().await?;

    let mut tokens: Vec<Seen> = Vec::new();
    let started = Instant::now();
    // it ends well before the next renewal, so that none falls between the last look and the count of requests
    let far_from_renewal =
        |tokens: &[Seen]| tokens.last().is_some_and(|last| (now() - last.issued_at).num_seconds() < LIFETIME / 3);
    while started.elapsed() < Duration::from_secs(3 * 30) || !far_from_renewal(&tokens) {
        let secret = fixture.secret().await?.context("the Secret is gone")?;
        let now = now();
        let annotation = |key: &str| time(&secret["metadata"]["annotations"][format!("credentials.itwin.dev/{key}")]);
        let (issued_at, expires_at) = (annotation("issued-at")?, annotation("expires-at")?);
        assert!(expires_at > now, "the token in the Secret expired at {expires_at}, and it is {now}");
        if tokens.last().is_none_or(|last| last.issued_at != issued_at) {
            tokens.push(Seen { issued_at, expires_at, renew_at: None });
        }
        let status = fixture.status().await?;
        if let Some(last) = tokens.last_mut()
            && time(&status["issuedAt"]).is_ok_and(|issued| issued == last.issued_at)
        {
            last.renew_at = Some(time(&status["renewAt"])?);
        }
        assert_eq!(status["conditions"][0]["status"], "True", "Ready all the time: {status}");
        // each look is a process of its own; this only keeps them apart
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    for pair in tokens.windows(2) {
        let due = pair[0].renew_at.context("renewAt was never told")?;
        let late = (pair[1].issued_at - due).num_seconds();
        assert!((0..=2).contains(&late), "due at {due}, renewed at {}", pair[1].issued_at);
        let left = (pair[0].expires_at - due).num_seconds();
        // a third, and up to a twentieth more
        assert!((LIFETIME / 3..=LIFETIME / 3 + 2).contains(&left), "due with {left} s left");
    }
    // 18.5 s to 20 s from one to the next: the first, and four to six within 90 to 102 s
    assert!((5..=7).contains(&tokens.len()), "{} tokens in three lifetimes", tokens.len());
    assert_eq!(fixture.token_requests().await?.len(), tokens.len(), "one token request for each token");
    Ok(())
}

#[tokio::test]
async fn renewal_on_request_happens_once_for_each_value() -> Result<()> {
    let fixture = Fixture::ready("renew-now").await?;
    let first = fixture.token().await?;
    let annotate = async |value: &str| {
        let annotation = format!("credentials.itwin.dev/renew={value}");
        fixture.namespace.kubectl(&["annotate", "itcred", "agent", &annotation, "--overwrite"]).await
    };
    annotate("1").await?;
    let second = fixture.wait_token_other_than(&first, SOON).await?;
    annotate("2").await?;
    fixture.wait_token_other_than(&second, SOON).await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", SOON).await?;
    let echoed = stage::eventually("status.lastRenewRequest", SOON, async || {
        fixture.status().await.ok().filter(|status| status["lastRenewRequest"] == "2")
    });
    echoed.await?;
    assert_eq!(fixture.token_requests().await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn restart_asks_for_nothing_and_writes_nothing() -> Result<()> {
    let mut fixture = Fixture::ready("restart").await?;
    let before = (fixture.secret().await?, fixture.namespace.get("itcred", "agent").await?);
    fixture.restart().await?;
    // the new process acts upon a change, so it has looked at everything
    fixture.namespace.kubectl(&["label", "itcred", "agent", "seen=1"]).await?;
    stage::eventually("a reconcile by the new process", PATIENCE, async || {
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
    // authorities are everybody's: those of other tests come and go meanwhile
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
async fn tokens_too_short_for_the_minimum_validity_are_told() -> Result<()> {
    let mut fixture = Fixture::new("too-short").await?;
    fixture.client.lifetime = 60;
    fixture.register().await?;
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Ready", "False", "LifetimeTooShort", SOON).await?;
    assert!(message.contains("60 s") && message.contains("minimumValidity"), "{message}");
    assert!(fixture.secret().await?.is_some(), "the token is written all the same");
    Ok(())
}
