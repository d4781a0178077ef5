//! A credential that is deleted while the API server refuses every list and watch of credentials: garbage collection
//! deletes its Secret, and nothing but the answer to a write of its status shows why. And one that is there although such
//! an answer says that it is not.

use std::time::Duration;

use chrono::{DateTime, Utc};
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

fn statuses() -> Match {
    Match::any().target(&format!("{CREDENTIALS}/status"))
}

fn answer(code: u16, reason: &str, message: &str) -> Fault {
    Fault::Answer(Box::new(Failure::new(code, reason, message)))
}

/// A cluster with one credential, which has a token.
async fn settled() -> Cluster {
    let mut cluster = Cluster::new(1, Mode { leader_election: false, watch_secrets: true }, false, None);
    cluster.start();
    cluster.create_credential(AUTHORITY);
    cluster.pass(MINUTE).await;
    assert!(find(&cluster, "secrets").is_some());
    cluster
}

/// When the token in the Secret expires, if there is one.
fn expires_at(cluster: &Cluster) -> Option<DateTime<Utc>> {
    let secret = find(cluster, "secrets")?;
    let text = secret["metadata"]["annotations"]["credentials.itwin.dev/expires-at"].as_str()?;
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.to_utc())
}

fn has_valid_token(cluster: &Cluster) -> bool {
    expires_at(cluster).is_some_and(|at| at > cluster.clocks.now())
}

/// Plays credentials that are there, of which the API server says otherwise at writes of their status; what must hold is
/// asserted.
pub async fn play_wrong() {
    let absent = || answer(404, "NotFound", "itwinservicecredentials.credentials.itwin.dev \"agent-0\" not found");
    let once = || {
        vec![Rule::once(statuses(), absent()), Rule::always(statuses(), answer(500, "InternalError", "no statuses"))]
    };
    let never_served = || vec![Rule::always(statuses(), answer(404, "", "404 page not found"))];
    let rows: [&dyn Fn() -> Vec<Rule>; 2] = [&once, &never_served];
    for (number, rules) in rows.into_iter().enumerate() {
        let mut cluster = settled().await;
        for (round, validity) in ["90s", "120s"].into_iter().enumerate() {
            cluster.api.clear_faults();
            rules().into_iter().for_each(|rule| cluster.api.plan(rule));
            // its status says so
            let patch = json!({"spec": {"minimumValidity": validity}});
            cluster.api.as_user("kubectl").patch(CREDENTIALS, "alpha", "agent-0", &patch).expect("it is valid");
            cluster.pass(MINUTE / 6).await;
            if round == 1 {
                let deleted = cluster.api.as_user("kubectl").delete("secrets", "alpha", "agent-0", &json!({}));
                deleted.expect("it is there");
                cluster.pass(MINUTE * 3).await;
            }
            // tokens of 20 minutes
            for minute in 0..45 {
                assert!(has_valid_token(&cluster), "row {number}, round {round}, minute {minute}");
                cluster.pass(MINUTE).await;
            }
        }
    }
}

/// Plays a credential that is deleted; what must hold is asserted.
pub async fn play() {
    let mut cluster = settled().await;
    refuse_watches(&cluster);
    cluster.pass(MINUTE / 6).await;
    let before = cluster.servers.asked().len();
    let deleted = cluster.api.as_user("kubectl").delete(CREDENTIALS, "alpha", "agent-0", &json!({}));
    deleted.expect("it is there");
    cluster.pass(MINUTE * 30).await;
    // that is said whether it is there or not: of two statuses, each of which is replaced and patched
    cluster.api.plan(Rule::once(statuses(), answer(403, "Forbidden", "no statuses")).times(4));
    cluster.pass(MINUTE * 30).await;
    let requested = cluster.servers.asked().len() - before;
    assert!(requested <= BEFORE_IT_IS_KNOWN, "{requested} tokens for what is gone");
    assert!(find(&cluster, "secrets").is_none(), "nothing is created for it");

    // another one of its name, which no watch shows
    cluster.create_credential(AUTHORITY);
    cluster.pass(MINUTE * 60).await;
    let requested = cluster.servers.asked().len() - before;
    assert!(requested <= BEFORE_IT_IS_KNOWN, "{requested} tokens for what was replaced");
    let credential = find(&cluster, CREDENTIALS).expect("it is there");
    assert!(credential["status"].is_null(), "a status of another one: {credential}");

    // its first statuses are answered as if it were gone
    cluster.api.clear_faults();
    cluster.api.plan(Rule::once(statuses(), answer(404, "NotFound", "agent-0 not found")).times(3));
    // tokens of 20 minutes, which are renewed
    cluster.pass(MINUTE * 45).await;
    let credential = find(&cluster, CREDENTIALS).expect("it is there");
    assert_eq!(condition(&credential, "Ready"), "True", "{credential}");
    assert!(has_valid_token(&cluster), "it is renewed: {:?}", expires_at(&cluster));
}

/// Plays a credential that is deleted, whose Secret outlives it, while only single ones are listed; what must hold is
/// asserted.
pub async fn play_retained() {
    let mut cluster = settled().await;
    let patch = json!({"spec": {"deletionPolicy": "Retain"}});
    cluster.api.as_user("kubectl").patch(CREDENTIALS, "alpha", "agent-0", &patch).expect("it is valid");
    cluster.pass(MINUTE).await;
    for verb in [Verb::List, Verb::Watch] {
        // those of all namespaces
        let all = Match::any().verb(verb).target(CREDENTIALS).namespace("");
        cluster.api.plan(Rule::always(all, answer(403, "Forbidden", "credentials cannot be listed")));
    }
    cluster.api.disturb(Match::any().target(CREDENTIALS), Disturbance::End);
    cluster.pass(MINUTE / 6).await;
    let before = cluster.servers.asked().len();
    let series = |cluster: &Cluster| -> Vec<String> {
        cluster.replicas.iter().flat_map(|replica| replica.series_of_none(&[])).collect()
    };
    assert_eq!(series(&cluster).len(), 1, "there is one credential");
    let deleted = cluster.api.as_user("kubectl").delete(CREDENTIALS, "alpha", "agent-0", &json!({}));
    deleted.expect("it is there");
    // tokens of 20 minutes
    cluster.pass(MINUTE * 90).await;
    let requested = cluster.servers.asked().len() - before;
    assert!(requested <= BEFORE_IT_IS_KNOWN, "{requested} tokens for what is gone");
    assert!(find(&cluster, "secrets").is_some(), "it outlives its credential");
    assert!(series(&cluster).is_empty(), "no alert fires for what is gone: {:?}", series(&cluster));
}
