//! Random operations, as the operator, users and other controllers make them.
//!
//! Texts that begin with `$` stand for what only each server knows: `$rv` and `$stale` for the last and the one but last
//! version of the object, `$uid` for its UID.

use std::fmt;

use serde_json::{Value, json};
use simulated_api::random::Random;

/// Field managers.
const MANAGERS: [&str; 3] = ["kubectl", "operator", "other"];
/// Names of objects.
const NAMES: [&str; 3] = ["a", "b", "c.d"];
/// A UID that no object has.
const NO_UID: &str = "11111111-2222-4333-8444-555555555555";
const ITWIN: &str = "/apis/credentials.itwin.dev/v1alpha1";

/// One operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Path of the collection.
    pub collection: String,
    /// Name of the object.
    pub name: String,
    /// What is done.
    pub action: Action,
    /// Query parameters of a write.
    pub manager: &'static str,
    /// Only metadata is asked for.
    pub partial: bool,
}

/// What is done.
#[derive(Clone, Debug)]
pub enum Action {
    Get,
    Create(Value),
    Patch {
        subresource: &'static str,
        patch: Value,
    },
    /// A PUT of the last seen object, or of nothing but its identity, with this merged into it.
    Put {
        whole: bool,
        merge: Value,
    },
    Delete(Value),
    /// All pages, with a write between the first two.
    Pages {
        limit: usize,
        exact: bool,
        selector: &'static str,
    },
    /// The events since some earlier version.
    Watch {
        back: usize,
        selector: &'static str,
    },
    /// A request that is wrong, or seldom.
    Odd {
        method: &'static str,
        path: String,
        accept: &'static str,
        media: &'static str,
        body: &'static str,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Secret,
    Credential,
    Authority,
    Lease,
    Event,
    Deployment,
    Namespace,
}

impl Operation {
    /// The creation of the namespace of a sequence.
    pub fn namespace(name: &str) -> Self {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        Self {
            collection: "/api/v1/namespaces".to_owned(),
            name: name.to_owned(),
            action: Action::Create(object),
            manager: "kubectl",
            partial: false,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { collection, name, manager, partial, .. } = self;
        write!(f, "{collection}/{name} by {manager}, partial: {partial}, ")?;
        match &self.action {
            Action::Create(object) => write!(f, "create {object}"),
            Action::Patch { subresource, patch } => write!(f, "patch {subresource} {patch}"),
            Action::Put { whole, merge } => write!(f, "put, whole: {whole}, {merge}"),
            Action::Delete(options) => write!(f, "delete {options}"),
            Action::Get | Action::Pages { .. } | Action::Watch { .. } | Action::Odd { .. } => {
                write!(f, "{:?}", self.action)
            }
        }
    }
}

/// The next operation.
pub fn operation(random: &mut Random, namespace: &str) -> Operation {
    use Kind::{Authority, Credential, Deployment, Event, Lease, Namespace, Secret};
    let kinds = [
        Secret, Secret, Secret, Secret, Credential, Credential, Credential, Authority, Lease, Lease, Event, Deployment,
        Namespace,
    ];
    let kind = *random.pick(&kinds);
    let name = match kind {
        Authority => format!("{namespace}-{}", random.pick(&NAMES)),
        Namespace => namespace.to_owned(),
        _ => (*random.pick(&NAMES)).to_owned(),
    };
    let within = if random.below(30) == 0 { "there-is-none" } else { namespace };
    let collection = match kind {
        Secret => format!("/api/v1/namespaces/{within}/secrets"),
        Credential => format!("{ITWIN}/namespaces/{within}/itwinservicecredentials"),
        Authority => format!("{ITWIN}/itwinauthorities"),
        Lease => format!("/apis/coordination.k8s.io/v1/namespaces/{within}/leases"),
        Event => format!("/apis/events.k8s.io/v1/namespaces/{within}/events"),
        Deployment => format!("/apis/apps/v1/namespaces/{within}/deployments"),
        Namespace => "/api/v1/namespaces".to_owned(),
    };
    let action = if random.below(12) == 0 { odd(random, namespace) } else { action(random, kind, &name, namespace) };
    let partial = random.below(3) == 0 && !matches!(action, Action::Delete(_));
    Operation { collection, name, action, manager: *random.pick::<&str>(&MANAGERS), partial }
}

fn action(random: &mut Random, kind: Kind, name: &str, namespace: &str) -> Action {
    let has_status = matches!(kind, Kind::Credential | Kind::Authority);
    match (kind, random.below(20)) {
        (Kind::Namespace, 0..10) => Action::Get,
        (Kind::Namespace, _) => Action::Patch { subresource: "", patch: metadata(random) },
        (_, 0..5) => Action::Create(object(random, kind, name, namespace)),
        (Kind::Deployment, 5..18) | (_, 5..10) => Action::Patch { subresource: "", patch: patch(random, kind) },
        (_, 10..13) if has_status => Action::Patch { subresource: "status", patch: status(random) },
        // nobody replaces events
        (Kind::Event, 10..14) => Action::Patch { subresource: "", patch: patch(random, kind) },
        (_, 10..13) => Action::Put { whole: random.below(2) == 0, merge: patch(random, kind) },
        (_, 13) => Action::Put { whole: random.below(2) == 0, merge: patch(random, kind) },
        (_, 14) => Action::Get,
        // their controller changes their version
        (Kind::Deployment, _) => Action::Delete(json!({})),
        (_, 15..17) => Action::Delete(deletion(random)),
        (Kind::Authority, _) => Action::Get,
        (Kind::Event, 17) => Action::Get,
        (_, 17) => Action::Watch { back: random.below(8), selector: *random.pick::<&str>(&["", "", "colour=red"]) },
        _ => Action::Pages {
            limit: random.below(3),
            exact: random.below(3) == 0,
            selector: *random.pick::<&str>(&[
                "",
                "",
                "",
                "colour=red",
                "colour",
                "colour!=red",
                "colour in (red,blue)",
            ]),
        },
    }
}

fn object(random: &mut Random, kind: Kind, name: &str, namespace: &str) -> Value {
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
fn patch(random: &mut Random, kind: Kind) -> Value {
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
fn metadata(random: &mut Random) -> Value {
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
                2 => json!([owner("one", true)]),
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

fn status(random: &mut Random) -> Value {
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

fn deletion(random: &mut Random) -> Value {
    match random.below(7) {
        0 => json!({"preconditions": {"uid": "$uid"}}),
        1 => json!({"preconditions": {"uid": NO_UID}}),
        2 => json!({"preconditions": {"resourceVersion": "$rv"}}),
        3 => json!({"preconditions": {"resourceVersion": "$stale"}}),
        4 => json!({"propagationPolicy": "Background"}),
        _ => json!({}),
    }
}

/// A request that is wrong, or seldom.
fn odd(random: &mut Random, namespace: &str) -> Action {
    const JSON: &str = "application/json";
    const MERGE: &str = "application/merge-patch+json";
    const SECRETS: &str = "/api/v1/namespaces/NS/secrets";
    const CREDENTIALS: &str = "/apis/credentials.itwin.dev/v1alpha1/namespaces/NS/itwinservicecredentials";
    let partial = |list: bool| {
        if list {
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        } else {
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
        }
    };
    let (method, path, accept, media, body) = random
        .pick(&[
            ("GET", format!("{SECRETS}?limit=1&continue=garbage"), JSON, "", ""),
            ("GET", format!("{SECRETS}?resourceVersion=garbage"), JSON, "", ""),
            ("GET", format!("{SECRETS}?fieldSelector=metadata.name%3Da"), JSON, "", ""),
            ("GET", SECRETS.to_owned(), partial(false), "", ""),
            ("GET", format!("{SECRETS}/a"), partial(true), "", ""),
            ("GET", "/api/v1/namespaces/NS/widgets/a".to_owned(), JSON, "", ""),
            ("GET", format!("{CREDENTIALS}/a/scale"), JSON, "", ""),
            ("GET", format!("{CREDENTIALS}/a/status"), JSON, "", ""),
            ("POST", SECRETS.to_owned(), JSON, JSON, "{"),
            ("POST", SECRETS.to_owned(), JSON, JSON, "{\"kind\":\"Lease\",\"apiVersion\":\"coordination.k8s.io/v1\"}"),
            ("POST", SECRETS.to_owned(), JSON, JSON, "{\"metadata\":{\"name\":\"a\",\"namespace\":\"other\"}}"),
            ("POST", SECRETS.to_owned(), JSON, JSON, "{\"metadata\":{\"name\":\"Not_A_Name\"}}"),
            ("POST", SECRETS.to_owned(), JSON, JSON, "{\"metadata\":{}}"),
            ("POST", CREDENTIALS.to_owned(), JSON, JSON, "{\"metadata\":{\"name\":\"a\"}}"),
            ("PUT", format!("{SECRETS}/a"), JSON, JSON, "{\"metadata\":{\"name\":\"b\"}}"),
            ("PATCH", format!("{SECRETS}/a"), JSON, JSON, "{}"),
            ("PATCH", format!("{SECRETS}/a"), JSON, MERGE, "[1]"),
            ("PATCH", format!("{SECRETS}/a"), JSON, MERGE, "{"),
            ("PATCH", format!("{SECRETS}/a"), JSON, MERGE, "{\"metadata\":{\"name\":\"b\"}}"),
            ("PATCH", format!("{CREDENTIALS}/a"), JSON, MERGE, "{\"metadata\":{\"namespace\":\"b\"}}"),
            ("POST", format!("{SECRETS}/a"), JSON, JSON, "{}"),
        ])
        .clone();
    Action::Odd { method, path: path.replace("NS", namespace), accept, media, body }
}
