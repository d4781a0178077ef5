//! The decisions that an operator of the simulation follows: the real ones, or broken ones that must be found out.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_core::{
    action::{Action, IssueReason},
    decide::decide,
    observed::{Authority, Client, Form, Held, Integrity, ObservedState, Target, TokenMetadata},
};

/// What can be broken.
pub struct Rules {
    pub name: &'static str,
    pub decide: fn(&ObservedState, DateTime<Utc>) -> Action,
    /// The token that a new one is weighed against.
    pub validated_against: for<'a> fn(Option<&'a TokenMetadata>) -> Option<&'a TokenMetadata>,
    /// The wait after a failure.
    pub wait: fn(TimeDelta) -> TimeDelta,
    /// Writes are guarded by the version that was decided on, not by what a watch told meanwhile.
    pub guarded: bool,
}

/// The decisions of the operator.
pub const REAL: Rules =
    Rules { name: "the real rules", decide, validated_against: |held| held, wait: |wait| wait, guarded: true };

/// Decisions with one mistake each.
pub const BROKEN: &[Rules] = &[
    Rules { name: "a Secret that was not read is taken for missing", decide: unread_is_missing, ..REAL },
    Rules {
        name: "a Secret that somebody may have edited is taken for damaged",
        decide: unverified_is_tampered,
        ..REAL
    },
    Rules { name: "a shorter token replaces a longer one", validated_against: |_| None, ..REAL },
    Rules {
        name: "suspend is ignored",
        decide: |observed, now| decide(&ObservedState { suspend: false, ..observed.clone() }, now),
        ..REAL
    },
    Rules { name: "a touched client Secret is taken for a new one", decide: touched_is_changed, ..REAL },
    Rules { name: "a new renewal policy is taken for a new spec", decide: renews_early, ..REAL },
    Rules { name: "there is no back-off", wait: |_| TimeDelta::zero(), ..REAL },
    Rules { name: "the back-off is longer than what is left", wait: |wait| wait * 20, ..REAL },
    Rules { name: "a foreign Secret is an attempt's failure only after asking", decide: foreign_is_adoptable, ..REAL },
    Rules { name: "damage is not mended", decide: tampered_is_fine, ..REAL },
    Rules { name: "a token request does not wait for its turn", decide: admission_is_not_awaited, ..REAL },
    Rules { name: "writes are guarded by what was told after the decision", guarded: false, ..REAL },
];

fn with_target(observed: &ObservedState, now: DateTime<Utc>, target: Target) -> Action {
    decide(&ObservedState { target, ..observed.clone() }, now)
}

fn unread_is_missing(observed: &ObservedState, now: DateTime<Utc>) -> Action {
    match &observed.target {
        Target::Unread => with_target(observed, now, Target::Absent),
        _ => decide(observed, now),
    }
}

fn with_data(observed: &ObservedState, now: DateTime<Utc>, from: Integrity, to: Integrity) -> Action {
    match &observed.target {
        Target::Ours(held) if held.data == from => {
            with_target(observed, now, Target::Ours(Held { data: to, ..held.clone() }))
        }
        _ => decide(observed, now),
    }
}

fn unverified_is_tampered(observed: &ObservedState, now: DateTime<Utc>) -> Action {
    with_data(observed, now, Integrity::Unverified, Integrity::Tampered)
}

fn tampered_is_fine(observed: &ObservedState, now: DateTime<Utc>) -> Action {
    with_data(observed, now, Integrity::Tampered, Integrity::Verified)
}

fn touched_is_changed(observed: &ObservedState, now: DateTime<Utc>) -> Action {
    match &observed.client {
        Client::Usable { version, .. } => {
            let same_as_held = observed.held_for_spec().map(|token_metadata| token_metadata.client_version == *version);
            decide(
                &ObservedState {
                    client: Client::Usable { version: version.clone(), same_as_held },
                    ..observed.clone()
                },
                now,
            )
        }
        _ => decide(observed, now),
    }
}

fn renews_early(observed: &ObservedState, now: DateTime<Utc>) -> Action {
    let half = observed
        .held_for_spec()
        .is_some_and(|token_metadata| token_metadata.expires_at - now < token_metadata.lifetime() * 9 / 10);
    match (decide(observed, now), &observed.client, &observed.authority) {
        (Action::UpToDate { renew_at: Some(_) }, Client::Usable { .. }, Authority::Ready { .. }) if half => {
            Action::RequestToken(IssueReason::Due)
        }
        (action, ..) => action,
    }
}

fn admission_is_not_awaited(observed: &ObservedState, now: DateTime<Utc>) -> Action {
    decide(&ObservedState { is_admitted: true, ..observed.clone() }, now)
}

fn foreign_is_adoptable(observed: &ObservedState, now: DateTime<Utc>) -> Action {
    match &observed.target {
        Target::NotOwned(_) => with_target(observed, now, Target::Adoptable(Form::Unread)),
        _ => decide(observed, now),
    }
}
