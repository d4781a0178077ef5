//! A renewal on request: how it is asked for, and how it ended.

use chrono::{DateTime, SecondsFormat, Utc};
use itwin_api::{conditions::RENEWED, credential::ITwinServiceCredential, secret_keys::RENEW, time};
use serde_json::{Value, json};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// There is a new token, valid until then.
    Issued(Option<DateTime<Utc>>),
    /// There is none, for this reason.
    Failed {
        /// A reason of `Renewed`.
        reason: String,
        /// What happened, and what to do.
        message: String,
        /// Until when the token that is there can be used, if there is one.
        usable_until: Option<DateTime<Utc>>,
    },
}

/// A value of the annotation that no earlier request had.
#[must_use]
pub fn value(now: DateTime<Utc>) -> String {
    now.to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// The patch that requests a renewal.
#[must_use]
pub fn patch(value: &str) -> Value {
    json!({"metadata": {"annotations": {RENEW: value}}})
}

/// How the renewal ended that was requested with a value; `None` while it has not.
#[must_use]
pub fn ended(credential: &ITwinServiceCredential, value: &str) -> Option<Ended> {
    let status = credential.status.as_ref()?;
    if status.last_renew_request.as_deref() != Some(value) {
        return None;
    }
    let at = |text: &Option<String>| text.as_deref().and_then(time::from_rfc3339);
    let renewed = status.conditions.iter().find(|condition| condition.type_ == RENEWED)?;
    if renewed.status == "True" {
        return Some(Ended::Issued(at(&status.expires_at)));
    }
    Some(Ended::Failed {
        reason: renewed.reason.clone(),
        message: renewed.message.clone(),
        usable_until: at(&status.usable_until),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{credential, failed, merge, minutes, now};

    #[test]
    fn request_ends_with_the_status_that_names_it() {
        let with = |mut changes: Value, value: &str| {
            merge(&mut changes, &json!({"status": {"lastRenewRequest": value}}));
            ended(&credential("a", &changes), "now")
        };
        assert_eq!(with(json!({}), "before"), None);
        assert_eq!(with(json!({}), "now"), Some(Ended::Issued(time::from_rfc3339(&minutes(50)))));
        let Some(Ended::Failed { reason, message, usable_until }) = with(failed("InvalidClient", "why"), "now") else {
            unreachable!("it failed")
        };
        assert_eq!((reason.as_str(), message.as_str()), ("InvalidClient", "why"));
        assert_eq!(usable_until, time::from_rfc3339(&minutes(45)));
        assert_eq!(ended(&credential("a", &json!({"status": null})), "now"), None);
    }

    #[test]
    fn value_fits_the_annotation() {
        assert!(value(now()).len() <= itwin_api::limits::RENEW_MAX);
        assert_ne!(value(now()), value(now() + chrono::TimeDelta::nanoseconds(1)));
    }
}
