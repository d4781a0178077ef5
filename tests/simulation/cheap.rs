//! What a first token and its renewals read.

use std::time::Duration;

use crate::{
    cluster::{Cluster, client_secret_name},
    replica::Mode,
};

const MINUTE: Duration = Duration::from_secs(60);

/// The paths of the reads of Secrets so far.
fn reads(cluster: &Cluster) -> Vec<String> {
    let requests = cluster.api.requests();
    let reads = requests.iter().filter(|entry| entry.method == "GET" && entry.path.contains("/secrets/"));
    reads.map(|entry| entry.path.clone()).collect()
}

/// Plays it; what must hold is asserted.
pub async fn play() {
    let mut cluster = Cluster::new(1, Mode { leader_election: true, watch_secrets: true }, false, None);
    cluster.start();
    // lists are complete, and authorities known
    cluster.pass(MINUTE).await;
    assert_eq!(reads(&cluster), Vec::<String>::new());
    cluster.create_credential("signed");
    cluster.pass(MINUTE).await;
    let of_client = format!("/secrets/{}?&resourceVersion=", client_secret_name(0));
    let first = reads(&cluster);
    assert!(first.len() == 1 && first[0].contains(&of_client), "{first:?}");
    assert_eq!(cluster.servers.asked().len(), 1);

    // tokens of 20 minutes
    cluster.pass(MINUTE * 60).await;
    let renewals = cluster.servers.asked().len() - 1;
    assert!(renewals >= 3, "{renewals} renewals");
    let later = reads(&cluster).split_off(1);
    assert_eq!(later.iter().filter(|path| path.contains(&of_client)).count(), renewals, "{later:?}");
    assert!(later.len() <= renewals + 1, "the Secret itself is read at most once: {later:?}");
    assert_eq!(cluster.oracle.violations.all(), Vec::<String>::new());
}
