//! Events, on transitions only.

use itwin_api::{
    conditions::{READY, RENEWED, Reason},
    credential::CredentialStatus,
    line::line,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::status::holds;
use crate::{action::IssueReason, failure::Failure, messages_lifetime::RENEWED_LATER};

/// How an attempt ended.
pub enum Outcome<'a> {
    /// A token was written, for this reason.
    Written(IssueReason),
    /// Nothing was written.
    Failed(&'a Failure),
}

/// Why an event is published: the words of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventReason {
    /// The first token, or one for another spec or client.
    Issued,
    /// An attempt failed.
    RenewalFailed,
    /// An attempt succeeded after others had failed.
    Recovered,
    /// The Secret to write belongs to someone else.
    SecretNotOwned,
    /// The Secret had been changed or deleted.
    Restored,
    /// Workloads were restarted.
    RolloutRestarted,
    /// The issued tokens are too short for `minimumValidity`, or for `renewBefore`.
    LifetimeTooShort,
    /// The object, or a part of it, is invalid.
    InvalidObject,
    /// An authority became Ready.
    AuthorityReady,
    /// An authority is no longer Ready.
    AuthorityNotReady,
}

impl EventReason {
    /// The reason as the event holds it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "Issued",
            Self::RenewalFailed => "RenewalFailed",
            Self::Recovered => "Recovered",
            Self::SecretNotOwned => "SecretNotOwned",
            Self::Restored => "Restored",
            Self::RolloutRestarted => "RolloutRestarted",
            Self::LifetimeTooShort => "LifetimeTooShort",
            Self::InvalidObject => "InvalidObject",
            Self::AuthorityReady => "AuthorityReady",
            Self::AuthorityNotReady => "AuthorityNotReady",
        }
    }

    /// What the operator did, as the event holds it.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::AuthorityReady | Self::AuthorityNotReady => "Refresh",
            _ => "Renew",
        }
    }
}

/// An event to publish.
#[derive(Debug, PartialEq, Eq)]
pub struct Transition {
    /// Whether a person must fix something.
    pub warning: bool,
    /// Why.
    pub reason: EventReason,
    /// For people.
    pub note: String,
}

impl Transition {
    /// Something that a person must fix.
    #[must_use]
    pub fn warning(reason: EventReason, note: String) -> Self {
        Self { warning: true, reason, note: line(note) }
    }

    /// Something worth knowing.
    #[must_use]
    pub fn normal(reason: EventReason, note: String) -> Self {
        Self { warning: false, reason, note: line(note) }
    }
}

/// What events said up to a status, as far as the next ones depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// There was a token.
    had_token: bool,
    /// The last renewal went well.
    is_renewed: bool,
    /// An attempt failed, and none succeeded since.
    has_failed: bool,
    /// The reason of the last failure.
    failure: Option<Box<str>>,
    /// The reason of `Ready` where it says that tokens are too short.
    lifetime: Option<Box<str>>,
}

impl From<&CredentialStatus> for Said {
    fn from(status: &CredentialStatus) -> Self {
        let is_renewed = holds(&status.conditions, RENEWED);
        Self {
            // for a moment after the Secret was deleted or changed the status may show no token
            had_token: status.issued_at.is_some() || is_renewed,
            is_renewed,
            // a watch that fails, and what others do to the Secret, are reported too, and fail no attempt
            has_failed: status.last_failure.is_some() && status.consecutive_failures > 0,
            failure: status.last_failure.as_ref().map(|last| last.reason.as_str().into()),
            lifetime: ready_about_lifetime(status).map(|ready| ready.reason.as_str().into()),
        }
    }
}

/// `Ready`, where it says that tokens are too short for what the spec asks for.
fn ready_about_lifetime(status: &CredentialStatus) -> Option<&Condition> {
    let ready = status.conditions.iter().find(|condition| condition.type_ == READY)?;
    let is_about = ready.reason == Reason::LifetimeTooShort.as_str() || ready.message.contains(RENEWED_LATER);
    is_about.then_some(ready)
}

/// The event that an attempt is worth, seen from what was said before it. A renewal that went well is worth none, nor is
/// a failure like the one before.
#[must_use]
pub fn transition(said: &Said, outcome: &Outcome<'_>, secret: &str) -> Option<Transition> {
    let normal = |reason, note| Some(Transition::normal(reason, note));
    let (had_token, has_failed) = (said.had_token, said.has_failed);
    match outcome {
        Outcome::Written(_) if had_token && has_failed => {
            normal(EventReason::Recovered, format!("a token was issued again and written into Secret {secret}"))
        }
        Outcome::Written(IssueReason::Missing | IssueReason::Tampered) if had_token => normal(
            EventReason::Restored,
            format!("Secret {secret} had been deleted or changed by another writer and was written again"),
        ),
        Outcome::Written(IssueReason::Due) if had_token => None,
        Outcome::Written(_) => {
            normal(EventReason::Issued, format!("a verified token was written into Secret {secret}"))
        }
        Outcome::Failed(failure) => {
            let is_same = said.failure.as_deref() == Some(failure.reason.as_str());
            // that Secrets are not watched has the reason of a read that fails
            let is_reported = is_same && (has_failed || failure.reason != Reason::SecretReadFailed);
            if is_reported && !said.is_renewed {
                return None;
            }
            let reason = if failure.reason == Reason::SecretNotOwned {
                EventReason::SecretNotOwned
            } else {
                EventReason::RenewalFailed
            };
            Some(Transition::warning(reason, format!("{}: {}", failure.reason.as_str(), failure.message)))
        }
    }
}

/// The event that a status is worth which says of the issued tokens, as was not said before, that they are too short for
/// what the spec asks for.
#[must_use]
pub fn about_lifetime(said: &Said, status: &CredentialStatus) -> Option<Transition> {
    let ready = ready_about_lifetime(status)?;
    let was_reported = said.lifetime.as_deref() == Some(ready.reason.as_str());
    (!was_reported).then(|| Transition::warning(EventReason::LifetimeTooShort, ready.message.clone()))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use itwin_api::{conditions::Verdict, credential::LastFailure};

    use super::*;

    fn issued() -> CredentialStatus {
        CredentialStatus { issued_at: Some("2026-01-01T00:00:00Z".into()), ..CredentialStatus::default() }
    }

    fn failed(mut status: CredentialStatus, reason: Reason) -> CredentialStatus {
        status.last_failure =
            Some(LastFailure { time: String::new(), reason: reason.as_str().into(), message: String::new() });
        status.consecutive_failures = 1;
        status
    }

    /// A status that says that Secrets are not watched.
    fn unwatched() -> CredentialStatus {
        CredentialStatus { consecutive_failures: 0, ..failed(issued(), Reason::SecretReadFailed) }
    }

    fn reason(previous: &CredentialStatus, outcome: &Outcome<'_>) -> Option<&'static str> {
        transition(&Said::from(previous), outcome, "token").map(|transition| transition.reason.as_str())
    }

    #[test]
    fn note_is_one_line_whatever_it_quotes() {
        for transition in [Transition::warning, Transition::normal] {
            assert_eq!(transition(EventReason::RolloutRestarted, "a\nb\u{1b}".to_owned()).note, "a b?");
        }
    }

    #[test]
    fn first_token_is_reported_and_renewals_are_not() {
        assert_eq!(reason(&CredentialStatus::default(), &Outcome::Written(IssueReason::Missing)), Some("Issued"));
        assert_eq!(reason(&issued(), &Outcome::Written(IssueReason::Due)), None);
    }

    #[test]
    fn secret_that_was_missed_for_a_moment_is_restored_and_not_issued() {
        let mut missed = CredentialStatus::default();
        let renewed = Verdict { kind: RENEWED, holds: true, reason: Reason::TokenIssued, message: String::new() };
        missed.conditions.push(renewed.into_condition(&[], None, DateTime::UNIX_EPOCH));
        assert_eq!(reason(&missed, &Outcome::Written(IssueReason::Missing)), Some("Restored"));
    }

    #[test]
    fn restored_and_recovered_are_reported() {
        assert_eq!(reason(&issued(), &Outcome::Written(IssueReason::Tampered)), Some("Restored"));
        let failing = failed(issued(), Reason::ServerError);
        assert_eq!(reason(&failing, &Outcome::Written(IssueReason::Due)), Some("Recovered"));
    }

    #[test]
    fn watch_that_fails_is_no_attempt_from_which_a_renewal_recovers_and_hides_no_read_that_fails() {
        assert_eq!(reason(&unwatched(), &Outcome::Written(IssueReason::Due)), None);
        assert_eq!(reason(&unwatched(), &Outcome::Written(IssueReason::Missing)), Some("Restored"));
        let unread = Failure::new(Reason::SecretReadFailed, "message");
        assert_eq!(reason(&unwatched(), &Outcome::Failed(&unread)), Some("RenewalFailed"));
        assert_eq!(reason(&failed(issued(), Reason::SecretReadFailed), &Outcome::Failed(&unread)), None);
    }

    #[test]
    fn tokens_too_short_for_the_spec_are_reported_once() {
        let status = |reason, message: &str| {
            let ready = Verdict { kind: READY, holds: false, reason, message: message.to_owned() };
            let conditions = vec![ready.into_condition(&[], None, DateTime::UNIX_EPOCH)];
            CredentialStatus { conditions, ..CredentialStatus::default() }
        };
        let valid = status(Reason::TokenValid, "good");
        let later = status(Reason::TokenValid, &format!("good, {RENEWED_LATER}"));
        let too_short = status(Reason::LifetimeTooShort, "60 s");
        for (previous, status, expected) in [
            (&CredentialStatus::default(), &valid, None),
            (&CredentialStatus::default(), &later, Some("LifetimeTooShort")),
            (&valid, &later, Some("LifetimeTooShort")),
            (&later, &later, None),
            (&valid, &too_short, Some("LifetimeTooShort")),
            (&later, &too_short, Some("LifetimeTooShort")),
            (&too_short, &self::status_with_other_message(&too_short), None),
            (&too_short, &valid, None),
        ] {
            let event = about_lifetime(&Said::from(previous), status);
            assert!(event.iter().all(|event| event.warning));
            assert_eq!(event.map(|event| event.reason.as_str()), expected, "{previous:?} {status:?}");
        }
    }

    fn status_with_other_message(status: &CredentialStatus) -> CredentialStatus {
        let mut status = status.clone();
        status.conditions[0].message = "61 s".to_owned();
        status
    }

    #[test]
    fn failure_is_reported_once_for_each_reason() {
        let failure = |reason| Failure::new(reason, "message");
        assert_eq!(reason(&issued(), &Outcome::Failed(&failure(Reason::ServerError))), Some("RenewalFailed"));
        let failing = failed(issued(), Reason::ServerError);
        assert_eq!(reason(&failing, &Outcome::Failed(&failure(Reason::ServerError))), None);
        assert_eq!(reason(&failing, &Outcome::Failed(&failure(Reason::Timeout))), Some("RenewalFailed"));
        assert_eq!(reason(&failing, &Outcome::Failed(&failure(Reason::SecretNotOwned))), Some("SecretNotOwned"));
    }
}
