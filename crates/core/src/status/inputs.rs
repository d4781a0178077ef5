//! What a status is made from.

use chrono::{DateTime, Utc};
use itwin_api::credential::CredentialStatus;

use crate::{client_expiry::ClientExpiry, failure::Failure, observed::ObservedState, token::Description};

/// How the last attempt ended, as far as this process knows.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    /// Consecutive failed attempts.
    pub failures: u32,
    /// The last failure, if the last attempt failed.
    pub last_failure: Option<(DateTime<Utc>, Failure)>,
    /// The last attempt was one for an earlier spec, and failed. The failure is not reported for this spec, nor a success.
    pub follows_failure: bool,
    /// The value of the renew annotation that was acted upon last.
    pub renew_request: Option<String>,
    /// Why workloads could not be restarted for the token that is held, if they could not.
    pub restart_failure: Option<String>,
    /// The watch of Secrets fails: what is known of the Secret is from an earlier time.
    pub is_unwatched: bool,
}

/// Everything that a status is made from.
pub struct Inputs<'a> {
    /// What was observed after the attempt.
    pub observed: &'a ObservedState,
    /// Attempts up to now.
    pub attempts: &'a Attempts,
    /// What the token was issued for.
    pub description: &'a Description,
    /// The Secret's name.
    pub secret: &'a str,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// The next attempt.
    pub renew_at: Option<DateTime<Utc>>,
    /// The status that the object has.
    pub previous: &'a CredentialStatus,
    /// The authority in whose queue a token request has waited for long.
    pub waits_for: Option<&'a str>,
    /// When the client's credentials expire, where the client Secret says so.
    pub client_expiry: Option<ClientExpiry<'a>>,
    /// The first finalizers that hold the credential, if it is being deleted: its token is not renewed.
    pub deletion: Option<&'a [String]>,
    /// The time.
    pub now: DateTime<Utc>,
}
