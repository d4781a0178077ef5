//! The neighbour: a credential with tokens of 30 s whose validity is watched in its Secret.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use itwin_credential_operator::clock::Clock;
use serde_json::json;
use stage::{eventually, namespace::data};

use crate::world::{World, client_secret, credentials};

/// How long the noise is made.
const WATCHED: Duration = Duration::from_secs(90);
/// Lifetime of the neighbour's tokens, in seconds.
const LIFETIME: i64 = 30;
/// What its workload counts on. A renewal is due when 10 s are left.
const AT_LEAST: TimeDelta = TimeDelta::seconds(5);
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at the Secret.
const RECONCILE: Duration = Duration::from_millis(250);
const CLIENT: &str = "neighbour";

/// Gives the neighbour its first token.
pub async fn settle(world: &World, authority: &str) -> Result<()> {
    world.behave(&world.quiet, CLIENT, &json!({"name": "good", "lifetime": LIFETIME})).await?;
    client_secret(&world.quiet, CLIENT).await?;
    credentials(&world.quiet, authority, CLIENT, 1).await?;
    eventually("the neighbour's first token", PATIENCE, async || left(world).await.ok().flatten())
        .await
        .map(drop)
        .with_context(|| world.operator.process.log_tail())
}

/// How long the neighbour's token is still valid; `None` where there is none.
async fn left(world: &World) -> Result<Option<TimeDelta>> {
    let Some(secret) = world.quiet.get("secret", "neighbour-0").await? else { return Ok(None) };
    let expires_at = data(&secret)?.remove("expires_at").context("no expires_at")?;
    let expires_at: DateTime<Utc> = DateTime::parse_from_rfc3339(&expires_at)?.to_utc();
    Ok(Some(expires_at - Clock::system().now()))
}

/// Watches the neighbour's token while the noise goes on.
pub async fn keeps_its_token(world: &World) -> Result<()> {
    let (started, mut least) = (Instant::now(), TimeDelta::MAX);
    let mut reconciles = tokio::time::interval(RECONCILE);
    while started.elapsed() < WATCHED {
        reconciles.tick().await;
        least = least.min(left(world).await?.context("the Secret is gone")?);
    }
    ensure!(
        least >= AT_LEAST,
        "the neighbour's token had {} ms left at one time; {}",
        least.num_milliseconds(),
        world.operator.process.log_tail()
    );
    // it really was renewed, and no more often than it had to be
    let requests = world.requests(&world.quiet, CLIENT).await?;
    ensure!((4..=8).contains(&requests), "{requests} requests for tokens of {LIFETIME} s in {WATCHED:?}");
    Ok(())
}
