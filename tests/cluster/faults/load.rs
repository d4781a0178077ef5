//! Many credentials with one failing authority; and a token that is about to expire.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::DateTime;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use testbed::eventually;

use crate::faults::row::RowFixture;

const PATIENCE: Duration = Duration::from_secs(60);
const AT_ONCE: usize = 16;
/// If there is no new reconciliation for this long, no operator is still starting.
const FIRST_RECONCILES: Duration = Duration::from_secs(8);

#[tokio::test]
async fn held_token_is_untouched_and_retried_until_it_expires() -> Result<()> {
    const LIFETIME: i64 = 20;
    let fixture = RowFixture::new("outage").await?;
    let faults = fixture.namespace.testbed.faults.clone();
    let client_id = fixture.client_id("agent");
    faults.behave(&client_id, &json!({"name": "good", "lifetime": LIFETIME})).await?;
    let authority = fixture.create_authority("agent", &json!({})).await?;
    fixture.create_client_secret("agent").await?;
    fixture.create_credential("agent", &authority, "agent", &json!({"minimumValidity": "5s"})).await?;
    fixture.wait("agent", "Ready", true, "TokenValid", PATIENCE).await?;
    let before = fixture.secrets().get("agent").await?;
    let expires_at =
        DateTime::parse_from_rfc3339(&fixture.status("agent").await?.expires_at.context("expiresAt")?)?.to_utc();

    let behaviour = json!({"name": "status", "lifetime": LIFETIME, "value": {"status": 503}});
    faults.behave(&client_id, &behaviour).await?;
    fixture.wait("agent", "Renewed", false, "ServerError", PATIENCE).await?;
    fixture.wait("agent", "Ready", false, "BelowMinimumValidity", PATIENCE).await?;
    fixture.wait("agent", "Ready", false, "TokenExpired", PATIENCE).await?;
    assert_eq!(fixture.secrets().get("agent").await?, before, "byte-identical until its end, and after");
    let tries: Vec<i64> = faults.requests(&client_id).await?.iter().skip(1).map(|request| request.at).collect();
    let in_time = tries.iter().filter(|at| **at < expires_at.timestamp_millis()).count();
    assert!(in_time >= 3, "{in_time} tries before it expired");
    let gaps: Vec<i64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap >= 950), "at most one try a second: {gaps:?} ms");

    faults.behave(&client_id, &json!({"name": "good", "lifetime": LIFETIME})).await?;
    fixture.wait("agent", "Ready", true, "TokenValid", PATIENCE).await?;
    fixture.delete_authority(&authority).await
}

#[tokio::test]
async fn many_failing_credentials_are_no_storm_and_all_recover() -> Result<()> {
    const CREDENTIALS: usize = 150;
    let fixture = RowFixture::new("storm").await?;
    let faults = fixture.namespace.testbed.faults.clone();
    let client_id = fixture.client_id("shared");
    faults.behave(&client_id, &json!({"name": "status", "value": {"status": 503}})).await?;
    let authority = fixture.create_authority("shared", &json!({"requestsPerMinute": 6000})).await?;
    fixture.create_client_secret("shared").await?;
    let names: Vec<String> = (0..CREDENTIALS).map(|number| format!("agent-{number}")).collect();
    let (fixture, authority) = (&fixture, authority.as_str());
    // each has its own scope, so that no two requests are equal and shared
    let create =
        async |name: &String| fixture.create_credential(name, authority, "shared", &json!({"scopes": [name]})).await;
    stream::iter(&names).map(create).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let wait = async |name: &String| fixture.wait(name, "Renewed", false, "ServerError", PATIENCE).await.map(drop);
    stream::iter(&names).map(wait).buffer_unordered(AT_ONCE).try_collect::<()>().await?;

    let before_probes = faults.requests(&client_id).await?.len();
    assert!(before_probes <= 40, "{before_probes} requests before the circuit opened");
    // no credential knows when it is the next one to send a request
    let waiting = eventually("all wait for the authority", PATIENCE, async || {
        let list = fixture.credentials().list(&Default::default()).await.ok()?.items;
        list.iter().all(|item| item.status.as_ref().is_some_and(|status| status.renew_at.is_none())).then_some(list)
    })
    .await?;
    let from = faults.requests(&client_id).await?.len();
    eventually("two more probes", PATIENCE, async || {
        (faults.requests(&client_id).await.ok()?.len() >= from + 2).then_some(())
    })
    .await?;
    let later = fixture.credentials().list(&Default::default()).await?.items;
    let requests = faults.requests(&client_id).await?.len();
    let probes = requests - before_probes;
    // the half-open breaker admits one probe at a time, 2 s after another at first, 30 s later
    assert!(probes <= 12, "{probes} requests while the circuit was open");
    let reported_again = waiting.iter().zip(&later).filter(|(before, after)| before.metadata != after.metadata).count();
    // each probe is one credential's attempt, and one more may have been under way
    assert!(
        reported_again <= requests - from + 1,
        "{reported_again} statuses were written for {} probes",
        requests - from
    );
    let failures: i32 = later.iter().filter_map(|item| item.status.as_ref()).map(|it| it.consecutive_failures).sum();
    let allowed = CREDENTIALS + requests;
    assert!(usize::try_from(failures)? <= allowed, "{failures} failed attempts are reported, {requests} were made");

    faults.behave(&client_id, &json!({"name": "good"})).await?;
    let wait = async |name: &String| fixture.wait(name, "Ready", true, "TokenValid", PATIENCE).await.map(drop);
    stream::iter(&names).map(wait).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    fixture.delete_authority(authority).await
}

#[tokio::test]
async fn equal_requests_of_a_namespace_share_one() -> Result<()> {
    const CREDENTIALS: usize = 20;
    let fixture = RowFixture::new("shared").await?;
    let faults = fixture.namespace.testbed.faults.clone();
    let client_id = fixture.client_id("shared");
    // longer than a busy API server takes to create all of them
    faults.behave(&client_id, &json!({"name": "slowGood", "value": 5000})).await?;
    let authority = fixture.create_authority("shared", &json!({"requestTimeout": "10s"})).await?;
    let names: Vec<String> = (0..CREDENTIALS).map(|number| format!("agent-{number}")).collect();
    for name in &names {
        fixture.create_credential(name, &authority, "shared", &json!({})).await?;
    }
    // all wait for the client, and start immediately when it exists
    for name in &names {
        fixture.wait(name, "Renewed", false, "ClientCredentialsNotFound", PATIENCE).await?;
    }
    fixture.create_client_secret("shared").await?;
    for name in &names {
        fixture.wait(name, "Ready", true, "TokenValid", PATIENCE).await?;
    }
    let requests = faults.requests(&client_id).await?.len();
    assert!(requests <= 2, "{requests} requests for {CREDENTIALS} equal credentials");
    fixture.delete_authority(&authority).await
}

#[tokio::test]
async fn unknown_keys_make_the_operator_fetch_the_key_set_after_waits_that_double() -> Result<()> {
    let fixture = RowFixture::new("kid").await?;
    let faults = fixture.namespace.testbed.faults.clone();
    let client_id = fixture.client_id("agent");
    let endpoints = json!({
        "tokenEndpoint": format!("{}/connect/token", faults.issuer),
        "jwksUri": format!("{}/keys?for={client_id}", faults.issuer),
    });
    let authority = fixture.create_authority("agent", &endpoints).await?;
    fixture.create_client_secret("agent").await?;
    fixture.create_credential("agent", &authority, "agent", &json!({})).await?;
    fixture.wait("agent", "Ready", true, "TokenValid", PATIENCE).await?;
    let fetches = async || faults.counts().await.map(|counts| counts.key_set_requests[&format!("?for={client_id}")]);
    // operators of other tests also fetch the keys of this authority once, when they observe it for the first time
    let (mut before, mut seen_at) = (0, Instant::now());
    eventually("the end of the first fetches", PATIENCE, async || {
        let now = fetches().await.ok()?;
        if now != before {
            (before, seen_at) = (now, Instant::now());
        }
        (seen_at.elapsed() > FIRST_RECONCILES).then_some(())
    })
    .await?;
    faults.behave(&client_id, &json!({"name": "unknownKid"})).await?;
    let started = Instant::now();
    fixture.renew_now("agent", "1").await?;
    eventually("four attempts", PATIENCE, async || {
        fixture.status("agent").await.ok().filter(|status| status.consecutive_failures >= 4)
    })
    .await?;
    // once, and after 5, 15 and 35 s for a key set that is served from a cache
    let fetched = fetches().await? - before;
    let passed = started.elapsed();
    let allowed = 1 + [5, 15, 35].into_iter().filter(|seconds| passed >= Duration::from_secs(*seconds)).count();
    assert!(fetched >= 1 && usize::try_from(fetched)? <= allowed, "{fetched} in {passed:?}, {allowed} are allowed");
    fixture.delete_authority(&authority).await
}
