//! A credential that is deleted while the API server refuses every list and watch of credentials: garbage collection
//! deletes its Secret, and nothing but the answer to a write of its status shows why.

use std::time::Duration;

use chrono::DateTime;
use serde_json::{Value, json};
use simulated_api::{
    faults::{Disturbance, Fault, Match, Rule},
    request::Verb,
    status::Failure,
};

use crate::{
    cluster::Cluster,
    play::{CREDENTIALS, condition},
    replica::Mode,
};

const AUTHORITY: &str = "signed";
const MINUTE: Duration = Duration::from_secs(60);
/// Tokens that may be requested before a status says that the credential is gone.
const BEFORE_IT_IS_KNOWN: usize = 1;

/// The credential or Secret of this resource, if there is one.
fn find(cluster: &Cluster, resource: &str) -> Option<Value> {
    cluster.api.as_user("test").get(resource, "alpha", "agent-0")
}

/// Refuses lists and watches of credentials, also those that are open.
fn refuse_watches(cluster: &Cluster) {
    for verb in [Verb::List, Verb::Watch] {
        let failure = Failure::new(403, "Forbidden", "credentials cannot be listed");
        cluster.api.plan(Rule::always(Match::any().verb(verb).target(CREDENTIALS), Fault::Answer(Box::new(failure))));
    }
    cluster.api.disturb(Match::any().target(CREDENTIALS), Disturbance::End);
}

/// Plays it; what must hold is asserted.
pub async fn play() {
    let mut cluster = Cluster::new(1, Mode { leader_election: false, watch_secrets: true }, false, None);
    cluster.start();
    cluster.create_credential(AUTHORITY);
    cluster.pass(MINUTE).await;
    assert!(find(&cluster, "secrets").is_some());

    refuse_watches(&cluster);
    cluster.pass(MINUTE / 6).await;
    let before = cluster.servers.asked().len();
    let deleted = cluster.api.as_user("kubectl").delete(CREDENTIALS, "alpha", "agent-0", &json!({}));
    deleted.expect("it is there");
    cluster.pass(MINUTE * 60).await;
    let requested = cluster.servers.asked().len() - before;
    assert!(requested <= BEFORE_IT_IS_KNOWN, "{requested} tokens for what is gone");
    assert!(find(&cluster, "secrets").is_none(), "nothing is created for it");

    // another one of its name; its first statuses are answered as if it were gone
    cluster.api.clear_faults();
    cluster.create_credential(AUTHORITY);
    let absent = Fault::Answer(Box::new(Failure::new(404, "NotFound", "agent-0 not found")));
    let statuses = Match::any().target(&format!("{CREDENTIALS}/status"));
    cluster.api.plan(Rule::once(statuses, absent).times(3));
    // tokens of 20 minutes, which are renewed
    cluster.pass(MINUTE * 45).await;
    let credential = find(&cluster, CREDENTIALS).expect("it is there");
    assert_eq!(condition(&credential, "Ready"), "True", "{credential}");
    let secret = find(&cluster, "secrets").expect("it is there");
    let expires_at = &secret["metadata"]["annotations"]["credentials.itwin.dev/expires-at"];
    let expires_at = DateTime::parse_from_rfc3339(expires_at.as_str().unwrap_or_default()).expect("a time");
    assert!(expires_at > cluster.clocks.now(), "it is renewed: {expires_at}");
}
