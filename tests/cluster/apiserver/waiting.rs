//! What waits costs no call, and time passes for it.

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta};
use serde_json::json;
use testbed::{
    api_proxy::fault::{Fault, Rule},
    eventually,
};

use crate::fixture::{Fixture, PATIENCE, condition};

/// `Ready` is False at the latest so long after the token has expired.
const LATE: TimeDelta = TimeDelta::seconds(6);

#[tokio::test]
async fn ready_ends_in_time_while_reads_that_hang_hold_all_workers() -> Result<()> {
    let mut fixture = Fixture::bare_with("held", &["--concurrency=1"]).await?;
    fixture.client.lifetime = 30;
    fixture.with_surroundings().await?;
    let names: Vec<String> = (0..6).map(|number| format!("held-{number}")).collect();
    for name in &names {
        let spec = json!({"minimumValidity": "2s", "clientCredentialsRef": {"name": "agent-client"}});
        fixture.namespace.apply(&fixture.namespace.credential(name, &spec)).await?;
    }
    for name in &names {
        fixture.wait_condition_of(name, "Ready", "True", "TokenValid", PATIENCE).await?;
    }
    // such as a key management service that does not answer
    let hang = fixture.proxy().play(Rule::new("get secrets", Fault::BlackHole(PATIENCE * 10)).lasting(PATIENCE * 10));
    for name in &names {
        fixture.wait_condition_of(name, "Ready", "False", "TokenExpired", PATIENCE * 2).await?;
        let status = fixture.status_of(name).await?;
        let expired = DateTime::parse_from_rfc3339(status["expiresAt"].as_str().context("expiresAt")?)?;
        let conditions = status["conditions"].as_array().context("conditions")?;
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready").context("Ready")?;
        let ended = DateTime::parse_from_rfc3339(ready["lastTransitionTime"].as_str().context("a time")?)?;
        ensure!(ended - expired <= LATE, "{name} ended {} after its token", ended - expired);
    }
    ensure!(hang.times() > 0, "nothing hung");
    fixture.proxy().stop(&hang);
    for name in &names {
        fixture.wait_condition_of(name, "Ready", "True", "TokenValid", PATIENCE).await?;
    }
    Ok(())
}

#[tokio::test]
async fn namespace_that_is_not_allowed_costs_no_read_of_secrets_where_they_are_not_watched() -> Result<()> {
    let fixture = Fixture::bare_with("barred", &["--watch-secrets=false"]).await?;
    fixture.register().await?;
    fixture.apply_client_secret().await?;
    fixture.apply_authority(&json!({"allowedNamespaces": {"matchLabels": {"allowed": "yes"}}})).await?;
    let spec = json!({"clientCredentialsRef": {"name": "agent-client"}});
    let names: Vec<String> = (0..4).map(|number| format!("barred-{number}")).collect();
    for name in &names {
        fixture.namespace.apply(&fixture.namespace.credential(name, &spec)).await?;
    }
    let calls =
        |kind: &str| fixture.proxy().records().iter().filter(|record| record.call.kind.starts_with(kind)).count();
    for name in &names {
        fixture.wait_condition_of(name, "Renewed", "False", "NamespaceNotAllowed", PATIENCE).await?;
    }
    let rechecked = async |times: usize| {
        let before = calls("get namespaces");
        let is_over = async || (calls("get namespaces") >= before + times).then_some(());
        eventually("the labels, again and again", PATIENCE * 2, is_over).await
    };
    // by then attempts come seldom
    rechecked(10).await?;
    let before = (calls("get secrets (metadata)"), calls("get namespaces"));
    rechecked(10).await?;
    let (read, attempts) = (calls("get secrets (metadata)") - before.0, calls("get namespaces") - before.1);
    // an attempt reads both Secrets when it is due and once it is admitted, and then the labels; one of each credential
    // may be under way at either end
    ensure!(read <= (attempts + names.len()) * 4, "{read} reads in {attempts} attempts");
    fixture.namespace.kubectl(&["label", "namespace", &fixture.namespace.name, "allowed=yes"]).await?;
    for name in &names {
        fixture.wait_condition_of(name, "Ready", "True", "TokenValid", PATIENCE).await?;
    }
    ensure!(condition(&fixture.status_of("barred-0").await?, "Renewed").is_some_and(|renewed| renewed.0 == "True"));
    Ok(())
}
