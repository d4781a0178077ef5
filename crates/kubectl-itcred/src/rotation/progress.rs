//! How a credential is since its new client secret was written.

use chrono::{DateTime, Utc};
use itwin_api::{conditions::RENEWED, credential::ITwinServiceCredential, secret_keys, time};
use k8s_openapi::api::core::v1::Secret;

/// How the credential is since the new value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No attempt has ended.
    Waiting,
    /// The Secret holds a token that was requested with the new value.
    Done(Option<DateTime<Utc>>),
    /// The last attempt failed.
    Failed {
        /// A reason of `Renewed`.
        reason: String,
        /// What happened, and what to do.
        message: String,
    },
}

/// What the credential and its Secret say. `versions` are the versions that the client Secret has had with the new
/// value, and `failed_before` is the time of the last failure before it was written.
#[must_use]
pub fn progress(
    credential: &ITwinServiceCredential,
    token_secret: Option<&Secret>,
    versions: &[String],
    failed_before: Option<&str>,
) -> Progress {
    let annotations = token_secret.and_then(|secret| secret.metadata.annotations.as_ref());
    let requested_with = annotations.and_then(|annotations| annotations.get(secret_keys::CLIENT_VERSION));
    let Some(status) = &credential.status else { return Progress::Waiting };
    if requested_with.is_some_and(|version| versions.contains(version)) {
        let at = annotations.and_then(|annotations| annotations.get(secret_keys::EXPIRES_AT_ANNOTATION));
        return Progress::Done(at.and_then(|at| time::from_rfc3339(at)));
    }
    let renewed = status.conditions.iter().find(|condition| condition.type_ == RENEWED);
    match (renewed, &status.last_failure) {
        (Some(renewed), Some(failure)) if renewed.status == "False" && Some(failure.time.as_str()) != failed_before => {
            Progress::Failed { reason: renewed.reason.clone(), message: renewed.message.clone() }
        }
        _ => Progress::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::view::tests::{credential, failed, minutes};

    fn secret(value: Value) -> Secret {
        serde_json::from_value(value).expect("a Secret")
    }

    #[test]
    fn only_a_token_of_the_new_value_ends_the_rotation() {
        let token = |version: &str| {
            secret(json!({"metadata": {"annotations": {
                secret_keys::CLIENT_VERSION: version, secret_keys::EXPIRES_AT_ANNOTATION: minutes(60),
            }}}))
        };
        let versions = ["uid/8".to_owned()];
        let fine = credential("a", &json!({}));
        let of = |credential: &ITwinServiceCredential, version: &str, before: Option<&str>| {
            progress(credential, Some(&token(version)), &versions, before)
        };
        assert_eq!(of(&fine, "uid/8", None), Progress::Done(time::from_rfc3339(&minutes(60))));
        assert_eq!(of(&fine, "uid/7", None), Progress::Waiting);
        assert_eq!(progress(&fine, None, &versions, None), Progress::Waiting);
        let wrong = credential("a", &failed("InvalidClient", "why"));
        assert!(matches!(of(&wrong, "uid/7", None), Progress::Failed { .. }));
        // the failure is of the old value
        assert_eq!(of(&wrong, "uid/7", Some(&minutes(-2))), Progress::Waiting);
    }
}
