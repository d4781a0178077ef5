//! What is read for a check.

use serde_json::json;

use super::*;
use crate::{fake, view::tests::minutes};

/// The namespaces of the Leases that are checked, where the one in `operator` was renewed so many minutes ago, and
/// another leads; `None` where they are not known.
async fn read(renewed: Option<i64>, may_list: bool) -> Option<Vec<String>> {
    let lease = |namespace: &str, renewed: i64| {
        json!({
            "metadata": {"name": LEASE, "namespace": namespace},
            "spec": {"holderIdentity": "pod", "renewTime": minutes(renewed), "leaseDurationSeconds": 15},
        })
    };
    let session = fake::session(move |asked| match renewed.map(|renewed| lease("operator", renewed)) {
        Some(named) if asked.path.contains("/namespaces/operator/") => fake::object(&named),
        None if asked.path.contains("/namespaces/operator/") => fake::failure(404, "NotFound"),
        named if may_list => {
            let all: Vec<Value> = named.into_iter().chain([lease("other", 0)]).collect();
            fake::object(&json!({"metadata": {}, "items": all}))
        }
        _ => fake::failure(403, "Forbidden"),
    });
    let leases = leases(&session, "operator").await;
    leases.known().map(|leases| leases.iter().map(|lease| lease.namespace.clone()).collect())
}

#[tokio::test]
async fn leases_of_all_namespaces_are_read_unless_the_named_one_leads() {
    let of = |namespaces: &[&str]| Some(namespaces.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(read(Some(0), true).await, of(&["operator"]));
    assert_eq!(read(Some(-60), true).await, of(&["operator", "other"]), "each once");
    assert_eq!(read(None, true).await, of(&["other"]));
    assert_eq!(read(Some(-60), false).await, of(&["operator"]));
    assert_eq!(read(None, false).await, None);
}

#[test]
fn lease_is_read_whatever_it_holds() {
    let read = lease(&json!({
        "metadata": {"namespace": "operator"},
        "spec": {"holderIdentity": "pod-1", "renewTime": "2026-11-24T19:00:00.000000Z", "leaseDurationSeconds": 15},
    }));
    assert_eq!((read.namespace.as_str(), read.holder.as_deref(), read.seconds), ("operator", Some("pod-1"), 15));
    assert!(read.renewed.is_some());
    let released = lease(&json!({"spec": {"holderIdentity": "", "renewTime": 5}}));
    assert_eq!((released.holder, released.renewed), (None, None));
}
