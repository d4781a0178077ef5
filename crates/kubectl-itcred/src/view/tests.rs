//! What statuses mean, and the credentials that tests of the other modules use.

use serde_json::{Value, json};

use super::*;
use crate::table::WIDTH;

pub(crate) fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("in range")
}

pub(crate) fn minutes(minutes: i64) -> String {
    time::to_rfc3339(now() + TimeDelta::minutes(minutes))
}

/// A credential that is fine: a token of an hour, issued 10 minutes ago; with these changes.
pub(crate) fn credential(name: &str, changes: &Value) -> ITwinServiceCredential {
    let mut value = json!({
        "apiVersion": "credentials.itwin.dev/v1alpha1", "kind": "ITwinServiceCredential",
        "metadata": {"name": name, "namespace": "team-a", "generation": 1, "uid": format!("uid-{name}"),
                     "creationTimestamp": minutes(-100)},
        "spec": {"clientCredentialsRef": {"name": "client"}},
        "status": {
            "observedGeneration": 1, "secretName": name, "issuer": "https://ims.example.com",
            "conditions": [
                condition("Ready", "True", "TokenValid", "fine"),
                condition("Renewed", "True", "TokenIssued", "fine"),
            ],
            "issuedAt": minutes(-10), "expiresAt": minutes(50), "renewAt": minutes(30), "usableUntil": minutes(45),
            "consecutiveFailures": 0, "scopes": ["itwin-platform"],
        },
    });
    merge(&mut value, changes);
    serde_json::from_value(value).expect("a credential")
}

pub(crate) fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": minutes(-2),
    })
}

pub(crate) fn merge(value: &mut Value, changes: &Value) {
    match (value, changes) {
        (Value::Object(fields), Value::Object(changes)) => {
            for (key, change) in changes {
                merge(fields.entry(key.clone()).or_insert(Value::Null), change);
            }
        }
        (value, change) => *value = change.clone(),
    }
}

pub(crate) fn failed(reason: &str, message: &str) -> Value {
    json!({"status": {"consecutiveFailures": 3, "conditions": [
        condition("Ready", "True", "TokenValid", "fine"),
        condition("Renewed", "False", reason, message),
    ], "lastFailure": {"time": minutes(-2), "reason": reason, "message": "it failed"}}})
}

/// A credential that cannot be decoded, as another version of the schema may have accepted it.
pub(crate) fn broken() -> Value {
    let spec = json!({"suspend": true, "clientCredentialsRef": 5});
    json!({"metadata": {"name": "broken", "namespace": "team-a"}, "spec": spec})
}

/// The changes of a credential that is being deleted, and that a finalizer holds.
pub(crate) fn deleted() -> Value {
    json!({"metadata": {"deletionTimestamp": minutes(-3), "finalizers": ["example.com/hold"]}})
}

#[test]
fn state_is_what_the_status_means_now() {
    let renew = |minutes_from_now| json!({"status": {"renewAt": minutes(minutes_from_now)}});
    for (changes, expected) in [
        (json!({}), State::Ok),
        (json!({"status": {"expiresAt": minutes(-1)}}), State::NoToken),
        (json!({"status": {"expiresAt": null}}), State::NoToken),
        (json!({"status": null}), State::NoToken),
        (json!({"status": null, "metadata": {"creationTimestamp": minutes(0)}}), State::Pending),
        (json!({"status": {"usableUntil": minutes(-1)}}), State::TooShort),
        (renew(-2), State::Overdue),
        (renew(0), State::Ok),
        (failed("InvalidClient", "wrong"), State::Failing),
        (json!({"spec": {"suspend": true}}), State::Suspended),
        (json!({"spec": {"suspend": true}, "status": {"expiresAt": minutes(-1)}}), State::NoToken),
        (json!({"status": {"clientSecretExpiresAt": minutes(60)}}), State::ClientExpires),
        (json!({"status": {"clientSecretExpiresAt": minutes(60 * 24 * 30)}}), State::Ok),
        (json!({"metadata": {"generation": 2}}), State::Pending),
        (json!({"status": {"expiresAt": "soon"}}), State::NoToken),
    ] {
        assert_eq!(View::new(&credential("a", &changes), now()).state, expected, "{changes}");
    }
}

#[test]
fn credential_that_is_being_deleted_is_in_danger_until_its_token_is_lost() {
    for (changes, expected) in [
        (json!({}), State::Deleting),
        (json!({"spec": {"suspend": true}}), State::Deleting),
        (json!({"metadata": {"generation": 2}}), State::Deleting),
        (json!({"status": {"usableUntil": minutes(-1)}}), State::Deleting),
        (json!({"status": {"expiresAt": minutes(-1)}}), State::NoToken),
        // no operator will handle it
        (json!({"status": null, "metadata": {"creationTimestamp": minutes(0)}}), State::NoToken),
    ] {
        let mut all = deleted();
        merge(&mut all, &changes);
        let state = View::new(&credential("a", &all), now()).state;
        assert_eq!(state, expected, "{changes}");
        assert!(state.is_danger() && state.tone() == Tone::Bad, "{changes}");
    }
}

#[test]
fn first_to_be_lost_comes_first() {
    let mut views: Vec<View> = [
        ("fine", json!({})),
        ("fine-longer", json!({"status": {"usableUntil": minutes(90)}})),
        ("fails", failed("ServerError", "down")),
        // its token lasts longer than that of others, and no other follows
        ("goes", {
            let mut goes = deleted();
            merge(&mut goes, &json!({"status": {"usableUntil": minutes(60), "expiresAt": minutes(65)}}));
            goes
        }),
        ("expired", json!({"status": {"expiresAt": minutes(-5)}})),
        ("soon", json!({"status": {"usableUntil": minutes(-1), "expiresAt": minutes(4)}})),
    ]
    .iter()
    .map(|(name, changes)| View::new(&credential(name, changes), now()))
    .collect();
    sort(&mut views);
    let names: Vec<&str> = views.iter().map(|view| view.name.as_str()).collect();
    assert_eq!(names, ["expired", "soon", "fails", "goes", "fine", "fine-longer"]);
}

#[test]
fn table_reads_as_documented() {
    let mut views = [
        View::new(&credential("render-agent", &json!({})), now()),
        View::new(&credential("importer", &failed("InvalidClient", "wrong")), now()),
        View::new(&credential("old", &json!({"status": {"expiresAt": minutes(-5), "renewAt": null}})), now()),
    ];
    sort(&mut views);
    assert_eq!(
        table(&views, now(), true, false).render(Some(WIDTH), false),
        "NAMESPACE   NAME           STATE     TOKEN            RENEWAL   FAILURES   REASON\n\
         team-a      old            NoToken   expired 5m ago   -         0          TokenExpired\n\
         team-a      importer       Failing   50m left         in 30m    3          InvalidClient\n\
         team-a      render-agent   Ok        50m left         in 30m    0          TokenValid\n"
    );
    let wide = table(&views, now(), false, true).render(None, false);
    assert!(wide.contains("CLIENT-EXPIRES") && wide.contains("itwin-platform"), "{wide}");
}

#[test]
fn longest_names_fit_100_columns() {
    let name = "n".repeat(253);
    let mut credential = credential(&name, &failed(&"R".repeat(1000), "\u{1b}[2J"));
    credential.metadata.namespace = Some("m".repeat(63));
    let text = table(&[View::new(&credential, now())], now(), true, false).render(Some(WIDTH), false);
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
}
