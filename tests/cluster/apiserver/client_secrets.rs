//! Invalid client Secrets: each is reported with its key, and its fix is noticed.

use anyhow::{Context, Result};
use base64::Engine;
use serde_json::{Value, json};
use testbed::objects;

use crate::fixture::{Fixture, NAME, PATIENCE, SOON, condition};

/// A client Secret with these values, as bytes.
fn client_secret(values: &[(&str, &[u8])]) -> Value {
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let data: serde_json::Map<String, Value> =
        values.iter().map(|(key, value)| ((*key).to_owned(), json!(encode(value)))).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "agent-client"}, "data": data})
}

#[tokio::test]
async fn invalid_client_secret_is_reported_by_its_key_and_its_fix_is_noticed() -> Result<()> {
    let fixture = Fixture::bare("client-faults").await?;
    fixture.apply_authority(&json!({})).await?;
    fixture.register().await?;
    fixture.apply_credential(&json!({})).await?;
    let message = fixture.wait_condition("Renewed", "False", "ClientCredentialsNotFound", SOON).await?;
    assert!(message.contains("does not exist"), "{message}");
    let (id, secret) = (fixture.client.client_id.as_bytes(), fixture.client.client_secret.as_bytes());
    for (values, reported) in [
        (&[("client_id", id)][..], "key client_secret of Secret"),
        (&[("client_secret", secret)], "key client_id of Secret"),
        (&[("client_id", id), ("client_secret", b"")], "is empty"),
        (&[("client_id", id), ("client_secret", b"\n")], "is empty"),
        (&[("client_id", id), ("client_secret", b"\xff\xfe\x00")], "is not UTF-8"),
        (&[("client_id", id), ("client_secret", b"one\ntwo")], "control characters"),
        (&[("client_id", id), ("client_secret", b" one")], "white space or a byte order mark"),
        (&[("client_id", id), ("client_secret", b"\xef\xbb\xbfone")], "white space or a byte order mark"),
        (&[("client_id", id), ("client_secret", &[b'x'; 4097])], "more than 4096 bytes"),
        (&[("client_id", &[b'x'; 1025]), ("client_secret", secret)], "more than 1024 bytes"),
        (&[("client-id", id), ("client-secret", secret)], "is missing: add it; key client_secret is missing"),
    ] {
        fixture.namespace.kubectl(&["delete", "secret", "agent-client", "--ignore-not-found"]).await?;
        fixture.wait_condition("Renewed", "False", "ClientCredentialsNotFound", SOON).await?;
        fixture.namespace.apply(&client_secret(values)).await?;
        let message = fixture.wait_condition("Renewed", "False", "ClientCredentialsInvalid", SOON).await?;
        assert!(message.contains(reported) && message.contains("agent-client"), "{reported}: {message}");
    }
    assert!(fixture.token_requests().await?.is_empty(), "no token was requested");
    let newline = |value: &[u8]| [value, b"\n"].concat();
    let (id, secret) = (newline(id), newline(secret));
    fixture.namespace.apply(&client_secret(&[("client_id", &id), ("client_secret", &secret)])).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 1, "one trailing newline is no part of a value");
    Ok(())
}

#[tokio::test]
async fn expiry_of_the_client_is_shown_and_changing_it_requests_no_token() -> Result<()> {
    let fixture = Fixture::ready("client-expiry").await?;
    let (id, secret) = (fixture.client.client_id.as_bytes(), fixture.client.client_secret.as_bytes());
    let expires = async |at: Option<&str>| {
        let mut values = vec![("client_id", id), ("client_secret", secret)];
        values.extend(at.map(|at| ("expires_at", at.as_bytes())));
        fixture.namespace.kubectl(&["delete", "secret", "agent-client", "--ignore-not-found"]).await?;
        fixture.namespace.apply(&client_secret(&values)).await?;
        fixture
            .eventually("status.clientSecretExpiresAt", PATIENCE, async || {
                let status = fixture.status().await.ok()?;
                (status["clientSecretExpiresAt"].as_str() == at).then_some(status)
            })
            .await
    };
    const SERIES: &str = "itwin_client_secret_expiration_timestamp_seconds{";
    let far = expires(Some("2999-01-31T00:00:00Z")).await?;
    assert!(condition(&far, "Ready").is_some_and(|(_, _, message)| !message.contains("expire at")), "{far}");
    assert_eq!(fixture.metric(SERIES).await?, 32_474_736_000.0);
    let over = expires(Some("2026-01-31T00:00:00Z")).await?;
    let (status, _, message) = condition(&over, "Ready").context("no Ready")?;
    assert_eq!(status, "True", "the token is good");
    assert!(message.contains("expired at 2026-01-31T00:00:00Z") && message.contains("agent-client"), "{message}");
    let none = expires(None).await?;
    assert!(condition(&none, "Ready").is_some_and(|(_, _, message)| !message.contains("expired at")), "{none}");
    assert!(!fixture.operator.get("/metrics").await?.contains(SERIES));

    // another key alone is read immediately, and its value is that of the Secret that has it
    let values = [("client_id", id), ("client_secret", secret), ("until", b"2999-01-31T00:00:00Z"), ("never", b"soon")];
    fixture.namespace.apply(&client_secret(&values)).await?;
    let names = |key: &str| json!({"clientCredentialsRef": {"name": "agent-client", "expiresAtKey": key}});
    fixture.apply_credential(&names("until")).await?;
    fixture
        .eventually("the time of the other key", SOON, async || {
            let status = fixture.status().await.ok()?;
            (status["clientSecretExpiresAt"] == "2999-01-31T00:00:00Z").then_some(())
        })
        .await?;
    // a value that is no time keeps no one from a token
    fixture.apply_credential(&names("never")).await?;
    let message = fixture
        .eventually("the message about the time", SOON, async || {
            let ready = condition(&fixture.status().await.ok()?, "Ready");
            ready.filter(|(_, _, message)| message.contains("is no time in RFC 3339"))
        })
        .await?;
    assert_eq!((&*message.0, &*message.1), ("True", "TokenValid"));
    assert!(message.2.contains("key never of Secret") && message.2.contains("agent-client"), "{}", message.2);
    assert!(!fixture.operator.get("/metrics").await?.contains(SERIES));
    assert_eq!(fixture.token_requests().await?.len(), 1);
    let first = fixture.token().await?;
    fixture.renew_now(NAME, "1").await?;
    fixture.wait_token_other_than(&first, PATIENCE).await?;
    Ok(())
}

/// A PEM text of nested DER sequences, as deep as the size allows.
fn nested_key(size: usize) -> String {
    let (mut lengths, mut length) = (Vec::new(), 0_usize);
    while length * 4 / 3 < size {
        let header = match length {
            0..=0x7f => vec![0x30, length as u8],
            0x80..=0xff => vec![0x30, 0x81, length as u8],
            _ => vec![0x30, 0x82, (length >> 8) as u8, length as u8],
        };
        length += header.len();
        lengths.push(header);
    }
    let der = lengths.into_iter().rev().flatten().collect::<Vec<u8>>();
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

#[tokio::test]
async fn private_key_of_nested_sequences_is_refused_and_stops_nothing() -> Result<()> {
    let fixture = Fixture::bare("nested-key").await?;
    fixture.apply_authority(&json!({"clientAuthentication": "private_key_jwt"})).await?;
    fixture.apply_credential(&json!({})).await?;
    for (size, expected) in [(16_000, "is no PEM private key that can be used"), (100_000, "has more than 16384 bytes")]
    {
        let key = nested_key(size);
        let values = [("client_id", &b"id"[..]), ("private_key", key.as_bytes())];
        fixture.namespace.apply(&client_secret(&values)).await?;
        let what = format!("a message with '{expected}'");
        fixture
            .eventually(&what, SOON, async || {
                let status = fixture.status().await.ok()?;
                let (_, reason, message) = condition(&status, "Renewed")?;
                (reason == "ClientCredentialsInvalid" && message.contains(expected)).then_some(())
            })
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn deleted_client_secret_leaves_the_token_until_it_must_be_renewed() -> Result<()> {
    let fixture = Fixture::ready("client-gone").await?;
    let token = fixture.token().await?;
    fixture.namespace.kubectl(&["delete", "secret", "agent-client"]).await?;
    fixture.renew_now(NAME, "1").await?;
    fixture.wait_condition("Renewed", "False", "ClientCredentialsNotFound", SOON).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    assert_eq!(fixture.token().await?, token);
    fixture.apply_client_secret().await?;
    fixture.wait_token_other_than(&token, SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 2);
    Ok(())
}

/// Deletes the client Secret, and waits until that is reported.
async fn delete_client_secret(fixture: &Fixture) -> Result<()> {
    fixture.namespace.kubectl(&["delete", "secret", "agent-client"]).await?;
    fixture.wait_condition("Renewed", "False", "ClientCredentialsNotFound", SOON).await.map(drop)
}

#[tokio::test]
async fn missing_client_secret_is_reported_after_a_restart_too() -> Result<()> {
    let mut fixture = Fixture::ready("client-gone-restart").await?;
    delete_client_secret(&fixture).await?;
    fixture.restart().await?;
    fixture.reconcile().await?;
    let (status, reason, _) = condition(&fixture.status().await?, "Renewed").context("no Renewed")?;
    assert_eq!((&*status, &*reason), ("False", "ClientCredentialsNotFound"), "it is still missing");
    fixture.apply_client_secret().await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", SOON).await?;

    // no process sees the deletion
    fixture.stop();
    fixture.namespace.kubectl(&["delete", "secret", "agent-client"]).await?;
    fixture.start().await?;
    fixture.wait_condition("Renewed", "False", "ClientCredentialsNotFound", SOON).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn client_secret_whose_deletion_no_watch_shows_is_reported_after_the_next_list() -> Result<()> {
    const SECRETS: &str = "watch secrets";
    let fixture = Fixture::ready("client-unshown").await?;
    let swallowed = fixture.proxy().swallow(SECRETS, "DELETED", "agent-client");
    fixture.namespace.kubectl(&["delete", "secret", "agent-client"]).await?;
    let is_swallowed = async || (swallowed.times() == 1).then_some(());
    fixture.eventually("the deletion to be swallowed", PATIENCE, is_swallowed).await?;
    assert_eq!(fixture.proxy().expire(SECRETS), 1, "the watch is open");
    fixture.wait_condition("Renewed", "False", "ClientCredentialsNotFound", PATIENCE).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn client_secret_over_a_mebibyte_is_refused_by_the_api_server() -> Result<()> {
    // so that the operator can never read one
    let fixture = Fixture::bare("client-large").await?;
    let large = client_secret(&[("client_id", b"id"), ("client_secret", &vec![b'a'; (1 << 20) + 1])]);
    let (create, large) = (["--namespace", &fixture.namespace.name, "create", "-f", "-"], large.to_string());
    let refused =
        fixture.namespace.testbed.kubectl_with(&create, Some(&large)).await.err().context("it was accepted")?;
    assert!(format!("{refused:#}").contains("Too long"), "{refused:#}");
    Ok(())
}

#[tokio::test]
async fn value_of_a_key_that_names_no_identifier_is_not_shown() -> Result<()> {
    let mut fixture = Fixture::bare("any-key").await?;
    fixture.apply_authority(&json!({})).await?;
    // what a tenant who may not read Secrets would like to know
    fixture.client.client_id = format!("Pa55word-of-{}", fixture.namespace.name);
    fixture.register().await?;
    let (value, secret) = (fixture.client.client_id.clone(), fixture.client.client_secret.clone());
    fixture.namespace.apply(&client_secret(&[("db", value.as_bytes()), ("other", secret.as_bytes())])).await?;
    let keys = |id: &str| json!({"clientCredentialsRef": {"clientIdKey": id, "clientSecretKey": "other"}});
    fixture.apply_credential(&keys("db")).await?;
    fixture.wait_ready().await?;
    let credential = fixture.namespace.get("itcred", NAME).await?.context("no credential")?;
    assert!(credential["status"]["clientId"].is_null(), "{credential}");
    assert!(!credential.to_string().contains(&value), "{credential}");
    let metadata = fixture.secret().await?.context("no Secret")?["metadata"].to_string();
    assert!(!metadata.contains(&value), "{metadata}");
    assert!(!fixture.operator.get("/metrics").await?.contains(&value));
    assert!(!std::fs::read_to_string(fixture.operator.process.log())?.contains(&value));

    // the same value under a key that names an identifier
    fixture.namespace.apply(&client_secret(&[("id", value.as_bytes()), ("other", secret.as_bytes())])).await?;
    fixture.apply_credential(&keys("id")).await?;
    fixture
        .eventually("status.clientId", SOON, async || {
            let status = fixture.status().await.ok()?;
            (status["clientId"] == value.as_str()).then_some(())
        })
        .await
}

#[tokio::test]
async fn clients_in_one_secret_get_each_a_token_of_its_own() -> Result<()> {
    let fixture = Fixture::new("two-clients").await?;
    let other = testbed::authority::Client::new(&format!("other-{}", fixture.namespace.name));
    fixture.namespace.testbed.authority.register(&other).await?;
    let mut both = objects::client_secret("both", &fixture.client.client_id, &fixture.client.client_secret);
    objects::merge(&mut both["stringData"], &json!({"other_id": other.client_id, "other_secret": other.client_secret}));
    fixture.namespace.apply(&both).await?;
    // both are in the queue at the same time
    fixture.apply_authority(&json!({"requestsPerMinute": 20})).await?;
    let first = json!({"clientCredentialsRef": {"name": "both"}});
    let second = json!({
        "clientCredentialsRef": {"name": "both", "clientIdKey": "other_id", "clientSecretKey": "other_secret"},
    });
    for (name, spec) in [("warm", &first), ("first", &first), ("second", &second)] {
        fixture.namespace.apply(&fixture.namespace.credential(name, spec)).await?;
    }
    for (name, client) in [("first", &fixture.client), ("second", &other)] {
        fixture.wait_condition_of(name, "Ready", "True", "TokenValid", PATIENCE).await?;
        assert_eq!(fixture.status_of(name).await?["clientId"], client.client_id.as_str(), "{name}");
    }
    Ok(())
}
