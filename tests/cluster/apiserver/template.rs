//! What a credential adds to its Secret.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::eventually;

use crate::fixture::{Fixture, NAME, PATIENCE, SOON};

fn with_data(data: &Value) -> Value {
    json!({"secretTemplate": {"data": data}})
}

#[tokio::test]
async fn templates_become_keys_and_change_without_a_token_request() -> Result<()> {
    let mut fixture = Fixture::new("template").await?;
    let netrc = "machine api.example.com login oauth password {{ access_token }}\n";
    let config = r#"{"token": {{ access_token | tojson }}, "scope": {{ scope | tojson }}}"#;
    fixture.apply_credential(&with_data(&json!({"netrc": netrc, "config.json": config}))).await?;
    fixture.wait_ready().await?;
    let data = fixture.data().await?;
    let token = data["access_token"].clone();
    assert_eq!(data["netrc"], format!("machine api.example.com login oauth password {token}"), "no newline at its end");
    let config: Value = serde_json::from_str(&data["config.json"])?;
    assert_eq!(config, json!({"token": token, "scope": "itwin-platform"}));

    fixture.apply_credential(&with_data(&json!({"header": "X-Auth: {{ access_token }}"}))).await?;
    let data = eventually("the keys of the new template", SOON, async || {
        fixture.data().await.ok().filter(|data| data.contains_key("header"))
    })
    .await?;
    assert_eq!(data["header"], format!("X-Auth: {token}"));
    assert!(!data.contains_key("netrc") && !data.contains_key("config.json"), "{:?}", data.keys());
    assert_eq!(fixture.token_requests().await?.len(), 1);

    // after a restart, the operator knows what it has written
    fixture.restart().await?;
    fixture.apply_credential(&json!({})).await?;
    eventually("the removal of the template's key", SOON, async || {
        fixture.data().await.ok().filter(|data| !data.contains_key("header"))
    })
    .await?;
    assert_eq!(fixture.token().await?, token);
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn template_and_keys_of_others_that_change_while_no_operator_runs_cost_no_token_request() -> Result<()> {
    let mut fixture = Fixture::new("template-down").await?;
    fixture.apply_credential(&with_data(&json!({"header": "X-Auth: {{ access_token }}", "kept": "a"}))).await?;
    fixture.wait_ready().await?;
    let token = fixture.token().await?;
    fixture.stop();
    fixture.apply_credential(&with_data(&json!({"kept": "a", "added": "b"}))).await?;
    let add = json!({"stringData": {"theirs": "1"}}).to_string();
    fixture.namespace.kubectl(&["patch", "secret", NAME, "--type=merge", "-p", &add]).await?;
    fixture.start().await?;
    let data = fixture.eventually("the keys of the new template", PATIENCE, async || {
        fixture.data().await.ok().filter(|data| data.contains_key("added"))
    });
    let data = data.await?;
    assert!(!data.contains_key("header") && !data.contains_key("theirs"), "{:?}", data.keys());
    assert_eq!((&data["access_token"], &*data["kept"]), (&token, "a"));
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn invalid_template_is_reported_and_blanks_nothing() -> Result<()> {
    let fixture = Fixture::new("broken").await?;
    fixture.apply_credential(&with_data(&json!({"good": "{{ access_token }}"}))).await?;
    fixture.wait_ready().await?;
    let before = fixture.secret().await?.context("no Secret")?;
    let dashes = format!("{{{{ {}1 }}}}", "-".repeat(4000));
    let concatenated = format!("{{{{ {}a }}}}", "a~".repeat(2000));
    for broken in ["{{ access_token", "{{ client_secret }}", "{{ 'x' * 100000000 }}", &dashes, &concatenated] {
        fixture.apply_credential(&with_data(&json!({"good": broken}))).await?;
        let generation =
            fixture.namespace.get("itcred", NAME).await?.context("gone")?["metadata"]["generation"].clone();
        eventually("a reconciliation with the template", SOON, async || {
            fixture.status().await.ok().filter(|status| status["observedGeneration"] == generation)
        })
        .await?;
        let message = fixture.wait_condition("Renewed", "False", "TemplateInvalid", SOON).await?;
        assert!(message.starts_with("spec.secretTemplate.data[good]"), "{message}");
        assert_eq!(fixture.secret().await?.context("no Secret")?, before);
    }
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    fixture.apply_credential(&with_data(&json!({"good": "{{ access_token }}"}))).await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", PATIENCE).await?;
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn condition_about_a_template_does_not_depend_on_the_token() -> Result<()> {
    let fixture = Fixture::ready("oracle").await?;
    let other = |spec: &Value| fixture.namespace.credential("other", spec);
    let client = json!({"clientCredentialsRef": {"name": "agent-client"}});
    fixture.namespace.apply(&other(&client)).await?;
    fixture.wait_condition_of("other", "Ready", "True", "TokenValid", PATIENCE).await?;
    for question in [
        "{% if access_token[0:1] == 'e' %}{{ nope }}{% endif %}".to_owned(),
        format!("{{{{ access_token{} }}}}", " | replace('e', 'eeeeeeeeee')".repeat(100)),
    ] {
        let mut spec = with_data(&json!({"question": question}));
        fixture.apply_credential(&spec).await?;
        spec["clientCredentialsRef"] = client["clientCredentialsRef"].clone();
        fixture.namespace.apply(&other(&spec)).await?;
        let message = fixture.wait_condition("Renewed", "False", "TemplateInvalid", SOON).await?;
        let same = fixture.wait_condition_of("other", "Renewed", "False", "TemplateInvalid", SOON).await?;
        assert_eq!(message, same);
    }
    Ok(())
}

#[tokio::test]
async fn invalid_template_asks_for_no_token_and_a_fixed_one_gets_it() -> Result<()> {
    let fixture = Fixture::new("broken-first").await?;
    fixture.apply_credential(&with_data(&json!({"good": "{{ nothing }}"}))).await?;
    fixture.wait_condition("Ready", "False", "TemplateInvalid", SOON).await?;
    assert!(fixture.token_requests().await?.is_empty() && fixture.secret().await?.is_none());
    fixture.apply_credential(&with_data(&json!({"good": "{{ issuer }}"}))).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await.map(drop)
}
