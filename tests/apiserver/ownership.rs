//! Whose Secret it is, and that it stays as we wrote it.

use anyhow::{Context, Result};
use serde_json::json;
use stage::{eventually, namespace::COLLECTED};

use crate::fixture::{Fixture, PATIENCE, SOON};

#[tokio::test]
async fn secret_goes_with_its_credential() -> Result<()> {
    let fixture = Fixture::ready("delete").await?;
    fixture.namespace.kubectl(&["delete", "itcred", "agent"]).await?;
    eventually("garbage collection of the Secret", COLLECTED, async || {
        fixture.secret().await.ok()?.is_none().then_some(())
    })
    .await?;
    eventually("the end of the credential's metrics", SOON, async || {
        let metrics = fixture.operator.get("/metrics").await.ok()?;
        (!metrics.contains("itwin_credential_ready")).then_some(())
    })
    .await
}

#[tokio::test]
async fn retained_secret_outlives_its_credential() -> Result<()> {
    let fixture = Fixture::new("retain").await?;
    fixture.apply_credential(&json!({"deletionPolicy": "Retain"})).await?;
    fixture.wait_ready().await?;
    let secret = fixture.secret().await?.context("no Secret")?;
    assert_eq!(secret["metadata"]["ownerReferences"], json!(null), "nothing for garbage collection to act upon");
    fixture.namespace.kubectl(&["delete", "itcred", "agent", "--wait"]).await?;
    assert_eq!(fixture.token().await?, stage::namespace::data(&secret)?["access_token"]);
    Ok(())
}

#[tokio::test]
async fn somebody_elses_secret_is_left_alone_until_it_is_offered() -> Result<()> {
    let fixture = Fixture::new("foreign").await?;
    let foreign = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "agent"}, "stringData": {"theirs": "precious"}});
    fixture.namespace.apply(&foreign).await?;
    let before = fixture.secret().await?;
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretNotOwned", SOON).await?;
    assert!(message.contains("credentials.itwin.dev/adopt=agent"), "{message}");
    assert_eq!(fixture.secret().await?, before, "not touched");
    assert!(fixture.token_requests().await?.is_empty(), "no token is asked for in vain");

    fixture.namespace.kubectl(&["annotate", "secret", "agent", "credentials.itwin.dev/adopt=agent"]).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    let data = fixture.data().await?;
    assert!(data.contains_key("access_token") && !data.contains_key("theirs"), "it is ours now: {:?}", data.keys());
    Ok(())
}

#[tokio::test]
async fn hand_edits_are_undone_and_foreign_labels_stay() -> Result<()> {
    let fixture = Fixture::ready("edit").await?;
    fixture.namespace.kubectl(&["label", "secret", "agent", "theirs=1"]).await?;
    let edit = r#"{"stringData":{"access_token":"garbage","extra":"x"}}"#;
    fixture.namespace.kubectl(&["patch", "secret", "agent", "--type=merge", "-p", edit]).await?;
    eventually("a token again", SOON, async || {
        let data = fixture.data().await.ok()?;
        (data["access_token"] != "garbage" && !data.contains_key("extra")).then_some(())
    })
    .await?;
    let secret = fixture.secret().await?.context("no Secret")?;
    assert_eq!(secret["metadata"]["labels"]["theirs"], "1");
    Ok(())
}

#[tokio::test]
async fn lost_labels_and_owner_are_put_back_without_a_token_request() -> Result<()> {
    let fixture = Fixture::ready("labels").await?;
    let before = fixture.token().await?;
    let edit = r#"{"metadata":{"labels":{"app.kubernetes.io/managed-by":null},"ownerReferences":null}}"#;
    fixture.namespace.kubectl(&["patch", "secret", "agent", "--type=merge", "-p", edit]).await?;
    eventually("label and owner", SOON, async || {
        let secret = fixture.secret().await.ok()??;
        let metadata = &secret["metadata"];
        (metadata["labels"]["app.kubernetes.io/managed-by"].is_string() && metadata["ownerReferences"].is_array())
            .then_some(())
    })
    .await?;
    assert_eq!(fixture.token().await?, before);
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn deleted_secret_is_made_again() -> Result<()> {
    let fixture = Fixture::ready("restore").await?;
    fixture.namespace.kubectl(&["delete", "secret", "agent"]).await?;
    eventually("the Secret", SOON, async || fixture.token().await.ok()).await?;
    eventually("the event Restored", PATIENCE, async || {
        fixture.events().await.ok().filter(|events| events.iter().any(|event| event == "Restored"))
    })
    .await?;
    assert_eq!(fixture.token_requests().await?.len(), 2);
    Ok(())
}
