//! Ownership of a Secret, and that it stays as the operator wrote it.

use anyhow::{Context, Result};
use itwin_api::secret_keys;
use serde_json::{Value, json};
use testbed::{
    eventually,
    namespace::{COLLECTED, Namespace},
    objects,
};

use crate::fixture::{Fixture, NAME, PATIENCE, SOON};

/// The owner references of the Secret: UID, and whether it is the controller.
async fn owners(fixture: &Fixture) -> Option<Vec<(String, bool)>> {
    let secret = fixture.secret().await.ok()??;
    let owners = secret["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    let owner = |owner: &Value| Some((owner["uid"].as_str()?.to_owned(), owner["controller"] == true));
    owners.iter().map(owner).collect()
}

#[tokio::test]
async fn owner_references_of_others_stay_and_another_controller_is_reported() -> Result<()> {
    let fixture = Fixture::ready("two-kinds").await?;
    let (token, testbed) = (fixture.token().await?, &fixture.namespace);
    testbed.kubectl(&["create", "configmap", "theirs"]).await?;
    let uid = |object: Option<Value>| Some(object?["metadata"]["uid"].as_str()?.to_owned());
    let theirs = uid(testbed.get("configmap", "theirs").await?).context("no ConfigMap")?;
    let ours = uid(testbed.get("itcred", NAME).await?).context("no credential")?;
    let reference = |controller: bool| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "uid": theirs, "controller": controller});
    let edit = async |kind: &str, references: Value| {
        let patch = json!({"metadata": {"ownerReferences": references}}).to_string();
        testbed.kubectl(&["patch", "secret", NAME, kind, "-p", &patch]).await
    };
    let expected = async |mut expected: Vec<(String, bool)>| {
        expected.sort();
        let what = format!("the owner references {expected:?}");
        let found = async || {
            let mut found = owners(&fixture).await?;
            found.sort();
            (found == expected).then_some(())
        };
        fixture.eventually(&what, PATIENCE, found).await
    };
    let (other, own) = ((theirs.clone(), false), (ours.clone(), true));
    edit("--type=strategic", json!([reference(false)])).await?;
    for suspend in [false, true] {
        fixture.apply_credential(&json!({"deletionPolicy": "Retain", "suspend": suspend})).await?;
        expected(vec![other.clone()]).await?;
        fixture.apply_credential(&json!({"deletionPolicy": "Delete", "suspend": suspend})).await?;
        expected(vec![other.clone(), own.clone()]).await?;
    }
    fixture.apply_credential(&json!({})).await?;
    edit("--type=merge", json!([reference(false)])).await?;
    expected(vec![other.clone(), own.clone()]).await?;

    // with Retain, garbage collection waits for an owner that is no controller too
    fixture.apply_credential(&json!({"deletionPolicy": "Retain"})).await?;
    expected(vec![other.clone()]).await?;
    let no_controller = json!({
        "apiVersion": "credentials.itwin.dev/v1alpha1", "kind": "ITwinServiceCredential", "name": NAME, "uid": ours,
    });
    edit("--type=strategic", json!([no_controller])).await?;
    expected(vec![other.clone()]).await?;

    fixture.apply_credential(&json!({})).await?;
    expected(vec![other.clone(), own.clone()]).await?;
    edit("--type=merge", json!([reference(true)])).await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretNotOwned", PATIENCE).await?;
    assert!(message.contains("controlled by ConfigMap theirs"), "{message}");
    edit("--type=merge", json!([reference(false)])).await?;
    expected(vec![other, own]).await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", PATIENCE).await?;
    assert_eq!((fixture.token().await?, fixture.token_requests().await?.len()), (token, 1));
    Ok(())
}

#[tokio::test]
async fn secret_is_deleted_with_its_credential() -> Result<()> {
    let fixture = Fixture::ready("delete").await?;
    fixture.namespace.kubectl(&["delete", "itcred", "agent"]).await?;
    eventually("garbage collection of the Secret", COLLECTED, async || {
        fixture.secret().await.ok()?.is_none().then_some(())
    })
    .await?;
    eventually("the removal of the credential's metrics", SOON, async || {
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
    assert_eq!(fixture.token().await?, testbed::namespace::data(&secret)?["access_token"]);
    Ok(())
}

#[tokio::test]
async fn secret_of_another_owner_is_left_alone_until_it_is_offered() -> Result<()> {
    let fixture = Fixture::new("not-owned").await?;
    let theirs = objects::secret(NAME, &json!({"theirs": "precious"}));
    fixture.namespace.apply(&theirs).await?;
    let before = fixture.secret().await?;
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretNotOwned", SOON).await?;
    assert!(message.contains("credentials.itwin.dev/adopt=agent"), "{message}");
    assert_eq!(fixture.secret().await?, before, "not touched");
    assert!(fixture.token_requests().await?.is_empty(), "no token is requested in vain");

    fixture.namespace.kubectl(&["annotate", "secret", "agent", "credentials.itwin.dev/adopt=agent"]).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    let data = fixture.data().await?;
    assert!(data.contains_key("access_token") && !data.contains_key("theirs"), "it is owned now: {:?}", data.keys());
    Ok(())
}

#[tokio::test]
async fn manual_edits_are_reverted_and_labels_of_others_stay() -> Result<()> {
    let fixture = Fixture::ready("edit").await?;
    fixture.namespace.kubectl(&["label", "secret", "agent", "theirs=1"]).await?;
    let edit = r#"{"stringData":{"access_token":"garbage","extra":"x"}}"#;
    fixture.namespace.kubectl(&["patch", "secret", "agent", "--type=merge", "-p", edit]).await?;
    eventually("a valid token again", SOON, async || {
        let data = fixture.data().await.ok()?;
        (data["access_token"] != "garbage" && !data.contains_key("extra")).then_some(())
    })
    .await?;
    let secret = fixture.secret().await?.context("no Secret")?;
    assert_eq!(secret["metadata"]["labels"]["theirs"], "1");
    Ok(())
}

#[tokio::test]
async fn lost_labels_and_owner_are_restored_without_a_token_request() -> Result<()> {
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
async fn owner_reference_that_was_edited_is_restored_without_a_token_request() -> Result<()> {
    let fixture = Fixture::ready("edited-owner").await?;
    let before = fixture.token().await?;
    let owner = async || Some(fixture.secret().await.ok()??["metadata"]["ownerReferences"][0].clone());
    let ours = owner().await.context("an owner")?;
    for edit in [json!({"name": "other"}), json!({"kind": "ITwinAuthority"}), json!({"controller": false})] {
        let mut edited = ours.clone();
        edit.as_object().into_iter().flatten().for_each(|(field, value)| edited[field] = value.clone());
        let patch = json!({"metadata": {"ownerReferences": [edited]}}).to_string();
        fixture.namespace.kubectl(&["patch", "secret", NAME, "--type=merge", "-p", &patch]).await?;
        eventually(&format!("its owner after {edit}"), SOON, async || (owner().await? == ours).then_some(())).await?;
    }
    assert_eq!(fixture.token().await?, before);
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn deleted_secret_is_created_again() -> Result<()> {
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

/// What is copied with a Secret manually: everything that the operator wrote, and a finalizer, so that garbage
/// collection, which finds no such owner in the other namespace, does not end the test.
fn copy_of(secret: &Value) -> Value {
    let metadata = &secret["metadata"];
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": secret["type"],
        "data": secret["data"],
        "metadata": {
            "name": metadata["name"],
            "labels": metadata["labels"],
            "annotations": metadata["annotations"],
            "ownerReferences": metadata["ownerReferences"],
            "finalizers": ["example.com/held-by-the-test"],
        },
    })
}

/// Deletes a Secret that has this finalizer.
async fn delete_held(namespace: &Namespace) -> Result<()> {
    namespace.kubectl(&["delete", "secret", NAME, "--wait=false"]).await?;
    let release = r#"{"metadata":{"finalizers":null}}"#;
    namespace.kubectl(&["patch", "secret", NAME, "--type=merge", "-p", release]).await.map(drop)
}

#[tokio::test]
async fn copy_of_a_secret_in_another_namespace_is_not_adopted() -> Result<()> {
    let original = Fixture::ready("copied").await?;
    let secret = original.secret().await?.context("no Secret")?;
    let fixture = Fixture::new("copy").await?;
    fixture.namespace.apply(&copy_of(&secret)).await?;
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretNotOwned", SOON).await?;
    let of = format!("a copy of the Secret of ITwinServiceCredential {}/agent", original.namespace.name);
    assert!(message.contains(&of) && message.contains("delete it"), "{message}");
    assert_eq!(fixture.secret().await?.context("no Secret")?["data"], secret["data"], "not touched");
    assert!(fixture.token_requests().await?.is_empty());

    delete_held(&fixture.namespace).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    assert_ne!(fixture.token().await?, original.token().await?);
    Ok(())
}

#[tokio::test]
async fn copy_of_a_retained_secret_is_not_taken_over_even_where_it_is_offered_while_its_original_has_an_owner()
-> Result<()> {
    let mut original = Fixture::new("retained").await?;
    original.apply_credential(&json!({"deletionPolicy": "Retain"})).await?;
    original.wait_ready().await?;
    let mut fixture = Fixture::new("retained-copy").await?;
    fixture.stop();
    let both = format!("{},{}", original.namespace.name, fixture.namespace.name);
    // two operators of one namespace, of which one does not know its authority, would never agree
    original.stop();
    fixture.operator = fixture.spawn_operator_of(&both, &[], &[])?;
    fixture.operator.wait_ready().await?;
    let mut copy = copy_of(&original.secret().await?.context("no Secret")?);
    copy["metadata"]["annotations"][secret_keys::ADOPT] = json!(NAME);
    fixture.namespace.apply(&copy).await?;
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretNotOwned", SOON).await?;
    assert!(message.contains(&format!("ITwinServiceCredential {}/agent", original.namespace.name)), "{message}");
    assert_eq!(fixture.secret().await?.context("no Secret")?["data"], copy["data"], "not touched");
    assert!(fixture.token_requests().await?.is_empty());
    Ok(())
}

/// Applies a credential that writes the Secret `kept` with the client of the fixture.
async fn apply_keeping(fixture: &Fixture, name: &str, policy: &str) -> Result<()> {
    let client = json!({"name": "agent-client"});
    let spec = json!({"secretName": "kept", "deletionPolicy": policy, "clientCredentialsRef": client});
    fixture.namespace.apply(&fixture.namespace.credential(name, &spec)).await.map(drop)
}

#[tokio::test]
async fn name_that_equals_the_hashed_label_of_a_long_one_gets_nothing_of_its_retained_secret() -> Result<()> {
    let fixture = Fixture::new("label").await?;
    let long = "long-name-".repeat(8) + "end";
    let label = secret_keys::credential_label(&long);
    apply_keeping(&fixture, &long, "Retain").await?;
    fixture.wait_condition_of(&long, "Ready", "True", "TokenValid", SOON).await?;
    let secret = fixture.namespace.get("secret", "kept").await?.context("no Secret")?;
    assert_eq!(secret["metadata"]["labels"]["credentials.itwin.dev/credential"], label.as_str());

    fixture.namespace.kubectl(&["delete", "itcred", &long]).await?;
    apply_keeping(&fixture, &label, "Retain").await?;
    let message = fixture.wait_condition_of(&label, "Renewed", "False", "SecretNotOwned", SOON).await?;
    assert!(message.contains(&format!("was left behind by ITwinServiceCredential {long}")), "{message}");
    assert_eq!(fixture.namespace.get("secret", "kept").await?, Some(secret), "not touched");
    assert_eq!(fixture.token_requests().await?.len(), 1, "the one of the long name");

    let adopt = format!("{}={label}", secret_keys::ADOPT);
    fixture.namespace.kubectl(&["annotate", "secret", "kept", &adopt]).await?;
    fixture.wait_condition_of(&label, "Ready", "True", "TokenValid", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn retained_secret_whose_owner_exists_is_not_adopted_even_if_it_is_offered() -> Result<()> {
    let fixture = Fixture::new("living").await?;
    apply_keeping(&fixture, "owner", "Retain").await?;
    fixture.wait_condition_of("owner", "Ready", "True", "TokenValid", SOON).await?;
    fixture.namespace.kubectl(&["annotate", "secret", "kept", "credentials.itwin.dev/adopt=other"]).await?;
    let secret = fixture.namespace.get("secret", "kept").await?;
    apply_keeping(&fixture, "other", "Delete").await?;
    let message = fixture.wait_condition_of("other", "Renewed", "False", "SecretNotOwned", SOON).await?;
    assert!(message.contains("belongs to ITwinServiceCredential owner, which exists"), "{message}");
    assert_eq!(fixture.namespace.get("secret", "kept").await?, secret, "not touched");
    assert_eq!(fixture.token_requests().await?.len(), 1, "the one of its owner");

    // the offer counts once its owner is deleted
    fixture.namespace.kubectl(&["delete", "itcred", "owner"]).await?;
    fixture.wait_condition_of("other", "Ready", "True", "TokenValid", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn secret_of_an_earlier_version_gets_its_owner_written_on_it_without_a_token_request() -> Result<()> {
    let fixture = Fixture::ready("upgrade").await?;
    let token = fixture.token().await?;
    fixture.namespace.kubectl(&["annotate", "secret", NAME, "credentials.itwin.dev/owner-"]).await?;
    eventually("the owner on the Secret", SOON, async || {
        let secret = fixture.secret().await.ok()??;
        let owner = format!("{}/{NAME}", fixture.namespace.name);
        (secret["metadata"]["annotations"][secret_keys::OWNER] == owner).then_some(())
    })
    .await?;
    assert_eq!(fixture.token().await?, token);
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn secret_left_behind_by_an_earlier_version_is_adopted_only_if_it_is_offered() -> Result<()> {
    let mut fixture = Fixture::new("unnamed").await?;
    fixture.apply_credential(&json!({"deletionPolicy": "Retain"})).await?;
    fixture.wait_ready().await?;
    fixture.stop();
    fixture.namespace.kubectl(&["delete", "itcred", NAME]).await?;
    fixture.namespace.kubectl(&["annotate", "secret", NAME, "credentials.itwin.dev/owner-"]).await?;
    fixture.apply_credential(&json!({"deletionPolicy": "Retain"})).await?;
    fixture.start().await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretNotOwned", SOON).await?;
    assert!(message.contains("credentials.itwin.dev/adopt=agent"), "{message}");
    fixture.namespace.kubectl(&["annotate", "secret", NAME, "credentials.itwin.dev/adopt=agent"]).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    Ok(())
}
