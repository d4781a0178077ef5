//! Whether the token of a token response is worth writing.
//!
//! What depends on the keys of the authorization server was checked before (`itwin_oauth::jwt`), and gave the claims.
//! Here the type, the times and the scopes are validated, and the new token against the one that the Secret holds: a
//! valid token is never replaced by one that expires earlier.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{
    authority::ScopeCheck,
    limits::{self, SCOPE_MAX},
    time,
};
use itwin_oauth::{
    jwt::VerifiedClaims,
    token::{self, TokenResponse},
};

use crate::{
    last_held::LastHeld,
    token::{BEARER, IssuedToken, TokenMetadata},
};

// what the schema and the Secret hold is what the protocol reads
const _: () = assert!(
    limits::ACCESS_TOKEN_MAX == itwin_oauth::limits::ACCESS_TOKEN_MAX
        && limits::PRIVATE_KEY_MAX == itwin_oauth::limits::PRIVATE_KEY_MAX
        && limits::URL_MAX == itwin_oauth::limits::URL_MAX
);

/// A lifetime above this is no statement about the token: 10 years, in seconds.
const ABSURD_SECONDS: i64 = 10 * 365 * 24 * 3600;

/// What a token response is validated against.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// The requested scopes.
    pub scopes: &'a [String],
    /// Whether all of them must be granted.
    pub scope_check: ScopeCheck,
    /// The scopes that a token may carry; `None` for any.
    pub allowed_scopes: Option<&'a [String]>,
    /// The lifetime of an opaque token whose response states none.
    pub default_lifetime: Option<TimeDelta>,
    /// The token in the Secret, where it is for this very request.
    pub held: Option<&'a TokenMetadata>,
    /// The token that the Secret held last, as far as it is remembered.
    pub last_held: Option<&'a LastHeld>,
    /// What is tolerated between the clock of the authorization server and this one, for `nbf`.
    pub skew: TimeDelta,
    /// The time now.
    pub now: DateTime<Utc>,
}

/// Why a token is not worth writing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidationError {
    /// The token is of another type than Bearer.
    #[error("not a bearer token")]
    NotABearerToken,
    /// `exp` is no date.
    #[error("exp is no date")]
    ExpiryOutOfRange,
    /// `exp` is more than ten years ahead.
    #[error("exp is more than ten years ahead")]
    ExpiryTooFar,
    /// Neither claims nor a usable `expires_in` say when the token expires.
    #[error("unknown lifetime")]
    UnknownLifetime,
    /// The token has expired.
    #[error("expired at {expires_at}")]
    Expired {
        /// When.
        expires_at: DateTime<Utc>,
        /// The time now.
        now: DateTime<Utc>,
    },
    /// `nbf` is later than now, beyond the tolerated skew.
    #[error("not valid yet")]
    NotYetValid,
    /// The granted scopes together are longer than [`SCOPE_MAX`].
    #[error("scopes are too long")]
    ScopesTooLong,
    /// Requested scopes were not granted.
    #[error("scopes were not granted")]
    ScopeReduced {
        /// Which.
        missing: Vec<String>,
    },
    /// A scope was granted that the authority does not allow.
    #[error("a scope is not allowed")]
    ScopeNotAllowed,
    /// The authority limits scopes, and nothing names those of the token.
    #[error("unknown scopes")]
    UnknownScopes,
    /// It is the token that the Secret holds.
    #[error("the same token")]
    SameToken {
        /// When it expires.
        expires_at: DateTime<Utc>,
    },
    /// The Secret holds a valid token that expires later.
    #[error("expires before the current token")]
    ShorterThanCurrent {
        /// When the new token expires.
        expires_at: DateTime<Utc>,
        /// When the current one does.
        current: DateTime<Utc>,
    },
}

/// Validates a token response. `claims` are those of its token, whose verification gave them; none where the tokens of
/// the authorization server are opaque.
///
/// # Errors
/// [`ValidationError`]. Nothing may be written then.
pub fn validate(
    response: TokenResponse,
    claims: Option<&VerifiedClaims>,
    expected: Expected<'_>,
) -> Result<IssuedToken, ValidationError> {
    if !response.token_type.eq_ignore_ascii_case(BEARER) {
        return Err(ValidationError::NotABearerToken);
    }
    // a server that returns one token again and again may state a lifetime from now on each time
    let same = expected.last_held.filter(|last| last.expiry_of(&response.access_token).is_some());
    let learnt = same.map(|same| same.token_metadata.expires_at);
    // what was learnt may be over, where the token proves that it is still valid, or the lifetime is no one's but ours
    let is_certain = claims.is_none() && response.expires_in.is_some();
    let learnt = learnt.filter(|at| is_certain || *at > expected.now);
    let expires_at = learnt.into_iter().fold(expiry(&response, claims, expected)?, DateTime::min);
    check_times(expires_at, claims, expected)?;
    let GrantedScopes { scopes, unnamed_scopes } = granted_scopes(&response, claims, expected)?;
    check_same(learnt, expected)?;
    check_current(expires_at, expected)?;
    // it was issued once, and workloads are restarted once for it
    let issued_at = same.map_or(response.sent_at, |same| same.token_metadata.issued_at.min(response.sent_at));
    Ok(IssuedToken {
        token: response.access_token,
        scopes,
        unnamed_scopes,
        issued_at: time::whole_seconds(issued_at),
        expires_at: time::whole_seconds(expires_at),
    })
}

/// The earlier of what the token says and what the response says.
fn expiry(
    response: &TokenResponse,
    claims: Option<&VerifiedClaims>,
    Expected { default_lifetime, now, .. }: Expected<'_>,
) -> Result<DateTime<Utc>, ValidationError> {
    let stated = response
        .expires_in
        .and_then(|seconds| i64::try_from(seconds).ok())
        .filter(|seconds| *seconds <= ABSURD_SECONDS)
        .map(TimeDelta::seconds);
    let claimed = claims.map(|claims| claimed_expiry(claims, now)).transpose()?;
    let stated = match claimed {
        Some(_) => stated,
        None => stated.or(default_lifetime),
    };
    let stated = stated.map(|lifetime| response.sent_at + lifetime);
    claimed.into_iter().chain(stated).min().ok_or(ValidationError::UnknownLifetime)
}

/// An `exp` in milliseconds is some fifty thousand years ahead: renewed by such a time, the token would be requested
/// again at once, or never.
fn claimed_expiry(claims: &VerifiedClaims, now: DateTime<Utc>) -> Result<DateTime<Utc>, ValidationError> {
    let expires_at = DateTime::from_timestamp(claims.exp, 0).ok_or(ValidationError::ExpiryOutOfRange)?;
    if expires_at - now > TimeDelta::seconds(ABSURD_SECONDS) {
        return Err(ValidationError::ExpiryTooFar);
    }
    Ok(expires_at)
}

fn check_times(
    expires_at: DateTime<Utc>,
    claims: Option<&VerifiedClaims>,
    Expected { skew, now, .. }: Expected<'_>,
) -> Result<(), ValidationError> {
    if expires_at <= now {
        return Err(ValidationError::Expired { expires_at, now });
    }
    let is_too_early = |nbf| DateTime::from_timestamp(nbf, 0).is_none_or(|nbf| nbf > now + skew);
    match claims.and_then(|claims| claims.nbf) {
        Some(nbf) if is_too_early(nbf) => Err(ValidationError::NotYetValid),
        _ => Ok(()),
    }
}

/// Some servers return the token that they issued before until it expires: that is no new one, whatever lifetime they
/// state. `learnt` is when the token expires that the Secret held, where it is this one.
fn check_same(learnt: Option<DateTime<Utc>>, expected: Expected<'_>) -> Result<(), ValidationError> {
    match (expected.held, learnt) {
        (Some(_), Some(expires_at)) => Err(ValidationError::SameToken { expires_at }),
        _ => Ok(()),
    }
}

/// Never replaces a valid token by one that expires earlier.
fn check_current(expires_at: DateTime<Utc>, Expected { held, now, .. }: Expected<'_>) -> Result<(), ValidationError> {
    match held.map(|held| held.expires_at) {
        Some(current) if current > now && expires_at < current => {
            Err(ValidationError::ShorterThanCurrent { expires_at, current })
        }
        _ => Ok(()),
    }
}

/// The scopes of a token.
struct GrantedScopes {
    /// As they are shown.
    scopes: Vec<String>,
    unnamed_scopes: Vec<String>,
}

/// The scopes of the signed claim, else those of the response, else those that were requested (RFC 6749 section 5.1).
/// What is granted must be allowed. What is requested must be granted wherever scopes are named. All of this is decided
/// by the scopes themselves, not by what is shown of them.
fn granted_scopes(
    response: &TokenResponse,
    claims: Option<&VerifiedClaims>,
    Expected { scopes: requested, scope_check, allowed_scopes, .. }: Expected<'_>,
) -> Result<GrantedScopes, ValidationError> {
    let claimed = claims.and_then(|claims| claims.scope.as_deref());
    // an empty list names nothing
    let answered = response.scope.as_deref().filter(|scopes| !scopes.is_empty());
    let granted = claimed.or(answered).unwrap_or(requested);
    let named: Vec<&[String]> = claimed.into_iter().chain(answered).collect();
    if named.iter().chain([&granted]).any(|scopes| size(scopes) > SCOPE_MAX) {
        return Err(ValidationError::ScopesTooLong);
    }
    let is_allowed = |scope: &String| allowed_scopes.is_none_or(|allowed| allowed.contains(scope));
    let other = claims.and_then(|claims| claims.other_scope.as_deref()).unwrap_or_default();
    if !named.iter().copied().chain([other]).flatten().all(is_allowed) {
        return Err(ValidationError::ScopeNotAllowed);
    }
    // then a server grants what it likes
    if allowed_scopes.is_some() && requested.is_empty() && named.is_empty() {
        return Err(ValidationError::UnknownScopes);
    }
    let sets: Vec<BTreeSet<&str>> = named.iter().map(|scopes| scopes.iter().map(String::as_str).collect()).collect();
    let is_missing = |scope: &&String| sets.iter().any(|set| !set.contains(scope.as_str()));
    let missing: Vec<String> = requested.iter().filter(is_missing).cloned().collect();
    if !missing.is_empty() && scope_check == ScopeCheck::Strict {
        return Err(ValidationError::ScopeReduced { missing });
    }
    let is_expected = |scope: &str| allowed_scopes.is_some() || requested.iter().any(|requested| requested == scope);
    let scopes = token::shown_scopes(granted, is_expected);
    Ok(GrantedScopes { scopes, unnamed_scopes: missing })
}

/// The size with a space behind each, as they are written into the Secret.
fn size(scopes: &[String]) -> usize {
    scopes.iter().map(|scope| scope.len() + 1).sum()
}
