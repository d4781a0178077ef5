//! One Secret with several contenders, at the same time or one after the other.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::{eventually, namespace::COLLECTED, objects};

use crate::fixture::{Fixture, NAME, PATIENCE, SOON};

/// Applies a credential that writes the Secret `shared`.
async fn apply_sharing(fixture: &Fixture, name: &str, client: &str) -> Result<()> {
    let spec = json!({"secretName": "shared", "clientCredentialsRef": {"name": client}});
    fixture.namespace.apply(&fixture.namespace.credential(name, &spec)).await.map(drop)
}

/// Waits until an object created now is younger than this one: the API server counts in seconds.
async fn wait_for_a_later_second(fixture: &Fixture, credential: &str) -> Result<()> {
    let object = fixture.namespace.get("itcred", credential).await?.context("no credential")?;
    let created = object["metadata"]["creationTimestamp"].as_str().context("creationTimestamp")?;
    let created = chrono::DateTime::parse_from_rfc3339(created)?;
    eventually("a later second", SOON, async || {
        let age = itwin_credential_operator::clock::Clock::system().now() - created.to_utc();
        (age >= chrono::TimeDelta::seconds(1)).then_some(())
    })
    .await
}

async fn owner_uid(fixture: &Fixture, secret: &str) -> Result<Value> {
    let secret = fixture.namespace.get("secret", secret).await?.context("no Secret")?;
    Ok(secret["metadata"]["ownerReferences"][0]["uid"].clone())
}

async fn uid(fixture: &Fixture, kind: &str, name: &str) -> Result<Value> {
    let object = fixture.namespace.get(kind, name).await?.with_context(|| format!("no {kind} {name}"))?;
    Ok(object["metadata"]["uid"].clone())
}

#[tokio::test]
async fn older_of_two_contenders_gets_the_secret_and_the_younger_takes_over() -> Result<()> {
    let mut fixture = Fixture::new("two-owners").await?;
    fixture.stop();
    apply_sharing(&fixture, "z-older", "agent-client").await?;
    wait_for_a_later_second(&fixture, "z-older").await?;
    apply_sharing(&fixture, "a-younger", "agent-client").await?;
    fixture.start().await?;
    fixture.wait_condition_of("z-older", "Ready", "True", "TokenValid", PATIENCE).await?;
    let message = fixture.wait_condition_of("a-younger", "Renewed", "False", "SecretNotOwned", SOON).await?;
    assert!(message.contains("z-older") && message.contains("spec.secretName"), "{message}");
    assert_eq!(owner_uid(&fixture, "shared").await?, uid(&fixture, "itcred", "z-older").await?);
    assert_eq!(fixture.token_requests().await?.len(), 1, "the younger one requests none");

    fixture.namespace.kubectl(&["delete", "itcred", "z-older"]).await?;
    fixture.wait_condition_of("a-younger", "Ready", "True", "TokenValid", COLLECTED).await?;
    assert_eq!(owner_uid(&fixture, "shared").await?, uid(&fixture, "itcred", "a-younger").await?);
    // none if it waited in the queue unread while the equal request of the older one was sent, whose token it got then
    let requests = fixture.token_requests().await?.len();
    assert!((1..=2).contains(&requests), "{requests}");
    Ok(())
}

#[tokio::test]
async fn older_contender_owns_the_name_before_the_secret_exists() -> Result<()> {
    let mut fixture = Fixture::new("claim").await?;
    fixture.stop();
    // the older one cannot get a token, so the younger one finds no Secret, however late it is reconciled
    apply_sharing(&fixture, "older", "missing").await?;
    wait_for_a_later_second(&fixture, "older").await?;
    apply_sharing(&fixture, "younger", "agent-client").await?;
    fixture.start().await?;
    let message = fixture.wait_condition_of("younger", "Renewed", "False", "SecretNotOwned", PATIENCE).await?;
    assert!(message.contains("ITwinServiceCredential older, which is older"), "{message}");
    fixture.wait_condition_of("older", "Renewed", "False", "ClientCredentialsNotFound", SOON).await?;
    assert!(fixture.token_requests().await?.is_empty());
    assert_eq!(fixture.namespace.get("secret", "shared").await?, None);

    fixture.namespace.kubectl(&["delete", "itcred", "older"]).await?;
    fixture.wait_condition_of("younger", "Ready", "True", "TokenValid", SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

/// Applies a credential that writes the Secret `secret` with the client in the Secret `client`.
async fn apply_with(fixture: &Fixture, name: &str, secret: &str, client: &str) -> Result<()> {
    let spec = json!({"secretName": secret, "clientCredentialsRef": {"name": client}});
    fixture.namespace.apply(&fixture.namespace.credential(name, &spec)).await.map(drop)
}

/// Waits until so many attempts failed that the next one, unless the credential is enqueued, comes later than [`SOON`].
async fn wait_for_a_long_backoff(fixture: &Fixture, name: &str) -> Result<()> {
    eventually("a backoff of more than 5 s", PATIENCE, async || {
        let failures = fixture.status_of(name).await.ok()?["consecutiveFailures"].as_u64()?;
        (failures >= 5).then_some(())
    })
    .await
}

#[tokio::test]
async fn secret_name_that_an_older_credential_reads_as_its_client_is_refused() -> Result<()> {
    let fixture = Fixture::new("read-first").await?;
    apply_with(&fixture, "reader", "token", "vault").await?;
    fixture.wait_condition_of("reader", "Renewed", "False", "ClientCredentialsNotFound", SOON).await?;
    wait_for_a_later_second(&fixture, "reader").await?;
    apply_with(&fixture, "writer", "vault", "agent-client").await?;
    let refused = async || {
        let message = fixture.wait_condition_of("writer", "Renewed", "False", "SecretNotOwned", SOON).await?;
        assert!(message.contains("the client Secret of ITwinServiceCredential reader"), "{message}");
        assert!(message.contains("spec.secretName"), "{message}");
        assert!(fixture.token_requests().await?.is_empty(), "no token is requested in vain");
        anyhow::Ok(())
    };
    refused().await?;
    assert_eq!(fixture.namespace.get("secret", "vault").await?, None, "the operator does not create it for the writer");

    let mut client = fixture.namespace.client_secret(NAME, &fixture.client);
    client["metadata"] = json!({"name": "vault", "annotations": {"credentials.itwin.dev/adopt": "writer"}});
    // suspended, so that every token request is one of the writer
    fixture
        .namespace
        .kubectl(&["patch", "itcred", "reader", "--type=merge", "-p", r#"{"spec":{"suspend":true}}"#])
        .await?;
    fixture.namespace.apply(&client).await?;
    let before = fixture.namespace.get("secret", "vault").await?;
    refused().await?;
    assert_eq!(fixture.namespace.get("secret", "vault").await?, before, "not even if it is offered");
    fixture.namespace.kubectl(&["delete", "secret", "vault"]).await?;

    wait_for_a_long_backoff(&fixture, "writer").await?;
    let elsewhere = r#"{"spec":{"clientCredentialsRef":{"name":"agent-client"},"suspend":false}}"#;
    fixture.namespace.kubectl(&["patch", "itcred", "reader", "--type=merge", "-p", elsewhere]).await?;
    for name in ["writer", "reader"] {
        fixture.wait_condition_of(name, "Ready", "True", "TokenValid", SOON).await?;
    }
    Ok(())
}

#[tokio::test]
async fn name_that_an_older_credential_writes_is_refused_until_a_user_has_a_client_secret_there() -> Result<()> {
    let fixture = Fixture::new("written-first").await?;
    // without a client it writes nothing yet
    apply_with(&fixture, "writer", "vault", "missing").await?;
    fixture.wait_condition_of("writer", "Renewed", "False", "ClientCredentialsNotFound", SOON).await?;
    wait_for_a_later_second(&fixture, "writer").await?;
    apply_with(&fixture, "reader", "token", "vault").await?;
    let message = fixture.wait_condition_of("reader", "Renewed", "False", "ClientCredentialsInvalid", SOON).await?;
    assert!(message.contains("is the token Secret of ITwinServiceCredential writer"), "{message}");
    assert!(message.contains("spec.clientCredentialsRef.name"), "{message}");
    assert!(fixture.token_requests().await?.is_empty());

    wait_for_a_long_backoff(&fixture, "reader").await?;
    let mut client = fixture.namespace.client_secret(NAME, &fixture.client);
    client["metadata"]["name"] = json!("vault");
    fixture.namespace.apply(&client).await?;
    fixture.wait_condition_of("reader", "Ready", "True", "TokenValid", SOON).await?;
    fixture.wait_condition_of("writer", "Renewed", "False", "SecretNotOwned", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn credential_keeps_the_secret_that_it_owns_from_an_older_one_that_would_read_it() -> Result<()> {
    let fixture = Fixture::new("owned-first").await?;
    apply_with(&fixture, "reader", "token", "agent-client").await?;
    wait_for_a_later_second(&fixture, "reader").await?;
    apply_with(&fixture, "writer", "vault", "agent-client").await?;
    for name in ["reader", "writer"] {
        fixture.wait_condition_of(name, "Ready", "True", "TokenValid", SOON).await?;
    }
    let elsewhere = r#"{"spec":{"clientCredentialsRef":{"name":"vault"}}}"#;
    fixture.namespace.kubectl(&["patch", "itcred", "reader", "--type=merge", "-p", elsewhere]).await?;
    fixture.namespace.kubectl(&["annotate", "itcred", "reader", "writer", "credentials.itwin.dev/renew=1"]).await?;
    let message = fixture.wait_condition_of("reader", "Renewed", "False", "ClientCredentialsInvalid", SOON).await?;
    assert!(message.contains("ITwinServiceCredential writer"), "{message}");
    fixture.wait_condition_of("reader", "Ready", "False", "ClientCredentialsInvalid", SOON).await?;
    eventually("the renewal of the writer", SOON, async || {
        (fixture.status_of("writer").await.ok()?["lastRenewRequest"] == "1").then_some(())
    })
    .await?;
    fixture.wait_condition_of("writer", "Renewed", "True", "TokenIssued", SOON).await?;
    Ok(())
}

/// Creates a ConfigMap that is garbage collected with this owner; it shows that a collection is finished.
async fn apply_sentinel(fixture: &Fixture, name: &str, owner: &Value) -> Result<()> {
    let sentinel = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "ownerReferences": [objects::owner_reference(NAME, owner.clone())]},
    });
    fixture.namespace.apply(&sentinel).await.map(drop)
}

#[tokio::test]
async fn recreated_credential_keeps_its_secret_from_garbage_collection_of_the_old_uid() -> Result<()> {
    let fixture = Fixture::ready("recreate").await?;
    recreated_again_and_again(&fixture, 3).await?;
    // at most one for each owner, and one if garbage collection came before the adoption
    let requests = fixture.token_requests().await?.len();
    assert!((4..=7).contains(&requests), "{requests} token requests");
    Ok(())
}

/// Deletes the credential, creates it again immediately, and checks that garbage collection spares the new objects.
pub async fn recreated_again_and_again(fixture: &Fixture, rounds: u32) -> Result<()> {
    for round in 1..=rounds {
        let old = uid(fixture, "itcred", NAME).await?;
        let sentinel = format!("sentinel-{round}");
        apply_sentinel(fixture, &sentinel, &old).await?;
        fixture.namespace.kubectl(&["delete", "itcred", NAME, "--wait=false"]).await?;
        fixture.apply_credential(&json!({})).await?;
        let new = uid(fixture, "itcred", NAME).await?;
        assert_ne!(new, old);
        eventually("the Secret of the new owner", PATIENCE, async || {
            (owner_uid(fixture, NAME).await.ok()? == new).then_some(())
        })
        .await?;
        let secret = uid(fixture, "secret", NAME).await?;
        eventually("garbage collection of the old owner's objects", COLLECTED, async || {
            fixture.namespace.get("configmap", &sentinel).await.ok()?.is_none().then_some(())
        })
        .await?;
        fixture.wait_ready().await?;
        assert_eq!(uid(fixture, "secret", NAME).await?, secret, "the new owner's Secret was not collected");
        assert_eq!(owner_uid(fixture, NAME).await?, new);
        assert!(!fixture.token().await?.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn orphaned_and_retained_secrets_go_to_the_next_credential_of_the_name() -> Result<()> {
    let fixture = Fixture::ready("orphan").await?;
    let secret = uid(&fixture, "secret", NAME).await?;
    let first = fixture.token().await?;
    fixture.namespace.orphan(NAME).await?;
    assert_eq!(owner_uid(&fixture, NAME).await?, Value::Null);
    fixture.apply_credential(&json!({"deletionPolicy": "Retain"})).await?;
    fixture.wait_ready().await?;
    let second = fixture.token().await?;
    assert_ne!(second, first, "a token of its own");

    fixture.namespace.kubectl(&["delete", "itcred", NAME]).await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_ready().await?;
    assert_ne!(fixture.token().await?, second);
    assert_eq!(owner_uid(&fixture, NAME).await?, uid(&fixture, "itcred", NAME).await?);
    assert_eq!(uid(&fixture, "secret", NAME).await?, secret, "it was adopted, not created again");
    assert_eq!(fixture.token_requests().await?.len(), 3);

    // a credential of another name gets nothing of what was left behind
    fixture.namespace.orphan(NAME).await?;
    assert_eq!(uid(&fixture, "secret", NAME).await?, secret, "it was left behind");
    let other = json!({"secretName": NAME, "clientCredentialsRef": {"name": "agent-client"}});
    fixture.namespace.apply(&fixture.namespace.credential("other", &other)).await?;
    fixture.wait_condition_of("other", "Renewed", "False", "SecretNotOwned", SOON).await?;
    Ok(())
}
