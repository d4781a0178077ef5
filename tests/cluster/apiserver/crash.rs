//! The process is killed during reconciliations, and restarted in the same pod: a credential that may
//! have been the cause comes after the others.

use anyhow::{Context, Result};
use serde_json::json;
use tempfile::TempDir;
use testbed::{authority::Client, eventually, faults::Faults};

use crate::fixture::{Fixture, PATIENCE, SOON};

/// The credential whose request hangs when the process is killed.
const SUSPECT: &str = "suspect";
/// How long the authority takes to respond for one of the others after the restart.
const SLOW_MS: i64 = 5000;

async fn apply(fixture: &Fixture, name: &str) -> Result<()> {
    fixture.namespace.apply(&fixture.namespace.client_secret(name, &client(fixture, name))).await?;
    fixture.namespace.apply(&fixture.namespace.credential(name, &json!({}))).await.map(drop)
}

fn client(fixture: &Fixture, name: &str) -> Client {
    Client::new(&format!("{name}-of-{}", fixture.namespace.name))
}

async fn start(fixture: &mut Fixture, directory: &TempDir) -> Result<()> {
    let state = format!("--state-dir={}", directory.path().display());
    fixture.start_with(&[&state]).await
}

async fn behave(fixture: &Fixture, faults: &Faults, name: &str, behaviour: serde_json::Value) -> Result<()> {
    faults.behave(&client(fixture, name).client_id, &behaviour).await
}

/// When the request for the token in the Secret was sent.
async fn issued_at(fixture: &Fixture, name: &str) -> Result<chrono::DateTime<chrono::Utc>> {
    let status = fixture.status_of(name).await?;
    let issued_at = status["issuedAt"].as_str().context("issuedAt")?;
    Ok(chrono::DateTime::parse_from_rfc3339(issued_at)?.to_utc())
}

#[tokio::test]
async fn credential_that_was_under_way_in_a_crash_is_reconciled_after_the_others() -> Result<()> {
    let mut fixture = Fixture::bare("crash").await?;
    let faults = fixture.namespace.testbed.faults.clone();
    fixture.apply_authority(&faults.spec()).await?;
    let directory = TempDir::new()?;
    fixture.stop();
    start(&mut fixture, &directory).await?;
    for name in ["slow", "quick"] {
        behave(&fixture, &faults, name, json!({"name": "good"})).await?;
        apply(&fixture, name).await?;
        fixture.wait_condition_of(name, "Ready", "True", "TokenValid", PATIENCE).await?;
    }
    behave(&fixture, &faults, SUSPECT, json!({"name": "slowHeader"})).await?;
    apply(&fixture, SUSPECT).await?;
    eventually("the request that hangs", SOON, async || {
        let requests = faults.requests(&client(&fixture, SUSPECT).client_id).await.ok()?;
        (requests.len() == 1).then_some(())
    })
    .await?;
    fixture.stop();

    behave(&fixture, &faults, SUSPECT, json!({"name": "good"})).await?;
    behave(&fixture, &faults, "slow", json!({"name": "slowGood", "value": SLOW_MS})).await?;
    fixture.namespace.kubectl(&["delete", "secret", "slow", "quick"]).await?;
    start(&mut fixture, &directory).await?;
    eventually("the suspect among the held-back credentials", SOON, async || {
        (fixture.metric("itwin_held_back_credentials").await.ok()? == 1.0).then_some(())
    })
    .await?;
    fixture.wait_condition_of(SUSPECT, "Ready", "True", "TokenValid", PATIENCE).await?;
    for name in ["slow", "quick"] {
        fixture.wait_condition_of(name, "Ready", "True", "TokenValid", SOON).await?;
    }
    let (slow, quick) = (issued_at(&fixture, "slow").await?, issued_at(&fixture, "quick").await?);
    let suspect = issued_at(&fixture, SUSPECT).await?;
    // times have whole seconds
    assert!(suspect - slow >= chrono::TimeDelta::milliseconds(SLOW_MS - 1000), "{suspect} after {slow}");
    assert!(quick < suspect, "{quick} before {suspect}");
    assert_eq!(fixture.metric("itwin_held_back_credentials").await?, 0.0);
    let log = std::fs::read_to_string(fixture.operator.process.log())?;
    let named = |line: &str| line.contains("the previous process ended") && line.contains(SUSPECT);
    assert!(log.lines().any(named), "the log names it");
    Ok(())
}
