//! What users read when a token was issued and may not be written.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use itwin_api::{conditions::Reason, limits::SCOPE_MAX, time};
use itwin_oauth::{
    jwt::{RequiredClaim, VerificationError},
    limits::ACCESS_TOKEN_MAX,
    shown::Shown,
};

use crate::{failure::Failure, messages_permission::listed, validate::ValidationError};

/// A token whose signature, issuer or audience could not be verified. `presented` is what it has in place of the issuer
/// or the audience.
#[must_use]
pub fn not_trusted(error: VerificationError, presented: Option<&Shown>, authority: &str) -> Failure {
    let has = presented.map_or_else(String::new, |presented| format!(" but {presented}"));
    let message = format!(
        "the token that ITwinAuthority {authority} issued is not to be trusted: {}{has}; {}",
        unverified(error),
        correction(error, presented)
    );
    Failure::new(Reason::TokenRejected, message)
}

/// What an administrator checks.
fn correction(error: VerificationError, presented: Option<&Shown>) -> &'static str {
    match error {
        VerificationError::Issuer if presented.is_some_and(|issuer| !issuer.may_be_https()) => {
            "have tokens issued with that issuer, or set spec.accessTokenFormat of the ITwinAuthority to opaque: no \
             ITwinAuthority can be created for an issuer that is no https URL"
        }
        VerificationError::Issuer | VerificationError::MissingClaim(RequiredClaim::Issuer) => {
            "have tokens issued with that issuer, or create an ITwinAuthority for the token's issuer"
        }
        VerificationError::Audience | VerificationError::MissingClaim(RequiredClaim::Audience) => {
            "correct spec.audiences of the ITwinAuthority, or have the client registered for one of them"
        }
        VerificationError::UnknownKey | VerificationError::Signature | VerificationError::AlgorithmMismatch => {
            "check spec.jwksUri of the ITwinAuthority, or contact the operators of the authorization server"
        }
        VerificationError::NotAJwt => {
            "if its tokens are opaque, set spec.accessTokenFormat of the ITwinAuthority to opaque"
        }
        _ => "contact the operators of the authorization server",
    }
}

fn unverified(error: VerificationError) -> Cow<'static, str> {
    match error {
        VerificationError::UnknownKey => "it is signed by a key that is not in the authority's key set".into(),
        VerificationError::UnusableKey => {
            "it is signed by a key of a kind that cannot be used: have the authorization \
             server sign with a key that is RSA of 2048 to 8192 bits, EC P-256 or P-384, or Ed25519"
                .into()
        }
        VerificationError::TooLong => format!("it has more than {ACCESS_TOKEN_MAX} bytes").into(),
        VerificationError::TooDeep => "its JSON is nested too deeply".into(),
        VerificationError::NotAJwt => "it is no JWT with a known algorithm".into(),
        VerificationError::UnsupportedAlgorithm(name) => format!(
            "it is signed with {}, which cannot be checked: have the authorization server sign with RS256, PS256, \
             ES256, ES384 or EdDSA",
            name.unwrap_or("an algorithm that is not known")
        )
        .into(),
        VerificationError::CriticalExtension => {
            "its header names critical extensions (crit), and none is supported: have the authorization server sign \
             without them"
                .into()
        }
        VerificationError::SymmetricAlgorithm => {
            "it is signed with an algorithm that proves nothing (none or HMAC)".into()
        }
        VerificationError::AlgorithmMismatch => "its algorithm does not fit the key".into(),
        VerificationError::Signature => "its signature does not match the authority's key".into(),
        VerificationError::Issuer => "its iss claim is not spec.issuer of the ITwinAuthority".into(),
        VerificationError::Audience => "its aud claim holds none of spec.audiences of the ITwinAuthority".into(),
        VerificationError::MissingClaim(claim) => format!("it has no usable {claim} claim").into(),
        VerificationError::ExpiryNotANumber => "its exp claim is no number (RFC 7519 section 4.1.4)".into(),
        VerificationError::NotBeforeNotANumber => "its nbf claim is no number (RFC 7519 section 4.1.5)".into(),
        VerificationError::Malformed => "it is no well-formed JWT".into(),
    }
}

/// A token that is not worth writing.
#[must_use]
pub fn not_valid(error: &ValidationError, authority: &str) -> Failure {
    match error {
        ValidationError::NotABearerToken => rejected(
            authority,
            "whose token_type is not Bearer, which no client could present: configure the client for bearer tokens",
        ),
        ValidationError::ExpiryOutOfRange => {
            rejected(authority, "whose exp claim is no date: contact the operators of the authorization server")
        }
        ValidationError::ExpiryTooFar => rejected(
            authority,
            "whose exp claim is more than 10 years ahead, as one in milliseconds is: contact the operators of the \
             authorization server",
        ),
        ValidationError::UnknownLifetime => unknown_lifetime(authority),
        ValidationError::Expired { expires_at, now } => expired(*expires_at, *now, authority),
        ValidationError::NotYetValid => rejected(
            authority,
            "that is not valid yet (claim nbf): compare the clocks of the authority and of this cluster, or raise its \
             clockSkew",
        ),
        ValidationError::ScopesTooLong => scopes_too_long(authority),
        ValidationError::ScopeReduced { missing } => scope_reduced(missing, authority),
        ValidationError::ScopeNotAllowed => rejected(
            authority,
            "with a scope that spec.allowedScopes of the ITwinAuthority does not list: take the scope from the client's \
             registration, or add it to spec.allowedScopes",
        ),
        ValidationError::UnknownScopes => rejected(
            authority,
            "whose scopes the server did not name, and spec.allowedScopes of the ITwinAuthority limits them: name at \
             least one scope in spec.scopes, or have spec.allowedScopes removed",
        ),
        ValidationError::SameToken { expires_at } => shorter(*expires_at, *expires_at, authority),
        ValidationError::ShorterThanCurrent { expires_at, current } => shorter(*expires_at, *current, authority),
    }
}

fn rejected(authority: &str, why: &str) -> Failure {
    Failure::new(Reason::TokenRejected, format!("ITwinAuthority {authority} issued a token {why}"))
}

fn unknown_lifetime(authority: &str) -> Failure {
    let message = format!(
        "the answer of ITwinAuthority {authority} has no usable expires_in, and its tokens are opaque, so that their \
         lifetime is unknown: have it send expires_in, or set defaultTokenLifetime of the ITwinAuthority"
    );
    Failure::new(Reason::MalformedResponse, message)
}

fn expired(expires_at: DateTime<Utc>, now: DateTime<Utc>, authority: &str) -> Failure {
    let why = format!(
        "that has expired already (at {}, and it is {}): compare the clocks of the authority and of this cluster, and \
         have it issue a new token for each request",
        time::to_rfc3339(expires_at),
        time::to_rfc3339(now)
    );
    rejected(authority, &why)
}

fn scopes_too_long(authority: &str) -> Failure {
    let why = format!(
        "with scopes of more than {SCOPE_MAX} bytes: request fewer in spec.scopes, or have fewer allowed for this client"
    );
    rejected(authority, &why)
}

fn scope_reduced(missing: &[String], authority: &str) -> Failure {
    let message = format!(
        "ITwinAuthority {authority} left out scope {}: have it allowed for this client, or take it out of spec.scopes; \
         if the server never names what it grants, set spec.scopeCheck of the ITwinAuthority to Lenient",
        listed(&missing.iter().map(String::as_str).collect::<Vec<_>>())
    );
    Failure::new(Reason::ScopeReduced, message)
}

fn shorter(expires_at: DateTime<Utc>, current: DateTime<Utc>, authority: &str) -> Failure {
    let message = format!(
        "ITwinAuthority {authority} issued a token that expires at {}, before the one that the Secret holds ({}): the \
         held one is kept",
        time::to_rfc3339(expires_at),
        time::to_rfc3339(current)
    );
    Failure::new(Reason::ShorterThanCurrent, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_that_is_not_trusted_is_rejected_with_advice() {
        let message = |error| {
            let failure = not_trusted(error, None, "ims");
            assert_eq!(failure.reason, Reason::TokenRejected);
            failure.message
        };
        assert!(
            message(VerificationError::NotAJwt).contains("set spec.accessTokenFormat of the ITwinAuthority to opaque")
        );
        assert!(message(VerificationError::SymmetricAlgorithm).contains("HMAC"));
        assert!(message(VerificationError::UnsupportedAlgorithm(Some("ES512"))).contains("signed with ES512"));
        assert!(message(VerificationError::UnsupportedAlgorithm(None)).contains("an algorithm that is not known"));
        assert!(message(VerificationError::CriticalExtension).contains("(crit)"));
        assert!(message(VerificationError::UnknownKey).contains("not in the authority's key set"));
        assert!(message(VerificationError::NotBeforeNotANumber).contains("nbf claim is no number"));
        assert!(message(VerificationError::TooLong).contains("more than 32768 bytes"));
        let other = Shown::listed(&["https://other.example.com"], |_| true);
        let issuer = not_trusted(VerificationError::Issuer, Some(&other), "ims").message;
        assert!(
            issuer.contains("not spec.issuer of the ITwinAuthority but \"https://other.example.com\"; "),
            "{issuer}"
        );
        assert!(issuer.contains("create an ITwinAuthority for the token's issuer"), "{issuer}");
        assert!(!issuer.contains("set spec.issuer"), "it is immutable");
        let plain = Shown::listed(&["http://adfs.example.com/adfs/services/trust"], |_| true);
        let issuer = not_trusted(VerificationError::Issuer, Some(&plain), "ims").message;
        assert!(issuer.contains("spec.accessTokenFormat of the ITwinAuthority to opaque"), "{issuer}");
        assert!(!issuer.contains("create an ITwinAuthority for"), "its schema accepts https alone: {issuer}");
        let audience = not_trusted(VerificationError::Audience, Some(&other), "ims").message;
        assert!(audience.contains("none of spec.audiences of the ITwinAuthority but \"https"), "{audience}");
    }

    #[test]
    fn every_invalid_token_has_the_reason_of_the_contract() {
        let (early, late) = (DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(60));
        let missing = vec!["a".to_owned(), "b".to_owned()];
        for (error, reason, text) in [
            (ValidationError::NotABearerToken, Reason::TokenRejected, "token_type"),
            (ValidationError::ExpiryOutOfRange, Reason::TokenRejected, "exp claim is no date"),
            (ValidationError::ExpiryTooFar, Reason::TokenRejected, "more than 10 years ahead"),
            (ValidationError::ScopeNotAllowed, Reason::TokenRejected, "spec.allowedScopes"),
            (ValidationError::UnknownScopes, Reason::TokenRejected, "name at least one scope in spec.scopes"),
            (ValidationError::UnknownLifetime, Reason::MalformedResponse, "no usable expires_in"),
            (
                ValidationError::Expired { expires_at: early, now: late },
                Reason::TokenRejected,
                "(at 1970-01-01T00:00:00Z, and it is 1970-01-01T00:01:00Z)",
            ),
            (ValidationError::NotYetValid, Reason::TokenRejected, "clockSkew"),
            (ValidationError::ScopesTooLong, Reason::TokenRejected, "more than 8192 bytes"),
            (ValidationError::ScopeReduced { missing }, Reason::ScopeReduced, "left out scope a b:"),
            (
                ValidationError::ShorterThanCurrent { expires_at: early, current: late },
                Reason::ShorterThanCurrent,
                "expires at 1970-01-01T00:00:00Z, before the one that the Secret holds (1970-01-01T00:01:00Z)",
            ),
        ] {
            let failure = not_valid(&error, "ims");
            assert_eq!(failure.reason, reason, "{error}");
            assert!(failure.message.contains(text), "{}", failure.message);
            assert!(failure.message.contains("ITwinAuthority ims"), "{}", failure.message);
        }
    }
}
