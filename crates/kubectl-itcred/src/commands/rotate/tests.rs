//! What ends a rotation before anything is written or requested.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::{fake, view::tests::credential};

/// Why the client secret of `agent` is not rotated, with these keys of `agent` and of another credential; and the
/// requests that were no reads.
async fn refused(keys: Value, others: Value, expires_at: Option<DateTime<Utc>>) -> (String, Vec<String>) {
    let with = |name: &str, keys: &Value| {
        let spec = json!({"spec": {"clientCredentialsRef": keys}});
        serde_json::to_value(credential(name, &spec)).expect("JSON")
    };
    let (agent, other) = (with("agent", &keys), with("other", &others));
    let secret = json!({"metadata": {"name": "client", "namespace": "team-a", "resourceVersion": "1"},
                        "data": {"client_id": "YQ==", "client_secret": "YQ=="}});
    let writes = Arc::new(Mutex::new(Vec::new()));
    let seen = writes.clone();
    let session = fake::session(move |asked| {
        if asked.method != "GET" {
            seen.lock().expect("no panic").push(format!("{} {}", asked.method, asked.path));
            return fake::failure(500, "InternalError");
        }
        if asked.path.contains("/itwinauthorities/") {
            fake::failure(403, "Forbidden")
        } else if asked.path.contains("/secrets/") {
            fake::object(&secret)
        } else if asked.path.contains("/agent") {
            fake::object(&agent)
        } else {
            fake::object(&json!({"metadata": {}, "items": [agent, other]}))
        }
    });
    let ended = run(&session, "agent", expires_at, Duration::ZERO, Form::Table).await;
    let writes = writes.lock().expect("no panic").clone();
    (ended.expect_err("it cannot be done").to_string(), writes)
}

#[tokio::test]
async fn rotation_that_would_overwrite_another_value_ends_before_its_first_step() {
    let expires_at = Some(crate::view::tests::now());
    for (keys, others, expires_at, text) in [
        (json!({"expiresAtKey": "client_secret"}), json!({}), expires_at, "--expires-at would overwrite"),
        (json!({"expiresAtKey": "client_id"}), json!({}), expires_at, "clientIdKey of"),
        (json!({}), json!({"privateKeyKey": "expires_at"}), expires_at, "team-a/other names key expires_at"),
        (
            json!({}),
            json!({"clientIdKey": "client_secret"}),
            None,
            "clientIdKey of ITwinServiceCredential team-a/other",
        ),
    ] {
        let (why, writes) = refused(keys, others, expires_at).await;
        assert!(why.starts_with("Secret team-a/client: ") && why.contains(text), "{why}");
        assert!(writes.is_empty(), "{writes:?}");
    }
    // of another client Secret, or without an expiry, it overwrites nothing: the first write is tried
    let elsewhere = json!({"name": "another", "clientIdKey": "client_secret"});
    for (keys, others) in [(json!({}), elsewhere), (json!({"expiresAtKey": "client_secret"}), json!({}))] {
        let (why, writes) = refused(keys, others, None).await;
        assert!(why.contains("cannot be written") && !writes.is_empty(), "{why}");
    }
}

/// A cluster of which this credential `agent` and others of its client are read, and nothing is written.
fn read_only(agent: &Value, others: &[Value]) -> Session {
    let (agent, mut all) = (agent.clone(), others.to_vec());
    all.push(agent.clone());
    fake::session(move |asked| match asked.path.as_str() {
        _ if asked.method != "GET" => fake::failure(500, "InternalError"),
        path if path.contains("/itwinauthorities/") => fake::failure(403, "Forbidden"),
        path if path.contains("/secrets/") => fake::object(&json!({
            "metadata": {"name": "client", "namespace": "team-a", "resourceVersion": "1"},
            "data": {"client_id": "YQ==", "client_secret": "YQ=="},
        })),
        path if path.contains("/agent") => fake::object(&agent),
        _ => fake::object(&json!({"metadata": {}, "items": all})),
    })
}

/// A credential that is being deleted.
fn being_deleted(name: &str) -> Value {
    let mut held = serde_json::to_value(credential(name, &json!({}))).expect("JSON");
    crate::view::tests::merge(&mut held, &crate::view::tests::deleted());
    held
}

#[tokio::test]
async fn rotation_for_a_credential_that_is_being_deleted_ends_before_its_first_step() {
    let session = read_only(&being_deleted("agent"), &[]);
    let why = run(&session, "agent", None, Duration::ZERO, Form::Table).await.expect_err("it ends").to_string();
    assert!(why.starts_with("ITwinServiceCredential team-a/agent: the credential is being deleted"), "{why}");
    assert!(why.contains("example.com/hold"), "{why}");
}

#[tokio::test]
async fn credential_of_the_same_client_that_is_being_deleted_keeps_no_other_one_from_a_rotation() {
    let agent = credential("agent", &json!({}));
    let session = read_only(&serde_json::to_value(&agent).expect("JSON"), &[being_deleted("held")]);
    let plan = Plan::new(&session, "agent", None).await.map_err(|why| why.to_string()).expect("a plan");
    assert_eq!(plan.keys(), [common::key(&agent)]);
}

#[tokio::test]
async fn commands_that_are_recommended_name_the_namespace() {
    let agent = credential("agent", &json!({"metadata": {"namespace": "team-b"}, "spec": {"suspend": true}}));
    let plan = Plan {
        credentials: vec![agent.clone()],
        secret: Secret::default(),
        secret_ref: "team-b/client".to_owned(),
        key: "client_secret".to_owned(),
        method: ClientAuthentication::ClientSecretPost,
    };
    let why = plan.interrupted().to_string();
    assert!(why.contains("'kubectl itcred check agent -n team-b'"), "{why}");
    let agent = serde_json::to_value(agent).expect("JSON");
    let mut session = fake::session(move |asked| match asked.path.as_str() {
        path if path.contains("/itwinauthorities/") => fake::failure(403, "Forbidden"),
        path if path.contains("/secrets/") => fake::object(&json!({
            "metadata": {"name": "client", "namespace": "team-b"}, "data": {"client_secret": "YQ=="},
        })),
        path if path.contains("/agent") => fake::object(&agent),
        _ => fake::object(&json!({"metadata": {}, "items": [agent]})),
    });
    session.namespace = "team-b".to_owned();
    let why = run(&session, "agent", None, Duration::ZERO, Form::Table).await.expect_err("it ends").to_string();
    assert!(why.contains("'kubectl itcred resume agent -n team-b'"), "{why}");
}
