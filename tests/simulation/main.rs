//! The decision in a simulated world: thousands of histories with faults, edits, restarts and clocks that are set, each
//! fixed by its seed. What must hold always is asserted at every step.
//!
//! `SIMULATION_SEED=7` plays one history aloud; `SIMULATION_HISTORIES=100000` plays more of them.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

mod act;
mod authority;
mod events;
mod faults;
mod history;
mod judge;
mod process;
mod random;
mod reconcile;
mod report;
mod rules;
mod world;

use std::{collections::HashMap, sync::Arc};

use history::{History, Manner};
use itwin_credential_operator::{
    clock::Clock, controller::authorities::Authorities, metrics::Metrics, oauth::http::Http,
};
use rules::{BROKEN, REAL, Rules};

const HISTORIES: u64 = 2000;
const EVENTS: usize = 60;
/// Histories within which each broken rule must be found out.
const FOUND_WITHIN: u64 = 300;
/// Every so many histories are played without faults too.
const TWINS: u64 = 4;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn no_authorities() -> Authorities {
    let clock = Clock::system();
    Authorities::new(Arc::new(Metrics::new(false).unwrap()), clock.clone(), Http::connect(clock))
}

/// What happened in many histories, to see that they are worth something.
#[derive(Default)]
struct Tally {
    requests: HashMap<&'static str, usize>,
    reconciles: usize,
    writes: usize,
    outages: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        for (issue_reason, count) in other.requests {
            *self.requests.entry(issue_reason).or_default() += count;
        }
        self.reconciles += other.reconciles;
        self.writes += other.writes;
        self.outages += other.outages;
    }
}

/// Plays one history; panics with its seed where something does not hold.
fn play(seed: u64, authorities: &Authorities, aloud: bool) -> Tally {
    let manner = Manner { rules: &REAL, authorities, events: EVENTS, faults: true, aloud };
    let mut history = History::new(seed, manner);
    let end = history.play();
    if let Some(violation) = history.judge.violation {
        panic!("{violation}; play it again with SIMULATION_SEED={seed}");
    }
    if aloud || seed.is_multiple_of(TWINS) {
        let mut twin = History::new(seed, Manner { faults: false, ..manner });
        let without_faults = twin.play();
        let violation = twin.judge.violation;
        assert_eq!(violation, None, "without faults, SIMULATION_SEED={seed}");
        let same = end == without_faults || history.faults.replaced;
        assert!(same, "{end:?} {without_faults:?}: it ends otherwise than without faults, SIMULATION_SEED={seed}");
    }
    Tally {
        requests: history.judge.requests,
        reconciles: history.judge.reconciles,
        writes: history.judge.writes,
        outages: history.outages,
    }
}

#[test]
fn every_scenario_keeps_the_invariants() {
    if let Some(seed) = variable("SIMULATION_SEED") {
        play(seed, &no_authorities(), true);
        return;
    }
    let histories = variable("SIMULATION_HISTORIES").unwrap_or(HISTORIES);
    let threads = std::thread::available_parallelism().map_or(2, |threads| threads.get() as u64);
    let mut total = Tally::default();
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| {
                scope.spawn(move || {
                    let (authorities, mut tally) = (no_authorities(), Tally::default());
                    for seed in (part..histories).step_by(threads as usize) {
                        tally.add(play(seed, &authorities, false));
                    }
                    tally
                })
            })
            .collect();
        for part in parts {
            total.add(part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    });
    println!(
        "{histories} histories: {} looks, {} writes, {} outages until expiry, token requests {:?}",
        total.reconciles, total.writes, total.outages, total.requests
    );
    let needs = ["missing", "damaged", "spec changed", "issuer changed", "client changed", "requested", "due"];
    for issue_reason in needs {
        assert!(total.requests.contains_key(issue_reason), "no token was ever asked for because of: {issue_reason}");
    }
    assert!(total.outages > 0, "no outage lasted until a token expired");
}

/// The first violation of an operator with these rules.
fn found(rules: &Rules) -> Option<(u64, String)> {
    let authorities = no_authorities();
    (0..FOUND_WITHIN).find_map(|seed| {
        let manner = Manner { rules, authorities: &authorities, events: EVENTS, faults: true, aloud: false };
        let mut history = History::new(seed, manner);
        history.play();
        history.judge.violation.map(|violation| (seed, violation))
    })
}

#[test]
fn mutants_are_detected() {
    for rules in BROKEN {
        let found = found(rules);
        println!("{}: {found:?}", rules.name);
        assert!(found.is_some(), "nothing is found although {}", rules.name);
    }
}
