//! A policy that gives the Secrets which the operator creates another type.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use simulated_api::{
    faults::Match,
    request::{Call, Verb},
};

use crate::{cluster::Cluster, replica::Mode};

const MINUTE: Duration = Duration::from_secs(60);

/// Requests to write the Secret that is there.
fn patches(cluster: &Cluster) -> usize {
    let requests = cluster.api.requests();
    requests.iter().filter(|entry| entry.method == "PATCH" && entry.path.contains("/secrets/")).count()
}

/// Plays it; what must hold is asserted.
pub async fn play() {
    let mut cluster = Cluster::new(1, Mode { leader_election: false, watch_secrets: true }, false, None);
    cluster.start();
    cluster.pass(MINUTE).await;
    let hook = |_: &Call, new: &mut Value, _: Option<&Value>| {
        new["type"] = json!("helm.sh/release.v1");
        Ok(())
    };
    cluster.api.admit(Match::any().verb(Verb::Create).target("secrets"), Arc::new(hook));
    cluster.create_credential("signed");
    // the second time after the token has expired
    for _ in 0..2 {
        cluster.pass(MINUTE * 25).await;
        let credential = cluster.api.as_user("test").get("itwinservicecredentials", "alpha", "agent-0");
        let conditions = credential.expect("it is there")["status"]["conditions"].clone();
        let is_reported = |condition: &Value| condition["reason"] == "SecretTypeMismatch";
        assert!(conditions.as_array().is_some_and(|all| all.iter().any(is_reported)), "{conditions}");
        assert_eq!((patches(&cluster), cluster.servers.asked().len()), (0, 1), "nothing is requested in vain");
        // a process that starts finds the same
        cluster.replicas.pop().expect("a replica").crash().await;
        cluster.start();
    }
}
