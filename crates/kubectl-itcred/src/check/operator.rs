//! Whether an operator is there and leads.

use chrono::TimeDelta;

use super::{Lease, Level, Observed, Section, Seen};
use crate::{
    span::{relative, span},
    view::{State, View},
};

/// A Lease that was renewed so long ago, in its durations, is held by none: another replica would have taken it over.
const DURATIONS: i64 = 3;

pub(super) fn section(observed: &Observed) -> Section {
    let mut section = Section::new("Operator");
    let leases = match &observed.leases {
        Seen::Known(leases) => leases,
        Seen::Unknown(why) => {
            section.unknown(format!("whether an operator leads is not checked: {why}"));
            return section;
        }
    };
    if leases.is_empty() {
        without_lease(&mut section, observed);
    }
    // those of an earlier installation, or of another, say nothing while one leads
    let level = if leases.iter().any(|lease| leads(lease, observed)) { Level::Note } else { Level::Problem };
    for lease in leases {
        described(&mut section, lease, observed, level);
    }
    section
}

fn leads(lease: &Lease, observed: &Observed) -> bool {
    let longest = TimeDelta::seconds(lease.seconds.clamp(1, 3600) * DURATIONS);
    lease.holder.is_some() && lease.renewed.is_some_and(|renewed| observed.now - renewed <= longest)
}

/// An operator with one replica may run without leader election.
fn without_lease(section: &mut Section, observed: &Observed) {
    let state = View::new(&observed.credential, observed.now).state;
    let is_handled = !matches!(state, State::NoToken | State::Overdue | State::Pending);
    let (level, text) = if is_handled {
        (
            Level::Note,
            "there is no Lease itwin-credential-operator: the operator runs without leader election, or stopped",
        )
    } else {
        (
            Level::Problem,
            "there is no Lease itwin-credential-operator, and nothing works on the credential: install the operator, \
             or check its pods",
        )
    };
    section.push(level, None, text);
}

fn described(section: &mut Section, lease: &Lease, observed: &Observed, level: Level) {
    let place = format!("Lease {}/itwin-credential-operator", lease.namespace);
    let advice = format!("check the pods of the operator in namespace {}", lease.namespace);
    match (&lease.holder, lease.renewed) {
        (Some(holder), Some(renewed)) if leads(lease, observed) => {
            section.ok(format!("{holder} leads ({place}, renewed {} ago)", span(observed.now - renewed)));
        }
        (Some(holder), Some(renewed)) => section.push(
            level,
            None,
            format!(
                "{holder} holds {place}, and renewed it {}, by the clock of this machine: {advice}",
                relative(renewed, observed.now)
            ),
        ),
        (Some(holder), None) => section.unknown(format!("{holder} holds {place}, and it says not since when")),
        (None, _) => section.push(level, None, format!("{place} has no holder, so that no operator works: {advice}")),
    }
}
