//! Sentences about lifetimes: of tokens that are too short for what the spec promises, and of the client's credentials.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::time;

use crate::{
    policy::{Policy, RenewBefore},
    schedule::{self, Adjustment},
};

/// What a message says of tokens that are renewed later than the spec asks for.
pub const RENEWED_LATER: &str = "since that is more than half of its lifetime";

/// Tokens cannot satisfy `minimumValidity`, of which `longest` is the longest that they satisfy.
#[must_use]
pub fn lifetime_too_short(authority: &str, lifetime: TimeDelta, minimum: TimeDelta, longest: TimeDelta) -> String {
    format!(
        "ITwinAuthority {authority} issues tokens with a lifetime of {} s, too short for minimumValidity ({} s), which \
         must be left until the renewal, at half of the lifetime at the earliest: set spec.minimumValidity to {}s or \
         less, or have tokens with a longer lifetime issued",
        lifetime.num_seconds(),
        minimum.num_seconds(),
        longest.num_seconds().max(0)
    )
}

/// Tokens are renewed at another time than the spec asks for.
#[must_use]
pub fn adjusted(adjustment: Adjustment, policy: &Policy, lifetime: TimeDelta) -> String {
    let effective = schedule::renew_before(policy, lifetime);
    let (field, value) = match policy.renew_before {
        RenewBefore::Percentage(_) => {
            // up to the next whole one
            let percentage =
                (effective.num_seconds() * 100 + lifetime.num_seconds() - 1) / lifetime.num_seconds().max(1);
            ("spec.renewBeforePercentage", percentage.to_string())
        }
        RenewBefore::Default | RenewBefore::Fixed(_) => ("spec.renewBefore", format!("{}s", effective.num_seconds())),
    };
    let (why, limit) = match adjustment {
        Adjustment::Earlier => ("so that minimumValidity is left until the renewal has ended", "more"),
        Adjustment::Later => (RENEWED_LATER, "less"),
    };
    format!(
        "it is renewed {} s before it expires and not as {field} says, {why}: set {field} to {value} or {limit}",
        effective.num_seconds()
    )
}

/// What a status says once it is about a credential that is being deleted.
pub const BEING_DELETED: &str = "the credential is being deleted";

/// The credential is being deleted, and these finalizers hold it.
#[must_use]
pub fn being_deleted(finalizers: &[String]) -> String {
    let held = match finalizers {
        [] => String::new(),
        [finalizer] => format!(" and is held by finalizer {finalizer}"),
        several => format!(" and is held by finalizers {}", several.join(", ")),
    };
    format!(
        "{BEING_DELETED}{held}, so that its token is not renewed: create another credential where workloads still need \
         one"
    )
}

/// The client's credentials expire soon.
#[must_use]
pub fn client_expires(secret: &str, at: DateTime<Utc>) -> String {
    format!("the client's credentials expire at {}: {}", time::to_rfc3339(at), replace_client(secret))
}

/// The client's credentials have expired, as the client Secret says.
#[must_use]
pub fn client_expired(secret: &str, at: DateTime<Utc>) -> String {
    format!("the client's credentials expired at {}: {}", time::to_rfc3339(at), replace_client(secret))
}

/// What a message says of a time that is none.
pub const NO_TIME: &str = "is no time in RFC 3339";

/// The client Secret says when the client's credentials expire, in a way that cannot be read.
#[must_use]
pub fn client_expiry_invalid(secret: &str, key: &str) -> String {
    format!(
        "key {key} of Secret {secret} {NO_TIME}, so that nothing warns before the client's credentials expire: write \
         one such as 2027-01-31T00:00:00Z, or remove the key"
    )
}

fn replace_client(secret: &str) -> String {
    format!("write new ones from the app registration, with the time when they expire, into Secret {secret}")
}
