//! Thousands of credentials: what a restart of the operator costs, and that the operator does not stall.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use testbed::{eventually, objects};

use crate::{
    audit::{Call, calls_of},
    cluster::{Cluster, wait_credentials},
    fixture::SOON,
};

const CREDENTIALS: usize = 1000;
/// Until each has its first token.
const FIRST: Duration = Duration::from_secs(60);
/// Until each is reconciled after a restart; it takes a few seconds.
const RECONCILED: Duration = Duration::from_secs(20);

/// Everything that the operators called up to now.
fn all_calls(cluster: &Cluster) -> Result<Vec<Call>> {
    calls_of(&cluster.testbed, |_| true)
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("agent-{number}")).collect()
}

#[tokio::test]
async fn external_secrets_6053_three_thousand_objects_stop_nothing() -> Result<()> {
    const OBJECTS: usize = 3100;
    let cluster = Cluster::start("thousands").await?;
    let mut fixture = cluster.fixture("thousands", &["--concurrency", "32"]).await?;
    fixture.with_surroundings().await?;
    // suspended, so that each costs a reconciliation and a status, but no Secret
    fixture.create_credentials(names(OBJECTS), &json!({"suspend": true})).await?;
    fixture.apply_credential(&json!({})).await?;
    wait_credentials(&fixture, OBJECTS + 1, FIRST).await?;
    fixture.wait_ready().await?;
    fixture.restart().await?;
    wait_credentials(&fixture, OBJECTS + 1, FIRST).await?;
    // and a change of one of them has an effect as fast as before
    let first = fixture.token().await?;
    fixture.renew_now("agent", "1").await?;
    fixture.wait_token_other_than(&first, SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn restart_with_a_thousand_valid_tokens_costs_three_lists() -> Result<()> {
    let cluster = Cluster::start("many").await?;
    let mut fixture = cluster.fixture("many", &["--concurrency", "32"]).await?;
    let faults = fixture.namespace.testbed.faults.clone();
    faults.behave(&fixture.client.client_id, &json!({"name": "good", "lifetime": 86400})).await?;
    let mut authority = faults.spec();
    objects::merge(&mut authority, &json!({"requestsPerMinute": 60000, "maxConcurrentRequests": 64}));
    fixture.apply_authority(&authority).await?;
    fixture.apply_client_secret().await?;
    fixture.create_credentials(names(CREDENTIALS), &json!({"clientCredentialsRef": {"name": "agent-client"}})).await?;
    let each =
        async || fixture.metric("itwin_credential_ready{").await.ok().filter(|ready| *ready as usize == CREDENTIALS);
    fixture.eventually("a token for each", FIRST, each).await?;
    // the audit log holds the last call for each, so that none counts for the next process
    eventually("an operator at rest", FIRST, async || {
        let before = all_calls(&cluster).ok()?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        (all_calls(&cluster).ok()? == before).then_some(())
    })
    .await?;

    fixture.stop();
    let (requests, called) = (faults.requests(&fixture.client.client_id).await?.len(), all_calls(&cluster)?.len());
    let secrets = fixture.secrets();
    let versions = async || -> Result<Vec<_>> {
        let list = secrets.list_metadata(&Default::default()).await?;
        Ok(list.items.into_iter().map(|secret| secret.metadata.resource_version).collect())
    };
    let before = versions().await?;
    let started = Instant::now();
    fixture.start().await?;
    eventually("a reconciliation of each", RECONCILED, async || {
        let reconciles = fixture.metric("itwin_reconciles_total{result=\"success\"}").await.ok()?;
        (reconciles as usize >= CREDENTIALS).then_some(())
    })
    .await?;
    eprintln!("{CREDENTIALS} credentials were reconciled {:?} after the start", started.elapsed());
    assert_eq!(fixture.metric("itwin_credential_ready{").await? as usize, CREDENTIALS);
    assert_eq!(faults.requests(&fixture.client.client_id).await?.len(), requests, "no token is requested");
    assert_eq!(versions().await?, before, "no Secret is written");
    let since = all_calls(&cluster)?.split_off(called);
    let mut since: Vec<String> = since.iter().map(ToString::to_string).collect();
    since.sort();
    since.dedup();
    let lists = ["list itwinauthorities ", "list itwinservicecredentials ", "list secrets "];
    assert_eq!(since, lists, "not one read of a Secret, not one write");
    Ok(())
}
