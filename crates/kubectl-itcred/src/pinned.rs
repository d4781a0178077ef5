//! What `-o json` prints is as documented: the whole object of each command for a fixed input, and each field in
//! docs/kubectl-itcred.md. A change here is a change for programs that read the output.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_core::object::ObjectKey;
use itwin_oauth::jwt::Parts;
use serde_json::{Value, json};

use crate::{
    check,
    claims::Claims,
    commands::suspend::{Suspension, SuspensionList},
    lint,
    output::{Structured, VERSION},
    renewal::{Ended, Renewal, RenewalList, RenewalResult},
    rotation::{Rotated, Rotation, RotationResult},
    timeline::{Event, Timeline},
    view::{
        StatusList, View,
        tests::{credential, failed, merge, minutes, now},
    },
};

fn at(minutes: i64) -> Option<DateTime<Utc>> {
    Some(now() + TimeDelta::minutes(minutes))
}

/// The object that a command prints.
fn printed(content: &impl Structured) -> Value {
    content.object().expect("an object")
}

/// An object with these fields.
fn object(kind: &str, fields: &Value) -> Value {
    let mut object = json!({"apiVersion": VERSION, "kind": kind});
    merge(&mut object, fields);
    object
}

/// A credential whose renewal fails, so that each field has a value.
fn view() -> View {
    let mut changes = failed("InvalidClient", "write the right secret");
    merge(&mut changes, &json!({"status": {"clientSecretExpiresAt": minutes(600)}}));
    View::new(&credential("agent", &changes), now())
}

fn fields_of_view() -> Value {
    json!({
        "namespace": "team-a", "name": "agent", "state": "Failing", "reason": "InvalidClient",
        "message": "write the right secret", "issuedAt": "2027-01-15T07:50:00Z", "renewAt": "2027-01-15T08:30:00Z",
        "usableUntil": "2027-01-15T08:45:00Z", "expiresAt": "2027-01-15T08:50:00Z", "consecutiveFailures": 3,
        "lastFailure": {"time": "2027-01-15T07:58:00Z", "reason": "InvalidClient", "message": "it failed"},
        "authority": "bentley-ims", "secretName": "agent", "scopes": ["itwin-platform"],
        "clientSecretExpiresAt": "2027-01-15T18:00:00Z",
    })
}

fn status() -> Value {
    printed(&StatusList { items: vec![view()] })
}

#[test]
fn object_of_status_is_pinned() {
    assert_eq!(status(), object("StatusList", &json!({"items": [fields_of_view()]})));
}

fn timeline() -> Value {
    let event = Event { time: at(-9), reason: "Issued".to_owned(), note: "why".to_owned(), count: 1 };
    printed(&Timeline::new(view(), Ok(vec![event])))
}

#[test]
fn object_of_timeline_is_pinned() {
    let mut fields = fields_of_view();
    let event = json!({"time": "2027-01-15T07:51:00Z", "reason": "Issued", "note": "why", "count": 1});
    merge(&mut fields, &json!({"events": [event], "eventsUnknown": null}));
    assert_eq!(timeline(), object("Timeline", &fields));
    let unknown = printed(&Timeline::new(view(), Err("forbidden".to_owned())));
    assert_eq!((&unknown["events"], &unknown["eventsUnknown"]), (&json!([]), &json!("forbidden")));
}

fn check() -> Value {
    let finding = check::Finding {
        level: check::Level::Problem,
        reason: Some("AuthorityNotFound"),
        text: "create it".to_owned(),
        is_left_out: false,
    };
    let sections = vec![check::Section { title: "Authority", findings: vec![finding] }];
    printed(&check::Report { credential: "team-a/agent".to_owned(), sections })
}

#[test]
fn object_of_check_is_pinned() {
    let finding = json!({"level": "Problem", "reason": "AuthorityNotFound", "text": "create it"});
    let sections = json!([{"title": "Authority", "findings": [finding]}]);
    assert_eq!(check(), object("CheckReport", &json!({"credential": "team-a/agent", "sections": sections})));
}

fn renew() -> Value {
    let key = |name: &str| ObjectKey::new("team-a", name);
    let failed = Ended::Failed {
        reason: "InvalidClient".to_owned(),
        message: "write the right secret".to_owned(),
        usable_until: at(45),
    };
    printed(&RenewalList {
        items: vec![
            Renewal::new(&key("agent"), &failed, "InvalidClient: write the right secret"),
            Renewal::new(&key("fine"), &Ended::Issued(at(60)), "new token, it expires in 60m"),
            Renewal::without_request(&key("idle"), RenewalResult::Suspended, "suspended"),
        ],
    })
}

#[test]
fn object_of_renew_is_pinned() {
    let items = json!([
        {
            "namespace": "team-a", "name": "agent", "result": "Failed", "reason": "InvalidClient",
            "message": "InvalidClient: write the right secret", "expiresAt": null,
            "usableUntil": "2027-01-15T08:45:00Z",
        },
        {
            "namespace": "team-a", "name": "fine", "result": "Issued", "reason": null,
            "message": "new token, it expires in 60m", "expiresAt": "2027-01-15T09:00:00Z", "usableUntil": null,
        },
        {
            "namespace": "team-a", "name": "idle", "result": "Suspended", "reason": null, "message": "suspended",
            "expiresAt": null, "usableUntil": null,
        },
    ]);
    assert_eq!(renew(), object("RenewalList", &json!({"items": items})));
    let key = ObjectKey::new("team-a", "agent");
    for (ended, result) in [
        (Ended::Same(None), "Same"),
        (Ended::Replaced, "Replaced"),
        (Ended::Gone, "Deleted"),
        (Ended::Late, "Late"),
        (Ended::Unread("why".to_owned()), "Unknown"),
    ] {
        let renewal = serde_json::to_value(Renewal::new(&key, &ended, "why")).expect("JSON");
        assert_eq!(renewal["result"], result);
    }
}

fn suspend() -> Value {
    let names = |name: &str| ("team-a".to_owned(), name.to_owned());
    let ((namespace, name), error) = (names("agent"), Some("forbidden".to_owned()));
    printed(&SuspensionList { items: vec![Suspension { namespace, name, suspended: true, changed: false, error }] })
}

#[test]
fn object_of_suspend_and_resume_is_pinned() {
    let item = json!({
        "namespace": "team-a", "name": "agent", "suspended": true, "changed": false, "error": "forbidden",
    });
    assert_eq!(suspend(), object("SuspensionList", &json!({"items": [item]})));
}

fn token() -> Value {
    let fields = |value: Value| value.as_object().cloned().unwrap_or_default();
    let parts = Parts { header: fields(json!({"alg": "RS256"})), claims: fields(json!({"scope": ["a"]})) };
    printed(&Claims::new("team-a/agent", at(50), false, Some(&parts)))
}

#[test]
fn object_of_token_is_pinned() {
    let fields = json!({
        "secret": "team-a/agent", "expiresAt": "2027-01-15T08:50:00Z", "expired": false, "verified": false,
        "header": {"alg": "RS256"}, "claims": {"scope": ["a"]},
    });
    assert_eq!(token(), object("Token", &fields));
    let opaque = printed(&Claims::new("team-a/agent", None, false, None));
    assert_eq!((&opaque["header"], &opaque["claims"]), (&Value::Null, &Value::Null));
}

fn lint() -> Value {
    let finding = lint::Finding {
        weight: lint::Weight::Warning,
        namespace: "team-a".to_owned(),
        object: "Deployment/app".to_owned(),
        rule: "env",
        message: "mount it".to_owned(),
    };
    let unread = vec!["pods: forbidden".to_owned()];
    printed(&lint::Report { findings: vec![finding], unread, credentials: 1, workloads: 2 })
}

#[test]
fn object_of_lint_is_pinned() {
    let finding = json!({
        "weight": "Warning", "namespace": "team-a", "object": "Deployment/app", "rule": "env", "message": "mount it",
    });
    let fields = json!({"findings": [finding], "unread": ["pods: forbidden"], "credentials": 1, "workloads": 2});
    assert_eq!(lint(), object("LintReport", &fields));
}

fn rotate() -> Value {
    let rotated = Rotated {
        namespace: "team-a".to_owned(),
        name: "agent".to_owned(),
        result: RotationResult::Issued,
        reason: None,
        failure: None,
        message: "new token with the new secret".to_owned(),
        expires_at: at(60),
    };
    let (secret, key) = ("team-a/client".to_owned(), "client_secret".to_owned());
    printed(&Rotation { secret, key, usable_until: at(45), items: vec![rotated] })
}

#[test]
fn object_of_rotate_is_pinned() {
    let item = json!({
        "namespace": "team-a", "name": "agent", "result": "Issued", "reason": null, "failure": null,
        "message": "new token with the new secret", "expiresAt": "2027-01-15T09:00:00Z",
    });
    let fields = json!({
        "secret": "team-a/client", "key": "client_secret", "usableUntil": "2027-01-15T08:45:00Z", "items": [item],
    });
    assert_eq!(rotate(), object("Rotation", &fields));
}

/// The fields of an object: `items[].name` for that of each item.
fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !["header", "claims"].contains(&path) => {
            for (name, field) in fields {
                let separator = if path.is_empty() { "" } else { "." };
                paths(field, &format!("{path}{separator}{name}"), found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().for_each(|item| paths(item, &format!("{path}[]"), found));
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

/// The fields that the page documents for a kind: the first column of the table under its heading.
fn documented(page: &str, kind: &str) -> BTreeSet<String> {
    let section = page.split("\n### ").find(|section| section.starts_with(&format!("`{kind}`"))).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    rows.map(str::to_owned).collect()
}

#[test]
fn every_field_of_every_object_is_documented_and_no_other() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kubectl-itcred.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let view: BTreeSet<String> = documented(&page, "StatusList");
    let objects = [status(), timeline(), check(), renew(), suspend(), token(), lint(), rotate()];
    for mut object in objects {
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        object.as_object_mut().expect("an object").retain(|name, _| !["apiVersion", "kind"].contains(&name.as_str()));
        let mut printed = BTreeSet::new();
        paths(&object, "", &mut printed);
        let mut documented = documented(&page, &kind);
        if kind == "Timeline" {
            // it has the fields of an item of the list too
            documented.extend(view.iter().filter_map(|field| field.strip_prefix("items[].")).map(str::to_owned));
        }
        assert_eq!(documented, printed, "{kind}");
    }
}
