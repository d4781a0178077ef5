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
    play::{CREDENTIALS, condition},
    replica::Mode,
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
