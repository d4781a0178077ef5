//! Secrets that must not, or cannot, be written; and ownership metadata that does not count.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::objects;

use crate::fixture::{Fixture, NAME, PATIENCE, SOON};

/// Types that other components of the cluster act upon, with the least data that the API server accepts.
fn reserved() -> [(&'static str, Value); 5] {
    [
        ("kubernetes.io/service-account-token", json!({})),
        ("kubernetes.io/tls", json!({"tls.crt": "", "tls.key": ""})),
        ("helm.sh/release.v1", json!({"release": "precious"})),
        ("bootstrap.kubernetes.io/token", json!({"token-id": "abcdef", "token-secret": "0123456789abcdef"})),
        ("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": "{\"auths\":{}}"})),
    ]
}

#[tokio::test]
async fn reserved_types_are_refused_even_when_they_are_offered() -> Result<()> {
    let fixture = Fixture::new("reserved").await?;
    fixture.namespace.kubectl(&["create", "serviceaccount", "someone"]).await?;
    for (number, (kind, data)) in reserved().into_iter().enumerate() {
        let name = format!("reserved-{number}");
        let annotations = json!({"credentials.itwin.dev/adopt": name, "kubernetes.io/service-account.name": "someone"});
        let mut secret = objects::secret(&name, &data);
        objects::merge(&mut secret, &json!({"type": kind, "metadata": {"annotations": annotations}}));
        fixture.namespace.apply(&secret).await?;
        let spec = json!({"clientCredentialsRef": {"name": "agent-client"}});
        fixture.namespace.apply(&fixture.namespace.credential(&name, &spec)).await?;
    }
    for (number, (kind, data)) in reserved().into_iter().enumerate() {
        let name = format!("reserved-{number}");
        let message = fixture.wait_condition_of(&name, "Renewed", "False", "SecretTypeMismatch", PATIENCE).await?;
        assert!(message.contains(kind), "{message}");
        let secret = fixture.namespace.get("secret", &name).await?.context("it is gone")?;
        assert_eq!(
            secret["metadata"]["annotations"]["credentials.itwin.dev/adopt"], name,
            "the offer was not accepted"
        );
        let now = testbed::namespace::data(&secret)?;
        assert!(!now.contains_key("access_token"), "{kind}: {:?}", now.keys());
        for (key, value) in data.as_object().into_iter().flatten() {
            assert_eq!(now[key], value.as_str().unwrap_or_default(), "{kind}");
        }
    }
    assert!(fixture.token_requests().await?.is_empty(), "no token is requested in vain");
    Ok(())
}

#[tokio::test]
async fn immutable_secret_is_refused_and_created_again_once_it_is_deleted() -> Result<()> {
    let fixture = Fixture::new("immutable").await?;
    let mut secret = objects::secret(NAME, &json!({"theirs": "precious"}));
    let offered = json!({"annotations": {"credentials.itwin.dev/adopt": NAME}});
    objects::merge(&mut secret, &json!({"immutable": true, "metadata": offered}));
    fixture.namespace.apply(&secret).await?;
    let before = fixture.secret().await?;
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretImmutable", SOON).await?;
    assert!(message.contains("delete it"), "{message}");
    assert_eq!(fixture.secret().await?, before);
    assert!(fixture.token_requests().await?.is_empty(), "no token is requested in vain");
    fixture.namespace.kubectl(&["delete", "secret", NAME]).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn secret_that_becomes_immutable_is_noticed_before_a_token_is_requested() -> Result<()> {
    let mut fixture = Fixture::ready("made-immutable").await?;
    fixture.client.scope = "itwin-platform imodels:read".to_owned();
    fixture.register().await?;
    let before = fixture.token().await?;
    fixture.namespace.kubectl(&["patch", "secret", NAME, "-p", r#"{"immutable":true}"#]).await?;
    fixture.apply_credential(&json!({"scopes": ["imodels:read"]})).await?;
    fixture.wait_condition("Renewed", "False", "SecretImmutable", SOON).await?;
    testbed::eventually("three attempts", PATIENCE, async || {
        fixture.status().await.ok().filter(|status| status["consecutiveFailures"].as_i64() >= Some(3))
    })
    .await?;
    assert_eq!(fixture.token().await?, before, "the old token is still there");
    assert_eq!(fixture.token_requests().await?.len(), 1, "no token is requested in vain");
    fixture.namespace.kubectl(&["delete", "secret", NAME]).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn secret_that_becomes_immutable_is_reported_when_a_template_is_edited_and_takes_its_labels() -> Result<()> {
    let mut fixture = Fixture::ready("immutable-data").await?;
    let before = fixture.token().await?;
    fixture.namespace.kubectl(&["patch", "secret", NAME, "-p", r#"{"immutable":true}"#]).await?;
    let template = json!({"labels": {"team": "a"}, "data": {"header": "token {{ access_token }}"}});
    fixture.apply_credential(&json!({"secretTemplate": template})).await?;
    fixture.wait_condition("Renewed", "False", "SecretImmutable", SOON).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    let secret = fixture.secret().await?.context("no Secret")?;
    assert_eq!(secret["metadata"]["labels"]["team"], "a");
    assert!(secret["data"].get("header").is_none(), "it cannot be written");
    assert_eq!((fixture.token().await?, fixture.token_requests().await?.len()), (before, 1));
    // the next try of the data waits for 8 s at least after five
    let mut tries = std::collections::BTreeSet::new();
    let five = async || {
        tries.insert(fixture.status().await.ok()?["lastFailure"]["time"].as_str()?.to_owned());
        (tries.len() >= 5).then_some(())
    };
    testbed::eventually("five tries", PATIENCE * 2, five).await?;
    let disown = r#"{"metadata":{"ownerReferences":null}}"#;
    fixture.namespace.kubectl(&["patch", "secret", NAME, "--type=merge", "-p", disown]).await?;
    let owned = async || {
        let secret = fixture.secret().await.ok()??;
        secret["metadata"]["ownerReferences"].is_array().then_some(())
    };
    fixture.eventually("the owner reference", SOON, owned).await?;
    // a process that starts then finds out the same
    fixture.restart().await?;
    fixture.reconcile().await?;
    fixture.wait_condition("Renewed", "False", "SecretImmutable", SOON).await?;
    fixture.namespace.kubectl(&["delete", "secret", NAME]).await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", PATIENCE).await?;
    let token = fixture.token().await?;
    assert_eq!(fixture.data().await?["header"], format!("token {token}"));
    assert_eq!(fixture.token_requests().await?.len(), 2);
    Ok(())
}

fn not_owned(metadata: &Value) -> Value {
    let mut secret = objects::secret(NAME, &json!({"theirs": "precious"}));
    objects::merge(&mut secret["metadata"], metadata);
    secret
}

#[tokio::test]
async fn annotation_on_the_credential_adopts_nothing() -> Result<()> {
    let fixture = Fixture::new("self-service").await?;
    fixture.namespace.apply(&not_owned(&json!({}))).await?;
    let before = fixture.secret().await?;
    let mut credential = fixture.namespace.credential(NAME, &json!({}));
    credential["metadata"]["annotations"] = json!({"credentials.itwin.dev/adopt": NAME});
    fixture.namespace.apply(&credential).await?;
    fixture.wait_condition("Renewed", "False", "SecretNotOwned", SOON).await?;
    assert_eq!(fixture.secret().await?, before);
    assert!(fixture.token_requests().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn forged_annotations_do_not_beat_another_controller() -> Result<()> {
    let fixture = Fixture::new("forged").await?;
    // suspended, so that its UID is known before the Secret exists
    fixture.apply_credential(&json!({"suspend": true})).await?;
    fixture.wait_condition("Ready", "False", "Suspended", SOON).await?;
    let credential = fixture.namespace.get("itcred", NAME).await?.context("no credential")?;
    fixture.namespace.kubectl(&["create", "configmap", "controller"]).await?;
    let controller = fixture.namespace.get("configmap", "controller").await?.context("no ConfigMap")?;
    let metadata = json!({
        "annotations": {
            "credentials.itwin.dev/owner-uid": credential["metadata"]["uid"],
            "credentials.itwin.dev/adopt": NAME,
        },
        "labels": {"credentials.itwin.dev/credential": NAME},
        "ownerReferences": [{
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": "controller",
            "uid": controller["metadata"]["uid"],
            "controller": true,
        }],
    });
    fixture.namespace.apply(&not_owned(&metadata)).await?;
    let before = fixture.secret().await?;
    fixture.apply_credential(&json!({"suspend": false})).await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretNotOwned", SOON).await?;
    assert!(message.contains("controlled by ConfigMap controller"), "{message}");
    assert_eq!(fixture.secret().await?, before);
    assert!(fixture.token_requests().await?.is_empty());
    Ok(())
}
