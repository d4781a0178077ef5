//! Random objects and patches.

use serde_json::{Value, json};
use simulated_api::random::Random;

use crate::operations::Kind;

/// A UID that no object has.
const NO_UID: &str = "11111111-2222-4333-8444-555555555555";

pub fn object(random: &mut Random, kind: Kind, name: &str, namespace: &str) -> Value {
    let mut object = match kind {
        Kind::Secret => json!({"apiVersion": "v1", "kind": "Secret"}),
        Kind::Credential => json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinServiceCredential",
            "spec": {"clientCredentialsRef": {"name": "client"}, "unknown": 7},
        }),
        Kind::Authority => json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinAuthority",
            "spec": {"issuer": "https://differential.invalid"},
        }),
        Kind::Lease => json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {}}),
        Kind::Event => json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "action": "Renew",
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "note": "a note",
            "reason": "Issued",
            "regarding": {"kind": "Secret", "name": "a", "namespace": namespace},
            "reportingController": "example.com/controller",
            "reportingInstance": "instance",
            "type": "Normal",
        }),
        Kind::Deployment => deployment(),
        Kind::Namespace => json!({"apiVersion": "v1", "kind": "Namespace"}),
    };
    simulated_api::patch::merge(&mut object, &patch(random, kind));
    object["metadata"]["name"] = json!(name);
    for guard in ["resourceVersion", "uid"] {
        if random.below(12) != 0 {
            object["metadata"].as_object_mut().unwrap().remove(guard);
        }
    }
    if kind == Kind::Credential && random.below(3) == 0 {
        object["status"] = json!({"secretName": "ignored"});
    }
    object
}

/// A Deployment with every default written out, which its controller leaves alone.
fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "spec": {
            "paused": true,
            "progressDeadlineSeconds": 600,
            "replicas": 0,
            "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": "x"}},
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}, "type": "RollingUpdate"},
            "template": {
                "metadata": {"labels": {"app": "x"}},
                "spec": {
                    "containers": [{
                        "image": "x",
                        "imagePullPolicy": "Never",
                        "name": "x",
                        "resources": {},
                        "terminationMessagePath": "/dev/termination-log",
                        "terminationMessagePolicy": "File",
                    }],
                    "dnsPolicy": "ClusterFirst",
                    "restartPolicy": "Always",
                    "schedulerName": "default-scheduler",
                    "securityContext": {},
                    "terminationGracePeriodSeconds": 30,
                },
            },
        },
    })
}

/// A change of an object, guarded or not.
pub fn patch(random: &mut Random, kind: Kind) -> Value {
    let mut patch = if random.below(2) == 0 { metadata(random) } else { json!({"metadata": {}}) };
    if kind != Kind::Deployment {
        guard(random, &mut patch);
    }
    match kind {
        Kind::Secret => secret(random, &mut patch),
        Kind::Credential => {
            patch["spec"] = match random.below(4) {
                0 => json!({"suspend": random.below(2) == 0}),
                1 => json!({"scopes": (*random.pick(&[&["x"][..], &["x", "y"], &["itwin-platform"]])).to_vec()}),
                2 => json!({"minimumValidity": random.pick(&[json!("300s"), json!("20s"), Value::Null])}),
                _ => json!({"secretTemplate": {"labels": {"team": random.pick(&["a", "b"])}}}),
            };
            if random.below(4) == 0 {
                patch["status"] = json!({"secretName": "ignored"});
            }
        }
        Kind::Authority => patch["spec"] = json!({"maxConcurrentRequests": 1 + random.below(3)}),
        Kind::Lease => {
            patch["spec"] = match random.below(4) {
                0 => json!({"holderIdentity": random.pick(&["x", "y"]), "leaseTransitions": random.below(3)}),
                1 => json!({"renewTime": "2026-01-01T00:00:00.000000Z", "leaseDurationSeconds": 15}),
                2 => json!({"holderIdentity": null}),
                _ => json!({"leaseDurationSeconds": random.below(2)}),
            }
        }
        Kind::Event => match random.below(4) {
            0 => patch["note"] = json!("another note"),
            1 => {}
            _ => {
                let count = 1 + random.below(4);
                patch["series"] = json!({"count": count, "lastObservedTime": "2026-01-01T00:00:01.000000Z"});
            }
        },
        Kind::Deployment => {
            let value = random.pick(&[json!("1"), json!("2"), Value::Null]).clone();
            patch["spec"] = json!({"template": {"metadata": {"annotations": {"example.com/restarted": value}}}});
        }
        Kind::Namespace => {}
    }
    patch
}

fn secret(random: &mut Random, patch: &mut Value) {
    for _ in 0..random.below(3) {
        let value = random.pick(&[json!("MQ=="), json!("Mg=="), json!(""), Value::Null]).clone();
        patch["data"][*random.pick(&["x", "y", "z"])] = value;
    }
    match random.below(24) {
        0 => patch["stringData"] = json!({"x": "text"}),
        1 => patch["type"] = json!("example.com/other"),
        2 => patch["type"] = json!("Opaque"),
        3 => patch["immutable"] = json!(true),
        4 => patch["data"] = json!({"x": "not base64!"}),
        5 => patch["data"] = Value::Null,
        6 => patch["data"] = json!({"not/a/key": "MQ=="}),
        7 => patch["unknown"] = json!(7),
        _ => {}
    }
}

fn guard(random: &mut Random, patch: &mut Value) {
    match random.below(10) {
        0 | 1 => patch["metadata"]["resourceVersion"] = json!("$rv"),
        2 => patch["metadata"]["resourceVersion"] = json!("$stale"),
        3 => patch["metadata"]["resourceVersion"] = Value::Null,
        _ => {}
    }
    match random.below(10) {
        0..3 => patch["metadata"]["uid"] = json!("$uid"),
        3 => patch["metadata"]["uid"] = json!(NO_UID),
        _ => {}
    }
}

/// A change of the metadata that is not guarded.
pub fn metadata(random: &mut Random) -> Value {
    let mut metadata = json!({});
    match random.below(10) {
        0..3 => {
            let colour = random.pick(&[json!("red"), json!("blue"), Value::Null]).clone();
            metadata["labels"] = json!({"colour": colour});
        }
        3..6 => {
            let value = random.pick(&[json!("1"), json!("2"), Value::Null]).clone();
            metadata["annotations"] = json!({*random.pick(&["example.com/x", "example.com/y"]): value});
        }
        6 => {
            metadata["ownerReferences"] = match random.below(4) {
                0 => json!([]),
                1 => Value::Null,
                2 => json!([owner("one", true), owner("one", random.below(2) == 0)]),
                _ => json!([owner("one", random.below(2) == 0), owner("two", random.below(2) == 0)]),
            }
        }
        7 if random.below(3) == 0 => metadata["managedFields"] = random.pick(&[json!([]), json!([{}])]).clone(),
        7 => metadata["finalizers"] = random.pick(&[json!(["example.com/f"]), json!([]), Value::Null]).clone(),
        8 => metadata["labels"] = json!({"colour": "no good value!"}),
        _ => metadata["annotations"] = json!({}),
    }
    json!({"metadata": metadata})
}

/// A reference to an owner of a kind that the cluster does not have, which is never collected.
fn owner(name: &str, controller: bool) -> Value {
    let uid = format!("{NO_UID}-{name}");
    let mut owner = json!({"apiVersion": "example.com/v1", "kind": "Widget", "name": name, "uid": uid});
    if controller {
        owner["controller"] = json!(true);
    }
    owner
}

pub fn status(random: &mut Random) -> Value {
    let mut patch = json!({"metadata": {}});
    guard(random, &mut patch);
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind,
            "status": status,
            "reason": "Reason",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    match random.below(5) {
        0 => {
            patch["status"] =
                json!({"observedGeneration": 1 + random.below(3), "conditions": [condition("Ready", "True")]})
        }
        1 => {
            let status = *random.pick(&["True", "False"]);
            patch["status"] = json!({"conditions": [condition("Ready", status), condition("Renewed", "True")]});
        }
        2 => patch["status"] = json!({"observedGeneration": null}),
        3 => {
            patch["status"] = json!({"observedGeneration": 1});
            patch["metadata"]["labels"] = json!({"colour": "ignored"});
        }
        _ => patch["metadata"]["labels"] = json!({"colour": "ignored"}),
    }
    patch
}

pub fn deletion(random: &mut Random) -> Value {
    match random.below(7) {
        0 => json!({"preconditions": {"uid": "$uid"}}),
        1 => json!({"preconditions": {"uid": NO_UID}}),
        2 => json!({"preconditions": {"resourceVersion": "$rv"}}),
        3 => json!({"preconditions": {"resourceVersion": "$stale"}}),
        4 => json!({"propagationPolicy": "Background"}),
        _ => json!({}),
    }
}
