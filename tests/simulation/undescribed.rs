//! Tokens whose annotations others removed: while a process that knows them runs, and before one starts.

use std::time::Duration;

use chrono::TimeDelta;
use itwin_api::secret_keys::{CONTENT, EXPIRES_AT_ANNOTATION};
use serde_json::{Value, json};
use simulated_api::{
    faults::{Fault, Match, Rule},
    request::Verb,
};

use crate::{
    authority::Behavior,
    cluster::{Cluster, client_id, client_secret, client_secret_name},
    meddler::{Admission, Fight, install},
    replica::Mode,
};

const AUTHORITY: &str = "opaque";
const MINUTE: Duration = Duration::from_secs(60);
/// What is reverted is reverted within this.
const SOON: Duration = Duration::from_secs(15);
/// A token of this many seconds expires before the ones of 20 minutes that there are.
const SHORT: i64 = 90;

/// A cluster with one credential that has a token.
async fn with_token() -> Cluster {
    let mut cluster = Cluster::new(1, Mode { leader_election: false, watch_secrets: true }, false, None);
    cluster.start();
    cluster.pass(MINUTE).await;
    cluster.create_credential(AUTHORITY);
    cluster.pass(MINUTE).await;
    assert_eq!(cluster.servers.asked().len(), 1);
    cluster
}

/// The value of an annotation of the Secret; null where it has none.
fn annotation(cluster: &Cluster, name: &str) -> Value {
    let secret = cluster.api.as_user("test").get("secrets", "alpha", "agent-0").expect("it is there");
    secret["metadata"]["annotations"][name].clone()
}

fn status(cluster: &Cluster) -> Value {
    let credential = cluster.api.as_user("test").get("itwinservicecredentials", "alpha", "agent-0");
    credential.expect("it is there")["status"].clone()
}

/// Whether a condition of this type has this status.
fn is(status: &Value, kind: &str, holds: &str) -> bool {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == kind && condition["status"] == holds)
}

/// While annotations that were removed cannot be restored, the status says what the token was issued for.
pub async fn play_known() {
    let mut cluster = with_token().await;
    let before = status(&cluster);
    let until = cluster.clocks.now() + TimeDelta::minutes(5);
    install(&cluster.api, &cluster.clocks, ("secrets", None), Admission::Denies(403), until);
    Fight::StripAnnotations.strike(&cluster.api, "alpha", "agent-0");
    cluster.pass(SOON).await;
    assert_eq!(annotation(&cluster, EXPIRES_AT_ANNOTATION), Value::Null, "they are not restored");
    let after = status(&cluster);
    assert!(is(&after, "Ready", "True") && is(&after, "Renewed", "False"), "{after}");
    assert_eq!(after["clientId"], json!(client_id("alpha", 0)), "{after}");
    for field in ["clientId", "scopes", "issuer", "issuedAt", "expiresAt"] {
        assert_eq!(after[field], before[field], "{field} of {after}");
    }
    assert_eq!(cluster.servers.asked().len(), 1);
}

/// While a Secret whose annotations were removed cannot be read, the status says what it held when it was read last.
pub async fn play_unread() {
    let mut cluster = with_token().await;
    let before = status(&cluster);
    let reads = Match::any().client("replica-1").verb(Verb::Get).target("secrets").name("agent-0");
    cluster.api.plan(Rule::always(reads, Fault::Refuse));
    Fight::StripAnnotations.strike(&cluster.api, "alpha", "agent-0");
    cluster.pass(SOON).await;
    let after = status(&cluster);
    assert!(is(&after, "Ready", "True") && is(&after, "Renewed", "False"), "{after}");
    for field in ["clientId", "scopes", "issuer", "issuedAt", "expiresAt"] {
        assert_eq!(after[field], before[field], "{field} of {after}");
    }
    cluster.api.clear_faults();
    cluster.pass(MINUTE).await;
    assert!(annotation(&cluster, EXPIRES_AT_ANNOTATION).is_string(), "they are restored");
    assert_eq!(cluster.servers.asked().len(), 1);
}

/// Annotations are removed before a process starts, while the server issues tokens that expire earlier: they are restored,
/// and the token stays.
async fn play_before_a_start(remove: impl Fn(&Cluster)) {
    let mut cluster = with_token().await;
    let expires_at = annotation(&cluster, EXPIRES_AT_ANNOTATION);
    cluster.replicas.remove(0).crash().await;
    remove(&cluster);
    cluster.servers.behave(AUTHORITY, Behavior::ShortLived(SHORT));
    cluster.start();
    cluster.pass(MINUTE).await;
    assert_eq!(cluster.servers.asked().len(), 1, "the token is good");
    assert_eq!(annotation(&cluster, EXPIRES_AT_ANNOTATION), expires_at);
    assert!(annotation(&cluster, CONTENT).is_string());
    let status = status(&cluster);
    assert!(is(&status, "Ready", "True") && status["clientId"] == json!(client_id("alpha", 0)), "{status}");
}

/// The annotations that describe the token are removed.
pub async fn play_stripped() {
    play_before_a_start(|cluster| Fight::StripAnnotations.strike(&cluster.api, "alpha", "agent-0")).await;
}

/// The digest alone is removed. A key that was added has the Secret read immediately.
pub async fn play_without_digest() {
    let remove = |cluster: &Cluster| {
        Fight::AddKey.strike(&cluster.api, "alpha", "agent-0");
        let patch = json!({"metadata": {"annotations": {CONTENT: null}}});
        cluster.api.as_user("meddler").patch("secrets", "alpha", "agent-0", &patch).expect("it is valid");
    };
    play_before_a_start(remove).await;
}

/// So many reads of the client Secret fail that the process of this name makes.
fn fail_reads_of_client(cluster: &Cluster, replica: &str, times: usize) {
    let reads = Match::any().client(replica).verb(Verb::Get).target("secrets").name(&client_secret_name(0));
    cluster.api.plan(Rule::always(reads, Fault::Refuse).times(times));
}

/// What one read of a Secret may send: it asks a cache first.
const READ: usize = 2;

fn assert_is_described(status: &Value, before: &Value) {
    for field in ["issuer", "issuedAt", "expiresAt"] {
        assert_eq!(status[field], before[field], "{field} of {status}");
    }
}

/// The annotations are removed before a start, and the first reads of the client Secret fail.
pub async fn play_client_unread() {
    let remove = |cluster: &Cluster| {
        Fight::StripAnnotations.strike(&cluster.api, "alpha", "agent-0");
        fail_reads_of_client(cluster, "replica-2", READ * 2);
    };
    play_before_a_start(remove).await;
}

/// The same while the credential is suspended: its status goes on to say what the token is.
pub async fn play_suspended() {
    let mut cluster = with_token().await;
    let patch = json!({"spec": {"suspend": true}});
    let user = cluster.api.as_user("kubectl");
    user.patch("itwinservicecredentials", "alpha", "agent-0", &patch).expect("it is valid");
    cluster.pass(SOON).await;
    let before = status(&cluster);
    assert!(before["issuedAt"].is_string(), "{before}");
    cluster.replicas.remove(0).crash().await;
    Fight::StripAnnotations.strike(&cluster.api, "alpha", "agent-0");
    fail_reads_of_client(&cluster, "replica-2", READ);
    cluster.start();
    for _ in 0..4 {
        cluster.pass(SOON).await;
        assert_is_described(&status(&cluster), &before);
    }
    assert_eq!(cluster.servers.asked().len(), 1);
}

/// The client Secret cannot be read until the process ends: the next one still knows when the token was issued.
pub async fn play_client_unread_until_a_crash() {
    let mut cluster = with_token().await;
    let before = status(&cluster);
    cluster.replicas.remove(0).crash().await;
    Fight::StripAnnotations.strike(&cluster.api, "alpha", "agent-0");
    cluster.servers.behave(AUTHORITY, Behavior::ShortLived(SHORT));
    fail_reads_of_client(&cluster, "replica-2", usize::MAX);
    cluster.start();
    cluster.pass(MINUTE).await;
    let unread = status(&cluster);
    assert_is_described(&unread, &before);
    let secret = format!("Secret alpha/{} could not be read", client_secret_name(0));
    assert!(is(&unread, "Renewed", "False") && unread.to_string().contains(&secret), "{unread}");
    cluster.replicas.remove(0).crash().await;
    cluster.api.clear_faults();
    cluster.start();
    cluster.pass(MINUTE).await;
    assert_eq!(cluster.servers.asked().len(), 1, "the token is good");
    assert!(annotation(&cluster, EXPIRES_AT_ANNOTATION).is_string(), "they are restored");
    let restored = status(&cluster);
    assert_is_described(&restored, &before);
    assert!(is(&restored, "Ready", "True"), "{restored}");
}

/// There is no client Secret when the process starts, and only it can show that the token is good.
pub async fn play_without_client() {
    let mut cluster = with_token().await;
    let before = status(&cluster);
    cluster.replicas.remove(0).crash().await;
    Fight::AddKey.strike(&cluster.api, "alpha", "agent-0");
    let patch = json!({"metadata": {"annotations": {CONTENT: null}}});
    let user = cluster.api.as_user("kubectl");
    user.patch("secrets", "alpha", "agent-0", &patch).expect("it is valid");
    user.delete("secrets", "alpha", &client_secret_name(0), &json!({})).expect("it is there");
    cluster.start();
    cluster.pass(MINUTE).await;
    let unknown = status(&cluster);
    assert_is_described(&unknown, &before);
    assert!(is(&unknown, "Ready", "False") && is(&unknown, "Renewed", "False"), "{unknown}");
    cluster.api.as_user("kubectl").create(&client_secret("alpha", 0, "client-password-alpha-0-0")).expect("it is new");
    cluster.pass(SOON).await;
    assert_eq!(cluster.servers.asked().len(), 1, "the token is good");
    assert!(annotation(&cluster, CONTENT).is_string(), "it is restored");
    assert!(is(&status(&cluster), "Ready", "True"), "{}", status(&cluster));
}

/// How often the Secret was read.
pub fn reads_of_target(cluster: &Cluster) -> usize {
    let requests = cluster.api.requests();
    requests.iter().filter(|entry| entry.method == "GET" && entry.path.contains("/secrets/agent-0")).count()
}

/// The credential is being deleted, and a finalizer holds it: `Ready` says whether the Secret still holds the token, for
/// which it is read once.
pub async fn play_held() {
    let mut cluster = with_token().await;
    let user = cluster.api.as_user("kubectl");
    let patch = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    user.patch("itwinservicecredentials", "alpha", "agent-0", &patch).expect("it is valid");
    user.delete("itwinservicecredentials", "alpha", "agent-0", &json!({})).expect("it is there");
    cluster.pass(SOON).await;
    let before = (status(&cluster), reads_of_target(&cluster));
    assert!(is(&before.0, "Ready", "True"), "{}", before.0);
    Fight::StripAnnotations.strike(&cluster.api, "alpha", "agent-0");
    // a credential is reconciled every 10 minutes
    for time in [SOON, MINUTE * 11] {
        cluster.pass(time).await;
        let stripped = status(&cluster);
        assert_is_described(&stripped, &before.0);
        let holds = stripped.to_string().contains("holds a valid token");
        assert!(is(&stripped, "Ready", "True") && holds, "{stripped}");
        assert_eq!(reads_of_target(&cluster), before.1 + 1, "it is read once");
    }
    let patch = json!({"data": null});
    cluster.api.as_user("meddler").patch("secrets", "alpha", "agent-0", &patch).expect("it is valid");
    cluster.pass(SOON).await;
    assert!(is(&status(&cluster), "Ready", "False"), "{}", status(&cluster));
    assert_eq!(reads_of_target(&cluster), before.1 + 2, "it is read once more");
}
