//! From `kubectl apply` to a complete Secret.

use anyhow::{Context, Result};
use serde_json::json;
use testbed::{eventually, node, objects};

use crate::fixture::{Fixture, NAME, PATIENCE, SOON, key_pair};

/// Verifies a token with the library jose: independent code in another language.
const VERIFY: &str = "
import { createLocalJWKSet, jwtVerify } from 'jose';
const [token, keys, issuer] = process.argv.slice(1);
const { payload } = await jwtVerify(token, createLocalJWKSet(JSON.parse(keys)), { issuer });
console.log(JSON.stringify(payload));
";

#[tokio::test]
async fn applied_credential_gets_a_complete_secret() -> Result<()> {
    let fixture = Fixture::ready("issue").await?;
    let secret = fixture.secret().await?.context("no Secret")?;
    let data = testbed::namespace::data(&secret)?;
    let token = &data["access_token"];

    let keys: Vec<&str> = data.keys().map(String::as_str).collect();
    assert_eq!(keys, ["access_token", "authorization", "expires_at", "issuer", "scope", "token_type"]);
    assert!(data.values().all(|value| !value.ends_with('\n')), "no value ends in a newline");
    assert_eq!(data["authorization"], format!("Bearer {token}"));
    assert_eq!(data["token_type"], "Bearer");
    assert_eq!(data["scope"], "itwin-platform");
    assert_eq!(data["issuer"], fixture.namespace.testbed.authority.issuer);
    assert_eq!(secret["type"], "Opaque");
    assert!(!secret.to_string().contains(&fixture.client.client_secret), "it does not contain the client secret");

    let credential = fixture.namespace.get("itcred", NAME).await?.context("no credential")?;
    let owner = &secret["metadata"]["ownerReferences"][0];
    assert_eq!(owner["uid"], credential["metadata"]["uid"]);
    assert_eq!(owner["controller"], true);
    assert_eq!(secret["metadata"]["labels"]["app.kubernetes.io/managed-by"], "itwin-credential-operator");
    assert_eq!(secret["metadata"]["labels"]["credentials.itwin.dev/credential"], NAME);
    assert_eq!(secret["metadata"]["annotations"]["credentials.itwin.dev/owner-uid"], credential["metadata"]["uid"]);

    let testbed = &fixture.namespace.testbed;
    let keys = testbed.authority.keys().await?.to_string();
    let claims: serde_json::Value =
        serde_json::from_str(&node(testbed, VERIFY, &[token, &keys, &testbed.authority.issuer]).await?)?;
    assert_eq!(claims["client_id"], fixture.client.client_id.as_str());
    assert_eq!(claims["scope"], json!(["itwin-platform"]), "an array, as IMS writes it");

    assert_eq!(fixture.token_requests().await?.len(), 1, "one token request");
    Ok(())
}

#[tokio::test]
async fn status_shows_what_a_user_needs() -> Result<()> {
    let fixture = Fixture::ready("status").await?;
    let status = fixture.status().await?;
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["secretName"], NAME);
    assert_eq!(status["issuer"], fixture.namespace.testbed.authority.issuer.as_str());
    assert_eq!(status["clientId"], fixture.client.client_id.as_str());
    assert_eq!(status["scopes"], json!(["itwin-platform"]));
    assert_eq!(status["consecutiveFailures"], 0);
    let time = |field: &str| chrono::DateTime::parse_from_rfc3339(status[field].as_str().unwrap_or_default());
    let (issued, renews, usable, expires) =
        (time("issuedAt")?, time("renewAt")?, time("usableUntil")?, time("expiresAt")?);
    assert_eq!((expires - issued).num_seconds(), 3600);
    assert_eq!((expires - usable).num_seconds(), 300, "the default minimumValidity");
    // a third before expiry, and at most a twentieth of the lifetime as jitter
    assert!((1200..=1200 + 181).contains(&(expires - renews).num_seconds()), "renews at {renews}");
    fixture.wait_condition("Renewed", "True", "TokenIssued", SOON).await?;

    let table = fixture.namespace.kubectl(&["get", "itcred", "-o", "wide"]).await?;
    let heads: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(
        heads,
        ["NAME", "READY", "REASON", "RENEWED", "EXPIRES", "RENEWS", "SECRET", "AUTHORITY", "SCOPES", "AGE"]
    );
    let cells: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!((cells[3], cells[8]), ("True", "itwin-platform"), "{table}");
    assert_eq!(status["scope"], "itwin-platform");
    eventually("the event Issued", PATIENCE, async || {
        fixture.events().await.ok().filter(|events| events == &["Issued"])
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn authority_that_is_created_later_is_found() -> Result<()> {
    let fixture = Fixture::bare("late-authority").await?;
    fixture.register().await?;
    fixture.apply_client_secret().await?;
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Renewed", "False", "AuthorityNotFound", SOON).await?;
    assert!(message.contains(&fixture.namespace.name), "{message}");
    fixture.apply_authority(&json!({})).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn client_secret_that_is_created_later_is_found() -> Result<()> {
    let fixture = Fixture::bare("late-client").await?;
    fixture.apply_authority(&json!({})).await?;
    fixture.register().await?;
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Renewed", "False", "ClientCredentialsNotFound", SOON).await?;
    assert!(message.contains(&format!("{}/agent-client", fixture.namespace.name)), "{message}");
    assert!(fixture.token_requests().await?.is_empty());
    fixture.apply_client_secret().await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn wrong_client_secret_is_reported_and_its_fix_is_noticed() -> Result<()> {
    let mut fixture = Fixture::new("bad-client").await?;
    let right = fixture.client.client_secret.clone();
    fixture.client.client_secret = "wrong".to_owned();
    fixture.apply_client_secret().await?;
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Renewed", "False", "InvalidClient", SOON).await?;
    for part in ["client_id", "client_secret", "agent-client", "ten minutes"] {
        assert!(message.contains(part), "{part} is missing in: {message}");
    }
    assert_eq!(fixture.secret().await?, None, "nothing is written");
    let ready = fixture.wait_condition("Ready", "False", "InvalidClient", SOON).await?;
    assert!(ready.contains("see the message of condition Renewed"), "the cause is written once: {ready}");

    fixture.client.client_secret = right;
    fixture.apply_client_secret().await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", SOON).await?;
    assert_eq!(fixture.status().await?["consecutiveFailures"], 0);
    Ok(())
}

#[tokio::test]
async fn client_secret_with_special_characters_works_both_ways() -> Result<()> {
    for authentication in ["client_secret_post", "client_secret_basic"] {
        let mut fixture = Fixture::bare(if authentication.ends_with("basic") { "basic" } else { "post" }).await?;
        // all that the server accepts: RFC 6749 appendix A.2 has only printable ASCII
        fixture.client.client_secret = "a%b+c/d=e&f? g:\"h'~".to_owned();
        fixture.client.authentication = authentication.to_owned();
        fixture.register().await?;
        fixture.apply_client_secret().await?;
        fixture.apply_authority(&json!({"clientAuthentication": authentication})).await?;
        fixture.apply_credential(&json!({})).await?;
        fixture.wait_ready().await?;
        let requests = fixture.token_requests().await?;
        assert_eq!(
            format!("client_secret_{}", requests[0].authentication),
            authentication,
            "the server received it so"
        );
    }
    Ok(())
}

#[tokio::test]
async fn secrets_never_reach_logs_status_events_or_metrics() -> Result<()> {
    let fixture = Fixture::ready("leaks").await?;
    let token = fixture.token().await?;
    let log = std::fs::read_to_string(fixture.operator.process.log())?;
    let status = fixture.status().await?.to_string();
    let events = fixture.namespace.kubectl(&["get", "events", "-o", "yaml"]).await?;
    let metrics = fixture.operator.get("/metrics").await?;
    assert!(log.contains("token written"), "the log is the right one");
    for (place, text) in [("log", &log), ("status", &status), ("events", &events), ("metrics", &metrics)] {
        assert!(!text.contains(&fixture.client.client_secret), "client secret in {place}");
        let signature = token.rsplit('.').next().unwrap_or_default();
        assert!(!text.contains(signature), "token in {place}");
    }
    Ok(())
}

#[tokio::test]
async fn client_with_a_private_key_sends_no_secret() -> Result<()> {
    let mut fixture = Fixture::bare("private-key").await?;
    let (pem, jwks) = key_pair(&fixture.namespace.testbed).await?;
    fixture.client.authentication = "private_key_jwt".to_owned();
    fixture.client.jwks = Some(jwks);
    fixture.register().await?;
    let values = json!({"client_id": fixture.client.client_id, "private_key": pem});
    let secret = objects::secret("agent-client", &values);
    fixture.namespace.apply(&secret).await?;
    fixture.apply_authority(&json!({"clientAuthentication": "private_key_jwt"})).await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_ready().await?;
    // the second assertion must be a new one: the server rejects a jti that it has received before
    let first = fixture.token().await?;
    fixture.renew_now(NAME, "1").await?;
    fixture.wait_token_other_than(&first, SOON).await?;
    let requests = fixture.token_requests().await?;
    assert!(requests.iter().all(|request| request.authentication == "other"), "neither Basic nor a secret in the body");
    Ok(())
}

#[tokio::test]
async fn assertion_names_its_key_among_those_of_the_client() -> Result<()> {
    let mut fixture = Fixture::bare("key-id").await?;
    let ((_, mut jwks), (pem, mut second)) =
        (key_pair(&fixture.namespace.testbed).await?, key_pair(&fixture.namespace.testbed).await?);
    jwks["keys"][0]["kid"] = json!("old");
    let mut keys = vec![jwks["keys"][0].take()];
    second["keys"][0]["kid"] = json!("new");
    keys.push(second["keys"][0].take());
    fixture.client.authentication = "private_key_jwt".to_owned();
    fixture.client.jwks = Some(json!({"keys": keys}));
    fixture.register().await?;
    let secret = |key_id: &str| {
        let values = json!({"client_id": fixture.client.client_id, "private_key": pem, "kid": key_id});
        objects::secret("agent-client", &values)
    };
    let assertion = json!({"audience": "issuer", "algorithm": "ES256"});
    fixture.apply_authority(&json!({"clientAuthentication": "private_key_jwt", "clientAssertion": assertion})).await?;
    fixture.namespace.apply(&secret("old")).await?;
    fixture.apply_credential(&json!({"clientCredentialsRef": {"keyIdKey": "kid"}})).await?;
    fixture.wait_condition("Renewed", "False", "InvalidClient", SOON).await?;
    // the identifier alone changes, and is part of the client
    fixture.namespace.apply(&secret("new")).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn credential_without_scopes_sends_none() -> Result<()> {
    let fixture = Fixture::new("no-scope").await?;
    fixture.apply_credential(&json!({"scopes": []})).await?;
    fixture.wait_ready().await?;
    assert_eq!(fixture.token_requests().await?[0].scope, None);
    Ok(())
}

#[tokio::test]
async fn service_user_gets_a_token_where_the_authority_allows_it() -> Result<()> {
    let mut fixture = Fixture::bare("password").await?;
    let user = testbed::authority::User {
        name: format!("user-{}", fixture.namespace.name),
        password: "p%a+s&s w=o/r?d".to_owned(),
    };
    fixture.client.user = Some(user.clone());
    fixture.register().await?;
    let client_secret = |password: &str| {
        let mut secret = fixture.namespace.client_secret(NAME, &fixture.client);
        objects::merge(&mut secret["stringData"], &json!({"username": user.name, "password": password}));
        secret
    };
    fixture.namespace.apply(&client_secret("not the password")).await?;
    fixture.apply_authority(&json!({})).await?;
    fixture.apply_credential(&json!({"grantType": "password"})).await?;
    let message = fixture.wait_condition("Renewed", "False", "GrantTypeNotAllowed", SOON).await?;
    assert!(message.contains("allowedGrantTypes"), "{message}");
    fixture.apply_authority(&json!({"allowedGrantTypes": ["client_credentials", "password"]})).await?;
    let message = fixture.wait_condition("Renewed", "False", "RequestRejected", SOON).await?;
    assert!(message.contains("username") && message.contains("agent-client"), "{message}");
    fixture.namespace.apply(&client_secret(&user.password)).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    Ok(())
}
