//! The CRDs are missing, are deleted and created again, or hold an invalid object.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::{eventually, namespace::Namespace, operator::Operator, project};

use crate::{
    cluster::Cluster,
    environment::TestEnvironment,
    fixture::{Fixture, NAME, PATIENCE},
    plugin,
};

/// Until the objects of a restored CRD are listed again: two waits of a watch, on a busy machine.
const BACK: Duration = Duration::from_secs(40);
const CREDENTIALS: &str = "itwinservicecredentials.credentials.itwin.dev";
const AUTHORITIES: &str = "itwinauthorities.credentials.itwin.dev";

async fn delete_crds(namespace: &Namespace) -> Result<()> {
    namespace.testbed.kubectl(&["delete", "crd", CREDENTIALS, AUTHORITIES]).await.map(drop)
}

async fn apply_crds(namespace: &Namespace) -> Result<()> {
    let file = project().join("crds/credentials.itwin.dev.yaml");
    let file = file.to_str().context("a path of text")?;
    namespace.testbed.kubectl(&["create", "-f", file]).await?;
    namespace.testbed.kubectl(&["wait", "--for=condition=Established", "crd", CREDENTIALS, AUTHORITIES]).await?;
    Ok(())
}

/// The response of the probe, with any status.
async fn probe(operator: &Operator, path: &str) -> &'static str {
    if operator.get(path).await.is_ok() { "ok" } else { "not ok" }
}

#[tokio::test]
async fn missing_crds_are_waited_for_and_may_be_deleted_and_created_again() -> Result<()> {
    let cluster = Cluster::start("kinds").await?;
    let namespace = cluster.namespace("kinds").await?;
    delete_crds(&namespace).await?;
    let mut fixture = Fixture::spawn(TestEnvironment::on(namespace)?, &[])?;
    eventually("three attempts to list", PATIENCE, async || {
        let log = std::fs::read_to_string(fixture.operator.process.log()).ok()?;
        (log.matches("watch failed").count() >= 3).then_some(())
    })
    .await?;
    assert_eq!(probe(&fixture.operator, "/healthz").await, "ok", "a restart would not help");
    assert_eq!(probe(&fixture.operator, "/readyz").await, "not ok", "no reconciliation is possible");
    plugin::says_what_is_missing(&fixture.namespace).await?;

    apply_crds(&fixture.namespace).await?;
    fixture.operator.wait_ready().await?;
    fixture.with_surroundings().await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_ready().await?;

    // all credentials are deleted with their CRD
    delete_crds(&fixture.namespace).await?;
    apply_crds(&fixture.namespace).await?;
    fixture.apply_authority(&json!({})).await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", BACK).await?;
    let credential = fixture.namespace.get("itcred", NAME).await?.context("no credential")?;
    let secret = fixture.secret().await?.context("no Secret")?;
    assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], credential["metadata"]["uid"], "the new owner");
    assert!(fixture.operator.process.is_running(), "without a restart");
    Ok(())
}

/// Removes the schema of a CRD, so that anything can be stored; returns what restores it.
async fn without_schema(namespace: &Namespace, name: &str) -> Result<Value> {
    let text = namespace.testbed.kubectl(&["get", "crd", name, "-o", "json"]).await?;
    let crd: Value = serde_json::from_str(&text)?;
    let version = &crd["spec"]["versions"][0];
    let (schema, fields) = ("/spec/versions/0/schema/openAPIV3Schema", "/spec/versions/0/selectableFields");
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let mut loose = vec![json!({"op": "replace", "path": schema, "value": anything})];
    let mut strict = vec![json!({"op": "replace", "path": schema, "value": version["schema"]["openAPIV3Schema"]})];
    // the API server refuses selectable fields that the schema does not name
    if version["selectableFields"].is_array() {
        loose.push(json!({"op": "remove", "path": fields}));
        strict.push(json!({"op": "add", "path": fields, "value": version["selectableFields"]}));
    }
    let loose = Value::Array(loose).to_string();
    namespace.testbed.kubectl(&["patch", "crd", name, "--type=json", "-p", &loose]).await?;
    Ok(Value::Array(strict))
}

#[tokio::test]
async fn invalid_object_is_reported_and_affects_no_other() -> Result<()> {
    let cluster = Cluster::start("undecodable").await?;
    let mut fixture = cluster.fixture("undecodable", &[]).await?;
    fixture.with_surroundings().await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_ready().await?;
    let strict = without_schema(&fixture.namespace, CREDENTIALS).await?;
    let garbage = json!({"scopes": 7, "clientCredentialsRef": {"name": "agent-client"}});
    eventually("an API server that accepts garbage", PATIENCE, async || {
        let garbage = fixture.namespace.credential("garbage", &garbage);
        fixture.namespace.apply(&garbage).await.ok()
    })
    .await?;
    let reported = async |fixture: &Fixture| {
        eventually("a log line that names it", PATIENCE, async || {
            let log = std::fs::read_to_string(fixture.operator.process.log()).ok()?;
            let mut lines = log.lines();
            lines.any(|line| line.contains("could not be decoded") && line.contains("\"garbage\"")).then_some(())
        })
        .await
    };
    reported(&fixture).await?;
    eventually("an event about it", PATIENCE, async || {
        let events = ["get", "events.events.k8s.io", "-o", "jsonpath={.items[?(@.regarding.name==\"garbage\")].note}"];
        fixture.namespace.kubectl(&events).await.ok().filter(|notes| notes.contains("could not be decoded"))
    })
    .await?;
    assert_eq!(fixture.metric("itwin_invalid_objects").await?, 1.0);

    // observed by a watch, and by the first list after a start
    let first = fixture.token().await?;
    fixture.renew_now(NAME, "1").await?;
    let second = fixture.wait_token_other_than(&first, PATIENCE).await?;
    fixture.restart().await?;
    reported(&fixture).await?;
    fixture.renew_now(NAME, "2").await?;
    fixture.wait_token_other_than(&second, PATIENCE).await?;

    fixture.namespace.testbed.kubectl(&["patch", "crd", CREDENTIALS, "--type=json", "-p", &strict.to_string()]).await?;
    let fixed = fixture.namespace.credential("garbage", &json!({"clientCredentialsRef": {"name": "agent-client"}}));
    fixture.namespace.apply(&fixed).await?;
    fixture.wait_condition_of("garbage", "Ready", "True", "TokenValid", PATIENCE).await?;
    fixture.namespace.kubectl(&["delete", "itcred", "garbage"]).await?;
    eventually("the removal of its metrics", PATIENCE, async || {
        (!fixture.operator.get("/metrics").await.ok()?.contains("name=\"garbage\"")).then_some(())
    })
    .await
}

#[tokio::test]
async fn deleted_invalid_object_leaves_nothing_behind() -> Result<()> {
    let cluster = Cluster::start("spoilt").await?;
    let fixture = cluster.fixture("spoilt", &[]).await?;
    fixture.with_surroundings().await?;
    // valid at first, and invalid later
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_ready().await?;
    without_schema(&fixture.namespace, CREDENTIALS).await?;
    let spoil = r#"{"spec":{"scopes":7}}"#;
    eventually("an API server that accepts garbage", PATIENCE, async || {
        fixture.namespace.kubectl(&["patch", "itcred", NAME, "--type=merge", "-p", spoil]).await.ok()
    })
    .await?;
    fixture.namespace.kubectl(&["delete", "itcred", NAME]).await?;
    eventually("the removal of its metrics", PATIENCE, async || {
        (!fixture.operator.get("/metrics").await.ok()?.contains("itwin_credential_ready")).then_some(())
    })
    .await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn credentials_of_an_invalid_authority_say_why_it_cannot_be_used() -> Result<()> {
    let cluster = Cluster::start("undecoded").await?;
    let fixture = Fixture::on(cluster.namespace("undecoded").await?, &[]).await?;
    let name = &fixture.namespace.name;
    fixture.register().await?;
    fixture.apply_client_secret().await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_condition("Renewed", "False", "AuthorityNotFound", PATIENCE).await?;
    without_schema(&fixture.namespace, AUTHORITIES).await?;
    eventually("an API server that accepts garbage", PATIENCE, async || {
        fixture.namespace.apply(&fixture.namespace.authority(&json!({"requestTimeout": [7]}))).await.ok()
    })
    .await?;
    let message = fixture.wait_condition("Renewed", "False", "AuthorityNotReady", PATIENCE).await?;
    assert!(message.contains(&format!("{name} could not be decoded (")), "{message}");
    // in the namespace of objects that have none
    let events = ["--namespace", "default", "get", "events.events.k8s.io", "-o", "jsonpath={.items[*].reason}"];
    let reported = eventually("an event about it", PATIENCE, async || {
        let reasons = fixture.namespace.testbed.kubectl(&events).await.ok()?;
        reasons.contains("InvalidObject").then_some(reasons)
    })
    .await?;
    assert_eq!(reported.matches("InvalidObject").count(), 1);

    // valid with the fields that have no default any more
    let rest =
        json!({"requestTimeout": "10s", "maxConcurrentRequests": 8, "requestsPerMinute": 300, "clockSkew": "60s"});
    fixture.apply_authority(&rest).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", PATIENCE).await?;
    fixture.namespace.apply(&fixture.namespace.authority(&json!({"requestTimeout": [7]}))).await?;
    eventually("the metric", PATIENCE, async || {
        (fixture.metric("itwin_invalid_objects").await.ok()? == 1.0).then_some(())
    })
    .await?;
    // the version that was understood stands
    fixture.namespace.kubectl(&["annotate", "itcred", NAME, "credentials.itwin.dev/renew=1"]).await?;
    eventually("a second token request", PATIENCE, async || {
        (fixture.token_requests().await.ok()?.len() == 2).then_some(())
    })
    .await?;
    fixture.namespace.kubectl(&["delete", "itauth", name]).await?;
    fixture.namespace.kubectl(&["annotate", "itcred", NAME, "credentials.itwin.dev/renew=2", "--overwrite"]).await?;
    fixture.wait_condition("Renewed", "False", "AuthorityNotFound", PATIENCE).await.map(drop)
}
