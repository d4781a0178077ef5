//! Statuses that the API server refuses, or stores without a part: events are published once, and nothing is written in
//! vain.

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
    request::Call,
};

use crate::{
    cluster::{Cluster, client_id},
    play::{CREDENTIALS, condition},
    replica::Mode,
};

const AUTHORITY: &str = "signed";
const MINUTE: Duration = Duration::from_secs(60);

fn statuses() -> Match {
    Match::any().target(&format!("{CREDENTIALS}/status"))
}

/// A cluster with one credential, which has a token.
async fn settled() -> Cluster {
    let mut cluster = Cluster::new(1, Mode { leader_election: false, watch_secrets: true }, false, None);
    cluster.start();
    cluster.create_credential(AUTHORITY);
    cluster.pass(MINUTE).await;
    cluster
}

/// The reasons of the events about the credential, in their order, each as often as it was counted.
fn events(cluster: &Cluster) -> Vec<String> {
    let mut events = cluster.api.as_user("test").list("events", "alpha");
    events.retain(|event| event["regarding"]["name"] == "agent-0");
    events.sort_by_key(|event| event["eventTime"].as_str().unwrap_or_default().to_owned());
    let counted = |event: &Value| usize::try_from(event["series"]["count"].as_u64().unwrap_or(1)).unwrap_or_default();
    let reasons = |event: &Value| vec![event["reason"].as_str().unwrap_or_default().to_owned(); counted(event)];
    events.iter().flat_map(reasons).collect()
}

/// Plays a client that is refused and accepted again while statuses are refused; what must hold is asserted.
pub async fn play_refused() {
    let mut cluster = settled().await;
    let failure = denied(403, "policy.example.com", "no statuses");
    cluster.api.plan(Rule::always(statuses(), Fault::Answer(Box::new(failure))));
    // tokens of 20 minutes, which are renewed from the 13th on
    let client = client_id("alpha", 0);
    cluster.servers.set_client(&client, "another one");
    let before = cluster.servers.asked().len();
    cluster.pass(MINUTE * 45).await;
    assert!(cluster.servers.asked().len() - before >= 5, "{:?}", cluster.servers.asked());
    cluster.servers.set_client(&client, "client-password-alpha-0-0");
    cluster.pass(MINUTE * 30).await;
    assert_eq!(events(&cluster), ["Issued", "RenewalFailed", "Recovered"]);
    let credential = cluster.api.as_user("test").get(CREDENTIALS, "alpha", "agent-0").expect("it is there");
    assert!(credential["status"]["lastFailure"].is_null(), "nothing was written: {credential}");

    cluster.api.clear_faults();
    cluster.pass(MINUTE * 30).await;
    assert_eq!(events(&cluster), ["Issued", "RenewalFailed", "Recovered"], "what was said is not said again");
    let credential = cluster.api.as_user("test").get(CREDENTIALS, "alpha", "agent-0").expect("it is there");
    assert_eq!(condition(&credential, "Ready"), "True");
}

/// Plays a status about tokens that are too short, to the write of which no answer comes; what must hold is asserted.
pub async fn play_unanswered() {
    let mut cluster = settled().await;
    cluster.api.plan(Rule::once(statuses(), Fault::DropAnswer));
    let patch = json!({"spec": {"minimumValidity": "3600s"}});
    cluster.api.as_user("kubectl").patch(CREDENTIALS, "alpha", "agent-0", &patch).expect("it is valid");
    cluster.pass(MINUTE * 5).await;
    let too_short = events(&cluster).iter().filter(|reason| *reason == "LifetimeTooShort").count();
    assert_eq!(too_short, 1, "{:?}", events(&cluster));
}

/// Plays a CRD of an earlier release, which knows a field of the status not yet; what must hold is asserted.
pub async fn play_pruned() {
    let mut cluster = Cluster::new(1, Mode { leader_election: false, watch_secrets: true }, false, None);
    let is_upgraded = Arc::new(AtomicBool::new(false));
    let is_known = is_upgraded.clone();
    let prune = move |_: &Call, new: &mut Value, _: Option<&Value>| {
        if let Some(status) = new["status"].as_object_mut().filter(|_| !is_known.load(Ordering::SeqCst)) {
            status.remove("secretName");
        }
        Ok(())
    };
    cluster.api.admit(statuses(), Arc::new(prune));
    cluster.start();
    cluster.create_credential(AUTHORITY);
    cluster.pass(MINUTE).await;
    let writes = |cluster: &Cluster| {
        let requests = cluster.api.requests();
        requests.iter().filter(|entry| entry.method != "GET" && entry.path.contains("/agent-0/status")).count()
    };
    let before = writes(&cluster);
    assert!((1..=4).contains(&before), "{before} writes of the first statuses");
    for number in 0..5 {
        let label = json!({"metadata": {"labels": {"round": number.to_string()}}});
        cluster.api.as_user("kubectl").patch("secrets", "alpha", "agent-0", &label).expect("it is there");
        cluster.pass(MINUTE / 6).await;
    }
    assert_eq!(writes(&cluster), before, "what is pruned is not written again");
    let patch = json!({"metadata": {"labels": {"team": "a"}}});
    cluster.api.as_user("kubectl").patch(CREDENTIALS, "alpha", "agent-0", &patch).expect("it is there");
    cluster.pass(MINUTE / 6).await;
    assert_eq!(writes(&cluster), before + 1, "another version of the object may be one of another schema");

    is_upgraded.store(true, Ordering::SeqCst);
    // a token of 20 minutes is not renewed yet
    cluster.pass(MINUTE * 10 + MINUTE / 6).await;
    assert_eq!(cluster.servers.asked().len(), 1);
    let credential = cluster.api.as_user("test").get(CREDENTIALS, "alpha", "agent-0").expect("it is there");
    assert_eq!(credential["status"]["secretName"], "agent-0", "the status is completed: {credential}");
}
