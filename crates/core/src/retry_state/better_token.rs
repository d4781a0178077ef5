//! The wait for a better token, after a renewal that gave none: the server returned the token that the Secret holds, or
//! one that expires earlier.
//!
//! The status shows when it ends, so that a process that starts need not ask again. Anyone who may write the status
//! could forge that, so no recalled wait is longer than one of the operator's own can be.

use chrono::{DateTime, Utc};
use itwin_api::{
    conditions::Reason,
    credential::{CredentialSpec, CredentialStatus},
    time,
};

use super::RetryState;
use crate::{policy::Policy, schedule, status::Attempts, token::TokenMetadata};

/// A recalled wait after a shorter token ends while this fraction of the lifetime of the one that is held is left: 1/20.
const LEFT_FRACTION: i32 = 20;

/// No renewal before an instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct BetterTokenWait {
    /// When it was noted.
    noted: DateTime<Utc>,
    /// The instant.
    until: DateTime<Utc>,
    /// When the token that it is about was issued and expires: another one may be in the Secret by now, such as one that a
    /// backup had.
    token: (DateTime<Utc>, DateTime<Utc>),
}

impl BetterTokenWait {
    /// The wait that the status of an earlier process shows, if it does, for the token `held` that it describes.
    pub(super) fn recall(
        (spec, uid): (&CredentialSpec, &str),
        (status, attempts): (&CredentialStatus, &Attempts),
        held: &TokenMetadata,
        now: DateTime<Utc>,
    ) -> Option<Self> {
        let shown = status.renew_at.as_deref().and_then(time::from_rfc3339)?;
        let reason = attempts.last_failure.as_ref().map(|(_, failure)| failure.reason);
        // a renewal that is late although nothing failed waits for this: the same token was returned
        let is_late = || schedule::renew_at(held, &Policy::new(spec), uid) <= now;
        let latest = if reason == Some(Reason::ShorterThanCurrent) {
            held.expires_at - held.lifetime() / LEFT_FRACTION
        } else if attempts.failures == 0 && is_late() {
            now + schedule::after_same_token(held.expires_at - now)
        } else {
            return None;
        };
        let until = shown.min(latest);
        (until > now).then_some(Self { noted: now, until, token: (held.issued_at, held.expires_at) })
    }
}

impl RetryState {
    /// No renewal before this instant, since the last one gave no token that would be better than the one that is `held`;
    /// with another token in the Secret, or on request, it is one. Where none is held, nothing waits.
    pub fn renewal_waits(&mut self, until: DateTime<Utc>, held: Option<&TokenMetadata>, now: DateTime<Utc>) {
        let wait =
            |held: &TokenMetadata| BetterTokenWait { noted: now, until, token: (held.issued_at, held.expires_at) };
        self.better_token = held.map(wait);
    }

    /// See [`Self::renewal_waits`]; `held` is the token in the Secret, and a wait counts only for the one that it is about,
    /// and until that expires. A wait that was noted later than now was noted before the clock was set back: it binds no
    /// one, else the token could expire meanwhile.
    #[must_use]
    pub fn renew_not_before(&self, held: Option<&TokenMetadata>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let held = held.filter(|held| held.expires_at > now)?;
        let is_of_held = |wait: &BetterTokenWait| wait.token == (held.issued_at, held.expires_at);
        self.better_token.filter(|wait| wait.noted <= now && is_of_held(wait)).map(|wait| wait.until)
    }
}

#[cfg(test)]
mod tests {
    use itwin_api::credential::ITwinServiceCredential;
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    /// A process that starts at `now` with a token that is valid from second 0 to 3600, and with this in the status.
    fn started(changes: &Value, now: DateTime<Utc>) -> RetryState {
        let mut status = json!({
            "observedGeneration": 1,
            "issuer": "https://ims.example.com",
            "issuedAt": time::to_rfc3339(at(0)),
            "expiresAt": time::to_rfc3339(at(3600)),
        });
        for (field, value) in changes.as_object().into_iter().flatten() {
            status[field] = value.clone();
        }
        let credential: ITwinServiceCredential = serde_json::from_value(json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinServiceCredential",
            "metadata": {"name": "agent", "uid": "uid", "generation": 1},
            "spec": {"clientCredentialsRef": {"name": "client"}},
            "status": status,
        }))
        .expect("a credential");
        RetryState::recall(&credential, now)
    }

    fn waits(state: &RetryState, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let held = state.last_held().map(|held| held.token_metadata.clone());
        state.renew_not_before(held.as_ref(), now)
    }

    fn failing(reason: &str, renew_at: DateTime<Utc>) -> Value {
        json!({
            "renewAt": time::to_rfc3339(renew_at),
            "consecutiveFailures": 1,
            "lastFailure": {"time": time::to_rfc3339(at(2500)), "reason": reason, "message": "because"},
        })
    }

    #[test]
    fn wait_for_a_better_token_survives_a_restart_through_the_status() {
        let now = at(3000);
        let same = started(&json!({"renewAt": time::to_rfc3339(at(3060))}), now);
        assert_eq!(waits(&same, now), Some(at(3060)), "the server returned the same token");
        assert_eq!(waits(&same, at(2999)), None, "the clock was set back");
        let shorter = started(&failing("ShorterThanCurrent", at(3400)), now);
        assert_eq!(waits(&shorter, now), Some(at(3400)));
        let mut written = shorter;
        written.written(None);
        assert_eq!(waits(&written, now), None, "there is another token");
    }

    #[test]
    fn wait_for_a_better_token_is_about_one_token_and_ends_with_it() {
        let mut state = started(&json!({}), at(1));
        let held = state.last_held().map(|held| held.token_metadata.clone()).expect("a token");
        let (now, until) = (at(2500), at(9000));
        state.renewal_waits(until, Some(&held), now);
        assert_eq!(state.renew_not_before(Some(&held), now), Some(until));
        let restored = TokenMetadata { issued_at: at(-600), expires_at: at(3000), ..held.clone() };
        assert_eq!(state.renew_not_before(Some(&restored), now), None, "an older token is there again");
        let ends_earlier = TokenMetadata { expires_at: at(3599), ..held.clone() };
        assert_eq!(state.renew_not_before(Some(&ends_earlier), now), None);
        assert_eq!(state.renew_not_before(None, now), None, "there is none");
        assert_eq!(state.renew_not_before(Some(&held), at(3600)), None, "it has expired");
        state.renewal_waits(until, None, now);
        assert_eq!(state.renew_not_before(Some(&held), now), None, "it was about none");
    }

    #[test]
    fn recalled_wait_is_no_longer_than_one_of_the_operators_own() {
        let now = at(3000);
        let forged = at(1_000_000);
        let same = started(&json!({"renewAt": time::to_rfc3339(forged)}), now);
        assert_eq!(waits(&same, now), Some(at(3075)), "an eighth of what is left");
        let shorter = started(&failing("ShorterThanCurrent", forged), now);
        assert_eq!(waits(&shorter, now), Some(at(3420)), "a twentieth of the lifetime is left");
        assert_eq!(waits(&started(&failing("ShorterThanCurrent", forged), at(3420)), at(3420)), None);
    }

    #[test]
    fn nothing_else_in_a_status_holds_up_a_renewal_after_a_start() {
        let (now, later) = (at(3000), time::to_rfc3339(at(3060)));
        let others = [
            json!({}),
            json!({"renewAt": time::to_rfc3339(now)}),
            json!({"renewAt": later, "observedGeneration": 0}),
            json!({"renewAt": later, "expiresAt": null}),
            failing("Timeout", at(3060)),
        ];
        for (number, status) in others.iter().enumerate() {
            assert_eq!(waits(&started(status, now), now), None, "row {number}");
        }
        let early = started(&json!({"renewAt": later}), at(1));
        assert_eq!(waits(&early, at(1)), None, "it is the time of the regular renewal");
        let state = started(&json!({"renewAt": later}), now);
        let held = state.last_held().map(|held| held.token_metadata.clone()).expect("a token");
        let another = TokenMetadata { expires_at: at(3601), ..held };
        assert_eq!(state.renew_not_before(Some(&another), now), None, "the Secret holds another token");
        assert_eq!(state.renew_not_before(None, now), None);
    }
}
