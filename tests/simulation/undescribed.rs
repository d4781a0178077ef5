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
    cluster::{Cluster, client_id},
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
