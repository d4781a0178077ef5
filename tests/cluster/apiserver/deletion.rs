//! Credentials and Secrets that are being deleted, and that a finalizer of another program holds.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::{
    api_proxy::fault::{Fault, Rule},
    eventually, objects,
};

use crate::fixture::{Fixture, NAME, PATIENCE, SOON, condition};

const FINALIZER: &str = "example.com/held";

/// Creates a credential with the finalizer.
async fn apply_held(fixture: &Fixture) -> Result<()> {
    let mut held = fixture.namespace.credential(NAME, &json!({"minimumValidity": "2s"}));
    held["metadata"]["finalizers"] = json!([FINALIZER]);
    fixture.namespace.apply(&held).await.map(drop)
}

/// The same, and waits until it is Ready.
async fn held_credential(fixture: &Fixture) -> Result<()> {
    apply_held(fixture).await?;
    fixture.wait_ready().await
}

/// Removes the finalizers of the object of this kind.
async fn release(fixture: &Fixture, kind: &str) -> Result<()> {
    let release = r#"{"metadata":{"finalizers":null}}"#;
    fixture.namespace.kubectl(&["patch", kind, NAME, "--type=merge", "-p", release]).await.map(drop)
}

/// Waits until `Ready` has this status and names the finalizer. Returns the status.
async fn wait_reported(fixture: &Fixture, ready: &str) -> Result<Value> {
    let reported = async || {
        let status = fixture.status().await.ok()?;
        let (holds, _, message) = condition(&status, "Ready")?;
        (holds == ready && message.contains(FINALIZER)).then_some(status)
    };
    fixture.eventually("a status that names the finalizer", PATIENCE, reported).await
}

#[tokio::test]
async fn credential_that_a_finalizer_holds_is_not_renewed_and_reports_when_its_token_expires() -> Result<()> {
    let mut fixture = Fixture::bare("finalizer").await?;
    fixture.client.lifetime = 20;
    fixture.with_surroundings().await?;
    held_credential(&fixture).await?;
    fixture.namespace.kubectl(&["delete", "itcred", NAME, "--wait=false"]).await?;
    let status = wait_reported(&fixture, "True").await?;
    assert_eq!(status["renewAt"], Value::Null, "its token is not renewed");
    let requests = fixture.token_requests().await?.len();
    // nor on request
    fixture.renew_now(NAME, "1").await?;
    fixture.wait_condition("Ready", "False", "TokenExpired", PATIENCE).await?;
    assert_eq!(fixture.token_requests().await?.len(), requests);
    assert!(fixture.secret().await?.is_some(), "the Secret goes with the credential");
    assert!(fixture.metric("itwin_credential_expiration_timestamp_seconds{").await? > 1.7e9, "alerts need the series");
    assert_eq!(fixture.metric("itwin_credential_ready{").await?, 0.0);

    release(&fixture, "itcred").await?;
    fixture.namespace.kubectl(&["wait", "--for=delete", "itcred/agent", "--timeout=30s"]).await?;
    let shown = async || fixture.operator.get("/metrics").await.map(|text| text.contains("name=\"agent\""));
    eventually("the removal of its series", SOON, async || (!shown().await.ok()?).then_some(())).await?;
    fixture.apply_credential(&json!({})).await?;
    eventually("the series of the next one", PATIENCE, async || shown().await.ok()?.then_some(())).await
}

#[tokio::test]
async fn failures_of_a_held_credential_keep_no_alert_firing() -> Result<()> {
    let fixture = Fixture::bare("held-failing").await?;
    fixture.apply_authority(&json!({})).await?;
    // the server does not know the client
    fixture.apply_client_secret().await?;
    apply_held(&fixture).await?;
    fixture.wait_condition("Renewed", "False", "InvalidClient", PATIENCE).await?;
    let failures = async || fixture.metric("itwin_credential_consecutive_failures{").await;
    assert!(failures().await? > 0.0, "it is counted until then");
    fixture.namespace.kubectl(&["delete", "itcred", NAME, "--wait=false"]).await?;
    let status = wait_reported(&fixture, "False").await?;
    assert_eq!(failures().await?, 0.0);
    assert!(fixture.operator.get("/metrics").await?.contains("name=\"agent\""), "the series stay until it is gone");
    assert!(condition(&status, "Renewed").is_some(), "the status shows what failed");
    release(&fixture, "itcred").await
}

/// A credential that is Ready, is being deleted and is held, and whose operator has stopped.
async fn held_and_stopped(prefix: &str, arguments: &[&str]) -> Result<Fixture> {
    let mut fixture = Fixture::bare_with(prefix, arguments).await?;
    fixture.with_surroundings().await?;
    held_credential(&fixture).await?;
    fixture.namespace.kubectl(&["delete", "itcred", NAME, "--wait=false"]).await?;
    wait_reported(&fixture, "True").await?;
    fixture.stop();
    Ok(fixture)
}

/// The Secret of a held credential goes while no operator runs, so that no watch shows its deletion.
async fn secret_goes_while_no_operator_runs(prefix: &str, arguments: &[&str]) -> Result<()> {
    let mut fixture = held_and_stopped(prefix, arguments).await?;
    fixture.namespace.kubectl(&["delete", "secret", NAME]).await?;
    fixture.start_with(arguments).await?;
    let status = wait_reported(&fixture, "False").await?;
    assert_eq!(status["expiresAt"], Value::Null, "there is no token");
    assert_eq!(fixture.metric("itwin_credential_ready{").await?, 0.0);
    assert_eq!((fixture.secret().await?, fixture.token_requests().await?.len()), (None, 1));
    release(&fixture, "itcred").await?;
    fixture.namespace.kubectl(&["wait", "--for=delete", "itcred/agent", "--timeout=30s"]).await.map(drop)
}

#[tokio::test]
async fn secret_of_a_held_credential_that_goes_while_no_operator_runs_is_noticed() -> Result<()> {
    secret_goes_while_no_operator_runs("held-gone", &[]).await
}

#[tokio::test]
async fn secret_of_a_held_credential_that_goes_is_noticed_without_a_watch_of_secrets() -> Result<()> {
    secret_goes_while_no_operator_runs("held-gone-un", &["--watch-secrets=false"]).await
}

#[tokio::test]
async fn read_that_fails_for_a_held_credential_is_reported_and_made_again() -> Result<()> {
    let arguments = ["--watch-secrets=false"];
    let mut fixture = held_and_stopped("held-unread", &arguments).await?;
    let rule = fixture.proxy().play(Rule::new("get secrets (metadata)", Fault::Refused(500)).lasting(PATIENCE * 10));
    fixture.start_with(&arguments).await?;
    fixture.wait_condition("Renewed", "False", "SecretReadFailed", PATIENCE).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    fixture.proxy().stop(&rule);
    fixture.wait_condition("Renewed", "True", "TokenIssued", PATIENCE * 2).await?;
    assert_eq!(fixture.token_requests().await?.len(), 1);
    release(&fixture, "itcred").await
}

/// Calls that failed for a held credential, and were reported, succeed again after a restart.
async fn failure_ends_while_no_operator_runs(prefix: &str, arguments: &[&str], kinds: &[&str]) -> Result<()> {
    let mut fixture = held_and_stopped(prefix, arguments).await?;
    let refused = |kind: &&str| Rule::new(kind, Fault::Refused(403)).lasting(PATIENCE * 10);
    let rules: Vec<_> = kinds.iter().map(|kind| fixture.proxy().play(refused(kind))).collect();
    // it may never be ready
    fixture.operator = fixture.environment.spawn_operator(arguments)?;
    fixture.wait_condition("Renewed", "False", "SecretReadFailed", PATIENCE).await?;
    fixture.stop();
    for rule in &rules {
        fixture.proxy().stop(rule);
    }
    fixture.start_with(arguments).await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", PATIENCE).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 1);
    release(&fixture, "itcred").await
}

#[tokio::test]
async fn read_that_failed_for_a_held_credential_before_a_restart_is_not_reported_after_it() -> Result<()> {
    failure_ends_while_no_operator_runs("held-read", &["--watch-secrets=false"], &["get secrets (metadata)"]).await
}

#[tokio::test]
async fn watch_that_failed_for_a_held_credential_before_a_restart_is_not_reported_after_it() -> Result<()> {
    failure_ends_while_no_operator_runs("held-watch", &[], &["list secrets", "watch secrets"]).await
}

#[tokio::test]
async fn spec_of_a_held_credential_that_is_edited_is_reported_without_what_was_known_of_the_one_before() -> Result<()> {
    const SERIES: &str = "itwin_client_secret_expiration_timestamp_seconds{";
    let fixture = Fixture::bare("held-edited").await?;
    fixture.with_surroundings().await?;
    let (id, secret) = (&fixture.client.client_id, &fixture.client.client_secret);
    let values = json!({"client_id": id, "client_secret": secret, "expires_at": "2999-01-31T00:00:00Z"});
    fixture.namespace.apply(&objects::secret("agent-client", &values)).await?;
    held_credential(&fixture).await?;
    fixture.namespace.kubectl(&["delete", "itcred", NAME, "--wait=false"]).await?;
    let status = wait_reported(&fixture, "True").await?;
    assert_eq!(status["clientSecretExpiresAt"], "2999-01-31T00:00:00Z", "the deletion alone is no other spec");
    assert!(fixture.metric(SERIES).await? > 0.0);

    let edit = json!({"spec": {"clientCredentialsRef": {"name": "never-read"}}}).to_string();
    fixture.namespace.kubectl(&["patch", "itcred", NAME, "--type=merge", "-p", &edit]).await?;
    let edited = async || fixture.current_status_of(NAME).await.ok()?;
    let status = fixture.eventually("a status of the edited spec", PATIENCE, edited).await?;
    assert_eq!(status["clientSecretExpiresAt"], Value::Null, "{status}");
    assert!(!status.to_string().contains("never-read"), "nothing is claimed of it: {status}");
    assert!(!fixture.operator.get("/metrics").await?.contains(SERIES));
    release(&fixture, "itcred").await
}

#[tokio::test]
async fn foreground_deletion_of_a_held_credential_is_followed_by_no_other_secret() -> Result<()> {
    let fixture = Fixture::new("foreground").await?;
    held_credential(&fixture).await?;
    fixture.namespace.kubectl(&["delete", "itcred", NAME, "--cascade=foreground", "--wait=false"]).await?;
    let gone = async || fixture.secret().await.ok()?.is_none().then_some(());
    fixture.eventually("garbage collection of the Secret", PATIENCE * 2, gone).await?;
    let status = wait_reported(&fixture, "False").await?;
    assert_eq!(status["expiresAt"], Value::Null, "there is no token");
    fixture.reconcile().await?;
    assert_eq!((fixture.secret().await?, fixture.token_requests().await?.len()), (None, 1));
    release(&fixture, "itcred").await?;
    fixture.namespace.kubectl(&["wait", "--for=delete", "itcred/agent", "--timeout=30s"]).await.map(drop)
}

/// Has the Secret outlive its credential, which is being deleted.
async fn retain(fixture: &Fixture) -> Result<()> {
    let retain = r#"{"spec":{"deletionPolicy":"Retain"}}"#;
    fixture.namespace.kubectl(&["patch", "itcred", NAME, "--type=merge", "-p", retain]).await.map(drop)
}

/// Waits until the Secret has no owner, has the credential deleted, and asserts that garbage collection leaves the Secret
/// alone, with this token.
async fn assert_outlives(fixture: &Fixture, token: &str) -> Result<()> {
    let credential = fixture.namespace.get("itcred", NAME).await?.context("no credential")?;
    let collected = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "collected",
            "ownerReferences": [objects::owner_reference(NAME, credential["metadata"]["uid"].clone())],
        },
    });
    fixture.namespace.apply(&collected).await?;
    let released = async || {
        let secret = fixture.secret().await.ok()??;
        secret["metadata"]["ownerReferences"].is_null().then_some(())
    };
    fixture.eventually("a Secret without an owner", PATIENCE, released).await?;
    release(fixture, "itcred").await?;
    fixture.namespace.kubectl(&["wait", "--for=delete", "itcred/agent", "--timeout=30s"]).await?;
    let gone = async || fixture.namespace.get("configmap", "collected").await.ok()?.is_none().then_some(());
    fixture.eventually("garbage collection of what the credential owned", PATIENCE * 2, gone).await?;
    assert_eq!((fixture.token().await?.as_str(), fixture.token_requests().await?.len()), (token, 1));
    Ok(())
}

#[tokio::test]
async fn secret_of_a_held_credential_outlives_it_once_the_policy_says_so() -> Result<()> {
    let fixture = Fixture::new("held-retain").await?;
    held_credential(&fixture).await?;
    let token = fixture.token().await?;
    fixture.namespace.kubectl(&["delete", "itcred", NAME, "--wait=false"]).await?;
    wait_reported(&fixture, "True").await?;
    retain(&fixture).await?;
    assert_outlives(&fixture, &token).await
}

#[tokio::test]
async fn secret_outlives_a_held_credential_whose_policy_was_edited_while_no_operator_ran() -> Result<()> {
    let mut fixture = held_and_stopped("held-retain-down", &[]).await?;
    let token = fixture.token().await?;
    retain(&fixture).await?;
    fixture.start().await?;
    assert_outlives(&fixture, &token).await
}

#[tokio::test]
async fn secret_that_a_finalizer_holds_gets_tokens_and_is_restored_once_it_is_gone() -> Result<()> {
    let fixture = Fixture::ready("held-secret").await?;
    let first = fixture.token().await?;
    let hold = json!({"metadata": {"finalizers": [FINALIZER]}}).to_string();
    fixture.namespace.kubectl(&["patch", "secret", NAME, "--type=merge", "-p", &hold]).await?;
    fixture.namespace.kubectl(&["delete", "secret", NAME, "--wait=false"]).await?;
    fixture.renew_now(NAME, "1").await?;
    fixture.wait_token_other_than(&first, PATIENCE).await?;
    release(&fixture, "secret").await?;
    let restored = async || {
        let secret = fixture.secret().await.ok()??;
        secret["metadata"]["deletionTimestamp"].is_null().then_some(())
    };
    fixture.eventually("another Secret", PATIENCE, restored).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await.map(drop)
}
