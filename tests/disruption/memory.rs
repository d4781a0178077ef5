//! What the operator's memory does not grow with. Each test has its own control plane, because every operator keeps
//! state for every authority of the cluster.

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::DeleteParams;
use serde_json::json;
use testbed::objects;

use crate::{
    cluster::{Cluster, wait_credentials},
    environment::AT_ONCE,
    fixture::{Fixture, NAME, PATIENCE},
};

/// Memory of the operator in mebibytes.
async fn memory(fixture: &Fixture) -> Result<f64> {
    Ok(fixture.metric("process_resident_memory_bytes").await? / f64::from(1 << 20))
}

#[tokio::test]
async fn cert_manager_4722_unrelated_secrets_cost_no_memory() -> Result<()> {
    const UNRELATED: usize = 3000;
    /// Mebibytes; the Secrets themselves are 6, and their metadata from the API server is more.
    const ALLOWED: f64 = 4.0;
    let cluster = Cluster::start("unrelated").await?;
    let mut fixture = cluster.fixture("unrelated", &[]).await?;
    fixture.with_surroundings().await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_ready().await?;
    fixture.restart().await?;
    let before = memory(&fixture).await?;
    let blob = json!({"blob": "x".repeat(2048)});
    let unrelated = (0..UNRELATED).map(|number| objects::secret(&format!("unrelated-{number}"), &blob));
    fixture.namespace.create_all(unrelated, AT_ONCE).await?;
    // events come in order: once the operator reverts this, it has observed all of them
    let first = fixture.token().await?;
    fixture.namespace.kubectl(&["delete", "secret", NAME]).await?;
    fixture.wait_token_other_than(&first, PATIENCE).await?;
    let watched = memory(&fixture).await?;
    assert!(watched - before < ALLOWED, "{before} MiB before and {watched} MiB after");
    fixture.restart().await?;
    let listed = memory(&fixture).await?;
    assert!(listed - before < ALLOWED, "{before} MiB with none and {listed} MiB with all at the start");
    Ok(())
}

#[tokio::test]
async fn vault_secrets_operator_969_deleted_credentials_leave_no_memory_behind() -> Result<()> {
    const EACH_ROUND: usize = 150;
    /// Mebibytes.
    const ALLOWED: f64 = 4.0;
    let cluster = Cluster::start("churn").await?;
    let fixture = cluster.fixture("churn", &[]).await?;
    let mut after = Vec::new();
    for round in 0..4 {
        let names: Vec<String> = (0..EACH_ROUND).map(|number| format!("round-{round}-{number}")).collect();
        fixture.create_credentials(names.clone(), &json!({"suspend": true})).await?;
        wait_credentials(&fixture, EACH_ROUND, PATIENCE).await?;
        let api = fixture.credentials();
        let delete = async |name: &String| api.delete(name, &DeleteParams::default()).await.map(drop);
        stream::iter(&names).map(delete).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        wait_credentials(&fixture, 0, PATIENCE).await?;
        after.push(memory(&fixture).await?);
    }
    assert!(after[3] - after[0] < ALLOWED, "MiB after each round: {after:?}");
    Ok(())
}
