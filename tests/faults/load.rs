//! Many credentials and one sick authority; and a token that comes near its end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::DateTime;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use stage::eventually;

use crate::row::World;

const PATIENCE: Duration = Duration::from_secs(60);
const AT_ONCE: usize = 16;
/// Without a new look for so long, no operator is still starting.
const FIRST_RECONCILES: Duration = Duration::from_secs(8);

#[tokio::test]
async fn held_token_is_untouched_and_retried_until_it_expires() -> Result<()> {
    const LIFETIME: i64 = 20;
    let world = World::new("outage").await?;
    let faults = world.namespace.stage.faults.clone();
    let client_id = world.client_id("agent");
    faults.behave(&client_id, &json!({"name": "good", "lifetime": LIFETIME})).await?;
    let authority = world.create_authority("agent", &json!({})).await?;
    world.create_client_secret("agent", "agent").await?;
    world.create_credential("agent", &authority, "agent", &json!({"minimumValidity": "5s"})).await?;
    world.wait("agent", "Ready", true, "TokenValid", PATIENCE).await?;
    let before = world.secrets().get("agent").await?;
    let expires_at =
        DateTime::parse_from_rfc3339(&world.status("agent").await?.expires_at.context("expiresAt")?)?.to_utc();

    let behaviour = json!({"name": "status", "lifetime": LIFETIME, "value": {"status": 503}});
    faults.behave(&client_id, &behaviour).await?;
    world.wait("agent", "Renewed", false, "ServerError", PATIENCE).await?;
    world.wait("agent", "Ready", false, "BelowMinimumValidity", PATIENCE).await?;
    world.wait("agent", "Ready", false, "TokenExpired", PATIENCE).await?;
    assert_eq!(world.secrets().get("agent").await?, before, "byte-identical until its end, and after");
    let tries: Vec<i64> = faults.requests(&client_id).await?.iter().skip(1).map(|request| request.at).collect();
    let in_time = tries.iter().filter(|at| **at < expires_at.timestamp_millis()).count();
    assert!(in_time >= 3, "{in_time} tries before it expired");
    let gaps: Vec<i64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap >= 950), "at most one try a second: {gaps:?} ms");

    faults.behave(&client_id, &json!({"name": "good", "lifetime": LIFETIME})).await?;
    world.wait("agent", "Ready", true, "TokenValid", PATIENCE).await?;
    world.delete_authority(&authority).await
}

#[tokio::test]
async fn many_failing_credentials_are_no_storm_and_all_recover() -> Result<()> {
    const CREDENTIALS: usize = 150;
    let world = World::new("storm").await?;
    let faults = world.namespace.stage.faults.clone();
    let client_id = world.client_id("shared");
    faults.behave(&client_id, &json!({"name": "status", "value": {"status": 503}})).await?;
    let authority = world.create_authority("shared", &json!({"requestsPerMinute": 6000})).await?;
    world.create_client_secret("shared", "shared").await?;
    let names: Vec<String> = (0..CREDENTIALS).map(|number| format!("agent-{number}")).collect();
    let (world, authority) = (&world, authority.as_str());
    // a scope of its own for each makes the requests unequal, so that none is shared
    let create =
        async |name: &String| world.create_credential(name, authority, "shared", &json!({"scopes": [name]})).await;
    stream::iter(&names).map(create).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let wait = async |name: &String| world.wait(name, "Renewed", false, "ServerError", PATIENCE).await.map(drop);
    stream::iter(&names).map(wait).buffer_unordered(AT_ONCE).try_collect::<()>().await?;

    let before_probes = faults.requests(&client_id).await?.len();
    assert!(before_probes <= 40, "{before_probes} requests before the breaker opened");
    // none knows when it is the one that asks next
    let waiting = eventually("all wait for the authority", PATIENCE, async || {
        let list = world.credentials().list(&Default::default()).await.ok()?.items;
        list.iter().all(|item| item.status.as_ref().is_some_and(|status| status.renew_at.is_none())).then_some(list)
    })
    .await?;
    let from = faults.requests(&client_id).await?.len();
    eventually("two more probes", PATIENCE, async || {
        (faults.requests(&client_id).await.ok()?.len() >= from + 2).then_some(())
    })
    .await?;
    let later = world.credentials().list(&Default::default()).await?.items;
    let requests = faults.requests(&client_id).await?.len();
    let probes = requests - before_probes;
    // the breaker lets single probes through, 2 s apart at first, 30 s later
    assert!(probes <= 12, "{probes} requests while the breaker was open");
    let reported_again = waiting.iter().zip(&later).filter(|(before, after)| before.metadata != after.metadata).count();
    // each probe is one credential's attempt, and one more may have been under way
    assert!(
        reported_again <= requests - from + 1,
        "{reported_again} statuses were written for {} probes",
        requests - from
    );
    let failures: i32 = later.iter().filter_map(|item| item.status.as_ref()).map(|it| it.consecutive_failures).sum();
    let allowed = CREDENTIALS + requests;
    assert!(usize::try_from(failures)? <= allowed, "{failures} failed attempts are told, {requests} were made");

    faults.behave(&client_id, &json!({"name": "good"})).await?;
    let wait = async |name: &String| world.wait(name, "Ready", true, "TokenValid", PATIENCE).await.map(drop);
    stream::iter(&names).map(wait).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    world.delete_authority(authority).await
}

#[tokio::test]
async fn equal_requests_of_a_namespace_share_one() -> Result<()> {
    const CREDENTIALS: usize = 20;
    let world = World::new("shared").await?;
    let faults = world.namespace.stage.faults.clone();
    let client_id = world.client_id("shared");
    // longer than a busy API server takes to give all of them the client
    faults.behave(&client_id, &json!({"name": "slowGood", "value": 5000})).await?;
    let authority = world.create_authority("shared", &json!({"requestTimeout": "10s"})).await?;
    let names: Vec<String> = (0..CREDENTIALS).map(|number| format!("agent-{number}")).collect();
    for name in &names {
        world.create_credential(name, &authority, "shared", &json!({})).await?;
    }
    // all wait for the client, and go at once when it comes
    for name in &names {
        world.wait(name, "Renewed", false, "ClientCredentialsNotFound", PATIENCE).await?;
    }
    world.create_client_secret("shared", "shared").await?;
    for name in &names {
        world.wait(name, "Ready", true, "TokenValid", PATIENCE).await?;
    }
    let requests = faults.requests(&client_id).await?.len();
    assert!(requests <= 2, "{requests} requests for {CREDENTIALS} equal credentials");
    world.delete_authority(&authority).await
}

#[tokio::test]
async fn unknown_keys_make_us_fetch_the_key_set_once_a_minute_at_most() -> Result<()> {
    let world = World::new("kid").await?;
    let faults = world.namespace.stage.faults.clone();
    let client_id = world.client_id("agent");
    let endpoints = json!({
        "tokenEndpoint": format!("{}/connect/token", faults.issuer),
        "jwksUri": format!("{}/keys?for={client_id}", faults.issuer),
    });
    let authority = world.create_authority("agent", &endpoints).await?;
    world.create_client_secret("agent", "agent").await?;
    world.create_credential("agent", &authority, "agent", &json!({})).await?;
    world.wait("agent", "Ready", true, "TokenValid", PATIENCE).await?;
    let fetches = async || faults.counts().await.map(|counts| counts.key_set_requests[&format!("?for={client_id}")]);
    // operators of other tests look at this authority once as well, when they see it first
    let (mut before, mut seen_at) = (0, Instant::now());
    eventually("an end of first looks", PATIENCE, async || {
        let now = fetches().await.ok()?;
        if now != before {
            (before, seen_at) = (now, Instant::now());
        }
        (seen_at.elapsed() > FIRST_RECONCILES).then_some(())
    })
    .await?;
    faults.behave(&client_id, &json!({"name": "unknownKid"})).await?;
    world.renew_now("agent", "1").await?;
    eventually("four attempts", PATIENCE, async || {
        world.status("agent").await.ok().filter(|status| status.consecutive_failures >= 4)
    })
    .await?;
    assert_eq!(fetches().await? - before, 1);
    world.delete_authority(&authority).await
}
