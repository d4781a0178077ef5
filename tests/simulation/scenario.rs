//! A scenario: what users do and what goes wrong, in an order that its seed fixes.

use std::time::Duration;

use chrono::TimeDelta;
use simulated_api::{
    admission::denied,
    faults::{Disturbance, Fault},
    random::Random,
    request::Verb,
    status::Failure,
};

use crate::{
    authority::{Behavior, NAMES},
    cluster::{CLIENTS, NAMESPACES},
    meddler::{Admission, Fight},
    replica::Mode,
    tenant::Hostility,
};

/// The longest backoff (5 minutes), the resync (10 minutes), and a token that a clock set back made look new.
const SETTLE: Duration = Duration::from_secs(20 * 60);
/// Credentials that a namespace may have.
pub const CREDENTIALS: usize = 3;

/// A credential by namespace and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Which {
    pub namespace: &'static str,
    pub number: usize,
}

/// What users do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Edit {
    Create { authority: &'static str, client: usize, retained: bool },
    Delete,
    ChangeScopes(usize),
    ChangeAuthority(&'static str),
    ChangeClient(usize),
    ChangePolicy(i64),
    Suspend(bool),
    Retain(bool),
    Renew,
    Label,
    TamperToken,
    RemoveToken,
    RemoveAnnotations,
    AddExtraKey,
    DeleteSecret,
    CreateUnownedSecret,
    DeleteUnownedSecret,
    RotateClient,
    BreakClient,
    DeleteClient,
    RestoreClient,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Trouble {
    Server(&'static str, Behavior),
    ServersRecover,
    Call { verb: Verb, target: &'static str, fault: Fault, times: usize },
    Watch(&'static str, Disturbance),
    ApiRecovers,
    CrashLeader,
    CrashAtWrite(u64),
    Terminate,
    StartAnother,
    SetClock(TimeDelta),
    RestoreBackup { changes: u64, keeps_watches: bool },
    Compact,
    RotateKeys,
    Sleep(TimeDelta),
    Admission { target: &'static str, admission: Admission, seconds: i64 },
    Fight(Which, Fight),
    Deny(Which, u16),
    Tenant(Hostility),
}

/// One event.
#[derive(Clone, Debug)]
pub enum Event {
    Edit(Which, Edit),
    Trouble(Trouble),
}

/// All of a scenario.
#[derive(Debug)]
pub struct Scenario {
    pub mode: Mode,
    /// After everything that went wrong ended, the cluster has this long to settle.
    pub settle: Duration,
    /// Nothing goes wrong but what other users do, so that more must be true at every step.
    pub is_calm: bool,
    /// Each event with the time that passes before it.
    pub events: Vec<(Duration, Event)>,
}

/// Every so many scenarios one is calm.
const CALM: u64 = 4;
/// Edits and how often they are drawn, relative to each other.
const EVENTS: usize = 24;

impl Scenario {
    /// The scenario of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        // a Lease is renewed every 3 s, which is much of what such a scenario takes
        let leader_election = random.below(8) == 0;
        let is_calm = seed % CALM == 1;
        let mode = Mode { leader_election, watch_secrets: is_calm || random.below(4) != 0 };
        let mut events = Vec::new();
        for namespace in NAMESPACES {
            for number in 0..CREDENTIALS - 1 {
                events
                    .push((Duration::from_millis(200), Event::Edit(Which { namespace, number }, create(&mut random))));
            }
        }
        for _ in 0..EVENTS {
            let event = if random.below(2) == 0 {
                Event::Edit(which(&mut random), edit(&mut random))
            } else if is_calm || random.below(6) == 0 {
                Event::Trouble(meddling(&mut random))
            } else {
                Event::Trouble(trouble(&mut random, mode))
            };
            events.push((pause(&mut random), event));
        }
        Self { mode, settle: SETTLE, is_calm, events }
    }

    /// Whether it undoes what users did, so that its end is not that of its twin.
    pub fn restores(&self) -> bool {
        let is_restore = |event: &Event| matches!(event, Event::Trouble(Trouble::RestoreBackup { .. }));
        self.events.iter().any(|(_, event)| is_restore(event))
    }

    /// The first of all, without anything that goes wrong: what the process makes once is made by it.
    pub fn shortest() -> Self {
        let first = Self::new(0).without_trouble();
        Self { events: first.events.into_iter().take(4).collect(), ..first }
    }

    /// The same without what goes wrong, at the same times.
    pub fn without_trouble(&self) -> Self {
        let mut events: Vec<(Duration, Event)> = Vec::new();
        let mut waited = Duration::ZERO;
        for (time, event) in &self.events {
            waited += *time;
            if let Event::Edit(..) = event {
                events.push((waited, event.clone()));
                waited = Duration::ZERO;
            }
        }
        Self { events, ..*self }
    }
}

fn pause(random: &mut Random) -> Duration {
    match random.below(4) {
        0 => Duration::from_millis(*random.pick(&[10, 100, 700])),
        1 => Duration::from_secs(*random.pick(&[2, 5, 9])),
        2 => Duration::from_secs(*random.pick(&[20, 45, 90])),
        _ => Duration::from_secs(*random.pick(&[120, 300, 600])),
    }
}

fn which(random: &mut Random) -> Which {
    Which { namespace: NAMESPACES[random.below(NAMESPACES.len())], number: random.below(CREDENTIALS) }
}

fn create(random: &mut Random) -> Edit {
    Edit::Create {
        authority: NAMES[random.below(NAMES.len())],
        client: random.below(CLIENTS),
        retained: random.below(4) == 0,
    }
}

fn edit(random: &mut Random) -> Edit {
    match random.below(26) {
        0..=2 => create(random),
        3 => Edit::Delete,
        4 => Edit::ChangeScopes(random.below(3)),
        5 => Edit::ChangePolicy(*random.pick(&[30, 120, 600])),
        6 => Edit::Suspend(true),
        7 | 8 => Edit::Suspend(false),
        9 => Edit::Renew,
        10 => Edit::Label,
        11 => Edit::TamperToken,
        12 => Edit::RemoveToken,
        13 => Edit::RemoveAnnotations,
        14 => Edit::AddExtraKey,
        15 => Edit::DeleteSecret,
        16 => Edit::CreateUnownedSecret,
        17 => Edit::DeleteUnownedSecret,
        18 => Edit::RotateClient,
        19 => Edit::BreakClient,
        20 => Edit::DeleteClient,
        21 => Edit::ChangeAuthority(random.pick::<&str>(&[NAMES[0], NAMES[1], "missing"])),
        22 => Edit::ChangeClient(random.below(CLIENTS + 1)),
        24 => Edit::Retain(true),
        25 => Edit::Retain(false),
        _ => Edit::RestoreClient,
    }
}

/// The calls of the operator that may fail.
const CALLS: [(Verb, &str); 11] = [
    (Verb::Get, "secrets"),
    (Verb::Create, "secrets"),
    (Verb::Patch, "secrets"),
    (Verb::Update, "itwinservicecredentials/status"),
    (Verb::Patch, "itwinservicecredentials/status"),
    (Verb::Patch, "itwinauthorities/status"),
    (Verb::Create, "events"),
    (Verb::List, "secrets"),
    (Verb::List, "itwinservicecredentials"),
    (Verb::Watch, "secrets"),
    (Verb::Watch, "itwinservicecredentials"),
];

fn fault(random: &mut Random) -> Fault {
    let answer = |code, reason: &str| Fault::Answer(Box::new(Failure::new(code, reason, "as the scenario says")));
    match random.below(14) {
        0 => Fault::Refuse,
        1 => Fault::DropAnswer,
        2 => Fault::DelayBefore(Duration::from_secs(3)),
        3 => Fault::DelayAfter(Duration::from_secs(3)),
        4 => answer(403, "Forbidden"),
        5 => answer(404, "NotFound"),
        6 => answer(409, "Conflict"),
        7 => answer(422, "Invalid"),
        8 => answer(429, "TooManyRequests"),
        9 => answer(500, "InternalError"),
        10 => Fault::Answer(Box::new(denied(400, "policy.example.com", "as the scenario says"))),
        11 => Fault::HangAfter,
        12 => Fault::ResetBody,
        _ => Fault::GarbleBody,
    }
}

fn behavior(random: &mut Random) -> Behavior {
    *random.pick(&[
        Behavior::Refuses,
        Behavior::Hangs,
        Behavior::Slow(Duration::from_secs(8)),
        Behavior::Unavailable(500),
        Behavior::Unavailable(503),
        Behavior::TooManyRequests(20),
        Behavior::Malformed,
        Behavior::Expired,
        Behavior::ShortLived(90),
        Behavior::NarrowScope,
        Behavior::ForgedSignature,
    ])
}

fn disturbance(random: &mut Random) -> Disturbance {
    *random.pick(&[
        Disturbance::Lag(Duration::from_secs(10)),
        Disturbance::Freeze,
        Disturbance::DropNext,
        Disturbance::Replay,
        Disturbance::End,
        Disturbance::Reset,
        Disturbance::Garble,
        Disturbance::Expire,
    ])
}

/// What other users do to Secrets and to the operator.
fn meddling(random: &mut Random) -> Trouble {
    match random.below(4) {
        0 => Trouble::Fight(which(random), *random.pick(&Fight::ALL)),
        1 => Trouble::Deny(which(random), *random.pick(&[403, 422, 400, 500])),
        _ => Trouble::Tenant(*random.pick(&Hostility::ALL)),
    }
}

fn admission(random: &mut Random) -> Trouble {
    let denies = Admission::Denies(*random.pick(&[400, 403, 422, 500]));
    let all = [
        ("secrets", denies),
        ("itwinservicecredentials/status", denies),
        ("events", denies),
        ("secrets", Admission::RewritesLabels),
        ("secrets", Admission::StripsAnnotations),
        ("secrets", Admission::AddsKey),
    ];
    let (target, admission) = *random.pick(&all);
    Trouble::Admission { target, admission, seconds: *random.pick(&[5, 60, 300]) }
}

fn trouble(random: &mut Random, mode: Mode) -> Trouble {
    let watched = ["secrets", "itwinservicecredentials", "itwinauthorities", "leases"];
    let watched = if mode.leader_election { &watched[..] } else { &watched[..3] };
    match random.below(24) {
        20 => Trouble::RotateKeys,
        21 => Trouble::Sleep(TimeDelta::seconds(*random.pick(&[5, 40, 900, 7200]))),
        22 | 23 => admission(random),
        0..=3 => Trouble::Server(NAMES[random.below(NAMES.len())], behavior(random)),
        4 | 5 => Trouble::ServersRecover,
        6..=9 => {
            let (verb, target) = *random.pick(&CALLS);
            Trouble::Call { verb, target, fault: fault(random), times: 1 + random.below(4) }
        }
        10 | 11 => Trouble::Watch(watched[random.below(watched.len())], disturbance(random)),
        12 => Trouble::ApiRecovers,
        13 | 14 => Trouble::CrashLeader,
        15 => Trouble::CrashAtWrite(1 + random.below(8) as u64),
        16 => Trouble::Terminate,
        17 if mode.leader_election => Trouble::StartAnother,
        17 | 18 => Trouble::SetClock(TimeDelta::seconds(*random.pick(&[0, -3, -20, 20, 7200, -7200]))),
        _ if random.below(3) == 0 => Trouble::Compact,
        _ => restore(random, mode),
    }
}

/// etcd is restored from a backup. Watches break where the API server is restarted with it. Where they stay open, only the
/// Lease shows it in time, and only if the revision does not catch up at once.
pub fn restore(random: &mut Random, mode: Mode) -> Trouble {
    let keeps_watches = mode.leader_election && random.below(2) == 0;
    let changes = 1 + random.below(12) as u64;
    Trouble::RestoreBackup { changes: if keeps_watches { changes + 20 } else { changes }, keeps_watches }
}
