//! The views of a token: as it was issued, with what is written about it, and as annotations describe it.
//!
//! `itwin_oauth::token::TokenResponse` comes before these, and is not verified.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_oauth::sensitive::Sensitive;

use crate::{kept_tokens::Counted, object::ObjectVersion, token_rules::TokenRules};

/// The one type of token that is written (RFC 6750).
pub const BEARER: &str = "Bearer";

/// How far ahead of this clock the request for a token may have been sent: the clocks of two nodes differ a little.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(1);

/// A token worth writing.
#[derive(Clone)]
pub struct IssuedToken {
    /// The access token.
    pub token: Sensitive,
    /// Granted scopes, without those that may repeat a secret.
    pub scopes: Vec<String>,
    /// Requested scopes that neither the token nor the response names; only where that is tolerated.
    pub unnamed_scopes: Vec<String>,
    /// When the request was sent, in whole seconds.
    pub issued_at: DateTime<Utc>,
    /// When the token expires, in whole seconds, rounded down.
    pub expires_at: DateTime<Utc>,
}

/// An issued token with all that is written about it.
#[derive(Clone)]
pub struct Content {
    /// The access token.
    pub token: Sensitive,
    /// What decisions need of what the annotations say about it.
    pub token_metadata: TokenMetadata,
    /// What else they say about it.
    pub description: Description,
    /// Digest of the client's credentials, keyed by the token.
    pub client_fingerprint: Arc<str>,
    /// Digest of the renew annotation that the credential had when the token was requested.
    pub renewed_for: Option<Arc<str>>,
    /// The rules of the authority that it was checked with; `None` where it was read from a Secret.
    pub checked_with: Option<Arc<TokenRules>>,
    /// What counts the memory of a token that was just issued.
    pub counted: Option<Counted>,
}

/// What the annotations of a Secret say about the token in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMetadata {
    /// Digest of what was requested.
    pub request: Arc<str>,
    /// Issuer that it came from.
    pub issuer: Arc<str>,
    /// The authority that was named; `None` where an earlier version of the operator did not record it.
    pub authority: Option<Arc<str>>,
    /// Digest of the name of the client Secret and of the keys that were read of it; `None` as above.
    pub client_reference: Option<Arc<str>>,
    /// Version of the client Secret that it was requested with.
    pub client_version: ObjectVersion,
    /// When the request was sent.
    pub issued_at: DateTime<Utc>,
    /// When the token expires.
    pub expires_at: DateTime<Utc>,
}

impl TokenMetadata {
    /// The lifetime from the start of the request, never negative.
    #[must_use]
    pub fn lifetime(&self) -> TimeDelta {
        (self.expires_at - self.issued_at).max(TimeDelta::zero())
    }

    /// Whether the token was requested while a clock was ahead of this one: no one knows when it expires, so that it is
    /// renewed now, and a new one need not outlive it.
    #[must_use]
    pub fn is_of_another_clock(&self, now: DateTime<Utc>) -> bool {
        self.issued_at > now + CLOCK_TOLERANCE
    }
}

/// What a token was issued for, as far as no decision needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Client identifier.
    pub client_id: Option<Arc<str>>,
    /// Granted scopes, as RFC 6749, section 3.3 writes them, without those that may repeat a secret.
    pub scopes: Option<Arc<str>>,
}

impl Description {
    /// The granted scopes, one by one.
    #[must_use]
    pub fn scopes(&self) -> Vec<String> {
        self.scopes.iter().flat_map(|scopes| scopes.split_ascii_whitespace()).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::content;

    #[test]
    fn token_that_was_requested_in_the_future_is_of_another_clock() {
        let token_metadata = content().token_metadata;
        let is_of_another_clock = |second| {
            let now = token_metadata.issued_at + TimeDelta::seconds(second);
            token_metadata.is_of_another_clock(now)
        };
        assert_eq!([-61, -60, 0].map(is_of_another_clock), [true, false, false]);
    }
}
