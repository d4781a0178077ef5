//! What a user changes in the spec after the first token.

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use testbed::eventually;

use crate::fixture::{Fixture, NAME, PATIENCE, SOON};

fn time(status: &Value, field: &str) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc3339(status[field].as_str()?).ok()?.to_utc())
}

/// Waits for the status of this generation.
async fn observed(fixture: &Fixture, generation: i64) -> Result<Value> {
    eventually("the new generation's status", SOON, async || {
        fixture.status().await.ok().filter(|status| status["observedGeneration"] == generation)
    })
    .await
}

#[tokio::test]
async fn suspended_credential_resumes_where_it_stopped() -> Result<()> {
    let mut fixture = Fixture::new("resume").await?;
    fixture.client.lifetime = 20;
    fixture.register().await?;
    fixture.apply_credential(&json!({"minimumValidity": "2s"})).await?;
    fixture.wait_ready().await?;
    let before = fixture.secret().await?;
    let due = time(&fixture.status().await?, "renewAt").context("renewAt")?;
    fixture.apply_credential(&json!({"minimumValidity": "2s", "suspend": true})).await?;
    observed(&fixture, 2).await?;
    assert_eq!(fixture.status().await?["renewAt"], Value::Null, "no attempt is planned");
    // it falls due meanwhile, and even expires
    fixture.wait_condition("Ready", "False", "Suspended", PATIENCE).await?;
    assert!(itwin_credential_operator::clock::Clock::system().now() > due);
    assert_eq!(fixture.secret().await?, before);
    assert_eq!(fixture.token_requests().await?.len(), 1);
    assert_eq!(fixture.metric("itwin_credential_suspended{").await?, 1.0);
    fixture.apply_credential(&json!({"minimumValidity": "2s", "suspend": false})).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 2);
    assert_eq!(fixture.metric("itwin_credential_suspended{").await?, 0.0);
    // it was neither renewed late nor replaced after its expiry: no one wanted it renewed
    for histogram in ["itwin_credential_renewal_lateness_seconds", "itwin_credential_validity_at_replacement_seconds"] {
        assert_eq!(fixture.metric(&format!("{histogram}_count")).await?, 0.0, "{histogram}");
    }
    eventually("an observed renewal after that", PATIENCE, async || {
        let renewals = fixture.metric("itwin_credential_renewal_lateness_seconds_count").await.ok()?;
        (renewals >= 1.0).then_some(())
    })
    .await
}

#[tokio::test]
async fn renewal_policy_shows_in_the_status_and_is_kept_within_half_of_the_lifetime() -> Result<()> {
    let fixture = Fixture::ready("policy").await?;
    let seconds_before_expiry = |status: &Value| {
        let (renews, expires) = (time(status, "renewAt"), time(status, "expiresAt"));
        renews.zip(expires).map(|(renews, expires)| (expires - renews).num_seconds()).unwrap_or_default()
    };
    // of an hour; up to a twentieth more as jitter, and one second of rounding
    for (generation, (policy, expected)) in [
        (json!({"renewBeforePercentage": 10}), 360),
        (json!({"renewBeforePercentage": 50}), 1800),
        (json!({"renewBefore": "10m"}), 600),
        (json!({"renewBefore": "50m"}), 1800),
        (json!({}), 1200),
    ]
    .into_iter()
    .enumerate()
    {
        fixture.apply_credential(&policy).await?;
        let status = observed(&fixture, i64::try_from(generation)? + 2).await?;
        let before = seconds_before_expiry(&status);
        assert!((expected..=expected + 181).contains(&before), "{policy}: renewed {before} s before it expires");
    }
    assert_eq!(fixture.token_requests().await?.len(), 1, "a policy is no reason for a token");
    Ok(())
}

#[tokio::test]
async fn retain_is_switched_on_and_off_without_a_token_request() -> Result<()> {
    let fixture = Fixture::ready("switch").await?;
    let token = fixture.token().await?;
    let owners = async |expected: bool| {
        eventually("the expected owner reference", SOON, async || {
            let secret = fixture.secret().await.ok()??;
            (secret["metadata"]["ownerReferences"].is_array() == expected).then_some(secret)
        })
        .await
    };
    owners(true).await?;
    fixture.apply_credential(&json!({"deletionPolicy": "Retain"})).await?;
    owners(false).await?;
    fixture.apply_credential(&json!({"deletionPolicy": "Delete"})).await?;
    let secret = owners(true).await?;
    let credential = fixture.namespace.get("itcred", NAME).await?.context("no credential")?;
    assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], credential["metadata"]["uid"]);
    assert_eq!(fixture.token().await?, token);
    assert_eq!(fixture.token_requests().await?.len(), 1);
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn template_adds_labels_and_annotations_and_removes_only_its_own() -> Result<()> {
    let fixture = Fixture::new("template").await?;
    let template =
        |labels: Value, annotations: Value| json!({"secretTemplate": {"labels": labels, "annotations": annotations}});
    fixture
        .apply_credential(&template(
            json!({"team": "render", "example.com/stage": "test"}),
            json!({"example.com/note": "one", "example.com/owner": "us"}),
        ))
        .await?;
    fixture.wait_ready().await?;
    let token = fixture.token().await?;
    fixture.namespace.kubectl(&["label", "secret", NAME, "theirs=1"]).await?;
    fixture.namespace.kubectl(&["annotate", "secret", NAME, "example.com/theirs=1"]).await?;

    let carries = async |what: &str, check: fn(&Value, &Value) -> bool| {
        let secret = eventually(what, SOON, async || {
            let secret = fixture.secret().await.ok()??;
            let metadata = &secret["metadata"];
            check(&metadata["labels"], &metadata["annotations"]).then_some(secret)
        })
        .await?;
        let (labels, annotations) = (&secret["metadata"]["labels"], &secret["metadata"]["annotations"]);
        assert_eq!(
            (&labels["theirs"], &annotations["example.com/theirs"]),
            (&json!("1"), &json!("1")),
            "those of others stay"
        );
        assert_eq!(labels["app.kubernetes.io/managed-by"], "itwin-credential-operator", "those of the operator stay");
        anyhow::Ok(())
    };
    fixture.apply_credential(&template(json!({"team": "bake"}), json!({"example.com/note": "two"}))).await?;
    carries("one of each changed, one of each removed", |labels, annotations| {
        labels["team"] == "bake"
            && labels["example.com/stage"].is_null()
            && annotations["example.com/note"] == "two"
            && annotations["example.com/owner"].is_null()
    })
    .await?;
    // applied by kubectl, which removes a field that it had set
    fixture.apply_credential(&json!({})).await?;
    carries("the others removed too", |labels, annotations| {
        labels["team"].is_null() && annotations["example.com/note"].is_null()
    })
    .await?;
    assert_eq!(fixture.token().await?, token);
    assert_eq!(fixture.token_requests().await?.len(), 1, "none of it is a reason for a token");
    Ok(())
}

#[tokio::test]
async fn label_removed_from_the_template_while_the_operator_is_down_is_removed_from_the_secret() -> Result<()> {
    let mut fixture = Fixture::new("template-down").await?;
    fixture.apply_credential(&json!({"secretTemplate": {"labels": {"team": "render"}}})).await?;
    fixture.wait_ready().await?;
    fixture.stop();
    fixture.apply_credential(&json!({})).await?;
    fixture.start().await?;
    eventually("the removal of the label", SOON, async || {
        fixture.secret().await.ok()??["metadata"]["labels"]["team"].is_null().then_some(())
    })
    .await?;
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn longest_name_works() -> Result<()> {
    let fixture = Fixture::new("long").await?;
    let (name, twin) = ("a".repeat(253), format!("{}b", "a".repeat(252)));
    let mut labels = Vec::new();
    for name in [&name, &twin] {
        let spec = json!({"clientCredentialsRef": {"name": "agent-client"}});
        fixture.namespace.apply(&fixture.namespace.credential(name, &spec)).await?;
        fixture.wait_condition_of(name, "Ready", "True", "TokenValid", SOON).await?;
        let secret = fixture.namespace.get("secret", name).await?.context("no Secret")?;
        labels.push(secret["metadata"]["labels"]["credentials.itwin.dev/credential"].clone());
    }
    assert_ne!(labels[0], labels[1], "two truncated names stay different");
    Ok(())
}
