//! The decisions that an operator of the simulation follows: the real ones, or broken ones that must be found out.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_credential_operator::decide::{
    facts::{Authority, Client, Facts, Held, Integrity, Stamp, Target},
    next::next,
    plan::{Need, Plan},
};

/// What can be broken.
pub struct Rules {
    pub name: &'static str,
    pub next: fn(&Facts, DateTime<Utc>) -> Plan,
    /// The token that a new one is weighed against.
    pub weighed_against: for<'a> fn(Option<&'a Stamp>) -> Option<&'a Stamp>,
    /// The wait after a failure.
    pub wait: fn(TimeDelta) -> TimeDelta,
    /// Writes are guarded by the version that was decided on, not by what a watch told meanwhile.
    pub guarded: bool,
}

/// The decisions of the operator.
pub const REAL: Rules =
    Rules { name: "the real rules", next, weighed_against: |held| held, wait: |wait| wait, guarded: true };

/// Decisions with one mistake each.
pub const BROKEN: &[Rules] = &[
    Rules { name: "a Secret that was not read is taken for missing", next: unread_is_missing, ..REAL },
    Rules { name: "a Secret that somebody may have edited is taken for damaged", next: unproven_is_damaged, ..REAL },
    Rules { name: "a shorter token replaces a longer one", weighed_against: |_| None, ..REAL },
    Rules {
        name: "suspend is ignored",
        next: |facts, now| next(&Facts { suspend: false, ..facts.clone() }, now),
        ..REAL
    },
    Rules { name: "a touched client Secret is taken for a new one", next: touched_is_changed, ..REAL },
    Rules { name: "a new renewal policy is taken for a new spec", next: renews_early, ..REAL },
    Rules { name: "there is no back-off", wait: |_| TimeDelta::zero(), ..REAL },
    Rules { name: "the back-off is longer than what is left", wait: |wait| wait * 20, ..REAL },
    Rules { name: "a foreign Secret is an attempt's failure only after asking", next: foreign_is_vacant, ..REAL },
    Rules { name: "damage is not mended", next: damaged_is_fine, ..REAL },
    Rules { name: "a token request does not wait for its turn", next: turn_is_not_awaited, ..REAL },
    Rules { name: "writes are guarded by what was told after the decision", guarded: false, ..REAL },
];

fn with_target(facts: &Facts, now: DateTime<Utc>, target: Target) -> Plan {
    next(&Facts { target, ..facts.clone() }, now)
}

fn unread_is_missing(facts: &Facts, now: DateTime<Utc>) -> Plan {
    match &facts.target {
        Target::Unread => with_target(facts, now, Target::Absent),
        _ => next(facts, now),
    }
}

fn with_data(facts: &Facts, now: DateTime<Utc>, from: Integrity, to: Integrity) -> Plan {
    match &facts.target {
        Target::Ours(held) if held.data == from => {
            with_target(facts, now, Target::Ours(Held { data: to, ..held.clone() }))
        }
        _ => next(facts, now),
    }
}

fn unproven_is_damaged(facts: &Facts, now: DateTime<Utc>) -> Plan {
    with_data(facts, now, Integrity::Unproven, Integrity::Damaged)
}

fn damaged_is_fine(facts: &Facts, now: DateTime<Utc>) -> Plan {
    with_data(facts, now, Integrity::Damaged, Integrity::Proven)
}

fn touched_is_changed(facts: &Facts, now: DateTime<Utc>) -> Plan {
    match &facts.client {
        Client::Usable { version, .. } => {
            let same_as_held = facts.held_for_spec().map(|stamp| stamp.client_version == *version);
            next(&Facts { client: Client::Usable { version: version.clone(), same_as_held }, ..facts.clone() }, now)
        }
        _ => next(facts, now),
    }
}

fn renews_early(facts: &Facts, now: DateTime<Utc>) -> Plan {
    let half = facts.held_for_spec().is_some_and(|stamp| stamp.expires_at - now < stamp.lifetime() * 9 / 10);
    match (next(facts, now), &facts.client, &facts.authority) {
        (Plan::Keep { renew_at: Some(_) }, Client::Usable { .. }, Authority::Ready { .. }) if half => {
            Plan::Mint(Need::Due)
        }
        (plan, ..) => plan,
    }
}

fn turn_is_not_awaited(facts: &Facts, now: DateTime<Utc>) -> Plan {
    next(&Facts { is_admitted: true, ..facts.clone() }, now)
}

fn foreign_is_vacant(facts: &Facts, now: DateTime<Utc>) -> Plan {
    match &facts.target {
        Target::Foreign(_) => {
            let vacant = Held { stamp: None, data: Integrity::Proven, metadata_intact: false };
            with_target(facts, now, Target::Ours(vacant))
        }
        _ => next(facts, now),
    }
}
