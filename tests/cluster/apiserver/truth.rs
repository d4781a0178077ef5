//! What the status says is true: each change of the spec counts, each call that fails is reported, and time passes for
//! `Ready` whatever fails.

use anyhow::{Context, Result};
use serde_json::json;
use testbed::{
    api_proxy::fault::{Fault, Rule},
    eventually, objects,
};

use crate::fixture::{Fixture, NAME, PATIENCE, SOON};

#[tokio::test]
async fn other_client_secret_or_key_gives_another_token_and_a_missing_one_is_reported() -> Result<()> {
    let fixture = Fixture::ready("client-ref").await?;
    let first = fixture.token().await?;
    let (id, secret) = (&fixture.client.client_id, &fixture.client.client_secret);
    let values = json!({"client_id": id, "client_secret": secret, "second": secret});
    fixture.namespace.apply(&objects::secret("other", &values)).await?;

    fixture.apply_credential(&json!({"clientCredentialsRef": {"name": "other"}})).await?;
    let second = fixture.wait_token_other_than(&first, SOON).await?;
    let key = json!({"clientCredentialsRef": {"name": "other", "clientSecretKey": "second"}});
    fixture.apply_credential(&key).await?;
    let third = fixture.wait_token_other_than(&second, SOON).await?;

    fixture.apply_credential(&json!({"clientCredentialsRef": {"name": "missing"}})).await?;
    let message = fixture.wait_condition("Renewed", "False", "ClientCredentialsNotFound", SOON).await?;
    assert!(message.contains("missing"), "{message}");
    fixture.wait_condition("Ready", "False", "ClientCredentialsNotFound", SOON).await?;
    assert_eq!(fixture.token().await?, third, "the token stays until there is another");
    fixture.apply_credential(&key).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", SOON).await?;
    assert_eq!((fixture.token().await?, fixture.token_requests().await?.len()), (third, 3));
    Ok(())
}

#[tokio::test]
async fn fix_of_the_spec_takes_effect_at_once_and_the_old_failure_is_not_claimed_for_it() -> Result<()> {
    let fixture = Fixture::new("fixed-spec").await?;
    let values = json!({"client_id": fixture.client.client_id, "client_secret": "wrong"});
    fixture.namespace.apply(&objects::secret("wrong", &values)).await?;
    fixture.apply_credential(&json!({"clientCredentialsRef": {"name": "wrong"}})).await?;
    fixture
        .eventually("a backoff of more than 5 s", PATIENCE, async || {
            (fixture.status().await.ok()?["consecutiveFailures"].as_i64()? >= 5).then_some(())
        })
        .await?;
    // no failure of the first spec is in a status of the second
    fixture.apply_credential(&json!({"clientCredentialsRef": {"name": "missing"}})).await?;
    let current = fixture
        .eventually("a status of the second spec", SOON, async || {
            fixture.status().await.ok().filter(|status| status["observedGeneration"] == 2)
        })
        .await?;
    let claims =
        |condition: &&serde_json::Value| condition["observedGeneration"] == 2 && condition["reason"] == "InvalidClient";
    assert_eq!(current["conditions"].as_array().context("no conditions")?.iter().find(claims), None, "{current}");
    assert!(current["consecutiveFailures"].as_i64() <= Some(1), "{current}");
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    let status = fixture.status().await?;
    assert_eq!((&status["observedGeneration"], &status["consecutiveFailures"]), (&json!(3), &json!(0)));
    Ok(())
}

#[tokio::test]
async fn authority_that_does_not_exist_is_reported_at_once() -> Result<()> {
    let fixture = Fixture::ready("authority-ref").await?;
    let token = fixture.token().await?;
    fixture.apply_credential(&json!({"authorityRef": {"name": "there-is-none"}})).await?;
    fixture.wait_condition("Renewed", "False", "AuthorityNotFound", SOON).await?;
    fixture.wait_condition("Ready", "False", "AuthorityNotFound", SOON).await?;
    assert_eq!(fixture.token().await?, token);
    Ok(())
}

#[tokio::test]
async fn deletion_policy_takes_effect_while_suspended_and_while_renewals_fail() -> Result<()> {
    let fixture = Fixture::ready("retained").await?;
    let owned = async |expected: bool| {
        eventually("the expected owner reference", SOON, async || {
            let secret = fixture.secret().await.ok()??;
            (secret["metadata"]["ownerReferences"].is_array() == expected).then_some(())
        })
        .await
    };
    fixture.apply_credential(&json!({"suspend": true, "deletionPolicy": "Retain"})).await?;
    owned(false).await?;
    fixture.apply_credential(&json!({"suspend": true})).await?;
    owned(true).await?;

    // a spec for which no token can be issued
    let impossible = |policy: &str| json!({"clientCredentialsRef": {"name": "missing"}, "deletionPolicy": policy});
    fixture.apply_credential(&impossible("Delete")).await?;
    fixture.wait_condition("Renewed", "False", "ClientCredentialsNotFound", SOON).await?;
    fixture.apply_credential(&impossible("Retain")).await?;
    owned(false).await?;
    let token = fixture.token().await?;
    fixture.namespace.kubectl(&["delete", "itcred", NAME]).await?;
    assert_eq!(fixture.token().await?, token);
    Ok(())
}

#[tokio::test]
async fn changed_spec_of_a_suspended_credential_is_not_ready() -> Result<()> {
    let fixture = Fixture::ready("suspended-spec").await?;
    fixture.apply_credential(&json!({"suspend": true, "clientCredentialsRef": {"name": "other"}})).await?;
    fixture.wait_condition("Ready", "False", "Suspended", SOON).await?;
    let status = fixture.status().await?;
    let conditions = status["conditions"].as_array().context("no conditions")?;
    let renewed = conditions.iter().find(|condition| condition["type"] == "Renewed").context("no Renewed")?;
    assert_eq!((&renewed["status"], &renewed["observedGeneration"]), (&json!("True"), &json!(1)));
    Ok(())
}

/// A credential whose token lives for some seconds, and an operator with these arguments.
async fn short_lived(prefix: &str, arguments: &[&str]) -> Result<Fixture> {
    let mut fixture = Fixture::bare_with(prefix, arguments).await?;
    fixture.client.lifetime = 30;
    fixture.with_surroundings().await?;
    fixture.apply_credential(&json!({"minimumValidity": "2s"})).await?;
    fixture.wait_ready().await?;
    Ok(fixture)
}

async fn no_secret_can_be_read(prefix: &str, arguments: &[&str]) -> Result<()> {
    let fixture = short_lived(prefix, arguments).await?;
    // such as a key management service that is down
    let rules = ["get secrets", "patch secrets", "create secrets"]
        .map(|kind| fixture.proxy().play(Rule::new(kind, Fault::Refused(500)).lasting(PATIENCE * 10)));
    let message = fixture.wait_condition("Renewed", "False", "SecretReadFailed", PATIENCE).await?;
    assert!(message.contains("HTTP 500") && message.contains("administrator"), "{message}");
    fixture.wait_condition("Ready", "False", "TokenExpired", PATIENCE).await?;
    for rule in &rules {
        fixture.proxy().stop(rule);
    }
    fixture.wait_condition("Ready", "True", "TokenValid", PATIENCE * 2).await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn reads_of_secrets_that_fail_are_reported_and_ready_ends_with_the_token() -> Result<()> {
    no_secret_can_be_read("unread", &[]).await
}

#[tokio::test]
async fn reads_that_fail_where_secrets_are_not_watched_are_reported() -> Result<()> {
    no_secret_can_be_read("unread-unwatched", &["--watch-secrets=false"]).await
}

/// A credential is changed while neither a watch nor a list shows it, and no renewal succeeds.
async fn credential_that_cannot_be_found(prefix: &str, fault: Fault) -> Result<()> {
    let fixture = short_lived(prefix, &[]).await?;
    let rules = ["list itwinservicecredentials", "watch itwinservicecredentials"]
        .map(|kind| fixture.proxy().play(Rule::new(kind, fault).lasting(PATIENCE * 10)));
    let expired = async || (fixture.proxy().expire("watch itwinservicecredentials") > 0).then_some(());
    eventually("the end of the watch", PATIENCE, expired).await?;
    eventually("a list that fails", PATIENCE, async || (rules[0].times() > 0).then_some(())).await?;
    fixture.namespace.kubectl(&["annotate", "itcred", NAME, "example.com/note=unseen"]).await?;
    for kind in ["get secrets", "patch secrets", "create secrets"] {
        fixture.proxy().play(Rule::new(kind, Fault::Refused(500)).lasting(PATIENCE * 10));
    }
    fixture.wait_condition("Ready", "False", "TokenExpired", PATIENCE).await?;
    let conflicts = fixture.proxy().records().into_iter().filter(|record| record.status == Some(409)).count();
    assert!(conflicts > 0, "the version of the object was known");
    Ok(())
}

#[tokio::test]
async fn ready_ends_with_the_token_of_a_credential_that_changed_and_cannot_be_listed() -> Result<()> {
    credential_that_cannot_be_found("unfound-403", Fault::Refused(403)).await
}

#[tokio::test]
async fn ready_ends_with_the_token_of_a_credential_that_changed_and_whose_list_hangs() -> Result<()> {
    credential_that_cannot_be_found("unfound-hang", Fault::BlackHole(PATIENCE * 10)).await
}

#[tokio::test]
async fn labels_that_cannot_be_reverted_are_reported_and_hold_up_no_renewal() -> Result<()> {
    let fixture = short_lived("unpatched", &[]).await?;
    let first = fixture.token().await?;
    let rule = fixture.proxy().play(Rule::new("patch secrets", Fault::Refused(400)).times(2));
    let label = ["label", "secret", NAME, "--overwrite", "credentials.itwin.dev/credential=theirs"];
    fixture.namespace.kubectl(&label).await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretWriteFailed", SOON).await?;
    assert!(message.contains("HTTP 400"), "{message}");
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    eventually("the label", PATIENCE, async || {
        let secret = fixture.secret().await.ok()??;
        (secret["metadata"]["labels"]["credentials.itwin.dev/credential"] == NAME).then_some(())
    })
    .await?;
    assert_eq!(rule.times(), 2);
    fixture.wait_token_other_than(&first, PATIENCE).await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn secret_whose_namespace_is_gone_is_reported_and_its_token_is_kept() -> Result<()> {
    let fixture = Fixture::new("gone").await?;
    let rule = fixture.proxy().play(Rule::new("create secrets", Fault::Refused(404)).lasting(PATIENCE * 10));
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretWriteFailed", PATIENCE).await?;
    assert!(message.contains("its namespace is gone"), "{message}");
    let tries = i64::from(rule.times());
    let attempts = fixture.status().await?["consecutiveFailures"].as_i64().unwrap_or_default();
    assert!(tries <= attempts + 1, "{tries} tries in {attempts} attempts");
    fixture.proxy().stop(&rule);
    fixture.wait_condition("Ready", "True", "TokenValid", PATIENCE).await?;
    assert_eq!(fixture.token_requests().await?.len(), 1, "the token was kept");
    Ok(())
}

#[tokio::test]
async fn namespace_that_cannot_be_read_is_reported() -> Result<()> {
    let fixture = short_lived("unread-namespace", &[]).await?;
    let rule = fixture.proxy().play(Rule::new("get namespaces (metadata)", Fault::Refused(403)).lasting(PATIENCE * 10));
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": fixture.namespace.name}});
    fixture.apply_authority(&json!({"allowedNamespaces": selector})).await?;
    fixture.wait_condition("Renewed", "False", "NamespaceNotAllowed", PATIENCE).await?;
    fixture.proxy().stop(&rule);
    fixture.wait_condition("Renewed", "True", "TokenIssued", PATIENCE).await?;
    Ok(())
}
