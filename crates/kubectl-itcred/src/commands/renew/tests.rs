//! How renewals are requested, awaited and reported.

use std::sync::Mutex;

use itwin_api::secret_keys::RENEW;
use serde_json::json;

use super::*;
use crate::{
    fake::{self, Answer},
    view::tests::{broken, credential, deleted, merge, minutes},
};

fn object(name: &str, changes: &Value) -> Answer {
    fake::object(&serde_json::to_value(credential(name, changes)).expect("JSON"))
}

/// The operator has handled this value.
fn handled(value: &str, changes: &Value) -> Answer {
    let mut all = json!({"metadata": {"annotations": {RENEW: value}}, "status": {"lastRenewRequest": value}});
    merge(&mut all, changes);
    object("agent", &all)
}

/// How a renewal of `agent` ended, if reads are answered by `read`, given the value of the request and the number
/// of the read, from 1.
async fn renewed(timeout: Duration, read: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Option<Ended> {
    let state = Mutex::new((String::new(), 0));
    let session = fake::session(move |asked| {
        let mut state = state.lock().expect("no panic");
        if asked.method == "PATCH" {
            state.0 = asked.body["metadata"]["annotations"][RENEW].as_str().unwrap_or_default().to_owned();
            return object("agent", &json!({}));
        }
        state.1 += 1;
        read(&state.0, state.1)
    });
    let key = ObjectKey::new("team-a", "agent");
    let requested = request(&session, std::slice::from_ref(&key)).await;
    assert!(requested.failed.is_empty(), "{:?}", requested.failed);
    wait(&session, requested.asked, timeout, Form::Table).await.remove(&key)
}

#[tokio::test]
async fn reads_that_fail_do_not_end_the_wait() {
    let patience = Duration::from_secs(30);
    let issued = renewed(patience, |value, number| match number {
        1 => fake::failure(503, "ServiceUnavailable"),
        2 => fake::failure(500, "InternalError"),
        _ => handled(value, &json!({"status": {"issuedAt": minutes(0)}})),
    });
    assert!(matches!(issued.await, Some(Ended::Issued(Some(_)))));
    let unread = renewed(Duration::ZERO, |_, _| fake::failure(503, "ServiceUnavailable")).await;
    assert!(matches!(&unread, Some(Ended::Unread(why)) if why.contains("HTTP 503")), "{unread:?}");
}

#[tokio::test]
async fn same_token_a_deleted_credential_and_another_request_are_results() {
    let patience = Duration::from_secs(30);
    let same = renewed(patience, |value, _| handled(value, &json!({}))).await;
    assert!(matches!(same, Some(Ended::Same(Some(_)))), "{same:?}");
    assert_eq!(renewed(patience, |_, _| fake::failure(404, "NotFound")).await, Some(Ended::Gone));
    assert_eq!(renewed(patience, |_, _| handled("other", &json!({}))).await, Some(Ended::Replaced));
    assert_eq!(renewed(Duration::ZERO, |_, _| object("agent", &json!({}))).await, Some(Ended::Replaced));
}

#[tokio::test]
async fn credential_that_cannot_be_decoded_does_not_keep_others_from_being_renewed() {
    let (value, patched) = (Mutex::new(String::new()), std::sync::Arc::new(Mutex::new(Vec::new())));
    let seen = patched.clone();
    let session = fake::session(move |asked| {
        let mut value = value.lock().expect("no panic");
        if asked.method == "PATCH" {
            seen.lock().expect("no panic").push(asked.path.clone());
            *value = asked.body["metadata"]["annotations"][RENEW].as_str().unwrap_or_default().to_owned();
            return object("agent", &json!({}));
        }
        if asked.path.contains("/agent") {
            return handled(&value, &json!({"status": {"issuedAt": minutes(0)}}));
        }
        let agent = serde_json::to_value(credential("agent", &json!({}))).expect("JSON");
        fake::object(&json!({"metadata": {}, "items": [broken(), agent]}))
    });
    let targets = Targets { all: true, ..Targets::default() };
    for form in [Form::Table, Form::Json] {
        let ended = run(&session, &targets, Duration::from_secs(30), form).await;
        assert_eq!(ended, Ok(Outcome::Incomplete));
    }
    let patched = patched.lock().expect("no panic").clone();
    assert!(patched.len() == 2 && patched.iter().all(|path| path.contains("/agent")), "{patched:?}");
}

#[test]
fn commands_that_are_recommended_name_the_namespace() {
    let suspended = json!({"metadata": {"namespace": "team-b"}, "spec": {"suspend": true}});
    let (result, why) = unrequested(&credential("agent", &suspended)).expect("a cause");
    assert_eq!(result, RenewalResult::Suspended);
    assert!(why.contains("'kubectl itcred resume agent -n team-b'"), "{why}");
    let key = ObjectKey::new("team-b", "agent");
    for ended in [Ended::Replaced, Ended::Late, Ended::Unread("why".to_owned())] {
        let text = described(&key, &ended, crate::view::tests::now(), Duration::ZERO);
        assert!(text.contains(" agent -n team-b'"), "{text}");
    }
}

#[tokio::test]
async fn credential_that_is_being_deleted_ends_immediately() {
    let patience = Duration::from_secs(30);
    // deleted while its renewal is awaited
    let asked = |value: &str| {
        let mut all = deleted();
        merge(&mut all, &json!({"metadata": {"annotations": {RENEW: value}}}));
        object("agent", &all)
    };
    assert_eq!(renewed(patience, move |value, _| asked(value)).await, Some(Ended::Gone));
    // and before: nothing is written
    let session = fake::session(|asked| match asked.method.as_str() {
        "GET" => object("agent", &deleted()),
        _ => fake::failure(500, "InternalError"),
    });
    let targets = Targets { names: vec!["agent".to_owned()], ..Targets::default() };
    assert_eq!(run(&session, &targets, patience, Form::Table).await, Ok(Outcome::Findings));
    let (result, why) = unrequested(&credential("agent", &deleted())).expect("a cause");
    assert_eq!(result, RenewalResult::Deleting);
    assert!(why.contains("example.com/hold"), "{why}");
}

#[tokio::test]
async fn credential_that_may_not_be_patched_does_not_keep_others_from_being_reported() {
    let value = Mutex::new(String::new());
    let session = fake::session(move |asked| {
        let mut value = value.lock().expect("no panic");
        match (asked.method.as_str(), asked.path.contains("/forbidden")) {
            ("PATCH", true) => fake::failure(403, "Forbidden"),
            ("PATCH", false) => {
                *value = asked.body["metadata"]["annotations"][RENEW].as_str().unwrap_or_default().to_owned();
                object("agent", &json!({}))
            }
            (_, true) => object("forbidden", &json!({})),
            (_, false) => handled(&value, &json!({"status": {"issuedAt": minutes(0)}})),
        }
    });
    let keys = ["forbidden", "agent"].map(|name| ObjectKey::new("team-a", name));
    let requested = request(&session, &keys).await;
    assert!(requested.failed.len() == 1 && requested.failed[0].1.to_string().contains("team-a/forbidden: forbidden"));
    assert_eq!(requested.asked.keys().collect::<Vec<_>>(), [&keys[1]]);
    let run = |name: &str| Targets { names: vec![name.to_owned()], ..Targets::default() };
    let both = Targets { names: vec!["forbidden".to_owned(), "agent".to_owned()], ..Targets::default() };
    for (targets, expected) in
        [(both, Outcome::Incomplete), (run("forbidden"), Outcome::Incomplete), (run("agent"), Outcome::Fine)]
    {
        assert_eq!(
            super::run(&session, &targets, Duration::from_secs(30), Form::Json).await,
            Ok(expected),
            "{targets:?}"
        );
    }
}
