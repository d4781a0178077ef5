//! Only Secrets of type Opaque are written, also where everything else says that the operator wrote them.

use anyhow::{Context, Result};
use itwin_api::{MANAGER, secret_keys};
use serde_json::{Value, json};
use testbed::eventually;

use crate::fixture::{Fixture, NAME, PATIENCE, SOON};

/// A type that the operator does not write.
const OTHER: &str = "helm.sh/release.v1";

/// A Secret with all that the operator wrote into another one, and of another type.
fn of_another_type(secret: &Value) -> Value {
    let metadata = &secret["metadata"];
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": OTHER,
        "data": secret["data"],
        "metadata": {
            "name": metadata["name"],
            "labels": metadata["labels"],
            "annotations": metadata["annotations"],
            "ownerReferences": metadata["ownerReferences"],
        },
    })
}

/// Creates an object under the operator's field manager name, as anyone may.
async fn create_as_operator(fixture: &Fixture, object: &Value) -> Result<()> {
    let manager = format!("--field-manager={MANAGER}");
    let create = ["--namespace", &fixture.namespace.name, "create", &manager, "-f", "-"];
    fixture.namespace.testbed.kubectl_with(&create, Some(&object.to_string())).await.map(drop)
}

/// Asserts that the Secret holds the data of this one and is of the other type.
async fn assert_untouched(fixture: &Fixture, before: &Value) -> Result<()> {
    let secret = fixture.secret().await?.context("no Secret")?;
    assert_eq!((&secret["data"], &secret["type"]), (&before["data"], &json!(OTHER)));
    assert_eq!(secret["metadata"]["annotations"], before["metadata"]["annotations"]);
    Ok(())
}

#[tokio::test]
async fn secret_of_another_type_that_is_forged_while_no_operator_runs_is_not_written() -> Result<()> {
    let mut fixture = Fixture::ready("forged-type").await?;
    let secret = fixture.secret().await?.context("no Secret")?;
    fixture.stop();
    fixture.namespace.kubectl(&["delete", "secret", NAME]).await?;
    let mut forged = of_another_type(&secret);
    // a token for another request than that of the spec is replaced
    forged["metadata"]["annotations"][secret_keys::REQUEST] = json!("another");
    create_as_operator(&fixture, &forged).await?;
    fixture.start().await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretTypeMismatch", PATIENCE).await?;
    assert!(message.contains(OTHER), "{message}");
    assert_untouched(&fixture, &forged).await?;
    assert_eq!(fixture.token_requests().await?.len(), 1, "no token is requested in vain");
    Ok(())
}

#[tokio::test]
async fn secret_that_is_replaced_by_one_of_another_type_is_reported_and_created_again_once_it_is_deleted() -> Result<()>
{
    let fixture = Fixture::ready("replaced-type").await?;
    let secret = fixture.secret().await?.context("no Secret")?;
    // otherwise the operator may create it before the test does
    fixture.apply_credential(&json!({"suspend": true})).await?;
    let is_suspended = async || (fixture.status().await.ok()?["observedGeneration"] == 2).then_some(());
    eventually("the suspension in the status", SOON, is_suspended).await?;
    fixture.namespace.kubectl(&["delete", "secret", NAME]).await?;
    let replaced = of_another_type(&secret);
    create_as_operator(&fixture, &replaced).await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_condition("Renewed", "False", "SecretTypeMismatch", SOON).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    fixture.namespace.kubectl(&["label", "secret", NAME, "app.kubernetes.io/managed-by-"]).await?;
    fixture.namespace.kubectl(&["annotate", "itcred", NAME, "credentials.itwin.dev/renew=now"]).await?;
    eventually("the answer to the request for a renewal", SOON, async || {
        (fixture.status().await.ok()?["lastRenewRequest"] == "now").then_some(())
    })
    .await?;
    fixture.wait_condition("Renewed", "False", "SecretTypeMismatch", SOON).await?;
    assert_untouched(&fixture, &replaced).await?;
    let labels = fixture.secret().await?.context("no Secret")?["metadata"]["labels"].clone();
    assert_eq!(labels[secret_keys::MANAGED_BY], Value::Null, "nothing of it is reverted");
    assert_eq!(fixture.token_requests().await?.len(), 1, "no token is requested in vain");

    fixture.namespace.kubectl(&["delete", "secret", NAME]).await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", PATIENCE).await?;
    let created = fixture.secret().await?.context("no Secret")?;
    assert_eq!((&created["type"], fixture.token_requests().await?.len()), (&json!("Opaque"), 2));
    Ok(())
}
