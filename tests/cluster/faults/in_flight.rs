//! What happens while a token request is in flight, or is not sent at all: time passes for `Ready`, nothing is written for
//! a credential that is gone or was changed, and an outage counts for each credential.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::faults::row::{RowFixture, observed};

const PATIENCE: Duration = Duration::from_secs(60);
/// Much less than a request to an authority may take.
const EDITED: Duration = Duration::from_secs(20);

/// A fixture with the client `agent` and an authority that waits long for responses; returns the authority's name.
async fn patient(prefix: &str) -> Result<(RowFixture, String)> {
    let fixture = RowFixture::new(prefix).await?;
    let authority = fixture.create_authority("agent", &json!({"requestTimeout": "60s"})).await?;
    fixture.create_client_secret("agent").await?;
    Ok((fixture, authority))
}

async fn behave(fixture: &RowFixture, behaviour: &Value) -> Result<()> {
    fixture.faults().behave(&fixture.client_id("agent"), behaviour).await
}

/// A credential whose token expires in 20 s while its renewal hangs.
async fn hanging(prefix: &str) -> Result<(RowFixture, String)> {
    let (fixture, authority) = patient(prefix).await?;
    behave(&fixture, &json!({"name": "good", "lifetime": 20})).await?;
    fixture.create_credential("agent", &authority, "agent", &json!({"minimumValidity": "5s"})).await?;
    fixture.wait("agent", "Ready", true, "TokenValid", PATIENCE).await?;
    behave(&fixture, &json!({"name": "slowHeader"})).await?;
    wait_for_requests(&fixture, 2).await?;
    Ok((fixture, authority))
}

async fn wait_for_requests(fixture: &RowFixture, count: usize) -> Result<()> {
    let sent = async || (fixture.faulty_requests("agent").await.ok()? >= count).then_some(());
    fixture.eventually("the token request", PATIENCE, sent).await
}

/// Waits until so many tokens were issued, and until what followed is over: another credential got its token since.
async fn wait_for_the_end(fixture: &RowFixture, authority: &str, issued: f64) -> Result<()> {
    let series = format!("itwin_token_requests_total{{authority=\"{authority}\",result=\"success\"");
    let ended = async || (fixture.metric(&series).await.ok()? >= issued).then_some(());
    fixture.eventually("the end of the token request", PATIENCE, ended).await?;
    behave(fixture, &json!({"name": "good"})).await?;
    fixture.create_credential("other", authority, "agent", &json!({"scopes": ["other"]})).await?;
    fixture.wait("other", "Ready", true, "TokenValid", PATIENCE).await.map(drop)
}

#[tokio::test]
async fn ready_ends_in_time_while_a_token_request_hangs() -> Result<()> {
    let (fixture, authority) = hanging("hangs").await?;
    fixture.wait("agent", "Ready", false, "BelowMinimumValidity", PATIENCE).await?;
    fixture.wait("agent", "Ready", false, "TokenExpired", PATIENCE).await?;
    let status = fixture.status("agent").await?;
    let renewed = status.conditions.iter().find(|condition| condition.type_ == "Renewed").context("no Renewed")?;
    assert_eq!(renewed.status, "True", "the request is still in flight: {renewed:?}");
    assert!(fixture.metric("itwin_credential_ready{").await? < 1.0);

    fixture.wait("agent", "Renewed", false, "Timeout", PATIENCE * 2).await?;
    behave(&fixture, &json!({"name": "good", "lifetime": 600})).await?;
    fixture.wait("agent", "Ready", true, "TokenValid", PATIENCE).await?;
    fixture.delete_authority(&authority).await
}

#[tokio::test]
async fn ready_ends_in_time_while_a_token_request_hangs_and_the_spec_is_edited() -> Result<()> {
    let (fixture, authority) = hanging("hangs-edited").await?;
    // a list of conditions is written as a whole, so that another one of them guards it
    let mut conditions = serde_json::to_value(fixture.status("agent").await?.conditions)?;
    let others = json!({"type": "Audited", "status": "True", "reason": "Other", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    conditions.as_array_mut().context("conditions")?.push(others);
    let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
    fixture.credentials().patch_status("agent", &PatchParams::default(), &patch).await?;
    let patch = json!({"spec": {"renewBefore": "8s"}});
    fixture.credentials().patch("agent", &PatchParams::default(), &Patch::Merge(&patch)).await?;
    let ended = async || {
        let status = fixture.status("agent").await.ok()?;
        let is = |kind: &str, expected: &str| {
            status.conditions.iter().any(|condition| condition.type_ == kind && condition.status == expected)
        };
        // the request is still in flight, and the status about the spec before
        (is("Ready", "False")
            && is("Renewed", "True")
            && is("Audited", "True")
            && status.observed_generation == Some(1))
        .then_some(())
    };
    fixture.eventually("Ready to end", PATIENCE, ended).await?;
    behave(&fixture, &json!({"name": "good", "lifetime": 600})).await?;
    fixture.wait("agent", "Ready", true, "TokenValid", PATIENCE * 2).await?;
    fixture.delete_authority(&authority).await
}

#[tokio::test]
async fn credential_that_is_deleted_while_its_token_request_hangs_gets_no_secret() -> Result<()> {
    let (fixture, authority) = patient("deleted").await?;
    behave(&fixture, &json!({"name": "slowGood", "value": 10_000})).await?;
    fixture.create_credential("agent", &authority, "agent", &json!({"deletionPolicy": "Retain"})).await?;
    wait_for_requests(&fixture, 1).await?;
    fixture.credentials().delete("agent", &Default::default()).await?;
    wait_for_the_end(&fixture, &authority, 1.0).await?;
    assert!(fixture.secrets().get_opt("agent").await?.is_none(), "no one would ever delete it");
    let metrics = fixture.operator.get("/metrics").await?;
    assert!(!metrics.contains("name=\"agent\""), "{metrics}");
    fixture.delete_authority(&authority).await
}

#[tokio::test]
async fn credential_that_is_created_again_while_a_token_request_hangs_gets_its_own_token() -> Result<()> {
    let (fixture, authority) = patient("again").await?;
    behave(&fixture, &json!({"name": "slowGood", "value": 10_000})).await?;
    let spec = json!({"deletionPolicy": "Retain"});
    fixture.create_credential("agent", &authority, "agent", &spec).await?;
    wait_for_requests(&fixture, 1).await?;
    fixture.credentials().delete("agent", &Default::default()).await?;
    behave(&fixture, &json!({"name": "good"})).await?;
    fixture.create_credential("agent", &authority, "agent", &spec).await?;
    fixture.wait("agent", "Ready", true, "TokenValid", PATIENCE).await?;
    let uid = fixture.credentials().get("agent").await?.metadata.uid;
    let secret = fixture.secrets().get("agent").await?;
    let annotations = secret.metadata.annotations.unwrap_or_default();
    assert_eq!(annotations.get(itwin_api::secret_keys::OWNER_UID), uid.as_ref());
    assert_eq!(fixture.faulty_requests("agent").await?, 2);
    fixture.delete_authority(&authority).await
}

#[tokio::test]
async fn credential_that_is_suspended_while_its_token_request_hangs_gets_no_secret_until_it_is_resumed() -> Result<()> {
    let (fixture, authority) = patient("paused").await?;
    behave(&fixture, &json!({"name": "slowGood", "value": 10_000})).await?;
    fixture.create_credential("agent", &authority, "agent", &json!({})).await?;
    wait_for_requests(&fixture, 1).await?;
    let suspend = async |suspend: bool| {
        let patch = json!({"spec": {"suspend": suspend}});
        fixture.credentials().patch("agent", &PatchParams::default(), &Patch::Merge(&patch)).await
    };
    suspend(true).await?;
    wait_for_the_end(&fixture, &authority, 1.0).await?;
    fixture.wait("agent", "Ready", false, "Suspended", PATIENCE).await?;
    assert!(fixture.secrets().get_opt("agent").await?.is_none(), "it is to stay as it is");
    suspend(false).await?;
    fixture.wait("agent", "Ready", true, "TokenValid", PATIENCE).await?;
    assert_eq!(fixture.faulty_requests("agent").await?, 2, "that of the other one, and the token that was kept");
    fixture.delete_authority(&authority).await
}

#[tokio::test]
async fn token_that_was_requested_before_its_authority_was_tightened_is_not_written() -> Result<()> {
    let (fixture, authority) = patient("tightened").await?;
    behave(&fixture, &json!({"name": "slowGood", "value": 10_000})).await?;
    fixture.create_credential("agent", &authority, "agent", &json!({})).await?;
    wait_for_requests(&fixture, 1).await?;
    behave(&fixture, &json!({"name": "good"})).await?;
    fixture.patch_authority(&authority, &json!({"audiences": ["https://other.example.com"]})).await?;
    observed(&fixture, &authority).await?;
    fixture.wait("agent", "Renewed", false, "TokenRejected", PATIENCE).await?;
    assert!(fixture.secrets().get_opt("agent").await?.is_none(), "no token has the audience");
    // the first one was kept
    behave(&fixture, &json!({"name": "status", "value": {"status": 400}})).await?;
    fixture.patch_authority(&authority, &json!({"audiences": null})).await?;
    fixture.wait("agent", "Ready", true, "TokenValid", PATIENCE).await?;
    fixture.delete_authority(&authority).await
}

#[tokio::test]
async fn token_that_was_requested_before_its_namespace_was_forbidden_is_not_written() -> Result<()> {
    let (fixture, authority) = patient("forbidden").await?;
    behave(&fixture, &json!({"name": "slowGood", "value": 10_000})).await?;
    fixture.create_credential("agent", &authority, "agent", &json!({})).await?;
    wait_for_requests(&fixture, 1).await?;
    behave(&fixture, &json!({"name": "good"})).await?;
    fixture.patch_authority(&authority, &json!({"allowedNamespaces": {"matchLabels": {"no": "one"}}})).await?;
    observed(&fixture, &authority).await?;
    fixture.wait("agent", "Renewed", false, "NamespaceNotAllowed", PATIENCE).await?;
    assert!(fixture.secrets().get_opt("agent").await?.is_none(), "no namespace has the label");
    assert_eq!(fixture.faulty_requests("agent").await?, 1, "nor is another one requested");
    fixture.patch_authority(&authority, &json!({"allowedNamespaces": null})).await?;
    fixture.wait("agent", "Ready", true, "TokenValid", PATIENCE).await?;
    fixture.delete_authority(&authority).await
}

#[tokio::test]
async fn token_that_was_requested_before_limits_of_its_authority_were_edited_is_written() -> Result<()> {
    let (fixture, authority) = patient("limits").await?;
    behave(&fixture, &json!({"name": "slowGood", "value": 10_000})).await?;
    fixture.create_credential("agent", &authority, "agent", &json!({})).await?;
    wait_for_requests(&fixture, 1).await?;
    fixture.patch_authority(&authority, &json!({"requestsPerMinute": 500, "connectTimeout": "7s"})).await?;
    observed(&fixture, &authority).await?;
    fixture.wait("agent", "Ready", true, "TokenValid", PATIENCE).await?;
    assert_eq!(fixture.faulty_requests("agent").await?, 1);
    fixture.delete_authority(&authority).await
}

#[tokio::test]
async fn edit_of_an_authority_takes_effect_while_the_request_for_its_keys_hangs() -> Result<()> {
    let fixture = RowFixture::new("hanging-keys").await?;
    let keys = format!("https://localhost:{}/keys", fixture.faults().black_hole);
    let spec = json!({
        "jwksUri": keys,
        "requestTimeout": "60s",
        "connectTimeout": "60s",
        "allowedScopes": ["other"],
    });
    let authority = fixture.create_authority("agent", &spec).await?;
    fixture.create_client_secret("agent").await?;
    fixture.create_credential("agent", &authority, "agent", &json!({})).await?;
    // the keys are requested as soon as this is known
    fixture.wait("agent", "Renewed", false, "ScopeNotAllowed", PATIENCE).await?;
    let edited = json!({"allowedScopes": null, "allowedGrantTypes": ["password"]});
    fixture.patch_authority(&authority, &edited).await?;
    fixture.wait("agent", "Renewed", false, "GrantTypeNotAllowed", EDITED).await?;
    fixture.delete_authority(&authority).await
}

#[tokio::test]
async fn outage_counts_for_each_credential_although_few_requests_are_sent() -> Result<()> {
    const CREDENTIALS: usize = 12;
    let (fixture, authority) = patient("counted").await?;
    behave(&fixture, &json!({"name": "status", "value": {"status": 503}})).await?;
    for number in 0..CREDENTIALS {
        let (name, spec) = (format!("agent-{number}"), json!({"scopes": [format!("scope-{number}")]}));
        fixture.create_credential(&name, &authority, "agent", &spec).await?;
    }
    let enough = async || {
        let metrics = fixture.operator.get("/metrics").await.ok()?;
        let series = metrics.lines().filter(|line| line.starts_with("itwin_credential_consecutive_failures{"));
        let values: Vec<f64> = series.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        // as many as the alert needs
        (values.len() == CREDENTIALS && values.iter().all(|failures| *failures >= 5.0)).then_some(())
    };
    fixture.eventually("five failures of each credential", PATIENCE * 2, enough).await?;
    let requests = fixture.faulty_requests("agent").await?;
    assert!(requests < 4 * CREDENTIALS, "{requests} requests: the circuit is not open");
    fixture.delete_authority(&authority).await
}
