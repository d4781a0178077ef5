//! A token endpoint that moves while a wait is in force that its server asked for.

use std::time::Duration;

use serde_json::Value;

use crate::{authority::Behavior, cluster::Cluster, replica::Mode};

const AUTHORITY: &str = "opaque";
const MINUTE: Duration = Duration::from_secs(60);
/// A token of 20 minutes is renewed within this, in minutes.
const RENEWED: u32 = 16;

fn assert_is_ready(cluster: &Cluster) {
    let credential = cluster.api.as_user("test").get("itwinservicecredentials", "alpha", "agent-0");
    let conditions = credential.expect("it is there")["status"]["conditions"].clone();
    let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    assert!(conditions.as_array().is_some_and(|all| all.iter().any(is_ready)), "{conditions}");
}

/// Plays it; what must hold is asserted.
pub async fn play() {
    let mut cluster = Cluster::new(1, Mode { leader_election: false, watch_secrets: true }, false, None);
    cluster.start();
    cluster.pass(MINUTE).await;
    cluster.create_credential(AUTHORITY);
    cluster.pass(MINUTE).await;
    cluster.servers.behave(AUTHORITY, Behavior::Busy(3600));
    let mut minutes = 0;
    while cluster.servers.asked().len() < 2 {
        assert!(minutes < RENEWED, "no renewal");
        minutes += 1;
        cluster.pass(MINUTE).await;
    }
    // nothing but a token request shows it
    cluster.servers.behave(AUTHORITY, Behavior::Moved);
    for _ in 0..40 {
        cluster.pass(MINUTE).await;
        assert_is_ready(&cluster);
    }
    assert_eq!(cluster.oracle.violations.all(), Vec::<String>::new());
}
