//! Drift: manual changes of the Secret, the client and the status, also while no operator runs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use itwin_api::secret_keys;
use serde_json::{Value, json};
use testbed::eventually;

use crate::{
    audit::{calls, calls_since},
    fixture::{Fixture, NAME, PATIENCE, SOON},
};

async fn edit_secret(fixture: &Fixture) -> Result<()> {
    let edit = r#"{"stringData":{"access_token":"garbage"}}"#;
    fixture.namespace.kubectl(&["patch", "secret", NAME, "--type=merge", "-p", edit]).await.map(drop)
}

async fn edit_status(fixture: &Fixture, status: &Value) -> Result<()> {
    let edit = json!({"status": status}).to_string();
    fixture
        .namespace
        .kubectl(&["patch", "itcred", NAME, "--subresource=status", "--type=merge", "-p", &edit])
        .await
        .map(drop)
}

#[tokio::test]
async fn manual_edit_while_the_operator_is_down_is_found_without_reading_the_other_secrets() -> Result<()> {
    let mut fixture = Fixture::ready("edit-down").await?;
    let untouched = json!({"clientCredentialsRef": {"name": "agent-client"}});
    fixture.namespace.apply(&fixture.namespace.credential("untouched", &untouched)).await?;
    fixture.wait_condition_of("untouched", "Ready", "True", "TokenValid", SOON).await?;
    let requests = fixture.token_requests().await?.len();
    fixture.stop();
    edit_secret(&fixture).await?;
    let before = calls(&fixture.namespace)?.len();
    fixture.start().await?;
    eventually("a valid token again", SOON, async || fixture.token().await.ok().filter(|token| token != "garbage"))
        .await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    let reads = calls_since(&fixture.namespace, before)?.into_iter().filter(|call| call.is_read_of_a_secret());
    let mut names: Vec<String> = reads.map(|call| call.name).collect();
    names.sort();
    // an authority that was not reconciled yet causes a second reconciliation
    names.dedup();
    assert_eq!(names, [NAME, "agent-client"], "the edited one, and the client Secret for the request");
    assert_eq!(fixture.token_requests().await?.len(), requests + 1);
    Ok(())
}

#[tokio::test]
async fn retained_secret_whose_owner_uid_is_removed_gets_it_again_without_a_token_request() -> Result<()> {
    let mut fixture = Fixture::new("edit-uid").await?;
    fixture.apply_credential(&json!({"deletionPolicy": "Retain"})).await?;
    fixture.wait_ready().await?;
    let (token, ours) =
        (fixture.token().await?, fixture.namespace.get("itcred", NAME).await?.context("no credential")?);
    for is_down in [false, true] {
        if is_down {
            fixture.stop();
        }
        fixture.namespace.kubectl(&["annotate", "secret", NAME, "credentials.itwin.dev/owner-uid-"]).await?;
        if is_down {
            fixture.start().await?;
        }
        eventually("the UID on the Secret", SOON, async || {
            let secret = fixture.secret().await.ok()??;
            (secret["metadata"]["annotations"][secret_keys::OWNER_UID] == ours["metadata"]["uid"]).then_some(())
        })
        .await?;
    }
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    assert_eq!(fixture.token().await?, token);
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn edited_annotations_about_the_token_do_not_keep_it_from_being_renewed() -> Result<()> {
    let mut fixture = Fixture::ready("edit-stamp").await?;
    let first = fixture.token().await?;
    let edit = ["annotate", "secret", NAME, "--overwrite", "credentials.itwin.dev/expires-at=2099-01-01T00:00:00Z"];
    fixture.namespace.kubectl(&edit).await?;
    let agree = eventually("annotations that agree with the data", SOON, async || {
        let (data, secret) = (fixture.data().await.ok()?, fixture.secret().await.ok()??);
        let reported = secret["metadata"]["annotations"]["credentials.itwin.dev/expires-at"].as_str()?;
        (reported == data["expires_at"]).then_some(())
    });
    agree.await?;
    assert_eq!(fixture.token().await?, first, "the process that wrote it knows that the token is good");
    // the same while no operator runs
    fixture.stop();
    fixture.namespace.kubectl(&edit).await?;
    fixture.start().await?;
    fixture.wait_token_other_than(&first, SOON).await?;
    let (data, secret) = (fixture.data().await?, fixture.secret().await?.context("no Secret")?);
    let reported = &secret["metadata"]["annotations"]["credentials.itwin.dev/expires-at"];
    assert_eq!(reported, data["expires_at"].as_str());
    fixture.reconcile().await?;
    assert_eq!(fixture.token_requests().await?.len(), 2, "one for the edit that no process remembers");
    Ok(())
}

#[tokio::test]
async fn client_rotated_while_the_operator_is_down_gives_one_new_token() -> Result<()> {
    let mut fixture = Fixture::ready("rotate-down").await?;
    let first = fixture.token().await?;
    fixture.stop();
    fixture.client.client_secret = "rotated-while-no-operator-runs".to_owned();
    fixture.register().await?;
    fixture.apply_client_secret().await?;
    fixture.start().await?;
    fixture.wait_token_other_than(&first, SOON).await?;
    fixture.reconcile().await?;
    assert_eq!(fixture.token_requests().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn client_changed_during_a_request_is_read_again_before_the_next() -> Result<()> {
    let fixture = Fixture::bare("rotate-midway").await?;
    let faults = fixture.namespace.testbed.faults.clone();
    let mut spec = faults.spec();
    // long enough to change the client Secret meanwhile on a busy machine
    spec["requestTimeout"] = json!("6s");
    fixture.apply_authority(&spec).await?;
    let next = testbed::authority::Client::new(&format!("next-{}", fixture.client.client_id));
    faults.behave(&fixture.client.client_id, &json!({"name": "slowHeader"})).await?;
    fixture.apply_client_secret().await?;
    fixture.apply_credential(&json!({})).await?;
    let asked = async |client: &str| faults.requests(client).await.map(|requests| requests.len());
    eventually("a request that hangs", SOON, async || {
        (asked(&fixture.client.client_id).await.ok()? == 1).then_some(())
    })
    .await?;
    fixture.namespace.apply(&fixture.namespace.client_secret(NAME, &next)).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", PATIENCE).await?;
    assert_eq!(asked(&fixture.client.client_id).await?, 1, "the old client is not used again");
    assert_eq!(asked(&next.client_id).await?, 1);
    Ok(())
}

#[tokio::test]
async fn labels_on_the_secret_and_the_client_secret_ask_for_nothing_and_write_nothing() -> Result<()> {
    let mut fixture = Fixture::ready("relabel").await?;
    let token = fixture.token().await?;
    for round in ["1", "2"] {
        let before = calls(&fixture.namespace)?.len();
        for secret in [NAME, "agent-client"] {
            fixture.namespace.kubectl(&["label", "secret", secret, "--overwrite", &format!("round={round}")]).await?;
        }
        fixture.reconcile().await?;
        let writes: Vec<String> = calls_since(&fixture.namespace, before)?
            .iter()
            .filter(|call| call.is_write())
            .map(ToString::to_string)
            .collect();
        // the event about the first token may come as late
        assert!(writes.iter().all(|write| write.contains("events")), "{writes:?}");
        // a process without retry state observes the second round
        fixture.restart().await?;
    }
    fixture.reconcile().await?;
    assert_eq!(fixture.token().await?, token);
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

/// A status that is wrong in every field that a decision could rest on.
fn lies() -> Value {
    json!({
        "secretName": "precious",
        "clientId": "forged",
        "issuer": "https://forged.example.com",
        "scopes": ["forged"],
        "expiresAt": "2099-01-01T00:00:00Z",
        "usableUntil": "2099-01-01T00:00:00Z",
        "renewAt": "2098-01-01T00:00:00Z",
        "observedGeneration": 99,
    })
}

/// Waits until the status is what it was before, and checks that the wrong one had no effect.
async fn assert_reverted(fixture: &Fixture, before: &Value, secret: &Value) -> Result<()> {
    let right =
        eventually("the true status", SOON, async || fixture.status().await.ok().filter(|status| status == before));
    if right.await.is_err() {
        assert_eq!(&fixture.status().await?, before, "not reverted");
    }
    assert_eq!(&fixture.secret().await?.context("no Secret")?, secret, "the Secret is what it was");
    assert_eq!(fixture.token_requests().await?.len(), 1, "no token is requested");
    let precious = fixture.namespace.get("secret", "precious").await?.context("no Secret")?;
    assert_eq!(testbed::namespace::data(&precious)?.len(), 1, "the Secret that the wrong status named is not touched");
    Ok(())
}

#[tokio::test]
async fn edited_status_is_reverted_and_never_trusted() -> Result<()> {
    let mut fixture = Fixture::ready("status-edit").await?;
    fixture.namespace.kubectl(&["create", "secret", "generic", "precious", "--from-literal=theirs=1"]).await?;
    let (before, secret) = (fixture.status().await?, fixture.secret().await?.context("no Secret")?);
    edit_status(&fixture, &lies()).await?;
    assert_reverted(&fixture, &before, &secret).await?;

    // a new process does not trust it either
    fixture.stop();
    edit_status(&fixture, &lies()).await?;
    fixture.start().await?;
    assert_reverted(&fixture, &before, &secret).await?;

    // and it restores what was removed
    fixture.stop();
    let nothing: serde_json::Map<String, Value> =
        before.as_object().context("a status")?.keys().map(|field| (field.clone(), Value::Null)).collect();
    edit_status(&fixture, &Value::Object(nothing)).await?;
    fixture.start().await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    let after = fixture.status().await?;
    for field in ["secretName", "clientId", "issuer", "scopes", "expiresAt", "issuedAt", "renewAt"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn status_that_is_edited_again_is_reverted_again_but_later() -> Result<()> {
    let fixture = Fixture::ready("status-again").await?;
    let before = fixture.status().await?;
    let reverted = async |within: Duration| {
        let status = async || fixture.status().await.ok().filter(|status| *status == before);
        eventually("the true status", within, status).await
    };
    edit_status(&fixture, &lies()).await?;
    reverted(SOON).await?;
    let since = Instant::now();
    edit_status(&fixture, &lies()).await?;
    reverted(PATIENCE * 2).await?;
    assert!(since.elapsed() > SOON * 2, "two writers who answer each other would be a storm");
    Ok(())
}
