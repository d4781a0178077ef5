//! Thousands of credentials: what a restart of the operator costs, and that the operator does not stall.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use itwin_api::authority::ITwinAuthority;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use testbed::eventually;

use crate::disruption::cluster::{Cluster, create_credentials};
use crate::fixture::{Fixture, SOON};

const CREDENTIALS: usize = 1000;
/// Until each has its first token.
const FIRST: Duration = Duration::from_secs(60);
/// Until each is reconciled after a restart; it takes a few seconds.
const RECONCILED: Duration = Duration::from_secs(20);

/// Verb and object of each call that the operators made up to now, without watches.
fn calls(fixture: &Fixture) -> Result<Vec<String>> {
    let log = std::fs::read_to_string(fixture.namespace.testbed.directory.join("audit.log"))?;
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let calls = entries.map(|entry| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &entry["objectRef"];
        format!("{} {} {}", text(&entry["verb"]), text(&object["resource"]), text(&object["name"]))
    });
    Ok(calls.filter(|call| !call.starts_with("watch ")).collect())
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("agent-{number}")).collect()
}

#[tokio::test]
async fn external_secrets_6053_three_thousand_objects_stop_nothing() -> Result<()> {
    const OBJECTS: usize = 3100;
    let cluster = Cluster::start("thousands").await?;
    let mut fixture = Fixture::on(cluster.namespace("thousands").await?, &["--concurrency", "32"]).await?;
    fixture.with_surroundings().await?;
    // suspended, so that each costs a reconciliation and a status, but no Secret
    create_credentials(&fixture, &names(OBJECTS), &json!({"suspend": true})).await?;
    fixture.apply_credential(&json!({})).await?;
    let all_reported = async |fixture: &Fixture| {
        eventually("a reconciliation of each", FIRST, async || {
            let metrics = fixture.operator.get("/metrics").await.ok()?;
            (metrics.matches("itwin_credential_ready{").count() == OBJECTS + 1).then_some(())
        })
        .await
    };
    all_reported(&fixture).await?;
    fixture.wait_ready().await?;
    fixture.restart().await?;
    all_reported(&fixture).await?;
    // and a change of one of them has an effect as fast as before
    let first = fixture.token().await?;
    fixture.namespace.kubectl(&["annotate", "itcred", "agent", "credentials.itwin.dev/renew=1"]).await?;
    fixture.wait_token_other_than(&first, SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn restart_with_a_thousand_valid_tokens_costs_three_lists() -> Result<()> {
    let cluster = Cluster::start("many").await?;
    let mut fixture = Fixture::on(cluster.namespace("many").await?, &["--concurrency", "32"]).await?;
    let (namespace, client) = (fixture.namespace.name.clone(), fixture.namespace.client.clone());
    let faults = fixture.namespace.testbed.faults.clone();
    faults.behave(&fixture.client.client_id, &json!({"name": "good", "lifetime": 86400})).await?;
    let authority = fixture.namespace.authority(&json!({
        "issuer": faults.issuer,
        "caBundle": faults.ca_bundle(),
        "requestsPerMinute": 60000,
        "maxConcurrentRequests": 64,
    }));
    let authorities: Api<ITwinAuthority> = Api::all(client.clone());
    authorities.create(&PostParams::default(), &serde_json::from_value(authority)?).await?;
    fixture.apply_client_secret().await?;
    create_credentials(&fixture, &names(CREDENTIALS), &json!({"clientCredentialsRef": {"name": "agent-client"}}))
        .await?;
    eventually("a token for each", FIRST, async || {
        (fixture.metric("itwin_credential_ready{").await.ok()? as usize == CREDENTIALS).then_some(())
    })
    .await
    .with_context(|| fixture.operator.process.log_tail())?;
    // the audit log holds the last call for each, so that none counts for the next process
    eventually("an operator at rest", FIRST, async || {
        let before = calls(&fixture).ok()?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        (calls(&fixture).ok()? == before).then_some(())
    })
    .await?;

    fixture.stop();
    let (requests, called) = (faults.requests(&fixture.client.client_id).await?.len(), calls(&fixture)?.len());
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
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
    let mut since = calls(&fixture)?.split_off(called);
    since.sort();
    since.dedup();
    let lists = ["list itwinauthorities ", "list itwinservicecredentials ", "list secrets "];
    assert_eq!(since, lists, "not one read of a Secret, not one write");
    Ok(())
}
