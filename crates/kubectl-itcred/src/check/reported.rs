//! What the operator reports about the credential, and what reads the token.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{
    conditions::{READY, RENEWED, Reason},
    credential::CredentialStatus,
    time,
};
use itwin_core::{object::ObjectKey, status::holds, template::Templates};

use super::{Level, Observed, Section, Seen};
use crate::{
    deletion, hint,
    span::relative,
    view::{State, View},
    workloads::How,
};

/// A renewal that is late by less is being attempted.
pub(super) const UNHANDLED: TimeDelta = TimeDelta::minutes(1);

pub(super) fn section(observed: &Observed) -> Section {
    let mut section = Section::new("What the operator reports");
    let credential = &observed.credential;
    let view = View::new(credential, observed.now);
    let status = credential.status.clone().unwrap_or_default();
    if let Err(failure) = Templates::new(credential.spec.secret_template.as_ref()) {
        section.failure(&failure);
    }
    if status.observed_generation != credential.metadata.generation {
        let created = credential.metadata.creation_timestamp.as_ref().and_then(time::from_kubernetes);
        let is_new = created.is_some_and(|created| observed.now - created < UNHANDLED);
        let text = "the status is not about the current spec: no operator has handled it yet, see Operator above";
        section.push(if is_new { Level::Note } else { Level::Problem }, Some(Reason::Pending.as_str()), text);
    }
    for kind in [READY, RENEWED] {
        let Some(condition) = status.conditions.iter().find(|condition| condition.type_ == kind) else { continue };
        let reason = Reason::parse(&condition.reason).map(Reason::as_str);
        let text = match reason {
            Some(_) => format!("condition {kind} is {}: {}", condition.status, condition.message),
            None => format!("condition {kind} is {} ({}): {}", condition.status, condition.reason, condition.message),
        };
        let level = if condition.status == "True" { Level::Ok } else { Level::Problem };
        section.push(level, reason, text);
    }
    // a status that no operator writes any more says what was true once
    if let Some(expires_at) = view.expires_at.filter(|at| *at <= observed.now && holds(&status.conditions, READY)) {
        section
            .problem(format!("the token expired {}, and no operator reports it", relative(expires_at, observed.now)));
    } else if view.state == State::TooShort && holds(&status.conditions, READY) {
        section.problem("the token is valid for less than minimumValidity, and no operator reports it");
    }
    let overdue = view.renew_at.filter(|at| *at + UNHANDLED < observed.now);
    if let Some(why) = deletion::why(credential) {
        let ends = view.expires_at.filter(|at| *at > observed.now);
        let ends = ends.map_or_else(String::new, |at| format!(". The token expires {}", relative(at, observed.now)));
        section.problem(format!("{why}{ends}"));
    } else if credential.spec.suspend {
        let resume = hint::command("resume", &ObjectKey::new(observed.namespace(), observed.name()));
        section.note(format!("spec.suspend is true, so that no token is requested: {resume} ends that"));
    } else if let Some(at) = overdue {
        let due = relative(at, observed.now);
        section
            .problem(format!("a renewal was due {due} and was not attempted: no operator works, see Operator above"));
    } else if status.consecutive_failures > 0 && status.renew_at.is_none() {
        section.note(waits(&status, observed.now));
    } else if let Some(renew_at) = view.renew_at {
        section.note(format!("the next attempt is {}", relative(renew_at, observed.now)));
    }
    if section.findings.is_empty() {
        section.problem("there is no status: no operator has handled this credential, see Operator above");
    }
    section
}

/// What a status implies about the queue and the circuit breaker, which are in the memory of the operator.
fn waits(status: &CredentialStatus, now: DateTime<Utc>) -> String {
    let failed = status.last_failure.as_ref().and_then(|failure| time::from_rfc3339(&failure.time));
    let since = failed.map_or_else(String::new, |at| format!(" since the last failure, {}", relative(at, now)));
    format!(
        "by its status, the next attempt waits in the queue of the authority, or for its open circuit{since}: it is made \
         when the authority answers others. Queue and circuit themselves are not checked here: the operator's metrics \
         itwin_token_request_queue_length and itwin_authority_circuit_open show them"
    )
}

/// Pods that are named.
const NAMED: usize = 5;

pub(super) fn pods(observed: &Observed) -> Section {
    let mut section = Section::new("Pods");
    let pods = match &observed.pods {
        Seen::Known(pods) => pods,
        Seen::Unknown(why) => {
            section.unknown(format!("what reads the token is not checked: {why}"));
            return section;
        }
    };
    let secret = observed.credential.target_name();
    let uses = |stale: bool| {
        let mut names: Vec<String> = pods
            .iter()
            .filter(|(_, spec)| {
                spec.uses().iter().any(|used| {
                    used.secret == secret && stale == matches!(used.how, How::Env(_) | How::EnvFrom | How::SubPath(_))
                })
            })
            .map(|(metadata, _)| metadata.shown_name())
            .collect();
        names.sort();
        names
    };
    let (fresh, stale) = (uses(false), uses(true));
    if fresh.is_empty() && stale.is_empty() {
        section.note(format!("no pod of the namespace reads Secret {secret}"));
    }
    if !fresh.is_empty() {
        section.ok(format!("Secret {secret} is mounted by {}", named(&fresh)));
    }
    if !stale.is_empty() {
        section.note(format!(
            "these pods do not see a renewed token until they restart (env, envFrom or subPath): {}; 'kubectl itcred \
             lint -n {}' says what to change",
            named(&stale),
            observed.namespace()
        ));
    }
    section
}

fn named(names: &[String]) -> String {
    let shown = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        others => format!("{shown} and {others} others"),
    }
}
