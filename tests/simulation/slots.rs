//! A credential whose turn has come and that makes no request: others have the turn immediately, and a namespace that is
//! not allowed any more gets no token that is at hand.

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
    faults::{Fault, Match, Rule},
    request::{Call, Verb},
};
use tokio::time::Instant;

use crate::{
    authority::Behavior,
    cluster::{Cluster, client_id, client_secret_name},
    failover::create,
    replica::Mode,
};

const AUTHORITY: &str = "signed";
/// What is awaited happens within this.
const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(100);
/// How long calls take that are delayed: less than their deadline.
const DELAYED: Duration = Duration::from_secs(7);
/// A token that waits for nothing is there within this.
const SOON: Duration = Duration::from_secs(3);

/// A cluster with an authority that has one request in flight at most and is for namespaces with a label, which `beta`
/// has.
async fn cluster() -> Cluster {
    let mut cluster = Cluster::new(1, Mode { leader_election: false, watch_secrets: true }, false, None);
    let spec = json!({"allowedNamespaces": {"matchLabels": {"itwin": "yes"}}, "maxConcurrentRequests": 1});
    let patched = cluster.api.as_user("admin").patch("itwinauthorities", "", AUTHORITY, &json!({"spec": spec}));
    patched.expect("it is valid");
    set_label(&cluster, "beta", &json!("yes"));
    cluster.start();
    cluster.pass(PATIENCE).await;
    cluster
}

fn set_label(cluster: &Cluster, namespace: &str, value: &Value) {
    let patch = json!({"metadata": {"labels": {"itwin": value}}});
    cluster.api.as_user("admin").patch("namespaces", "", namespace, &patch).expect("it is valid");
}

fn set_scopes(cluster: &Cluster, scope: &str) {
    let patch = json!({"spec": {"scopes": [scope]}});
    let patched = cluster.api.as_user("kubectl").patch("itwinservicecredentials", "alpha", "agent-0", &patch);
    patched.expect("it is valid");
}

/// Lets time pass until it is so.
async fn until(cluster: &mut Cluster, what: &str, is_so: impl Fn(&Cluster) -> bool) {
    let began = Instant::now();
    while !is_so(cluster) {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        cluster.pass(STEP).await;
    }
}

fn has_token(cluster: &Cluster, namespace: &str) -> bool {
    cluster.api.as_user("test").get("secrets", namespace, "agent-0").is_some()
}

/// The credential `alpha/agent-0`.
fn credential(cluster: &Cluster) -> Value {
    cluster.api.as_user("test").get("itwinservicecredentials", "alpha", "agent-0").expect("it is there")
}

/// Whether its last attempt failed for this reason.
fn failed_for(cluster: &Cluster, reason: &str) -> bool {
    let is_reported = |condition: &Value| condition["type"] == "Renewed" && condition["reason"] == reason;
    let credential = credential(cluster);
    credential["status"]["conditions"].as_array().is_some_and(|conditions| conditions.iter().any(is_reported))
}

/// Whether its status is for its spec.
fn is_observed(cluster: &Cluster) -> bool {
    let credential = credential(cluster);
    credential["status"]["observedGeneration"] == credential["metadata"]["generation"]
}

/// How many tokens this client of a namespace requested.
fn requests(cluster: &Cluster, namespace: &str, number: usize) -> usize {
    let client = client_id(namespace, number);
    cluster.servers.asked().iter().filter(|asked| asked.client == client).count()
}

/// Every write of a status in `alpha` is answered late.
fn delay_statuses(cluster: &Cluster) {
    let statuses = Match::any().target("itwinservicecredentials/status").namespace("alpha");
    cluster.api.plan(Rule::always(statuses, Fault::DelayAfter(DELAYED)));
}

/// Denies the creation of Secrets in `alpha` for as long as the result is true.
fn deny_creates(cluster: &Cluster) -> Arc<AtomicBool> {
    let denies = Arc::new(AtomicBool::new(true));
    let is_denied = denies.clone();
    let hook = move |_: &Call, _: &mut Value, _: Option<&Value>| {
        if is_denied.load(Ordering::Relaxed) { Err(denied(403, "policy.example.com", "not now")) } else { Ok(()) }
    };
    let creates = Match::any().verb(Verb::Create).target("secrets").namespace("alpha");
    cluster.api.admit(creates, Arc::new(hook));
    denies
}

/// A credential whose attempt fails for this reason, without a request, takes no turn while that is written.
async fn fails_without_a_request(mut cluster: Cluster, reason: &str) {
    delay_statuses(&cluster);
    create(&cluster, "alpha", 0);
    until(&mut cluster, reason, |cluster| failed_for(cluster, reason)).await;
    let began = Instant::now();
    create(&cluster, "beta", 0);
    until(&mut cluster, "the token of another one", |cluster| has_token(cluster, "beta")).await;
    assert!(began.elapsed() < SOON, "it waited for the status of the other one: {:?}", began.elapsed());
    assert_eq!(requests(&cluster, "alpha", 0), 0);
}

/// Plays attempts of a namespace that is not allowed; what must hold is asserted.
pub async fn play_not_allowed() {
    fails_without_a_request(cluster().await, "NamespaceNotAllowed").await;
}

/// Plays attempts with a client Secret that is of no use; what must hold is asserted.
pub async fn play_of_no_use() {
    let cluster = cluster().await;
    set_label(&cluster, "alpha", &json!("yes"));
    let patch = json!({"data": {"client_secret": null}});
    let patched = cluster.api.as_user("kubectl").patch("secrets", "alpha", &client_secret_name(0), &patch);
    patched.expect("it is valid");
    fails_without_a_request(cluster, "ClientCredentialsInvalid").await;
}

/// Plays the write of a token at hand by a credential whose turn has come; what must hold is asserted.
pub async fn play_write() {
    let mut cluster = cluster().await;
    set_label(&cluster, "alpha", &json!("yes"));
    let denies = deny_creates(&cluster);
    create(&cluster, "alpha", 0);
    until(&mut cluster, "a token that cannot be written", |cluster| failed_for(cluster, "SecretWriteFailed")).await;

    // it waits for its turn to request another token, while its status is written
    cluster.servers.behave(AUTHORITY, Behavior::Slow(SOON));
    create(&cluster, "beta", 0);
    until(&mut cluster, "a request in flight", |cluster| requests(cluster, "beta", 0) == 1).await;
    delay_statuses(&cluster);
    set_scopes(&cluster, "other");
    until(&mut cluster, "a status for these scopes", is_observed).await;
    // by the time that it has its turn, the token at hand is the one that it needs
    set_scopes(&cluster, "itwin-platform");
    denies.store(false, Ordering::Relaxed);
    let labels = Match::any().verb(Verb::Get).target("namespaces").name("alpha");
    cluster.api.plan(Rule::always(labels, Fault::DelayAfter(DELAYED)));
    until(&mut cluster, "its turn", |cluster| has_token(cluster, "beta")).await;
    cluster.servers.recover();
    create(&cluster, "beta", 1);
    cluster.pass(Duration::from_secs(1)).await;
    assert_eq!(requests(&cluster, "beta", 1), 0, "the turn is that of the first one");

    until(&mut cluster, "the turn of another one", |cluster| requests(cluster, "beta", 1) == 1).await;
    assert!(!has_token(&cluster, "alpha"), "it was given back before the labels were read and the token was written");
    until(&mut cluster, "the token at hand", |cluster| has_token(cluster, "alpha")).await;
    assert_eq!(requests(&cluster, "alpha", 0), 1, "there was no other one");
}

/// Plays a namespace that is not allowed any more when a token at hand can be written; what must hold is asserted.
pub async fn play_withdrawal() {
    let mut cluster = cluster().await;
    set_label(&cluster, "alpha", &json!("yes"));
    let denies = deny_creates(&cluster);
    create(&cluster, "alpha", 0);
    until(&mut cluster, "a token that cannot be written", |cluster| failed_for(cluster, "SecretWriteFailed")).await;
    set_label(&cluster, "alpha", &Value::Null);
    denies.store(false, Ordering::Relaxed);
    until(&mut cluster, "a failure", |cluster| failed_for(cluster, "NamespaceNotAllowed")).await;
    cluster.pass(PATIENCE * 10).await;
    assert_eq!((has_token(&cluster, "alpha"), requests(&cluster, "alpha", 0)), (false, 1));

    set_label(&cluster, "alpha", &json!("yes"));
    until(&mut cluster, "a token", |cluster| has_token(cluster, "alpha")).await;
    assert_eq!(requests(&cluster, "alpha", 0), 2, "the one at hand was discarded");
}
