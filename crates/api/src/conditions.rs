//! Condition types and reasons: a closed set, because users write alerts and scripts against them.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{line::line, time};

/// The condition that `kubectl wait`, Flux and Argo CD evaluate.
pub const READY: &str = "Ready";
/// The condition that shows how the last attempt to get a token ended.
pub const RENEWED: &str = "Renewed";

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The reason of a condition. Each variant's name is the value of `reason`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, for tests and for sets of label values.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The value of `reason` in a condition.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The reason with this name, if there is one.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
            }
        }
    };
}

reasons! {
    // Ready
    /// The Secret holds a usable token for the current spec.
    TokenValid,
    /// The authority's endpoints and keys are known.
    AuthorityReachable,
    /// The operator has not attempted anything yet.
    Pending,
    BelowMinimumValidity,
    TokenExpired,
    LifetimeTooShort,
    Suspended,
    // Renewed
    TokenIssued,
    // configuration
    AuthorityNotFound,
    AuthorityNotReady,
    NamespaceNotAllowed,
    ScopeNotAllowed,
    AudienceNotAllowed,
    GrantTypeNotAllowed,
    ClientCredentialsNotFound,
    ClientCredentialsInvalid,
    // responses of the authority
    InvalidClient,
    InvalidScope,
    UnauthorizedClient,
    UnsupportedGrantType,
    RequestRejected,
    RateLimited,
    ServerError,
    // transport
    Timeout,
    ConnectionFailed,
    TLSFailed,
    RedirectRefused,
    MalformedResponse,
    // tokens
    TokenRejected,
    ScopeReduced,
    ShorterThanCurrent,
    // the Secret
    SecretNotOwned,
    SecretConflict,
    SecretImmutable,
    SecretTypeMismatch,
    SecretReadFailed,
    SecretWriteFailed,
    TemplateInvalid,
    // the authority object
    ConfigurationInvalid,
}

/// A condition, before it is compared with the one in the object's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `Ready` or `Renewed`.
    pub kind: &'static str,
    /// Whether the condition's status is `True`.
    pub holds: bool,
    /// The condition's reason.
    pub reason: Reason,
    /// What happened, which object is affected, and what to do.
    pub message: String,
}

impl Verdict {
    /// The condition to store. The transition time changes only with the status, as the Kubernetes API conventions
    /// require.
    #[must_use]
    pub fn into_condition(self, previous: &[Condition], generation: Option<i64>, now: DateTime<Utc>) -> Condition {
        let status = if self.holds { "True" } else { "False" };
        let unchanged = previous.iter().find(|c| c.type_ == self.kind && c.status == status);
        Condition {
            type_: self.kind.to_owned(),
            status: status.to_owned(),
            reason: self.reason.as_str().to_owned(),
            message: line(self.message),
            observed_generation: generation,
            last_transition_time: unchanged
                .map_or_else(|| time::to_kubernetes(now), |condition| condition.last_transition_time.clone()),
        }
    }
}

/// The conditions of an object with `condition` in place of the one of its type. Conditions of other writers stay.
#[must_use]
pub fn with(conditions: &[Condition], condition: Condition) -> Vec<Condition> {
    let mut all = conditions.to_vec();
    match all.iter_mut().find(|other| other.type_ == condition.type_) {
        Some(other) => *other = condition,
        None => all.push(condition),
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_of_a_condition_is_one_line() {
        let message = "Deployment web may not be restarted (a\nb \u{1b}[2J\u{202e})".to_owned();
        let verdict = Verdict { kind: READY, holds: true, reason: Reason::TokenValid, message };
        let condition = verdict.into_condition(&[], None, DateTime::UNIX_EPOCH);
        assert_eq!(condition.message, "Deployment web may not be restarted (a b ?[2J?)");
    }
}
