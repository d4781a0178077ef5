//! etcd and the API server are killed while a token falls due, and come back.

use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, Utc};
use itwin_credential_operator::clock::Clock;
use serde_json::json;
use testbed::eventually;

use crate::{cluster::Cluster, fixture::NAME};

/// Lifetime of the tokens, in seconds: long enough for the return of a control plane before they expire.
const LIFETIME: u32 = 40;
/// From the return of the API server to the new token: the deadline of a call that hangs since before it (8 s), one
/// step of the backoff (4 s), and the time to request the token on a busy machine.
const SECONDS: Duration = Duration::from_secs(20);
/// Until the watches are back: one wait, after which the API server rejects the old resource version, and
/// another one, after which everything is listed again.
const WATCHES: Duration = Duration::from_secs(30);
/// Some time after the renewal is due, in which attempts fail.
const DUE_FOR: TimeDelta = TimeDelta::seconds(3);

fn time(value: &serde_json::Value) -> Result<DateTime<Utc>> {
    Ok(DateTime::parse_from_rfc3339(value.as_str().context("no time")?)?.to_utc())
}

/// Kills servers, waits until the renewal is due and impossible, restarts them, and checks that it happens.
async fn renewal_during(name: &str, kill: impl Fn(&mut Cluster)) -> Result<()> {
    let mut cluster = Cluster::start(name).await?;
    let mut fixture = cluster.fixture("outage", &[]).await?;
    fixture.client.lifetime = LIFETIME;
    fixture.with_surroundings().await?;
    fixture.apply_credential(&json!({"minimumValidity": "5s"})).await?;
    fixture.wait_ready().await?;
    let (before, status) = (fixture.data().await?, fixture.status().await?);
    let due = time(&status["renewAt"])?;

    kill(&mut cluster);
    eventually("a renewal that is due", Duration::from_secs(u64::from(LIFETIME)), async || {
        (Clock::system().now() > due + DUE_FOR).then_some(())
    })
    .await?;
    assert_eq!(fixture.token_requests().await?.len(), 1, "no token is requested that cannot be written");
    cluster.control_plane.restart().await?;

    let after = eventually("the new token", SECONDS, async || {
        let data = fixture.data().await.ok()?;
        // the Secret holds the old token or a better one, never anything else
        let is_old = data == before;
        assert!(is_old || data["expires_at"] > before["expires_at"], "the Secret got worse");
        (!is_old).then_some(data)
    })
    .await
    .with_context(|| fixture.operator.process.log_tail())?;
    assert_eq!(fixture.token_requests().await?.len(), 2, "one renewal, one request");
    // written after the Secret; until then the status is about the old token, which is valid too
    eventually("a status about the new token", SECONDS, async || {
        (fixture.status().await.ok()?["expiresAt"] == after["expires_at"].as_str()).then_some(())
    })
    .await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SECONDS).await?;

    // the watches come back as well
    fixture.renew_now(NAME, "1").await?;
    fixture.wait_token_other_than(&after["access_token"], WATCHES).await?;
    Ok(())
}

#[tokio::test]
async fn renewal_due_while_etcd_is_down_happens_right_after_its_return() -> Result<()> {
    renewal_during("etcd-killed", |cluster| cluster.control_plane.kill_etcd()).await
}

#[tokio::test]
async fn trino_operator_936_watches_and_renewals_recover_with_the_api_server() -> Result<()> {
    renewal_during("apiserver-killed", |cluster| cluster.control_plane.kill_apiserver()).await
}

#[tokio::test]
async fn renewal_due_while_both_are_down_happens_right_after_their_return() -> Result<()> {
    renewal_during("both-killed", |cluster| {
        cluster.control_plane.kill_etcd();
        cluster.control_plane.kill_apiserver();
    })
    .await
}
