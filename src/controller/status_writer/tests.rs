//! A status is written whatever became of its object, unless that would take something away.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Method, Response};
use kube::{Client, client::Body};
use serde_json::Value;

use super::*;
use crate::{leadership::fence::LeadershipFence, metrics::Metrics};

/// How a server answers a call, if it does: HTTP status and body.
type Reply = Option<(u16, Value)>;

fn refused(code: u16, reason: &str) -> Reply {
    Some((code, json!({"kind": "Status", "code": code, "reason": reason})))
}

/// Writes a status whose object has another version than the one that is known, where a list is answered so. Returns the
/// result and the methods of the calls.
async fn written(
    list: Reply,
    status: &CredentialStatus,
    resource_version: Option<&str>,
) -> (Result<u64, CallError>, Vec<String>) {
    let patched = json!({"metadata": {"uid": "uid", "resourceVersion": "9"}});
    answered(list, patched, status, resource_version).await
}

/// The same where a patch is answered with 200 and this.
async fn answered(
    list: Reply,
    patched: Value,
    status: &CredentialStatus,
    resource_version: Option<&str>,
) -> (Result<u64, CallError>, Vec<String>) {
    let calls: Arc<Mutex<Vec<String>>> = Arc::default();
    let received = calls.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        received.lock().expect("no panic").push(request.method().to_string());
        let reply = match *request.method() {
            Method::PUT => refused(409, "Conflict"),
            Method::PATCH => Some((200, patched.clone())),
            _ => list.clone(),
        };
        async move {
            let Some((code, body)) = reply else { return std::future::pending().await };
            let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
            Ok::<_, Infallible>(response.expect("a response"))
        }
    });
    let metrics = Arc::new(Metrics::new(false).expect("metrics"));
    let cluster = Cluster::new(Client::new(service, "team"), LeadershipFence::unlimited(), metrics);
    let key = ObjectKey::new("team", "agent");
    let resource_version = resource_version.map(str::to_owned);
    let result = write_status(&cluster, StatusWrite { key: &key, uid: "uid", status, resource_version }).await;
    let calls = calls.lock().expect("no panic").clone();
    (result, calls)
}

#[tokio::test(start_paused = true)]
async fn status_of_an_object_that_changed_and_cannot_be_found_is_patched_in_time() {
    let status = CredentialStatus { observed_generation: Some(2), ..CredentialStatus::default() };
    for list in [refused(403, "Forbidden"), refused(429, "TooManyRequests"), refused(500, "InternalError"), None] {
        let (result, calls) = written(list.clone(), &status, Some("5")).await;
        assert_eq!((result, calls.join(" ").as_str()), (Ok(9), "PUT GET PATCH"), "{list:?}");
        let (result, calls) = written(list.clone(), &status, None).await;
        assert_eq!((result, calls.join(" ").as_str()), (Ok(9), "GET PATCH"), "{list:?}");
    }
}

#[tokio::test]
async fn answer_that_is_not_the_object_does_not_count_as_a_status_that_was_written() {
    let status = CredentialStatus::default();
    let without_version = [json!({"uid": "uid"}), json!({"uid": "uid", "resourceVersion": ""})];
    for metadata in [json!({}), json!({"uid": "other", "resourceVersion": "9"})].into_iter().chain(without_version) {
        let patched = json!({"kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Success"});
        let (result, _) = answered(refused(403, "Forbidden"), patched, &status, None).await;
        assert_eq!(result, Err(CallError::Transport), "{metadata}");
    }
}

#[tokio::test]
async fn status_of_an_object_that_changes_all_the_time_is_patched_and_that_of_another_one_is_not() {
    let mut status = CredentialStatus { observed_generation: Some(2), ..CredentialStatus::default() };
    let object = |uid: &str| json!({"metadata": {"uid": uid, "generation": 2, "resourceVersion": "7"}});
    let (result, calls) = written(Some((200, json!({"items": [object("uid")]}))), &status, Some("5")).await;
    assert_eq!((result, calls.join(" ").as_str()), (Ok(9), "PUT GET PUT GET PATCH"));
    for items in [json!([object("other")]), json!([])] {
        let (result, calls) = written(Some((200, json!({"items": items}))), &status, Some("5")).await;
        assert_eq!((result, calls.join(" ").as_str()), (Err(CallError::NotFound), "PUT GET"));
    }
    status.conditions.push(Condition {
        type_: "Audited".to_owned(),
        status: "True".to_owned(),
        reason: "Audited".to_owned(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: time::to_kubernetes(DateTime::UNIX_EPOCH),
    });
    let (result, calls) = written(refused(403, "Forbidden"), &status, Some("5")).await;
    assert_eq!((result, calls.join(" ").as_str()), (Err(CallError::Conflict), "PUT"), "a list is written as a whole");
}

#[test]
fn status_is_written_to_an_object_that_changed_only_if_that_takes_nothing_away() {
    let version = |object: serde_json::Value| {
        let found: Found = serde_json::from_value(json!({"items": [object]})).expect("a list");
        let status = CredentialStatus { observed_generation: Some(2), ..CredentialStatus::default() };
        found.version_for("uid", &status)
    };
    let object = |uid: &str, generation: i64, status: serde_json::Value| {
        let metadata = json!({"uid": uid, "generation": generation, "resourceVersion": "7"});
        json!({"metadata": metadata, "status": status})
    };
    let conditions = |types: &[&str]| {
        let conditions: Vec<_> = types.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
        json!({"conditions": conditions})
    };
    let ours = || conditions(&["Ready", "Renewed"]);
    assert_eq!(version(object("uid", 2, ours())).as_deref(), Some("7"));
    assert_eq!(version(object("uid", 3, json!(null))).as_deref(), Some("7"), "it has no status yet");
    assert_eq!(version(object("uid", 3, json!({}))).as_deref(), Some("7"));
    assert_eq!(version(object("other", 2, ours())), None, "it is another object");
    assert_eq!(version(object("uid", 1, ours())), None, "it is that of a restored cluster");
    assert_eq!(version(object("uid", 2, conditions(&["Ready", "Synced"]))), None, "another controller wrote it");
}
