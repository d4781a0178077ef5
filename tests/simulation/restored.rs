//! A cluster that is restored from a backup: within two minutes every credential that can have a token has a valid one
//! for its current spec.

use std::time::Duration;

use simulated_api::random::Random;

use crate::{
    authority::NAMES,
    cluster::NAMESPACES,
    replica::Mode,
    run,
    scenario::{CREDENTIALS, Edit, Event, Scenario, Trouble, Which},
};

/// The contract: after a restore, tokens are renewed and changed specs are noticed within this.
const WITHIN: Duration = Duration::from_secs(120);
/// Scenarios of each variant. A Lease that is renewed every 3 s takes much of the time.
const SCENARIOS: u64 = 4;
/// Every token is renewed at least once within this.
const RENEWED: Duration = Duration::from_secs(25 * 60);

/// Credentials are renewed; then the cluster goes back by so many changes, and users edit it.
fn scenario(seed: u64, leader_election: bool, keeps_watches: bool) -> Scenario {
    let mut random = Random::new(seed);
    let mode = Mode { leader_election, watch_secrets: random.below(4) != 0 };
    let all =
        || NAMESPACES.iter().flat_map(|namespace| (0..CREDENTIALS).map(move |number| Which { namespace, number }));
    let mut events = Vec::new();
    for which in all() {
        let edit = Edit::Create { authority: NAMES[random.below(NAMES.len())], client: 0, retained: false };
        events.push((Duration::from_millis(200), Event::Edit(which, edit)));
    }
    // the Lease is renewed every 3 s
    let changes = if leader_election { 40 + random.below(450) } else { 2 + random.below(20) };
    events.push((RENEWED, Event::Edit(all().next().unwrap(), Edit::ChangeScopes(1))));
    let restore = Trouble::RestoreBackup { changes: changes as u64, keeps_watches };
    events.push((Duration::from_secs(60 + random.below(60) as u64), Event::Trouble(restore)));
    for which in all() {
        let edit = *random.pick(&[Edit::ChangeScopes(2), Edit::ChangePolicy(600), Edit::RotateClient, Edit::Renew]);
        events.push((Duration::from_millis(100), Event::Edit(which, edit)));
    }
    Scenario { mode, settle: WITHIN, is_calm: false, events }
}

fn check(leader_election: bool, keeps_watches: bool) {
    for seed in 0..SCENARIOS {
        let end = run(seed, &scenario(seed, leader_election, keeps_watches), None);
        assert!(end.violations.is_empty(), "seed {seed}: {:#?}", end.violations);
        assert!(!end.state.is_empty(), "seed {seed}: the backup is older than every credential");
    }
}

#[test]
fn restored_cluster_has_valid_tokens_within_two_minutes() {
    check(false, false);
}

#[test]
fn restored_cluster_with_silent_watches_has_valid_tokens_within_two_minutes() {
    check(true, true);
}
