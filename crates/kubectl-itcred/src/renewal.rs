//! A renewal on request: how it is asked for, and how it ended.

use chrono::{DateTime, SecondsFormat, Utc};
use itwin_api::{
    conditions::RENEWED,
    credential::{CredentialStatus, ITwinServiceCredential},
    secret_keys::RENEW,
    time,
};
use itwin_core::object::ObjectKey;
use serde::Serialize;
use serde_json::{Value, json};

use crate::output::Structured;

/// What `renew` shows.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RenewalList {
    /// The credentials that were chosen, by namespace and name.
    pub items: Vec<Renewal>,
}

impl Structured for RenewalList {
    const KIND: &'static str = "RenewalList";
}

/// How the renewal of a credential ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Renewal {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How it ended, in a word.
    pub result: RenewalResult,
    /// The reason of `Renewed` where the attempt failed.
    pub reason: Option<String>,
    /// What happened, and what to do.
    pub message: String,
    /// When the token expires that the server returned.
    pub expires_at: Option<DateTime<Utc>>,
    /// Until when the token that is there can be used, where the attempt failed.
    pub usable_until: Option<DateTime<Utc>>,
}

/// How a renewal ended, as programs read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum RenewalResult {
    /// There is a new token.
    Issued,
    /// The server returned the token that was there.
    Same,
    /// The attempt failed.
    Failed,
    /// The credential is suspended, so that none was requested.
    Suspended,
    /// The credential is being deleted, so that none was requested.
    Deleting,
    /// The renewal could not be requested.
    NotRequested,
    /// Another request replaced this one.
    Replaced,
    /// The credential was deleted.
    Deleted,
    /// The attempt has not ended within the time.
    Late,
    /// It is not known: the credential could not be read.
    Unknown,
}

impl Renewal {
    /// A renewal that was not requested, for this cause.
    pub fn without_request(key: &ObjectKey, result: RenewalResult, message: impl Into<String>) -> Self {
        Self {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            result,
            reason: None,
            message: message.into(),
            expires_at: None,
            usable_until: None,
        }
    }

    /// How a renewal ended, with the message about it.
    pub fn new(key: &ObjectKey, ended: &Ended, message: impl Into<String>) -> Self {
        let (result, expires_at) = match ended {
            Ended::Issued(until) => (RenewalResult::Issued, *until),
            Ended::Same(until) => (RenewalResult::Same, *until),
            Ended::Failed { .. } => (RenewalResult::Failed, None),
            Ended::Replaced => (RenewalResult::Replaced, None),
            Ended::Gone => (RenewalResult::Deleted, None),
            Ended::Late => (RenewalResult::Late, None),
            Ended::Unread(_) => (RenewalResult::Unknown, None),
        };
        let (reason, usable_until) = match ended {
            Ended::Failed { reason, usable_until, .. } => (Some(reason.clone()), *usable_until),
            _ => (None, None),
        };
        Self { reason, expires_at, usable_until, ..Self::without_request(key, result, message) }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// There is a new token, valid until then.
    Issued(Option<DateTime<Utc>>),
    /// The server returned the token that was there, valid until then.
    Same(Option<DateTime<Utc>>),
    /// There is none, for this reason.
    Failed {
        /// A reason of `Renewed`.
        reason: String,
        /// What happened, and what to do.
        message: String,
        /// Until when the token that is there can be used, if there is one.
        usable_until: Option<DateTime<Utc>>,
    },
    /// Someone set the annotation to another value, or removed it.
    Replaced,
    /// The credential was deleted, or is being deleted: no attempt follows.
    Gone,
    /// It has not ended within the time.
    Late,
    /// The last read within the time failed.
    Unread(String),
}

/// What was asked for, and what was there before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    value: String,
    at: DateTime<Utc>,
    issued_before: Option<DateTime<Utc>>,
}

impl Request {
    /// A request with a value that no earlier one had.
    #[must_use]
    pub fn new(now: DateTime<Utc>) -> Self {
        Self { value: now.to_rfc3339_opts(SecondsFormat::Nanos, true), at: now, issued_before: None }
    }

    /// The patch that requests the renewal.
    #[must_use]
    pub fn patch(&self) -> Value {
        json!({"metadata": {"annotations": {RENEW: self.value}}})
    }

    /// The same, given the credential as the API server returned it for the patch.
    #[must_use]
    pub fn of(self, patched: &Value) -> Self {
        let issued_before = patched["status"]["issuedAt"].as_str().and_then(time::from_rfc3339);
        Self { issued_before, ..self }
    }

    /// How the renewal ended; `None` while it has not.
    #[must_use]
    pub fn ended(&self, credential: &ITwinServiceCredential) -> Option<Ended> {
        let status = credential.status.as_ref()?;
        let handled = status.last_renew_request.as_deref();
        if handled != Some(self.value.as_str()) {
            // the operator handles the last value only: this one does not come any more
            let is_of_another = handled.is_some() && handled == annotation(credential);
            return is_of_another.then_some(Ended::Replaced);
        }
        let at = |text: &Option<String>| text.as_deref().and_then(time::from_rfc3339);
        let renewed = status.conditions.iter().find(|condition| condition.type_ == RENEWED)?;
        if renewed.status != "True" {
            return Some(Ended::Failed {
                reason: renewed.reason.clone(),
                message: renewed.message.clone(),
                usable_until: at(&status.usable_until),
            });
        }
        let until = at(&status.expires_at);
        Some(if self.is_of_the_same_token(status) { Ended::Same(until) } else { Ended::Issued(until) })
    }

    /// Times have no fractions of a second: a token of the second of the request cannot be distinguished from that
    /// before it.
    fn is_of_the_same_token(&self, status: &CredentialStatus) -> bool {
        let issued_at = status.issued_at.as_deref().and_then(time::from_rfc3339);
        let is_earlier = |before: DateTime<Utc>| before.timestamp() < self.at.timestamp();
        self.issued_before.is_some_and(is_earlier) && issued_at == self.issued_before
    }

    /// How it is to be reported if it has not ended within the time.
    #[must_use]
    pub fn late(&self, credential: &ITwinServiceCredential) -> Ended {
        if annotation(credential) == Some(self.value.as_str()) { Ended::Late } else { Ended::Replaced }
    }
}

fn annotation(credential: &ITwinServiceCredential) -> Option<&str> {
    credential.metadata.annotations.as_ref()?.get(RENEW).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{credential, failed, merge, minutes, now};

    fn request() -> Request {
        Request::new(now()).of(&json!({"status": {"issuedAt": minutes(-10)}}))
    }

    /// How it ended where the operator has handled this value.
    fn with(mut changes: Value, value: &str) -> Option<Ended> {
        merge(&mut changes, &json!({"status": {"lastRenewRequest": value}}));
        request().ended(&credential("a", &changes))
    }

    #[test]
    fn request_ends_with_the_status_that_names_it() {
        let value = request().value;
        let issued = json!({"status": {"issuedAt": minutes(0)}});
        assert_eq!(with(issued.clone(), "before"), None);
        assert_eq!(with(issued, &value), Some(Ended::Issued(time::from_rfc3339(&minutes(50)))));
        let Some(Ended::Failed { reason, message, usable_until }) = with(failed("InvalidClient", "why"), &value) else {
            unreachable!("it failed")
        };
        assert_eq!((reason.as_str(), message.as_str()), ("InvalidClient", "why"));
        assert_eq!(usable_until, time::from_rfc3339(&minutes(45)));
        assert_eq!(request().ended(&credential("a", &json!({"status": null}))), None);
    }

    #[test]
    fn token_that_was_there_before_is_no_new_one() {
        let value = request().value;
        assert_eq!(with(json!({}), &value), Some(Ended::Same(time::from_rfc3339(&minutes(50)))));
        // the times of both tokens may be the same second
        let soon = Request::new(now()).of(&json!({"status": {"issuedAt": minutes(0)}}));
        let issued = json!({"status": {"issuedAt": minutes(0), "lastRenewRequest": value}});
        assert!(matches!(soon.ended(&credential("a", &issued)), Some(Ended::Issued(_))));
        let first = Request::new(now()).of(&json!({"status": {}}));
        assert!(matches!(first.ended(&credential("a", &issued)), Some(Ended::Issued(_))));
    }

    #[test]
    fn request_that_another_one_replaced_is_not_waited_for() {
        let asked = |value: &str| json!({"metadata": {"annotations": {RENEW: value}}});
        assert_eq!(with(asked("other"), "other"), Some(Ended::Replaced));
        assert_eq!(with(asked("other"), "before"), None, "the operator may still handle this one");
        assert_eq!(request().late(&credential("a", &asked("other"))), Ended::Replaced);
        assert_eq!(request().late(&credential("a", &json!({}))), Ended::Replaced);
        assert_eq!(request().late(&credential("a", &asked(&request().value))), Ended::Late);
    }

    #[test]
    fn value_fits_the_annotation() {
        assert!(request().value.len() <= itwin_api::limits::RENEW_MAX);
        assert_ne!(request().value, Request::new(now() + chrono::TimeDelta::nanoseconds(1)).value);
    }
}
