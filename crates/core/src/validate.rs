//! Is an answer of the authority a token worth writing?
//!
//! Signature, issuer and audience were checked where the keys are (`oauth::jwt`); here the times and the scopes are
//! weighed, and the new token against the one that the Secret holds: a valid token is never replaced by one that
//! expires earlier.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{conditions::Reason, failure::Failure, limits::SCOPE_MAX, time};
use itwin_oauth::{answer::Answer, sensitive::Sensitive};

use super::observed::TokenMetadata;

/// An `expires_in` above this is no statement about the token: 10 years, in seconds.
const ABSURD_SECONDS: u64 = 10 * 365 * 24 * 3600;

/// A token worth writing.
#[derive(Clone)]
pub struct IssuedToken {
    /// The access token.
    pub token: Sensitive,
    /// Its type, `Bearer`.
    pub token_type: String,
    /// Granted scopes.
    pub scopes: Vec<String>,
    /// When the request was sent.
    pub issued_at: DateTime<Utc>,
    /// When the token expires, in whole seconds, rounded down.
    pub expires_at: DateTime<Utc>,
}

/// Weighs an answer of `authority`, whose name is for messages.
///
/// `requested` are the scopes asked for, `held` the token in the Secret for this very request, `skew` what is
/// tolerated between the authority's clock and ours.
///
/// # Errors
/// [`Reason::TokenRejected`], [`Reason::MalformedResponse`], [`Reason::ScopeReduced`] or
/// [`Reason::ShorterThanCurrent`]. Nothing may be written then.
pub fn validate(
    authority: &str,
    answer: Answer,
    requested: &[String],
    held: Option<&TokenMetadata>,
    skew: TimeDelta,
    now: DateTime<Utc>,
) -> Result<IssuedToken, Failure> {
    if !answer.token_type.eq_ignore_ascii_case("bearer") {
        return Err(Failure::new(
            Reason::TokenRejected,
            format!(
                "ITwinAuthority {authority} issued a token whose token_type is not Bearer, which nobody could present: \
                 configure the client for bearer tokens"
            ),
        ));
    }
    let expires_at = expiry(authority, &answer)?;
    if expires_at <= now {
        return Err(Failure::new(
            Reason::TokenRejected,
            format!(
                "ITwinAuthority {authority} issued a token that has expired already (at {}, and it is {}): compare the clocks of \
                 the authority and of this cluster",
                time::to_rfc3339(expires_at),
                time::to_rfc3339(now)
            ),
        ));
    }
    if let Some(nbf) = answer.claims.as_ref().and_then(|claims| claims.nbf)
        && DateTime::from_timestamp(nbf, 0).is_none_or(|nbf| nbf > now + skew)
    {
        return Err(Failure::new(
            Reason::TokenRejected,
            format!(
                "ITwinAuthority {authority} issued a token that is not valid yet (claim nbf): compare the clocks of the \
                 authority and of this cluster, or raise its clockSkew"
            ),
        ));
    }
    let scopes = granted_scopes(authority, &answer, requested)?;
    if let Some(held) = held
        && held.expires_at > now
        && expires_at < held.expires_at
    {
        return Err(Failure::new(
            Reason::ShorterThanCurrent,
            format!(
                "ITwinAuthority {authority} issued a token that expires at {}, before the one that the Secret holds ({}): the held \
                 one is kept",
                time::to_rfc3339(expires_at),
                time::to_rfc3339(held.expires_at)
            ),
        ));
    }
    Ok(IssuedToken {
        token: answer.token,
        token_type: "Bearer".to_owned(),
        scopes,
        issued_at: time::whole_seconds(answer.asked_at),
        expires_at: time::whole_seconds(expires_at),
    })
}

/// The earlier of what the token says and what the answer says.
fn expiry(authority: &str, answer: &Answer) -> Result<DateTime<Utc>, Failure> {
    let stated = answer
        .expires_in
        .filter(|seconds| *seconds <= ABSURD_SECONDS)
        .and_then(|seconds| i64::try_from(seconds).ok())
        .map(|seconds| answer.asked_at + TimeDelta::seconds(seconds));
    let claimed = match &answer.claims {
        None => None,
        Some(claims) => Some(DateTime::from_timestamp(claims.exp, 0).ok_or_else(|| {
            Failure::new(
                Reason::TokenRejected,
                format!(
                    "ITwinAuthority {authority} issued a token whose exp claim is no date: its operators must mend it"
                ),
            )
        })?),
    };
    match (claimed, stated) {
        (Some(claimed), Some(stated)) => Ok(claimed.min(stated)),
        (Some(expiry), None) | (None, Some(expiry)) => Ok(expiry),
        (None, None) => Err(Failure::new(
            Reason::MalformedResponse,
            format!(
                "the answer of ITwinAuthority {authority} has no usable expires_in, and its tokens are opaque, so that \
                 nobody can tell how long they live: have it send expires_in, or set its accessTokenFormat to jwt"
            ),
        )),
    }
}

fn granted_scopes(authority: &str, answer: &Answer, requested: &[String]) -> Result<Vec<String>, Failure> {
    let claimed = answer.claims.as_ref().and_then(|claims| claims.scope.as_ref());
    let granted = answer.scope.as_ref().or(claimed);
    // with a space behind each, as they are written into the Secret
    let size: usize = granted.map_or(requested, Vec::as_slice).iter().map(|scope| scope.len() + 1).sum();
    if size > SCOPE_MAX {
        return Err(Failure::new(
            Reason::TokenRejected,
            format!(
                "ITwinAuthority {authority} issued a token with scopes of more than {SCOPE_MAX} bytes: request fewer in \
                 spec.scopes, or have fewer allowed for this client"
            ),
        ));
    }
    let Some(granted) = granted else {
        return Ok(requested.to_vec());
    };
    let have: BTreeSet<&str> = granted.iter().map(String::as_str).collect();
    let missing: Vec<&str> = requested.iter().map(String::as_str).filter(|scope| !have.contains(scope)).collect();
    if missing.is_empty() {
        return Ok(granted.clone());
    }
    Err(Failure::new(
        Reason::ScopeReduced,
        format!(
            "ITwinAuthority {authority} left out scope {}: have it allowed for this client, or take it out of spec.scopes",
            missing.join(" ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use itwin_oauth::answer::Claims;

    use super::*;

    const SKEW: TimeDelta = TimeDelta::seconds(60);

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    fn answer(exp: i64, expires_in: Option<u64>) -> Answer {
        Answer {
            token: Sensitive::new("token".into()),
            token_type: "Bearer".into(),
            expires_in,
            scope: Some(vec!["itwin-platform".into()]),
            claims: Some(Claims { exp: at(exp).timestamp(), nbf: None, scope: None }),
            asked_at: at(0),
        }
    }

    fn validated(answer: Answer) -> Result<IssuedToken, Reason> {
        validate("ims", answer, &["itwin-platform".to_owned()], None, SKEW, at(1)).map_err(|failure| failure.reason)
    }

    fn held(expires: i64) -> TokenMetadata {
        TokenMetadata {
            request: "".into(),
            issuer: "".into(),
            client_version: "".into(),
            issued_at: at(-100),
            expires_at: at(expires),
        }
    }

    #[test]
    fn earlier_of_claim_and_answer_counts() {
        assert_eq!(validated(answer(3600, Some(1800))).ok().map(|g| g.expires_at), Some(at(1800)));
        assert_eq!(validated(answer(1800, Some(3600))).ok().map(|g| g.expires_at), Some(at(1800)));
    }

    #[test]
    fn missing_or_absurd_expires_in_leaves_the_claim() {
        for expires_in in [None, Some(1 << 63), Some(u64::MAX)] {
            assert_eq!(validated(answer(3600, expires_in)).ok().map(|g| g.expires_at), Some(at(3600)));
        }
    }

    #[test]
    fn opaque_token_without_usable_expires_in_is_malformed() {
        for expires_in in [None, Some(1 << 63)] {
            let mut answer = answer(0, expires_in);
            answer.claims = None;
            assert_eq!(validated(answer).err(), Some(Reason::MalformedResponse));
        }
    }

    #[test]
    fn zero_lifetime_and_expired_tokens_are_rejected() {
        assert_eq!(validated(answer(3600, Some(0))).err(), Some(Reason::TokenRejected));
        assert_eq!(validated(answer(1, None)).err(), Some(Reason::TokenRejected));
    }

    #[test]
    fn token_of_the_future_is_rejected_beyond_the_skew() {
        let with_nbf = |nbf: i64| {
            let mut answer = answer(3600, None);
            answer.claims.as_mut().expect("a JWT").nbf = Some(at(nbf).timestamp());
            validated(answer).err()
        };
        assert_eq!(with_nbf(61), None);
        assert_eq!(with_nbf(62), Some(Reason::TokenRejected));
    }

    #[test]
    fn token_type_is_compared_without_case_and_written_as_bearer() {
        let mut lower = answer(3600, None);
        lower.token_type = "bearer".into();
        assert_eq!(validated(lower).ok().map(|g| g.token_type), Some("Bearer".to_owned()));
        let mut other = answer(3600, None);
        other.token_type = "DPoP".into();
        assert_eq!(validated(other).err(), Some(Reason::TokenRejected));
    }

    #[test]
    fn narrower_scope_is_refused_wherever_it_is_named() {
        let mut told_by_answer = answer(3600, None);
        told_by_answer.scope = Some(vec!["other".into()]);
        assert_eq!(validated(told_by_answer).err(), Some(Reason::ScopeReduced));
        let mut told_by_claim = answer(3600, None);
        told_by_claim.scope = None;
        told_by_claim.claims.as_mut().expect("a JWT").scope = Some(vec!["other".into()]);
        assert_eq!(validated(told_by_claim).err(), Some(Reason::ScopeReduced));
    }

    #[test]
    fn granted_scopes_are_bounded_wherever_they_are_named() {
        let long = |size: usize| Some(vec!["itwin-platform".to_owned(), "x".repeat(size - "itwin-platform".len() - 2)]);
        for (size, verdict) in [(SCOPE_MAX, None), (SCOPE_MAX + 1, Some(Reason::TokenRejected))] {
            let mut by_answer = answer(3600, None);
            by_answer.scope = long(size);
            assert_eq!(validated(by_answer).err(), verdict);
            let mut by_claim = answer(3600, None);
            by_claim.scope = None;
            by_claim.claims.as_mut().expect("a JWT").scope = long(size);
            assert_eq!(validated(by_claim).err(), verdict);
            let mut by_none = answer(3600, None);
            by_none.scope = None;
            let requested = long(size).expect("scopes");
            let validated = validate("ims", by_none, &requested, None, SKEW, at(1));
            assert_eq!(validated.err().map(|failure| failure.reason), verdict);
        }
    }

    #[test]
    fn valid_token_is_not_replaced_by_one_that_expires_earlier() {
        let requested = ["itwin-platform".to_owned()];
        let validated =
            |exp, held: &TokenMetadata| validate("ims", answer(exp, None), &requested, Some(held), SKEW, at(1));
        assert_eq!(validated(100, &held(101)).err().map(|r| r.reason), Some(Reason::ShorterThanCurrent));
        assert!(validated(100, &held(100)).is_ok());
        assert!(validated(100, &held(0)).is_ok(), "an expired token is replaced by any valid one");
    }
}
