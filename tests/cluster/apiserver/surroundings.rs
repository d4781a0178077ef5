//! A namespace or a role that keeps the operator from its work: it reports this, waits, and never requests a
//! second token for it.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::eventually;

use crate::{
    account::{ALL, grant, namespace_with_own_account},
    environment::TestEnvironment,
    fixture::{Fixture, NAME, PATIENCE, SOON, condition},
};

async fn wait_failures(fixture: &Fixture, failures: i64) -> Result<Value> {
    eventually("failed attempts", PATIENCE, async || {
        fixture.status().await.ok().filter(|status| status["consecutiveFailures"].as_i64() >= Some(failures))
    })
    .await
}

#[tokio::test]
async fn token_that_exceeds_a_quota_is_kept_and_written_once_the_quota_is_raised() -> Result<()> {
    let fixture = Fixture::on(namespace_with_own_account("quota", &ALL).await?, &[]).await?;
    fixture.with_surroundings().await?;
    let quota = |secrets: &str| {
        json!({
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "few-secrets"},
            "spec": {"hard": {"secrets": secrets}},
        })
    };
    // the client Secret already exists
    fixture.namespace.apply(&quota("1")).await?;
    eventually("a quota that counts", PATIENCE, async || {
        let quota = fixture.namespace.get("resourcequota", "few-secrets").await.ok()??;
        (quota["status"]["used"]["secrets"] == "1").then_some(())
    })
    .await?;
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretWriteFailed", SOON).await?;
    assert!(message.contains("exceeded quota: few-secrets"), "{message}");
    wait_failures(&fixture, 3).await?;
    assert_eq!(fixture.token_requests().await?.len(), 1, "the token is kept, not requested again");
    fixture.namespace.apply(&quota("2")).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", PATIENCE).await?;
    assert_eq!(fixture.token_requests().await?.len(), 1, "and written then");
    Ok(())
}

#[tokio::test]
async fn removed_permissions_are_reported_and_their_return_is_noticed() -> Result<()> {
    let fixture = Fixture::on(namespace_with_own_account("rbac", &ALL).await?, &[]).await?;
    fixture.with_surroundings().await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_ready().await?;
    let first = fixture.token().await?;

    // nothing can be read: no token is requested
    grant(&fixture.namespace, &[]).await?;
    eventually("an API server that knows the new role", SOON, async || {
        let account = format!("system:serviceaccount:{}:{}", testbed::INSTALLATION, fixture.namespace.name);
        let may = fixture.namespace.kubectl(&["auth", "can-i", "get", "secrets", "--as", &account]).await;
        may.is_err().then_some(())
    })
    .await?;
    fixture.renew_now(NAME, "1").await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretReadFailed", SOON).await?;
    assert!(message.contains("could not be read") && message.contains("agent-client"), "{message}");
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 1);
    grant(&fixture.namespace, &ALL).await?;
    let second = fixture.wait_token_other_than(&first, PATIENCE).await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", SOON).await?;

    // nothing can be written: the token is kept until it can
    grant(&fixture.namespace, &["get", "list", "watch"]).await?;
    fixture.renew_now(NAME, "2").await?;
    // the second renewal on request waits for some seconds
    let message = fixture.wait_condition("Renewed", "False", "SecretWriteFailed", PATIENCE).await?;
    assert!(message.contains("forbidden") && message.contains("service account"), "{message}");
    wait_failures(&fixture, 3).await?;
    assert_eq!(fixture.token().await?, second, "the old token stays");
    assert_eq!(fixture.token_requests().await?.len(), 3);
    grant(&fixture.namespace, &ALL).await?;
    fixture.wait_token_other_than(&second, PATIENCE).await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 3, "one token for each request for a renewal");
    Ok(())
}

#[tokio::test]
async fn without_a_watch_of_secrets_no_permission_to_list_or_watch_them_is_needed() -> Result<()> {
    let namespace = namespace_with_own_account("no-list", &["get", "create", "patch"]).await?;
    let mut fixture = Fixture::on(namespace, &["--watch-secrets=false"]).await?;
    fixture.client.lifetime = 20;
    fixture.with_surroundings().await?;
    fixture.apply_credential(&json!({"minimumValidity": "2s"})).await?;
    fixture.wait_ready().await?;
    let edit = r#"{"stringData":{"access_token":"garbage"}}"#;
    fixture.namespace.kubectl(&["patch", "secret", NAME, "--type=merge", "-p", edit]).await?;
    eventually("a valid token again", PATIENCE, async || fixture.token().await.ok().filter(|token| token != "garbage"))
        .await?;
    let log = std::fs::read_to_string(fixture.operator.process.log())?;
    assert!(!log.contains("forbidden") && !log.contains("403"), "something was tried that is not allowed: {log}");
    assert_eq!(fixture.metric("itwin_kubernetes_requests_total{resource=\"secrets\",result=\"forbidden\"").await?, 0.0);
    // a watch that is switched off is not a silent one, and nothing waits for its list
    fixture.operator.get("/readyz").await?;
    let metrics = fixture.operator.get("/metrics").await?;
    let watched = |resource: &str| {
        metrics.contains(&format!("itwin_watch_last_event_timestamp_seconds{{resource=\"{resource}\"}}"))
    };
    assert!(watched("itwinservicecredentials") && watched("itwinauthorities") && !watched("secrets"), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn terminating_namespace_ends_quietly() -> Result<()> {
    let fixture = Fixture::on(namespace_with_own_account("terminating", &ALL).await?, &[]).await?;
    fixture.with_surroundings().await?;
    // a finalizer holds it, so that the namespace stays as it is during the observation
    let mut held = fixture.namespace.credential(NAME, &json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    fixture.namespace.apply(&held).await?;
    fixture.wait_ready().await?;
    let name = fixture.namespace.name.clone();
    fixture.namespace.testbed.kubectl(&["delete", "namespace", &name, "--wait=false"]).await?;
    eventually("a namespace that is empty but for the held credential", PATIENCE, async || {
        let credential = fixture.namespace.get("itcred", NAME).await.ok()??;
        let gone = fixture.secret().await.ok()?.is_none();
        (gone && credential["metadata"]["deletionTimestamp"].is_string()).then_some(())
    })
    .await?;
    eventually("a Ready that is False and names the finalizer", SOON, async || {
        let (holds, _, message) = condition(&fixture.status().await.ok()?, "Ready")?;
        (holds == "False" && message.contains("example.com/hold")).then_some(())
    })
    .await?;
    // the first one ends after whatever the operator still did about the deletions
    fixture.reconcile().await?;
    let (requests, calls) =
        (fixture.token_requests().await?.len(), fixture.metric("itwin_kubernetes_requests_total").await?);
    assert!(requests <= 2, "{requests} token requests, one of them for a Secret that went before its credential");
    // after any event, the operator does nothing more
    for _ in 0..3 {
        fixture.reconcile().await?;
    }
    assert_eq!(fixture.token_requests().await?.len(), requests);
    let authorities = "itwin_kubernetes_requests_total{resource=\"itwinauthorities/status\"";
    let since = fixture.metric("itwin_kubernetes_requests_total").await? - calls;
    assert!(since <= fixture.metric(authorities).await?, "{since} calls for a credential that is going");
    let release = r#"{"metadata":{"finalizers":null}}"#;
    fixture.namespace.kubectl(&["patch", "itcred", NAME, "--type=merge", "-p", release]).await?;
    let wait = ["wait", "--for=delete", &format!("namespace/{name}"), "--timeout=30s"];
    fixture.namespace.testbed.kubectl(&wait).await.context("the namespace is not deleted; the operator may hold it")?;
    assert!(!fixture.operator.get("/metrics").await?.contains("itwin_credential_ready"));
    Ok(())
}

#[tokio::test]
async fn replica_whose_watch_is_forbidden_works_without_it_and_is_not_ready() -> Result<()> {
    let namespace = namespace_with_own_account("unlisted", &["get", "create", "patch"]).await?;
    let mut fixture = Fixture::spawn(TestEnvironment::on(namespace)?, &[])?;
    fixture.with_surroundings().await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", PATIENCE * 3).await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretReadFailed", SOON).await?;
    assert!(
        message.contains("cannot be watched") && message.contains("allow the operator's service account"),
        "{message}"
    );
    assert!(fixture.operator.get("/readyz").await.is_err(), "the list of Secrets is not complete");
    assert!(fixture.operator.get("/healthz").await.is_ok(), "a restart would not help");
    let metric = async |series: &str| fixture.metric(series).await;
    let refused = r#"itwin_kubernetes_requests_total{resource="secrets",result="forbidden",verb="list"}"#;
    assert!(metric(refused).await? >= 3.0);
    let last = r#"itwin_watch_last_event_timestamp_seconds{resource="secrets"}"#;
    let silent_since = metric(last).await?;
    assert!(silent_since > 1.7e9, "a watch that never answered is shown too");

    grant(&fixture.namespace, &ALL).await?;
    fixture.operator.wait_ready().await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", PATIENCE).await?;
    // work begins when the failure is reported, not before
    assert!(fixture.metric(last).await? > silent_since + 4.0);
    Ok(())
}
