//! What the operator writes, and how little.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::{eventually, namespace::Namespace};

use crate::{
    audit::{calls, calls_of, calls_since},
    fixture::{Fixture, NAME, PATIENCE},
};

#[tokio::test]
async fn renewal_costs_two_writes_one_read_and_no_event_and_nothing_is_done_between() -> Result<()> {
    const RENEWALS: usize = 3;
    let mut fixture = Fixture::new("two-writes").await?;
    fixture.client.lifetime = 12;
    fixture.register().await?;
    fixture.apply_credential(&json!({"minimumValidity": "2s"})).await?;
    fixture.wait_ready().await?;
    let events = eventually("the event Issued", PATIENCE, async || {
        fixture.events().await.ok().filter(|events| events.iter().any(|event| event == "Issued"))
    })
    .await?;
    let (before, mut expires_at) = (calls(&fixture.namespace)?.len(), fixture.status().await?["expiresAt"].clone());
    for _ in 0..RENEWALS {
        expires_at = eventually("a renewal in the status", PATIENCE, async || {
            let now = fixture.status().await.ok()?["expiresAt"].take();
            (now != Value::Null && now != expires_at).then_some(now)
        })
        .await?;
    }
    let expected = RENEWALS * 2;
    // the log may be written after the response
    let calls = eventually("the writes in the audit log", PATIENCE, async || {
        let calls = calls_since(&fixture.namespace, before).ok()?;
        (calls.iter().filter(|call| call.is_write()).count() >= expected).then_some(calls)
    })
    .await?;
    let reads: Vec<String> = calls.iter().filter(|call| !call.is_write()).map(ToString::to_string).collect();
    assert!(reads.iter().all(|read| *read == format!("get secrets {NAME}-client")), "{reads:?}");
    assert!((RENEWALS..=RENEWALS + 1).contains(&reads.len()), "one read for each renewal: {reads:?}");
    let mut writes: Vec<String> = calls.iter().filter(|call| call.is_write()).map(ToString::to_string).collect();
    let renewal = [format!("patch secrets {NAME}"), format!("update itwinservicecredentials/status {NAME}")];
    // one that falls due during the observation is not waited for
    writes.truncate(expected);
    assert_eq!(writes, [&renewal[..]; RENEWALS].concat());
    assert_eq!(fixture.events().await?, events, "an ordinary renewal is no news");
    Ok(())
}

/// The reads of client Secrets from the watch cache of the API server.
fn cached_reads(fixture: &Fixture) -> Result<Vec<String>> {
    let of_namespace = |entry: &Value| entry["objectRef"]["namespace"] == fixture.namespace.name.as_str();
    let is_cached = |entry: &Value| entry["requestURI"].as_str().is_some_and(|uri| uri.contains("resourceVersion="));
    let is_get = |entry: &Value| entry["verb"] == "get";
    let found = calls_of(&fixture.namespace.testbed, |entry| of_namespace(entry) && is_cached(entry) && is_get(entry))?;
    Ok(found.iter().map(ToString::to_string).collect())
}

fn is_of_the_lease(call: &str) -> bool {
    call.contains(" leases")
}

#[tokio::test]
async fn first_token_costs_two_writes_an_event_and_one_read_from_the_cache() -> Result<()> {
    let namespace = Namespace::new("first-writes").await?;
    let client = namespace.new_client();
    // in the first list, for which readiness waits: a read from the cache needs a version that the watch has shown
    namespace.apply(&namespace.client_secret(NAME, &client)).await?;
    // and a Lease that was renewed lately, which shows that the storage answers
    namespace.allow_lease().await?;
    let name = namespace.name.clone();
    let mut fixture = Fixture::on(namespace, &["--leader-election=true", "--lease-namespace", &name]).await?;
    fixture.client = client;
    fixture.apply_authority(&json!({})).await?;
    fixture.register().await?;
    // of a credential with a status, which waited for its authority, the Secret to write is read
    let authority = format!("itauth/{}", fixture.namespace.name);
    fixture.namespace.kubectl(&["wait", "--for=condition=Ready", &authority, "--timeout=30s"]).await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_ready().await?;
    let writes = eventually("the event", PATIENCE, async || {
        let calls = calls(&fixture.namespace).ok()?;
        let writes = calls.iter().filter(|call| call.is_write()).map(ToString::to_string);
        let writes: Vec<String> = writes.filter(|call| !is_of_the_lease(call)).collect();
        writes.last().is_some_and(|write| write.contains("events")).then_some(writes)
    })
    .await?;
    let (create, status) = (format!("create secrets {NAME}"), format!("update itwinservicecredentials/status {NAME}"));
    let created = writes.iter().position(|write| *write == create).context("no Secret was created")?;
    assert_eq!(created, 0, "{writes:?}");
    assert_eq!(writes[created + 1], status);
    assert!(writes[created + 2].starts_with("create events"), "{writes:?}");
    assert_eq!(writes.len(), created + 3, "{writes:?}");
    let read = format!("get secrets {NAME}-client");
    assert_eq!(cached_reads(&fixture)?, [read.as_str()]);
    let calls = calls(&fixture.namespace)?;
    let reads = calls.iter().filter(|call| call.verb == "get").map(ToString::to_string);
    let reads: Vec<String> = reads.filter(|call| !is_of_the_lease(call)).collect();
    assert_eq!(reads, [read], "nothing else is read");
    Ok(())
}
