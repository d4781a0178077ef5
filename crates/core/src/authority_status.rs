//! The status of an authority, as a pure function of what is known of the authorization server and of the last refresh.
//!
//! Tokens are requested with what is known, however old it is. An administrator must still learn that it grows old,
//! because keys that were rotated meanwhile make every new token unverifiable.

mod unread_bundle;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{
    authority::AuthorityStatus,
    conditions::{self, READY, Reason, Verdict},
    time,
};

pub use self::unread_bundle::UnreadBundle;
use crate::{
    events::{EventReason, Transition},
    failure::Failure,
};

/// An authority whose endpoints and keys could not be refreshed for this long is not Ready.
pub const STALE_AFTER: Duration = Duration::from_secs(60 * 60);
/// `lastRefreshTime` is written alone if the written one is older than this. Otherwise it is written with other changes
/// only, so that a refresh costs no write.
const REWRITE_AFTER: TimeDelta = TimeDelta::hours(1);

/// The endpoints and keys of the last successful refresh.
#[derive(Clone, Debug)]
pub struct Known {
    /// The token endpoint.
    pub token_endpoint: String,
    /// The key set, if tokens are verified or it is configured.
    pub jwks_uri: Option<String>,
    /// The number of signing keys; `None` where tokens are opaque.
    pub signing_keys: Option<usize>,
    /// When they were fetched.
    pub refreshed_at: DateTime<Utc>,
    /// How long ago that was on the monotonic clock, which cannot be set.
    pub age: Duration,
}

/// Everything that a status is made from.
pub struct Inputs<'a> {
    /// What is known; `None` if this process has never fetched it.
    pub known: Option<&'a Known>,
    /// Why the last refresh failed, if it failed.
    pub failure: Option<&'a Failure>,
    /// The CA certificates that could not be read, if they could not.
    pub unread_bundle: Option<&'a UnreadBundle>,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// The status that the object has.
    pub previous: &'a AuthorityStatus,
    /// The time.
    pub now: DateTime<Utc>,
}

/// The status that the object should have; `None` before the first refresh has ended.
#[must_use]
pub fn status(inputs: &Inputs<'_>) -> Option<AuthorityStatus> {
    let Inputs { known, previous, generation, now, .. } = *inputs;
    let refreshed_at = last_refresh(inputs);
    let verdict = ready(inputs, refreshed_at)?;
    let verdict = match inputs.unread_bundle {
        Some(unread) => unread.added_to(verdict),
        None => verdict,
    };
    let condition = verdict.into_condition(&previous.conditions, generation, now);
    let mut status = AuthorityStatus {
        observed_generation: generation,
        conditions: conditions::with(&previous.conditions, condition),
        token_endpoint: known.map(|known| known.token_endpoint.clone()),
        jwks_uri: known.and_then(|known| known.jwks_uri.clone()),
        signing_keys: known.and_then(|known| i32::try_from(known.signing_keys?).ok()),
        last_refresh_time: previous.last_refresh_time.clone(),
    };
    let is_recent = written(previous).is_some_and(|at| at <= now && now - at < REWRITE_AFTER);
    if status != *previous || !is_recent {
        status.last_refresh_time = refreshed_at.map(time::to_rfc3339);
    }
    Some(status)
}

/// When endpoints and keys were fetched last, by this process or by one before it.
#[must_use]
pub fn last_refresh(inputs: &Inputs<'_>) -> Option<DateTime<Utc>> {
    // a time that has not come was written by a clock that was ahead
    let before = written(inputs.previous).filter(|at| *at <= inputs.now);
    before.max(inputs.known.map(|known| known.refreshed_at))
}

fn written(status: &AuthorityStatus) -> Option<DateTime<Utc>> {
    status.last_refresh_time.as_deref().and_then(time::from_rfc3339)
}

/// `Ready`: endpoints and keys are known, and were refreshed within the last hour or nothing failed since.
fn ready(inputs: &Inputs<'_>, refreshed_at: Option<DateTime<Utc>>) -> Option<Verdict> {
    let since = refreshed_at.map(time::to_rfc3339);
    match (inputs.known, inputs.failure) {
        (None, None) => None,
        (None, Some(failure)) => {
            let message = match since {
                Some(since) => format!("{}; the last successful refresh was at {since}", failure.message),
                None => failure.message.clone(),
            };
            Some(Verdict { kind: READY, holds: false, reason: failure.reason, message })
        }
        (Some(known), Some(failure)) if known.age >= STALE_AFTER => {
            let message = format!(
                "endpoints and signing keys have not been refreshed since {}, tokens are requested with those that are \
                 known: {}",
                since.unwrap_or_default(),
                failure.message
            );
            Some(Verdict { kind: READY, holds: false, reason: failure.reason, message })
        }
        (Some(known), _) => {
            let message = match known.signing_keys {
                Some(keys) => format!("endpoints are known, and {keys} signing keys"),
                None => "endpoints are known; tokens are opaque and not verified".to_owned(),
            };
            Some(Verdict { kind: READY, holds: true, reason: Reason::AuthorityReachable, message })
        }
    }
}

/// How long until endpoints and keys that could not be refreshed are too old, so that the authority is not Ready then;
/// `None` where nothing failed, or they are by now.
#[must_use]
pub fn stale_in(known: Option<&Known>, failure: Option<&Failure>) -> Option<Duration> {
    failure?;
    STALE_AFTER.checked_sub(known?.age).filter(|left| !left.is_zero())
}

/// Whether the authority is Ready; `None` if its status does not say so.
#[must_use]
pub fn is_ready(status: &AuthorityStatus) -> Option<bool> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == READY)?;
    Some(condition.status == "True")
}

/// The event that a status is worth after a status that said `before`.
#[must_use]
pub fn transition(before: Option<bool>, status: &AuthorityStatus) -> Option<Transition> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == READY)?;
    let is_ready = condition.status == "True";
    if before == Some(is_ready) {
        return None;
    }
    Some(if is_ready {
        Transition::normal(EventReason::AuthorityReady, condition.message.clone())
    } else {
        Transition::warning(EventReason::AuthorityNotReady, format!("{}: {}", condition.reason, condition.message))
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

    use super::*;

    const MINUTE: u64 = 60;

    fn at(minute: u64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::minutes(minute.cast_signed())
    }

    fn known(refreshed: u64, now: u64) -> Known {
        Known {
            token_endpoint: "https://ims/token".into(),
            jwks_uri: Some("https://ims/keys".into()),
            signing_keys: Some(2),
            refreshed_at: at(refreshed),
            age: Duration::from_secs((now - refreshed) * MINUTE),
        }
    }

    fn failure() -> Failure {
        Failure::new(Reason::ConnectionFailed, "no connection")
    }

    fn reported(known: Option<&Known>, failed: bool, previous: &AuthorityStatus, now: u64) -> AuthorityStatus {
        let failure = failed.then(failure);
        let inputs = Inputs {
            known,
            failure: failure.as_ref(),
            unread_bundle: None,
            generation: Some(1),
            previous,
            now: at(now),
        };
        status(&inputs).expect("a refresh has ended")
    }

    fn ready_condition(status: &AuthorityStatus) -> (&str, &str) {
        let condition = status.conditions.iter().find(|condition| condition.type_ == READY).expect("Ready");
        (&condition.reason, &condition.message)
    }

    #[test]
    fn refresh_that_fails_for_an_hour_makes_the_authority_not_ready() {
        let mut status = reported(Some(&known(0, 0)), false, &AuthorityStatus::default(), 0);
        let reported_at = |now, previous: &AuthorityStatus| reported(Some(&known(0, now)), true, previous, now);
        for now in [1, 59] {
            status = reported_at(now, &status);
            assert_eq!(is_ready(&status), Some(true), "after {now} minutes");
        }
        status = reported_at(60, &status);
        assert_eq!(is_ready(&status), Some(false));
        assert_eq!(ready_condition(&status).0, "ConnectionFailed");
        assert!(ready_condition(&status).1.contains("since 2024-10-04T00:00:00Z"), "{}", ready_condition(&status).1);
        assert_eq!(status.token_endpoint.as_deref(), Some("https://ims/token"), "it is still in use");
        // time alone changes nothing
        assert_eq!(reported_at(61, &status), status);
        assert_eq!(reported_at(600, &status), status);
        assert_eq!(is_ready(&reported(Some(&known(601, 601)), false, &status, 601)), Some(true));
    }

    #[test]
    fn status_is_due_when_what_could_not_be_refreshed_is_too_old() {
        let failure = failure();
        let due = |refreshed, now| stale_in(Some(&known(refreshed, now)), Some(&failure));
        assert_eq!(due(0, 55), Some(Duration::from_secs(5 * MINUTE)));
        assert_eq!(due(0, 60), None, "it says so by now");
        assert_eq!(due(0, 61), None);
        assert_eq!(stale_in(Some(&known(0, 55)), None), None);
        assert_eq!(stale_in(None, Some(&failure)), None);
    }

    #[test]
    fn old_knowledge_is_good_while_nothing_fails() {
        assert_eq!(is_ready(&reported(Some(&known(0, 600)), false, &AuthorityStatus::default(), 600)), Some(true));
    }

    #[test]
    fn process_that_knows_nothing_reports_the_last_refresh_of_the_one_before_it() {
        let before = reported(Some(&known(0, 0)), false, &AuthorityStatus::default(), 0);
        let after = reported(None, true, &before, 30);
        assert_eq!(is_ready(&after), Some(false), "no token can be requested");
        assert_eq!(after.last_refresh_time, before.last_refresh_time);
        assert_eq!(after.token_endpoint, None);
        assert!(ready_condition(&after).1.ends_with("was at 2024-10-04T00:00:00Z"), "{}", ready_condition(&after).1);
        assert_eq!(reported(None, true, &after, 90), after, "time alone changes nothing");
        let never = reported(None, true, &AuthorityStatus::default(), 0);
        assert_eq!(ready_condition(&never), ("ConnectionFailed", "no connection"));
        let nothing =
            Inputs { known: None, failure: None, unread_bundle: None, generation: None, previous: &before, now: at(0) };
        assert_eq!(status(&nothing), None);
    }

    #[test]
    fn refresh_time_is_written_with_other_changes_and_at_most_once_an_hour() {
        let first = reported(Some(&known(0, 0)), false, &AuthorityStatus::default(), 0);
        assert_eq!(first.last_refresh_time.as_deref(), Some("2024-10-04T00:00:00Z"));
        assert_eq!(reported(Some(&known(59, 59)), false, &first, 59), first);
        let hourly = reported(Some(&known(60, 60)), false, &first, 60);
        assert_eq!(hourly.last_refresh_time.as_deref(), Some("2024-10-04T01:00:00Z"));
        let more_keys = Known { signing_keys: Some(3), ..known(70, 70) };
        let changed = reported(Some(&more_keys), false, &hourly, 70);
        assert_eq!(changed.last_refresh_time.as_deref(), Some("2024-10-04T01:10:00Z"));
    }

    #[test]
    fn refresh_time_of_a_clock_that_was_ahead_is_replaced() {
        let ahead = reported(Some(&known(600, 600)), false, &AuthorityStatus::default(), 600);
        let status = reported(Some(&known(0, 0)), false, &ahead, 0);
        assert_eq!(status.last_refresh_time.as_deref(), Some("2024-10-04T00:00:00Z"));
    }

    #[test]
    fn conditions_of_others_stay() {
        let audited = Condition {
            type_: "Audited".into(),
            status: "True".into(),
            reason: "Yes".into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: time::to_kubernetes(at(0)),
        };
        let mut previous = AuthorityStatus { conditions: vec![audited.clone()], ..AuthorityStatus::default() };
        for failed in [true, false] {
            previous = reported((!failed).then(|| known(0, 0)).as_ref(), failed, &previous, 0);
            assert_eq!((previous.conditions.len(), &previous.conditions[0]), (2, &audited));
        }
    }

    #[test]
    fn only_changes_of_ready_are_events() {
        let ready = reported(Some(&known(0, 0)), false, &AuthorityStatus::default(), 0);
        let failed = reported(Some(&known(0, 60)), true, &ready, 60);
        let reason = |before, status| transition(before, status).map(|transition| transition.reason);
        assert_eq!(reason(None, &ready), Some(EventReason::AuthorityReady));
        assert_eq!(reason(is_ready(&ready), &ready), None);
        assert_eq!(reason(is_ready(&ready), &failed), Some(EventReason::AuthorityNotReady));
        assert_eq!(reason(is_ready(&failed), &failed), None);
        assert_eq!(reason(is_ready(&failed), &ready), Some(EventReason::AuthorityReady));
        let note = transition(None, &failed).expect("an event").note;
        assert!(note.starts_with("ConnectionFailed: endpoints"), "{note}");
    }
}
