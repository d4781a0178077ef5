//! A token that cannot be written for so long that it is to be renewed itself, while no other one is to be had; and one
//! whose client is another one by now.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::TimeDelta;
use serde_json::{Value, json};
use simulated_api::{
    admission::denied,
    faults::Match,
    request::{Call, Verb},
};

use crate::{
    authority::Behavior,
    cluster::{Cluster, client_id, client_secret_name},
    meddler::{Admission, install},
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

/// How often the client Secret was read.
fn reads_of_client(cluster: &Cluster) -> usize {
    let path = format!("/secrets/{}", client_secret_name(0));
    let requests = cluster.api.requests();
    requests.iter().filter(|entry| entry.method == "GET" && entry.path.contains(&path)).count()
}

/// A token that cannot be written is of a client secret that was changed since: the client Secret is read once to find that
/// out, and else once for each token request.
pub async fn play_rotated() {
    let mut cluster = Cluster::new(1, Mode { leader_election: false, watch_secrets: true }, false, None);
    cluster.start();
    cluster.pass(MINUTE).await;
    let until = cluster.clocks.now() + TimeDelta::hours(1);
    install(&cluster.api, &cluster.clocks, ("secrets", None), Admission::Denies(403), until);
    cluster.create_credential(AUTHORITY);
    cluster.pass(MINUTE).await;
    assert_eq!(cluster.servers.asked().len(), 1, "the token is at hand");

    cluster.servers.behave(AUTHORITY, Behavior::Unavailable(503));
    let before = (reads_of_client(&cluster), cluster.servers.asked().len());
    cluster.servers.set_client(&client_id("alpha", 0), "another");
    let patch = json!({"data": {"client_secret": STANDARD.encode("another")}});
    let user = cluster.api.as_user("kubectl");
    user.patch("secrets", "alpha", &client_secret_name(0), &patch).expect("it is there");
    cluster.pass(MINUTE * 10).await;
    let reads = reads_of_client(&cluster) - before.0;
    let requests = cluster.servers.asked().len() - before.1;
    assert!(requests >= 5, "{requests} token requests");
    // one compares the clients; the others may be for requests that were not sent, or not answered by a cache
    assert!(reads <= requests + 3, "{reads} reads for {requests} token requests");
}
