//! What the administrator's ITwinAuthority allows, and what its status reports.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use testbed::{
    api_proxy::fault::{Fault, Rule},
    eventually,
};

use crate::{
    fixture::{Fixture, PATIENCE, SOON, condition},
    world::World,
};

/// Limit for what an operator reads every 30 s, and for a backoff.
const FOLLOWED: Duration = Duration::from_secs(90);

async fn authority_status(fixture: &Fixture) -> Option<Value> {
    fixture.namespace.get("itauth", &fixture.namespace.name).await.ok()?.map(|mut object| object["status"].take())
}

#[tokio::test]
async fn authority_reports_its_endpoints_and_keys() -> Result<()> {
    let fixture = Fixture::bare("authority").await?;
    fixture.apply_authority(&json!({})).await?;
    let status = eventually("a Ready authority", SOON, async || {
        authority_status(&fixture)
            .await
            .filter(|status| condition(status, "Ready").is_some_and(|(status, ..)| status == "True"))
    })
    .await?;
    let issuer = &fixture.namespace.testbed.authority.issuer;
    assert_eq!(status["tokenEndpoint"], format!("{issuer}/connect/token"));
    assert_eq!(status["jwksUri"], format!("{issuer}/.well-known/openid-configuration/jwks"));
    assert_eq!(status["signingKeys"], 1);
    assert_eq!(status["observedGeneration"], 1);
    Ok(())
}

async fn wait_authority(fixture: &Fixture, ready: &str, reason: &str) -> Result<Value> {
    wait_authority_within(fixture, ready, reason, PATIENCE).await
}

async fn wait_authority_within(fixture: &Fixture, ready: &str, reason: &str, limit: Duration) -> Result<Value> {
    // operators of other tests write this status too, and one on a busy machine may have timed out
    eventually(&format!("an authority with Ready={ready} {reason}"), limit, async || {
        let status = authority_status(fixture).await?;
        condition(&status, "Ready").filter(|(is, because, _)| is == ready && because == reason)?;
        Some(status)
    })
    .await
}

#[tokio::test]
async fn changes_of_ready_are_events_and_metrics_and_conditions_of_others_stay() -> Result<()> {
    let fixture = Fixture::bare("authority-events").await?;
    let name = &fixture.namespace.name;
    fixture.apply_authority(&json!({})).await?;
    let status = wait_authority(&fixture, "True", "AuthorityReachable").await?;
    let refreshed = status["lastRefreshTime"].as_str().unwrap_or_default();
    chrono::DateTime::parse_from_rfc3339(refreshed)?;
    let series = |metric: &str| format!("{metric}{{authority=\"{name}\"}}");
    assert_eq!(fixture.metric(&series("itwin_authority_ready")).await?, 1.0);
    assert!(fixture.metric(&series("itwin_authority_last_refresh_timestamp_seconds")).await? > 1.7e9);

    let audited = json!({
        "type": "Audited",
        "status": "True",
        "reason": "Reviewed",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let patch = json!([{"op": "add", "path": "/status/conditions/-", "value": audited}]).to_string();
    let patch = ["patch", "itauth", name, "--subresource=status", "--type=json", "-p", &patch];
    fixture.namespace.kubectl(&patch).await?;
    fixture.apply_authority(&json!({"caBundle": null})).await?;
    let status = wait_authority(&fixture, "False", "TLSFailed").await?;
    assert_eq!(condition(&status, "Audited").map(|(_, reason, _)| reason).as_deref(), Some("Reviewed"));
    assert!(status["lastRefreshTime"].is_string(), "when it was known last");
    let table = fixture.namespace.kubectl(&["get", "itauth", name]).await?;
    let heads: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(heads, ["NAME", "READY", "REASON", "ISSUER", "AGE"]);
    assert!(table.contains("TLSFailed"), "{table}");
    eventually("the metric", SOON, async || {
        let text = fixture.operator.get("/metrics").await.ok()?;
        text.contains(&format!("{} 0", series("itwin_authority_ready"))).then_some(())
    })
    .await?;

    let events = format!("jsonpath={{.items[?(@.regarding.name==\"{name}\")].reason}}");
    eventually("events in the namespace `default`", PATIENCE, async || {
        let events = ["--namespace", "default", "get", "events.events.k8s.io", "-o", &events];
        let reasons = fixture.namespace.testbed.kubectl(&events).await.ok()?;
        (reasons.contains("AuthorityReady") && reasons.contains("AuthorityNotReady")).then_some(())
    })
    .await?;
    fixture.namespace.kubectl(&["delete", "itauth", name]).await?;
    eventually("the removal of its metrics", PATIENCE, async || {
        let text = fixture.operator.get("/metrics").await.ok()?;
        (!text.contains(&series("itwin_authority_ready"))).then_some(())
    })
    .await
}

#[tokio::test]
async fn authority_without_its_ca_is_not_trusted_and_nothing_is_sent() -> Result<()> {
    let fixture = Fixture::new("no-ca").await?;
    fixture.apply_authority(&json!({"caBundle": null})).await?;
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Renewed", "False", "AuthorityNotReady", SOON).await?;
    assert!(message.contains("caBundle"), "{message}");
    assert!(fixture.token_requests().await?.is_empty());
    // operators of other tests write this status too, and one on a busy machine may have timed out
    eventually("the reason of the authority", PATIENCE, async || {
        let status = authority_status(&fixture).await?;
        condition(&status, "Ready")
            .filter(|(_, reason, message)| reason == "TLSFailed" && message.contains("no CA of the system's roots"))
    })
    .await?;
    // once fixed, it is used immediately
    fixture.apply_authority(&json!({})).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn ca_certificates_of_a_config_map_and_a_secret_are_followed() -> Result<()> {
    let world = World::new("ca-bundle").await?;
    let namespace = world.namespace.name.clone();
    // the operator runs in this namespace, where the chart would give it this Role
    let fixture = Fixture::spawn(world, &["--lease-namespace", &namespace])?;
    let kubectl = async |arguments: &[&str]| fixture.namespace.kubectl(arguments).await;
    fixture.register().await?;
    fixture.apply_client_secret().await?;
    let reference =
        |kind: &str| json!({"caBundle": null, "caBundleRef": {"kind": kind, "name": "ca", "key": "ca.crt"}});
    fixture.apply_authority(&reference("ConfigMap")).await?;
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Renewed", "False", "AuthorityNotReady", PATIENCE).await?;
    assert!(message.contains(&format!("the operator may not read ConfigMap {namespace}/ca")), "{message}");

    kubectl(&["create", "role", "ca", "--verb=get", "--resource=configmaps", "--resource-name=ca"]).await?;
    let account = format!("--serviceaccount={0}:{0}", testbed::INSTALLATION);
    kubectl(&["create", "rolebinding", "ca", "--role=ca", &account]).await?;
    let ca = &fixture.namespace.testbed.authority.ca;
    let other = &fixture.namespace.testbed.faults.ca;
    let config_map = |pem: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"ca.crt": pem}});
    fixture.namespace.apply(&config_map(other)).await?;
    wait_authority_within(&fixture, "False", "TLSFailed", FOLLOWED).await?;
    fixture.namespace.apply(&config_map(ca)).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", FOLLOWED).await?;

    // what was read before stays where it cannot be used any more, whatever else is edited
    fixture.namespace.apply(&config_map("")).await?;
    let mut edited = reference("ConfigMap");
    edited["requestsPerMinute"] = json!(299);
    fixture.apply_authority(&edited).await?;
    let first = fixture.token().await?;
    fixture.renew_now("agent", "0").await?;
    fixture.wait_token_other_than(&first, PATIENCE).await?;

    // what was read before stays where the object is gone
    kubectl(&["delete", "configmap", "ca"]).await?;
    let first = fixture.token().await?;
    fixture.renew_now("agent", "1").await?;
    fixture.wait_token_other_than(&first, PATIENCE).await?;

    fixture.apply_authority(&reference("Secret")).await?;
    wait_authority_within(&fixture, "False", "ConfigurationInvalid", FOLLOWED).await?;
    let values = json!({"ca.crt": ca});
    fixture.namespace.apply(&testbed::objects::secret("ca", &values)).await?;
    wait_authority_within(&fixture, "True", "AuthorityReachable", FOLLOWED).await?;
    Ok(())
}

#[tokio::test]
async fn status_of_an_authority_is_written_while_it_can_be_neither_watched_nor_listed() -> Result<()> {
    let world = World::new("auth-unwatched").await?;
    let namespace = world.namespace.name.clone();
    let fixture = Fixture::spawn(world, &["--lease-namespace", &namespace])?;
    let kubectl = async |arguments: &[&str]| fixture.namespace.kubectl(arguments).await;
    kubectl(&["create", "role", "ca", "--verb=get", "--resource=configmaps", "--resource-name=ca"]).await?;
    let account = format!("--serviceaccount={0}:{0}", testbed::INSTALLATION);
    kubectl(&["create", "rolebinding", "ca", "--role=ca", &account]).await?;
    let reference = json!({"caBundle": null, "caBundleRef": {"kind": "ConfigMap", "name": "ca", "key": "ca.crt"}});
    fixture.apply_authority(&reference).await?;
    wait_authority(&fixture, "False", "ConfigurationInvalid").await?;
    let rules = ["list itwinauthorities", "watch itwinauthorities"]
        .map(|kind| fixture.proxy().play(Rule::new(kind, Fault::Refused(403)).lasting(FOLLOWED * 10)));
    let expired = async || (fixture.proxy().expire("watch itwinauthorities") > 0).then_some(());
    eventually("the end of the watch", PATIENCE, expired).await?;
    eventually("a list that fails", PATIENCE, async || (rules[0].times() > 0).then_some(())).await?;

    // what it trusts is read without a watch
    let bundle = async |pem: &str| {
        let config_map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"ca.crt": pem}});
        fixture.namespace.apply(&config_map).await
    };
    bundle(&fixture.namespace.testbed.faults.ca).await?;
    wait_authority_within(&fixture, "False", "TLSFailed", FOLLOWED).await?;
    // nothing shows that it has another version
    fixture.namespace.kubectl(&["annotate", "itauth", &namespace, "example.com/note=unseen"]).await?;
    bundle(&fixture.namespace.testbed.authority.ca).await?;
    wait_authority_within(&fixture, "True", "AuthorityReachable", FOLLOWED).await?;
    Ok(())
}

#[tokio::test]
async fn what_the_authority_does_not_allow_is_refused_before_any_request() -> Result<()> {
    let fixture = Fixture::new("allowed").await?;
    fixture.apply_authority(&json!({"allowedScopes": ["other"]})).await?;
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Renewed", "False", "ScopeNotAllowed", SOON).await?;
    assert!(message.contains("itwin-platform") && message.contains("allowedScopes"), "{message}");
    assert!(message.contains("allowed are: other"), "{message}");
    fixture.apply_credential(&json!({"resources": ["https://other.example.com"]})).await?;
    fixture.apply_authority(&json!({"allowedAudiences": ["https://api.example.com"]})).await?;
    let message = fixture.wait_condition("Renewed", "False", "AudienceNotAllowed", SOON).await?;
    assert!(message.contains("https://other.example.com") && message.contains("allowedAudiences"), "{message}");

    fixture.apply_authority(&json!({"allowedNamespaces": {"matchLabels": {"itwin": "yes"}}})).await?;
    let message = fixture.wait_condition("Renewed", "False", "NamespaceNotAllowed", SOON).await?;
    assert!(message.contains("the labels itwin=yes"), "{message}");
    fixture.apply_credential(&json!({"resources": []})).await?;
    assert!(fixture.token_requests().await?.is_empty());

    fixture.namespace.testbed.kubectl(&["label", "namespace", &fixture.namespace.name, "itwin=yes"]).await?;
    fixture
        .apply_authority(
            &json!({"allowedNamespaces": {"matchLabels": {"itwin": "yes"}}, "allowedScopes": ["itwin-platform"]}),
        )
        .await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn label_of_the_namespace_ends_the_wait_within_seconds() -> Result<()> {
    let fixture = Fixture::new("label").await?;
    fixture.apply_authority(&json!({"allowedNamespaces": {"matchLabels": {"itwin": "yes"}}})).await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_condition("Renewed", "False", "NamespaceNotAllowed", PATIENCE).await?;
    // by then it waits for at least 8 s
    fixture
        .eventually("a long backoff", PATIENCE * 2, async || {
            (fixture.status().await.ok()?["consecutiveFailures"].as_i64()? >= 5).then_some(())
        })
        .await?;
    fixture.namespace.testbed.kubectl(&["label", "namespace", &fixture.namespace.name, "itwin=yes"]).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn deleted_authority_costs_no_valid_token() -> Result<()> {
    let fixture = Fixture::ready("gone").await?;
    let before = fixture.secret().await?;
    fixture.namespace.kubectl(&["delete", "itauth", &fixture.namespace.name]).await?;
    // a request that needs the authority shows that the deletion was observed
    fixture.renew_now("agent", "1").await?;
    fixture.wait_condition("Renewed", "False", "AuthorityNotFound", SOON).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    assert_eq!(fixture.secret().await?, before);
    fixture.apply_authority(&json!({})).await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 2, "the request succeeded once the authority was back");
    Ok(())
}

#[tokio::test]
async fn proxy_of_the_environment_is_used_for_the_authority_and_no_proxy_obeyed() -> Result<()> {
    let world = World::new("proxy").await?;
    let namespace = &world.namespace;
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", proxy.local_addr()?);
    // the API server is at 127.0.0.1, the authority at localhost
    let variables = [("HTTPS_PROXY", url.as_str()), ("NO_PROXY", "*.corp.example,127.0.0.1,")];
    let _operator = world.spawn_operator_of(&namespace.name, &[], &variables)?;
    namespace.apply(&namespace.authority(&json!({}))).await?;
    let (mut connection, _) = tokio::time::timeout(PATIENCE, proxy.accept()).await??;
    let mut line = vec![0; 64];
    let read = tokio::io::AsyncReadExt::read(&mut connection, &mut line).await?;
    let line = String::from_utf8_lossy(&line[..read]).into_owned();
    assert!(line.starts_with("CONNECT localhost:"), "{line}");
    Ok(())
}
