//! An API server that takes three seconds for each call about the Lease.

use std::time::Duration;

use simulated_api::faults::{Fault, Match, Rule};

use crate::{
    cluster::{CLIENTS, Cluster, NAMESPACES},
    failover::{create, holder},
    replica::Mode,
};

const MINUTE: Duration = Duration::from_secs(60);
/// Longer than the first deadline of a call about the Lease, shorter than the deadline of other calls.
const LATE: Duration = Duration::from_secs(3);

/// Plays it; what must hold is asserted.
pub async fn play() {
    let mut cluster = Cluster::new(1, Mode { leader_election: true, watch_secrets: true }, false, None);
    cluster.api.plan(Rule::always(Match::any().target("leases"), Fault::DelayAfter(LATE)));
    cluster.start();
    cluster.start();
    cluster.pass(MINUTE).await;
    let leader = holder(&cluster);
    for namespace in NAMESPACES {
        for number in 0..CLIENTS {
            create(&cluster, namespace, number);
        }
    }
    cluster.pass(MINUTE * 3).await;
    assert_eq!(holder(&cluster), leader, "it leads all the time");
    assert_eq!(cluster.servers.asked().len(), NAMESPACES.len() * CLIENTS, "a first token for each");
    assert_eq!(cluster.oracle.violations.all(), Vec::<String>::new());
}
