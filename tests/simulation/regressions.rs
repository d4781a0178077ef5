//! Seeds that are always played: of scenarios that failed once, and of scenarios with a fault that failed once and is
//! rare.
//!
//! Add a seed that fails, with what it found. A seed means its scenario only as long as scenarios are drawn in the same
//! way, so each one names what its scenario must contain, and a test finds another seed where that is gone.

use simulated_api::faults::Disturbance;

use crate::{
    authority::Behavior,
    meddler::{Admission, Fight},
    scenario::{Edit, Event, Scenario, Trouble, Which},
};

/// A seed that is always played.
pub struct Regression {
    pub seed: u64,
    /// What it found, or what it is for.
    pub story: &'static str,
    /// Events that its scenario contains, in this order.
    events: &'static [fn(&Event) -> bool],
}

/// All of them. Those up to seed 391, 515, 624, 1066 and 1150 failed. The rest is for failures whose seed means another
/// scenario now, or was not written down.
pub static REGRESSIONS: [Regression; 21] = [
    Regression {
        seed: 0,
        story: "a status said Ready with an expired token for more than 30 s after the machine slept",
        events: &[|event| matches!(event, Event::Trouble(Trouble::Sleep(_)))],
    },
    Regression {
        seed: 1,
        story: "equal requests whose client Secret was not known yet were each sent, instead of one for all",
        events: &[|event| is_signed(event, 0), |event| is_signed(event, 1)],
    },
    Regression {
        seed: 5,
        story: "the condition did not quote a denial with 500 or 400",
        events: &[|event| is_denial(event, 500), |event| is_denial(event, 400)],
    },
    Regression {
        seed: 11,
        story: "a key that admission added to the Secret for a time stayed after it",
        events: &[|event| is_admission(event, Admission::AddsKey)],
    },
    Regression {
        seed: 13,
        story: "the condition did not quote a denial with 500 or 400",
        events: &[|event| is_denial(event, 500), |event| is_denial(event, 400)],
    },
    Regression {
        seed: 14,
        story: "the oracle objected to Renewed of a credential that waits, after clientCredentialsRef changed",
        events: &[|event| matches!(event, Event::Edit(_, Edit::ChangeClient(_)))],
    },
    Regression {
        seed: 17,
        story: "each round of a controller that strips the annotations about the token cost a token request",
        events: &[|event| matches!(event, Event::Trouble(Trouble::Fight(_, Fight::StripAnnotations)))],
    },
    Regression {
        seed: 20,
        story: "the oracle objected to Renewed of a credential that waits, after clientCredentialsRef changed",
        events: &[|event| matches!(event, Event::Edit(_, Edit::ChangeClient(_)))],
    },
    Regression {
        seed: 239,
        story: "the oracle objected to deletionPolicy in the metadata of a Secret whose token others had removed",
        events: &[
            |event| matches!(event, Event::Edit(Which { namespace: "alpha", number: 1 }, Edit::RemoveToken)),
            |event| matches!(event, Event::Edit(Which { namespace: "alpha", number: 1 }, Edit::Retain(true))),
        ],
    },
    Regression {
        seed: 370,
        story: "the oracle counted the lifetime of a token from its issue, 8 s after the request of a slow server",
        events: &[
            |event| matches!(event, Event::Trouble(Trouble::Server("signed", Behavior::Slow(_)))),
            |event| matches!(event, Event::Trouble(Trouble::Tenant(_))),
            |event| matches!(event, Event::Trouble(Trouble::Server("signed", Behavior::ShortLived(_)))),
        ],
    },
    Regression {
        seed: 391,
        story: "the oracle objected to metadata of a Secret whose token others had removed, which was refused with 409",
        events: &[|event| matches!(event, Event::Edit(Which { namespace: "beta", number: 0 }, Edit::RemoveToken))],
    },
    Regression {
        seed: 503,
        story: "an opaque token gets its expiry from a clock that is wrong by hours",
        events: &[|event| matches!(event, Event::Trouble(Trouble::SetClock(by)) if by.num_hours().abs() > 0)],
    },
    Regression {
        seed: 505,
        story: "clientCredentialsRef names a Secret that none named before: the token of the old client stayed",
        events: &[|event| matches!(event, Event::Edit(Which { namespace: "alpha", number: 1 }, Edit::ChangeClient(1)))],
    },
    Regression {
        seed: 508,
        story: "admission that strips the annotations about the token: the credential was not Ready",
        events: &[|event| is_admission(event, Admission::StripsAnnotations)],
    },
    Regression {
        seed: 515,
        story: "the oracle objected to deletionPolicy in the metadata of a Secret whose token others had removed",
        events: &[
            |event| matches!(event, Event::Edit(Which { namespace: "alpha", number: 0 }, Edit::RemoveToken)),
            |event| matches!(event, Event::Edit(Which { namespace: "alpha", number: 0 }, Edit::Retain(false))),
        ],
    },
    Regression {
        seed: 624,
        story: "no attempt for two hours after a clock was set back while the circuit was open",
        events: &[
            |event| matches!(event, Event::Trouble(Trouble::SetClock(by)) if by.num_hours() == 2),
            |event| matches!(event, Event::Trouble(Trouble::Server("opaque", Behavior::Unavailable(503)))),
        ],
    },
    Regression {
        seed: 694,
        story: "etcd is restored while watches stay open and silent, which only the Lease shows in time",
        events: &[|event| matches!(event, Event::Trouble(Trouble::RestoreBackup { keeps_watches: true, .. }))],
    },
    Regression {
        seed: 728,
        story: "a token that lives for 90 s, after the annotations of a Secret were removed",
        events: &[
            |event| matches!(event, Event::Trouble(Trouble::Server(_, Behavior::ShortLived(_)))),
            |event| matches!(event, Event::Edit(Which { number: 1, .. }, Edit::RemoveAnnotations)),
        ],
    },
    Regression {
        seed: 1066,
        story: "annotations were removed before a backup was restored: a token that lives for 90 s replaced the old one",
        events: &[
            |event| matches!(event, Event::Trouble(Trouble::Fight(_, Fight::StripAnnotations))),
            |event| matches!(event, Event::Trouble(Trouble::RestoreBackup { .. })),
        ],
    },
    Regression {
        seed: 1150,
        story: "the oracle objected to a write that was refused with 409, after a lost event about removed annotations",
        events: &[
            |event| matches!(event, Event::Trouble(Trouble::Watch("secrets", Disturbance::DropNext))),
            |event| matches!(event, Event::Edit(Which { namespace: "alpha", number: 0 }, Edit::RemoveAnnotations)),
        ],
    },
    Regression {
        seed: 4791,
        story: "a watch showed a credential of before it was deleted and created again: that one got the Secret",
        events: &[
            |event| matches!(event, Event::Edit(Which { namespace: "beta", number: 1 }, Edit::Delete)),
            |event| matches!(event, Event::Edit(Which { namespace: "beta", number: 1 }, Edit::Create { .. })),
            |event| matches!(event, Event::Trouble(Trouble::Watch("itwinservicecredentials", Disturbance::Replay))),
        ],
    },
];

/// Whether it creates this one of two credentials with the same authority and client.
fn is_signed(event: &Event, credential: usize) -> bool {
    let Event::Edit(Which { namespace: "alpha", number }, edit) = event else { return false };
    *number == credential && matches!(edit, Edit::Create { authority: "signed", client: 0, .. })
}

fn is_denial(event: &Event, code: u16) -> bool {
    matches!(event, Event::Trouble(Trouble::Deny(_, denied)) if *denied == code)
}

fn is_admission(event: &Event, wanted: Admission) -> bool {
    matches!(event, Event::Trouble(Trouble::Admission { admission, .. }) if *admission == wanted)
}

impl Regression {
    /// Whether the scenario of a seed contains what this one is for.
    fn is_in(&self, seed: u64) -> bool {
        let mut left = self.events;
        for (_, event) in &Scenario::new(seed).events {
            if let [next, rest @ ..] = left
                && next(event)
            {
                left = rest;
            }
        }
        left.is_empty()
    }
}

/// The seeds to play: one alone to play it again, or so many and the regressions.
pub fn played(one: Option<u64>, scenarios: u64) -> Vec<u64> {
    if let Some(seed) = one {
        return vec![seed];
    }
    let further = REGRESSIONS.iter().map(|regression| regression.seed).filter(|seed| *seed >= scenarios);
    (0..scenarios).chain(further).collect()
}

/// What to do about seeds that fail.
pub fn advice(broken: &[u64]) -> String {
    let mut lines = vec!["promises are broken:".to_owned()];
    for seed in broken {
        let known = REGRESSIONS.iter().find(|regression| regression.seed == *seed);
        let story = known.map_or_else(
            || "fix it, and add the seed with what it found to tests/simulation/regressions.rs".to_owned(),
            |regression| format!("this failed before: {}", regression.story),
        );
        lines.push(format!("  SIMULATION_SEED={seed} SIMULATION_LOG=1 make simulate    # {story}"));
    }
    lines.join("\n")
}

#[test]
fn every_regression_is_played_whatever_the_number_of_scenarios() {
    for scenarios in [0, 1, 7, 500, 100_000] {
        let played = played(None, scenarios);
        for regression in &REGRESSIONS {
            let times = played.iter().filter(|seed| **seed == regression.seed).count();
            assert_eq!(times, 1, "seed {} of {scenarios} scenarios", regression.seed);
        }
        assert!((0..scenarios).all(|seed| played[seed as usize] == seed));
    }
    assert_eq!(played(Some(7), 500), [7], "one that is played again is played alone");
}

#[test]
fn scenario_of_every_regression_contains_what_it_is_for() {
    for regression in &REGRESSIONS {
        let Regression { seed, story, .. } = regression;
        if !regression.is_in(*seed) {
            let other = (0..100_000).find(|other| regression.is_in(*other));
            panic!("scenarios are drawn in another way: seed {seed} is no longer for \"{story}\", but {other:?} is");
        }
    }
    assert!(!REGRESSIONS[0].is_in(1), "not every scenario contains everything");
}

#[test]
fn seed_that_fails_is_printed_with_the_command_that_plays_it_again() {
    let printed = advice(&[3, 17]);
    let of = |seed: u64| printed.lines().find(|line| line.contains(&format!("SIMULATION_SEED={seed} "))).unwrap();
    assert!(of(3).contains("make simulate") && of(3).contains("tests/simulation/regressions.rs"), "{printed}");
    assert!(of(17).contains("strips the annotations") && !of(17).contains("add the seed"), "{printed}");
}
