//! Random operations, as the operator, users and other controllers make them.
//!
//! Texts that begin with `$` stand for what only each server knows: `$rv` and `$stale` for the last and the one but last
//! version of the object, `$uid` for its UID.

use std::fmt;

use serde_json::{Value, json};
use simulated_api::random::Random;

use crate::{
    bodies::{deletion, metadata, object, patch, status},
    odd::odd,
};

/// Field managers.
const MANAGERS: [&str; 3] = ["kubectl", "operator", "other"];
/// Names of objects.
const NAMES: [&str; 3] = ["a", "b", "c.d"];
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
    /// The same from the cache: not older than a write that was just made, or a version that never comes.
    GetNotOlder {
        comes: bool,
    },
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
    /// The same of the status, where nothing but the identity is without a spec.
    PutStatus {
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
        from: From,
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

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// So many versions ago.
    Back(usize),
    /// With the objects of now, as events.
    Now,
    /// The same with a bookmark behind them (KEP-3157).
    NowWithBookmark,
}

/// Resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
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
            Action::PutStatus { whole, merge } => write!(f, "put status, whole: {whole}, {merge}"),
            Action::Delete(options) => write!(f, "delete {options}"),
            Action::Get
            | Action::GetNotOlder { .. }
            | Action::Pages { .. }
            | Action::Watch { .. }
            | Action::Odd { .. } => {
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
    Operation { collection, name, action, manager: random.pick::<&str>(&MANAGERS), partial }
}

fn action(random: &mut Random, kind: Kind, name: &str, namespace: &str) -> Action {
    let has_status = matches!(kind, Kind::Credential | Kind::Authority);
    match (kind, random.below(20)) {
        (Kind::Namespace, 0..10) => Action::Get,
        (Kind::Namespace, _) => Action::Patch { subresource: "", patch: metadata(random) },
        (_, 0..5) => Action::Create(object(random, kind, name, namespace)),
        (Kind::Deployment, 5..18) | (_, 5..10) => Action::Patch { subresource: "", patch: patch(random, kind) },
        (_, 10..12) if has_status => Action::Patch { subresource: "status", patch: status(random) },
        (_, 12) if has_status => {
            let mut merge = status(random);
            if random.below(4) != 0 {
                merge["metadata"]["resourceVersion"] = json!("$rv");
            }
            Action::PutStatus { whole: random.below(4) == 0, merge }
        }
        // no one replaces events
        (Kind::Event, 10..14) => Action::Patch { subresource: "", patch: patch(random, kind) },
        (_, 10..13) => Action::Put { whole: random.below(2) == 0, merge: patch(random, kind) },
        (_, 13) => Action::Put { whole: random.below(2) == 0, merge: patch(random, kind) },
        // one that never comes takes its time
        (Kind::Secret, 14) => Action::GetNotOlder { comes: random.below(8) != 0 },
        (_, 14) => Action::Get,
        // their controller changes their version
        (Kind::Deployment, _) => Action::Delete(json!({})),
        (_, 15..17) => Action::Delete(deletion(random)),
        (Kind::Authority, _) => Action::Get,
        (Kind::Event, 17) => Action::Get,
        (_, 17) => {
            let from = match random.below(5) {
                0 => From::Now,
                1 => From::NowWithBookmark,
                _ => From::Back(random.below(8)),
            };
            Action::Watch { from, selector: random.pick::<&str>(&["", "", "colour=red"]) }
        }
        _ => Action::Pages {
            limit: random.below(3),
            exact: random.below(3) == 0,
            selector: random.pick::<&str>(&["", "", "", "colour=red", "colour", "colour!=red", "colour in (red,blue)"]),
        },
    }
}
