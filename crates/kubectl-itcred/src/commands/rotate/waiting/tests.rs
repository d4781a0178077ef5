//! What is requested and said while a token with the new secret is awaited.

use std::sync::{Arc, Mutex};

use itwin_api::secret_keys::RENEW;
use serde_json::json;

use super::*;
use crate::{fake, view::tests::credential};

fn open() -> Open {
    let key = ObjectKey::new("team-b", "agent");
    Open { key, failed_before: None, failure: None, said: String::new(), is_requested: false }
}

#[tokio::test]
async fn renewal_is_requested_once_if_no_attempt_ends_in_ten_seconds() {
    let patches = Arc::new(Mutex::new(Vec::new()));
    let seen = patches.clone();
    let session = fake::session(move |asked| {
        let renew = asked.body["metadata"]["annotations"][RENEW].as_str().map(str::to_owned);
        seen.lock().expect("no panic").push((asked.method.clone(), asked.path.contains("/team-b/"), renew.is_some()));
        fake::object(&serde_json::to_value(credential("agent", &json!({}))).expect("JSON"))
    });
    let count = || patches.lock().expect("no panic").len();
    let mut waiting = open();
    waiting.request(&session, UNNOTICED.saturating_sub(Duration::from_millis(1))).await;
    assert_eq!(count(), 0, "an operator that watches Secrets begins by itself");
    waiting.request(&session, UNNOTICED).await;
    assert_eq!(*patches.lock().expect("no panic"), [("PATCH".to_owned(), true, true)]);
    waiting.request(&session, UNNOTICED * 3).await;
    assert_eq!(count(), 1, "once");
    let failed = Some(("InvalidClient".to_owned(), "wrong".to_owned()));
    Open { failure: failed, ..open() }.request(&session, UNNOTICED).await;
    assert_eq!(count(), 1, "an attempt has ended, and the operator goes on");
}

#[tokio::test]
async fn renewal_that_cannot_be_requested_is_reported_and_not_requested_again() {
    let session = fake::session(|_| fake::failure(403, "Forbidden"));
    let mut waiting = open();
    waiting.request(&session, UNNOTICED).await;
    assert!(waiting.is_requested && waiting.said.contains("team-b/agent: forbidden"), "{}", waiting.said);
}

#[test]
fn commands_that_are_recommended_name_the_namespace() {
    let late = open().late(Duration::from_secs(60)).message;
    for command in ["'kubectl itcred check agent -n team-b'", "'kubectl itcred rotate agent -n team-b'"] {
        assert!(late.contains(command), "{late}");
    }
}
