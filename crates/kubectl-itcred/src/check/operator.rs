//! Whether an operator is there and leads.

use chrono::{DateTime, Utc};
use itwin_api::time;

use super::{Lease, Level, Observed, Section, Seen, reported::UNHANDLED};
use crate::{
    span::{relative, span},
    view::{State, View},
};

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
    let is_led = leases.iter().any(|lease| lease.leads(observed.now));
    let worked = worked(observed);
    for lease in leases {
        // One of an earlier installation, or of another, says nothing where an operator has worked since. That another one
        // is renewed is no sign of that: who may write Leases anywhere could hide that no operator works.
        let is_left = match lease.until() {
            Some(until) => worked.is_some_and(|worked| worked > until),
            None => is_led,
        };
        described(&mut section, lease, observed, if is_left { Level::Note } else { Level::Problem });
        if let Some(worked) = worked.filter(|_| is_left && !is_led) {
            section.note(format!(
                "an operator worked {}, after that Lease had ended: it runs without leader election, or its Lease is in \
                 another namespace",
                relative(worked, observed.now)
            ));
        }
    }
    section
}

/// When an operator last wrote something that is seen here, by its clock; `None` if one that works would have written
/// more since.
fn worked(observed: &Observed) -> Option<DateTime<Utc>> {
    let status = observed.credential.status.as_ref();
    let at = |text: Option<&String>| text.and_then(|text| time::from_rfc3339(text));
    if at(status.and_then(|status| status.renew_at.as_ref())).is_some_and(|due| due + UNHANDLED < observed.now) {
        return None;
    }
    let authority = observed.authority.known().and_then(Option::as_ref).and_then(|authority| authority.status.as_ref());
    let refreshed = at(authority.and_then(|status| status.last_refresh_time.as_ref()));
    let issued = at(status.and_then(|status| status.issued_at.as_ref()));
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    // others may add conditions of their own
    let ours = conditions.iter().filter(|condition| itwin_core::status::is_ours(condition));
    let changed = ours.filter_map(|condition| time::from_kubernetes(&condition.last_transition_time));
    changed.chain(refreshed).chain(issued).max()
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
    let is_problem = level == Level::Problem;
    let check = || format!(": check the pods of the operator in namespace {}", lease.namespace);
    let advice = if is_problem { check() } else { String::new() };
    match (&lease.holder, lease.renewed) {
        (Some(holder), Some(renewed)) if lease.leads(observed.now) => {
            section.ok(format!("{holder} leads ({place}, renewed {} ago)", span(observed.now - renewed)));
        }
        (Some(holder), Some(renewed)) => section.push(
            level,
            None,
            format!(
                "{holder} holds {place}, and renewed it {}, by the clock of this machine{advice}",
                relative(renewed, observed.now)
            ),
        ),
        (Some(holder), None) => section.unknown(format!("{holder} holds {place}, and it says not since when")),
        (None, _) => {
            let so = if is_problem { ", so that no operator works" } else { "" };
            section.push(level, None, format!("{place} has no holder{so}{advice}"));
        }
    }
}
