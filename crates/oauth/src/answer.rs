//! The answer to a token request after its signature and issuer were checked.

use chrono::{DateTime, Utc};

use crate::sensitive::Sensitive;

/// What the authority answered, its signature and issuer already checked.
#[derive(Clone)]
pub struct Answer {
    /// The access token.
    pub token: Sensitive,
    /// Its type (RFC 6749 section 7.1).
    pub token_type: String,
    /// `expires_in`, in seconds.
    pub expires_in: Option<u64>,
    /// `scope` of the answer; absent means "as asked for" (RFC 6749 section 5.1).
    pub scope: Option<Vec<String>>,
    /// The verified claims, where tokens of this authority are JWTs.
    pub claims: Option<Claims>,
    /// When the request was sent: lifetimes count from here, since `expires_in` was true at some later instant.
    pub asked_at: DateTime<Utc>,
}

/// Claims of a JWT (RFC 7519) that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `exp`, seconds since the epoch.
    pub exp: i64,
    /// `nbf`, seconds since the epoch.
    pub nbf: Option<i64>,
    /// `scope`.
    pub scope: Option<Vec<String>>,
}
