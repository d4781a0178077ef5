//! A standby that was not shown the Secrets which the leader created, and leads then.

use std::time::Duration;

use serde_json::json;
use simulated_api::{
    faults::{Disturbance, Match},
    request::Verb,
};

use crate::{
    cluster::{CLIENTS, Cluster, NAMESPACES, client_secret_name},
    replica::Mode,
};

const MINUTE: Duration = Duration::from_secs(60);

/// The name of the replica that holds the Lease.
pub fn holder(cluster: &Cluster) -> String {
    let lease = cluster.api.as_user("test").get("leases", "default", "itwin-credential-operator").expect("it is there");
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

/// Creates a credential of this client.
pub fn create(cluster: &Cluster, namespace: &str, number: usize) {
    let credential = json!({
        "apiVersion": "credentials.itwin.dev/v1alpha1",
        "kind": "ITwinServiceCredential",
        "metadata": {"name": format!("agent-{number}"), "namespace": namespace},
        "spec": {
            "authorityRef": {"name": "signed"},
            "clientCredentialsRef": {"name": client_secret_name(number)},
            "minimumValidity": "60s",
        },
    });
    let created = cluster.api.as_user("kubectl").create(&credential).expect("it is valid");
    cluster.oracle.owners.created(&created);
}

/// Plays it; what must hold is asserted.
pub async fn play() {
    let mut cluster = Cluster::new(1, Mode { leader_election: true, watch_secrets: true }, false, None);
    cluster.start();
    cluster.start();
    cluster.pass(MINUTE).await;
    let leader = holder(&cluster);
    let standby = cluster.replicas.iter().map(|replica| replica.name.clone()).find(|name| *name != leader);
    let standby = standby.expect("two replicas");
    let of_standby = Match::any().verb(Verb::Watch).target("secrets").client(&standby);
    cluster.api.disturb(of_standby, Disturbance::Freeze);
    for namespace in NAMESPACES {
        for number in 0..CLIENTS {
            create(&cluster, namespace, number);
        }
    }
    cluster.pass(MINUTE / 3).await;
    let requested = cluster.servers.asked().len();
    assert_eq!(requested, NAMESPACES.len() * CLIENTS, "a first token for each");

    let place = cluster.replicas.iter().position(|replica| replica.name == leader).expect("it runs");
    cluster.replicas.remove(place).crash().await;
    // longer than the failover takes, and shorter than the tokens last
    cluster.pass(MINUTE * 2).await;
    assert_eq!(holder(&cluster), standby);
    assert_eq!(cluster.servers.asked().len(), requested, "nothing was due");
    assert_eq!(cluster.oracle.violations.all(), Vec::<String>::new());
}
