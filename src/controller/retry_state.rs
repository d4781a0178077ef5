//! What is remembered of a credential between two looks at it. All of it can be lost: then it is read again, at the
//! price of a few reads, never of a token.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{
    credential::{CredentialStatus, ITwinServiceCredential},
    digest, time,
};
use itwin_core::{
    conflict::Reverts,
    status::{self, Attempts},
};

use crate::act::secret_writer::Content;

/// After a start the back-off of a process before us is obeyed for at most this long, since nobody knows what was
/// mended meanwhile. The UID spreads it, so that a start is no storm.
const INHERITED_BACKOFF: TimeDelta = TimeDelta::seconds(30);

/// What is remembered of a credential.
pub struct RetryState {
    /// Attempts, as they are told.
    pub attempts: Attempts,
    /// No attempt before this instant, as long as `inputs` stay what they are.
    pub not_before: Option<DateTime<Utc>>,
    /// What the last failed attempt depended on; `None` after a start.
    pub inputs: Option<u32>,
    /// When a token was asked for last.
    pub asked_at: Option<DateTime<Utc>>,
    /// When one was requested last because a user asked for it.
    pub requested_at: Option<DateTime<Utc>>,
    /// A value of the renew annotation for which no token was issued yet.
    pub unfulfilled_request: Option<String>,
    /// The status that we wrote, with the resourceVersion that the object then had, until the watch brings it.
    pub written_status: Option<(u64, Box<CredentialStatus>)>,
    /// The newest resourceVersion of the object that was seen or written: a watch may show an older one again.
    pub newest: u64,
    /// Version of the Secret whose data was read and found to be what we wrote.
    pub verified_target: Option<Arc<str>>,
    /// Version of the client Secret that was read and found to hold what the token was asked with.
    pub verified_client: Option<Arc<str>>,
    /// Reverts of the Secret that follow each other.
    pub reverts: Reverts,
    /// A token that was issued but could not be written yet: it is not asked for again.
    pub unwritten: Option<Box<Content>>,
    /// When the token was issued for which workloads were restarted last.
    pub restarted_for: Option<DateTime<Utc>>,
    /// No restart of workloads before this instant, since one failed.
    pub restart_not_before: Option<DateTime<Utc>>,
    /// Failed restarts of workloads in a row.
    pub restart_failures: u32,
    /// The last failure was that of others, for which nothing is sent for now: no attempt of this credential failed.
    pub failed_by_others: bool,
    /// Failed calls to the Kubernetes API in a row.
    pub api_failures: u32,
    /// An event said that the renew annotation is too long, which it still is.
    pub long_renewal_reported: bool,
}

impl RetryState {
    /// What the object itself tells of the time before us.
    #[must_use]
    pub fn recall(credential: &ITwinServiceCredential, now: DateTime<Utc>) -> Self {
        let previous = credential.status.clone().unwrap_or_default();
        let attempts = status::attempts(&previous);
        let uid = credential.metadata.uid.as_deref().unwrap_or_default();
        let wait = TimeDelta::milliseconds(
            (INHERITED_BACKOFF.num_milliseconds() as f64 * digest::unit_interval(["start", uid])) as i64,
        );
        // none is told while the credential waits for its authority
        let not_before = (attempts.failures > 0 && previous.observed_generation == credential.metadata.generation)
            .then(|| previous.renew_at.as_deref().and_then(time::from_rfc3339).unwrap_or(now + wait).min(now + wait));
        Self {
            not_before,
            attempts,
            inputs: None,
            asked_at: None,
            requested_at: None,
            unfulfilled_request: None,
            written_status: None,
            newest: 0,
            verified_target: None,
            verified_client: None,
            reverts: Reverts::default(),
            unwritten: None,
            restarted_for: None,
            restart_not_before: None,
            restart_failures: 0,
            failed_by_others: false,
            api_failures: 0,
            long_renewal_reported: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn credential_that_failed_before_a_start_waits_for_half_a_minute_at_most_whatever_was_reported() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        let recalled = |renew_at: Option<DateTime<Utc>>| {
            let credential = serde_json::from_value(json!({
                "apiVersion": "credentials.itwin.dev/v1alpha1",
                "kind": "ITwinServiceCredential",
                "metadata": {"name": "agent", "uid": "uid", "generation": 1},
                "spec": {"clientCredentialsRef": {"name": "client"}},
                "status": {
                    "observedGeneration": 1,
                    "consecutiveFailures": 1,
                    "renewAt": renew_at.map(time::to_rfc3339),
                    "lastFailure": {"time": time::to_rfc3339(now), "reason": "Timeout", "message": "late"},
                },
            }));
            RetryState::recall(&credential.expect("a credential"), now).not_before
        };
        let waits = [None, Some(now + TimeDelta::hours(1))].map(recalled);
        assert_eq!(waits[0], waits[1], "one that waited for its authority is told no time");
        assert!(waits[0].is_some_and(|until| now < until && until <= now + INHERITED_BACKOFF));
        assert_eq!(recalled(Some(now)), Some(now), "a wait that is over stays over");
    }
}
