//! Secrets of which it is known, or must be found out, that they do not hold the token that was written.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use simulated_api::{
    faults::{Fault, Match, Rule},
    request::{Call, Verb},
};

use crate::{
    cluster::Cluster,
    meddler::Fight,
    play::{CREDENTIALS, condition, reason},
    replica::Mode,
    undescribed::reads_of_target,
};

const MINUTE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(15);

fn ready(cluster: &Cluster) -> (String, Value) {
    let credential = cluster.api.as_user("test").get(CREDENTIALS, "alpha", "agent-0").expect("it is there");
    (condition(&credential, "Ready"), credential["status"].clone())
}

/// The reads of the Secret that the process of this name made.
fn reads(replica: &str) -> Match {
    Match::any().client(replica).verb(Verb::Get).target("secrets").name("agent-0")
}

/// Admission replaces each token that is written. Then the Secret cannot be read, which makes no token of it.
pub async fn play_unread() {
    let mut cluster = Cluster::new(1, Mode { leader_election: false, watch_secrets: false }, false, None);
    let replace = |call: &Call, new: &mut Value, _: Option<&Value>| {
        if call.client.starts_with("replica-") && new["data"]["access_token"].is_string() {
            new["data"]["access_token"] = json!(STANDARD.encode("replaced"));
        }
        Ok(())
    };
    for verb in [Verb::Create, Verb::Patch] {
        cluster.api.admit(Match::any().verb(verb).target("secrets"), Arc::new(replace));
    }
    cluster.start();
    cluster.create_credential("opaque");
    cluster.pass(MINUTE).await;
    let (holds, status) = ready(&cluster);
    assert_eq!(holds, "False", "{status}");
    cluster.api.plan(Rule::always(reads("replica-1"), Fault::Refuse));
    // metadata that is not watched is read every 5 minutes
    for _ in 0..24 {
        cluster.pass(SOON).await;
        let (holds, status) = ready(&cluster);
        assert_eq!(holds, "False", "{status}");
    }
    let (_, status) = ready(&cluster);
    assert!(status.to_string().contains("SecretReadFailed"), "{status}");
}

/// The credential is being deleted, and a finalizer holds it. The annotations of its Secret are gone, and no read of it
/// succeeds.
pub async fn play_held() {
    let mut cluster = Cluster::new(1, Mode { leader_election: false, watch_secrets: true }, false, None);
    cluster.start();
    cluster.create_credential("opaque");
    cluster.pass(MINUTE).await;
    let user = cluster.api.as_user("kubectl");
    let patch = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    user.patch(CREDENTIALS, "alpha", "agent-0", &patch).expect("it is valid");
    user.delete(CREDENTIALS, "alpha", "agent-0", &json!({})).expect("it is there");
    cluster.pass(SOON).await;
    let before = reads_of_target(&cluster);
    cluster.api.plan(Rule::always(reads("replica-1"), Fault::Refuse));
    Fight::StripAnnotations.strike(&cluster.api, "alpha", "agent-0");
    cluster.pass(MINUTE * 2).await;
    let failed = reads_of_target(&cluster) - before;
    assert!((3..=30).contains(&failed), "{failed} reads");
    let credential = cluster.api.as_user("test").get(CREDENTIALS, "alpha", "agent-0").expect("it is there");
    assert_eq!(condition(&credential, "Renewed"), "False", "{credential}");
    assert_eq!(reason(&credential, "Renewed"), "SecretReadFailed", "{credential}");
    let before = reads_of_target(&cluster);
    cluster.pass(MINUTE * 2).await;
    let failed = reads_of_target(&cluster) - before;
    assert!((3..=10).contains(&failed), "{failed} reads, one in at most 30 s");
    let events = cluster.api.as_user("test").list("events", "alpha");
    let failures: Vec<&Value> = events.iter().filter(|event| event["reason"] == "RenewalFailed").collect();
    assert_eq!(failures.len(), 1, "{events:?}");
    assert!(failures[0]["series"].is_null(), "it is said once: {failures:?}");
    cluster.api.clear_faults();
    cluster.pass(MINUTE).await;
    let credential = cluster.api.as_user("test").get(CREDENTIALS, "alpha", "agent-0").expect("it is there");
    assert_eq!(condition(&credential, "Ready"), "True", "{credential}");
    assert_eq!(condition(&credential, "Renewed"), "True", "{credential}");
}

/// The spec was edited while the credential is suspended, so that the token counts for nothing: a process that starts reads
/// it no earlier than any other one.
pub async fn play_suspended() {
    let mut cluster = Cluster::new(1, Mode { leader_election: false, watch_secrets: true }, false, None);
    cluster.start();
    cluster.create_credential("opaque");
    cluster.pass(MINUTE).await;
    let user = cluster.api.as_user("kubectl");
    for spec in [json!({"suspend": true}), json!({"scopes": ["scope-1"]})] {
        user.patch(CREDENTIALS, "alpha", "agent-0", &json!({"spec": spec})).expect("it is valid");
        cluster.pass(SOON).await;
    }
    let (_, status) = ready(&cluster);
    assert!(status.to_string().contains("Suspended") && status["issuedAt"].is_null(), "{status}");
    cluster.replicas.remove(0).crash().await;
    let before = reads_of_target(&cluster);
    cluster.start();
    cluster.pass(MINUTE - SOON).await;
    assert_eq!(reads_of_target(&cluster), before);
    cluster.pass(MINUTE * 15).await;
    assert_eq!(reads_of_target(&cluster), before + 1, "it is read once");
}
