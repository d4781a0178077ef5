//! The neighbour: a credential with tokens of 30 s. The tests observe the validity of its Secret.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use itwin_credential_operator::clock::Clock;
use serde_json::json;
use testbed::namespace::data;

use crate::tenants::{Fixture, credentials};

/// How long the load lasts.
const WATCHED: Duration = Duration::from_secs(90);
/// Lifetime of the neighbour's tokens, in seconds.
const LIFETIME: i64 = 30;
/// The remaining validity that its workload needs. A renewal is due when 10 s are left.
const AT_LEAST: TimeDelta = TimeDelta::seconds(5);
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two readings of the Secret.
const READING: Duration = Duration::from_millis(250);
const CLIENT: &str = "neighbour";

/// Gives the neighbour its first token.
pub async fn settle(fixture: &Fixture, authority: &str) -> Result<()> {
    let good = json!({"name": "good", "lifetime": LIFETIME});
    credentials(&fixture.namespace, authority, CLIENT, &good, 1).await?;
    let first = async || left(fixture).await.ok().flatten();
    fixture.eventually("the neighbour's first token", PATIENCE, first).await.map(drop)
}

/// The remaining validity of the neighbour's token; `None` if there is none.
async fn left(fixture: &Fixture) -> Result<Option<TimeDelta>> {
    let Some(secret) = fixture.secret_of("neighbour-0").await? else { return Ok(None) };
    let expires_at = data(&secret)?.remove("expires_at").context("no expires_at")?;
    let expires_at: DateTime<Utc> = DateTime::parse_from_rfc3339(&expires_at)?.to_utc();
    Ok(Some(expires_at - Clock::system().now()))
}

/// Observes the neighbour's token while the load lasts.
pub async fn keeps_its_token(fixture: &Fixture) -> Result<()> {
    let (started, mut least) = (Instant::now(), TimeDelta::MAX);
    let mut readings = tokio::time::interval(READING);
    while started.elapsed() < WATCHED {
        readings.tick().await;
        least = least.min(left(fixture).await?.context("the Secret is gone")?);
    }
    ensure!(
        least >= AT_LEAST,
        "the neighbour's token had {} ms left at one time; {}",
        least.num_milliseconds(),
        fixture.operator.process.log_tail()
    );
    // it was renewed, and no more often than necessary
    let requests = fixture.faulty_requests(CLIENT).await?;
    ensure!((4..=8).contains(&requests), "{requests} requests for tokens of {LIFETIME} s in {WATCHED:?}");
    Ok(())
}
