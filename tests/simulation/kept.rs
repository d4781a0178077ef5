//! A token that cannot be written for so long that it is to be renewed itself, while no other one is to be had.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use simulated_api::{
    admission::denied,
    faults::Match,
    request::{Call, Verb},
};

use crate::{
    authority::Behavior,
    cluster::{Cluster, client_secret_name},
    replica::Mode,
};

const AUTHORITY: &str = "signed";
const MINUTE: Duration = Duration::from_secs(60);
/// What is written once it is allowed is there within this.
const SOON: Duration = Duration::from_secs(30);

/// When the token in the Secret expires.
fn expires_at(cluster: &Cluster) -> String {
    let secret = cluster.api.as_user("test").get("secrets", "alpha", "agent-0").expect("it is there");
    let expires_at = &secret["metadata"]["annotations"]["credentials.itwin.dev/expires-at"];
    expires_at.as_str().unwrap_or_default().to_owned()
}

/// Denies patches of Secrets for as long as the result is true.
fn deny_patches(cluster: &Cluster) -> Arc<AtomicBool> {
    let denies = Arc::new(AtomicBool::new(true));
    let is_denied = denies.clone();
    let hook = move |_: &Call, _: &mut Value, _: Option<&Value>| {
        if is_denied.load(Ordering::Relaxed) { Err(denied(403, "policy.example.com", "not now")) } else { Ok(()) }
    };
    cluster.api.admit(Match::any().verb(Verb::Patch).target("secrets"), Arc::new(hook));
    denies
}

/// Asks for other scopes.
fn set_scopes(cluster: &Cluster, scopes: &Value) {
    let patch = json!({"spec": {"scopes": scopes}});
    let patched = cluster.api.as_user("kubectl").patch("itwinservicecredentials", "alpha", "agent-0", &patch);
    patched.expect("it is valid");
}

/// Plays it; what must hold is asserted.
pub async fn play() {
    let mut cluster = Cluster::new(1, Mode { leader_election: false, watch_secrets: true }, false, None);
    cluster.start();
    cluster.pass(MINUTE).await;
    cluster.create_credential(AUTHORITY);
    cluster.pass(MINUTE).await;
    // tokens of 20 minutes, of which a third is left at a renewal, and up to a minute more
    let first = expires_at(&cluster);
    let denies = deny_patches(&cluster);
    cluster.pass(MINUTE * 14).await;
    let requested = cluster.servers.asked().len();
    assert_eq!((requested, expires_at(&cluster)), (2, first.clone()), "the second token cannot be written");

    // requests for something else fail meanwhile
    cluster.servers.behave(AUTHORITY, Behavior::Unavailable(503));
    set_scopes(&cluster, &json!(["other"]));
    cluster.pass(MINUTE).await;
    let failed = cluster.servers.asked().len();
    assert!(failed > requested, "another token was requested");
    set_scopes(&cluster, &json!(["itwin-platform"]));
    // by now the first token has expired, and the second one is to be renewed itself
    cluster.pass(MINUTE * 12).await;
    assert_eq!(cluster.servers.asked().len(), failed, "the token at hand is to be written first");
    assert_eq!(expires_at(&cluster), first);

    denies.store(false, Ordering::Relaxed);
    let deleted = cluster.api.as_user("kubectl").delete("secrets", "alpha", &client_secret_name(0), &json!({}));
    deleted.expect("it is there");
    cluster.pass(SOON).await;
    assert!(expires_at(&cluster) > first, "the token at hand is written although no other one can be requested");
    let credential = cluster.api.as_user("test").get("itwinservicecredentials", "alpha", "agent-0");
    let conditions = credential.expect("it is there")["status"]["conditions"].clone();
    let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    assert!(conditions.as_array().is_some_and(|all| all.iter().any(is_ready)), "{conditions}");
}
