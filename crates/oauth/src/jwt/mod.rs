//! Verification of access tokens that are JWTs (RFC 7519, RFC 9068).
//!
//! `jsonwebtoken` checks the signature, the issuer and the audience. What is decided here is which algorithms may be
//! used at all: asymmetric ones only, and only those of the key, so that neither `none` nor an HMAC with the public
//! key as its secret can pass (RFC 8725 sections 2.1 and 3.1).

mod presented;
#[cfg(test)]
mod tests;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Header, Validation, errors::ErrorKind};
use serde::Deserialize;
use serde_json::{Map, Number, Value};

use crate::{
    json,
    key_set::{ALGORITHMS, KeySet},
    limits::ACCESS_TOKEN_MAX,
    scope::Scopes,
    sensitive::Sensitive,
    shown::{Shown, UsualWords},
    token::TokenRequest,
};

/// Claims of a token whose signature, issuer and audience are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedClaims {
    /// `exp` (RFC 7519 section 4.1.4), in seconds of Unix time.
    pub exp: i64,
    /// `nbf` (RFC 7519 section 4.1.5), in seconds of Unix time.
    pub nbf: Option<i64>,
    /// `scope` (RFC 9068 section 2.2.3), or `scp` where there is none.
    pub scope: Option<Vec<String>>,
    /// `scp`, where there is `scope` too: resource servers read either.
    pub other_scope: Option<Vec<String>>,
}

/// Why a token is not trusted. Nothing of the token is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerificationError {
    /// No key of the set has its `kid` and algorithm: the keys may have been rotated.
    #[error("signed by a key that is not in the key set")]
    UnknownKey,
    /// The key of its `kid` is in the set, and is of a kind or size that verifies nothing here.
    #[error("signed by a key that cannot be used")]
    UnusableKey,
    /// Longer than [`ACCESS_TOKEN_MAX`].
    #[error("too long")]
    TooLong,
    /// Header or claims are nested deeper than anything known.
    #[error("nested too deeply")]
    TooDeep,
    /// No JWT: an opaque token, for instance.
    #[error("no JWT")]
    NotAJwt,
    /// The algorithm is none that can be checked; its name, if it is one of those known to be in use.
    #[error("an algorithm that cannot be checked")]
    UnsupportedAlgorithm(Option<&'static str>),
    /// The header has `crit`: the token must not be accepted without extensions that are not known (RFC 7515 section
    /// 4.1.11).
    #[error("critical extensions")]
    CriticalExtension,
    /// The algorithm is an HMAC or none, by which anyone could sign.
    #[error("an algorithm that proves nothing")]
    SymmetricAlgorithm,
    /// The algorithm does not fit the key.
    #[error("an algorithm that does not fit the key")]
    AlgorithmMismatch,
    /// The signature does not match the key.
    #[error("wrong signature")]
    Signature,
    /// `iss` is another issuer.
    #[error("wrong iss")]
    Issuer,
    /// `aud` holds none of the wanted audiences.
    #[error("wrong aud")]
    Audience,
    /// A claim that is required is missing, or of a wrong type.
    #[error("no {0}")]
    MissingClaim(RequiredClaim),
    /// `exp` is no number.
    #[error("exp is no number")]
    ExpiryNotANumber,
    /// `nbf` is no number.
    #[error("nbf is no number")]
    NotBeforeNotANumber,
    /// A JWT whose parts are not what they must be.
    #[error("not well-formed")]
    Malformed,
}

/// A claim that is required of every token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredClaim {
    /// `exp`.
    Expiry,
    /// `iss`.
    Issuer,
    /// `aud`, where audiences are wanted.
    Audience,
}

impl std::fmt::Display for RequiredClaim {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Expiry => "exp",
            Self::Issuer => "iss",
            Self::Audience => "aud",
        })
    }
}

#[derive(Deserialize)]
struct RawClaims {
    /// Of any type, as `nbf` is, so that one that is no number is reported as such.
    exp: Option<Value>,
    nbf: Option<Value>,
    scope: Option<Scopes>,
    /// What some servers write in the place of `scope`.
    scp: Option<Scopes>,
}

/// Algorithms that are in use and cannot be checked: ES512 and ES256K (RFC 7518 and RFC 8812), those of RFC 9864, and
/// those of FIPS 204. An unknown one is not named, since the party that answers writes it.
const UNSUPPORTED: [&str; 7] = ["ES512", "ES256K", "Ed25519", "Ed448", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87"];

impl KeySet {
    /// Checks signature, issuer and, if any are wanted, audiences. Whether the token is valid at this time is for the
    /// caller to check.
    ///
    /// # Errors
    /// [`VerificationError`].
    pub fn verify(
        &self,
        token: &Sensitive,
        issuer: &str,
        audiences: &[String],
    ) -> Result<VerifiedClaims, VerificationError> {
        let header = header(token.expose())?;
        let validation = validation(header.alg, issuer, audiences);
        let kid = header.kid.as_deref();
        let missing =
            if self.is_unusable(kid) { VerificationError::UnusableKey } else { VerificationError::UnknownKey };
        let mut result = Err(missing);
        for candidate in self.candidates(kid, header.alg) {
            match jsonwebtoken::decode::<RawClaims>(token.expose(), &candidate.key, &validation) {
                Ok(data) => return claims(data.claims),
                // a key that does not fit, or another key's signature, says nothing of the others
                Err(error) => match explain(&error) {
                    error @ (VerificationError::Signature | VerificationError::AlgorithmMismatch) => {
                        result = Err(error);
                    }
                    error => return Err(error),
                },
            }
        }
        result
    }
}

/// What a token has in place of the issuer or the audience that it must have, for a message; `None` where `error` is
/// about neither. Shown are audiences that the request names, and what consists of usual words and of those of `issuer`
/// and `audiences`, which are an administrator's: a server may answer with the secrets that it was sent.
#[must_use]
pub fn presented(
    token: &Sensitive,
    error: VerificationError,
    request: &TokenRequest,
    issuer: &str,
    audiences: &[String],
) -> Option<Shown> {
    let values = presented::claim(token.expose(), error)?;
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let named = named_audiences(request);
    let usual = UsualWords::with(audiences.iter().map(String::as_str).chain([issuer]));
    Some(Shown::listed(&values, |value| named.contains(&value) || usual.make_up(value)))
}

/// The audiences and resources that a request names. Some servers take several audiences in one text.
fn named_audiences(request: &TokenRequest) -> Vec<&str> {
    let audience = request.audience.as_deref();
    let several = audience.into_iter().flat_map(|audience| audience.split(' '));
    audience.into_iter().chain(several).chain(request.resources.iter().map(String::as_str)).collect()
}

/// The parts of a JWT that say something, for a user to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The header.
    pub header: Map<String, Value>,
    /// The claims. Nothing of them is verified.
    pub claims: Map<String, Value>,
}

/// Reads header and claims of a token without verifying anything; `None` where it is no JWT that is small and flat. The
/// signature, without which no server accepts them, is not among them.
#[must_use]
pub fn read(token: &Sensitive) -> Option<Parts> {
    let token = token.expose();
    if token.len() > ACCESS_TOKEN_MAX || !parts_are_shallow(token) {
        return None;
    }
    let header = unread_header(token)?;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    Some(Parts { header, claims: serde_json::from_slice(&claims).ok()? })
}

/// The header of a token that is small and flat, and signed with an algorithm that is accepted.
fn header(token: &str) -> Result<Header, VerificationError> {
    // header and claims are parts of it, and are read only then
    if token.len() > ACCESS_TOKEN_MAX {
        return Err(VerificationError::TooLong);
    }
    if !parts_are_shallow(token) {
        return Err(VerificationError::TooDeep);
    }
    let unread = unread_header(token).ok_or(VerificationError::NotAJwt)?;
    let algorithm = unread.get("alg").and_then(Value::as_str).ok_or(VerificationError::NotAJwt)?;
    if is_symmetric(algorithm) {
        return Err(VerificationError::SymmetricAlgorithm);
    }
    if !algorithm.parse().is_ok_and(|algorithm| ALGORITHMS.contains(&algorithm)) {
        let known = UNSUPPORTED.into_iter().find(|known| *known == algorithm);
        return Err(VerificationError::UnsupportedAlgorithm(known));
    }
    // also where it is null or empty, which no server may write
    if unread.contains_key("crit") {
        return Err(VerificationError::CriticalExtension);
    }
    // it is still a JWT, such as one whose `kid` is a number
    jsonwebtoken::decode_header(token).map_err(|_| VerificationError::Malformed)
}

/// The header as the token has it, before the library reads the part that it knows. Its size and depth are bounded.
fn unread_header(token: &str) -> Option<Map<String, Value>> {
    let [header, _, _] = <[&str; 3]>::try_from(token.split('.').collect::<Vec<_>>()).ok()?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()
}

/// An algorithm by which anyone who knows the public key, or no key at all, could sign.
fn is_symmetric(algorithm: &str) -> bool {
    algorithm.eq_ignore_ascii_case("none") || algorithm.starts_with("HS")
}

/// Whether header and claims are not nested too deeply. The parser refuses parts that are not even base64.
fn parts_are_shallow(token: &str) -> bool {
    let mut parts = token.split('.').take(2).filter_map(|part| URL_SAFE_NO_PAD.decode(part).ok());
    parts.all(|text| json::is_shallow(&text))
}

fn validation(algorithm: Algorithm, issuer: &str, audiences: &[String]) -> Validation {
    let mut validation = Validation::new(algorithm);
    // the caller compares the times, since it knows the time
    validation.validate_exp = false;
    validation.validate_nbf = false;
    // `exp` is read below: the library takes one that is no number for none
    validation.set_required_spec_claims(if audiences.is_empty() { &["iss"][..] } else { &["iss", "aud"] });
    validation.set_issuer(&[issuer.to_owned(), format!("{issuer}/")]);
    if audiences.is_empty() {
        validation.validate_aud = false;
    } else {
        validation.set_audience(audiences);
    }
    validation
}

fn claims(raw: RawClaims) -> Result<VerifiedClaims, VerificationError> {
    // NumericDate may have a fraction (RFC 7519 section 2)
    let seconds = |number: &Number| number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64));
    let exp = raw.exp.ok_or(VerificationError::MissingClaim(RequiredClaim::Expiry))?;
    let Value::Number(exp) = exp else { return Err(VerificationError::ExpiryNotANumber) };
    let nbf = match raw.nbf {
        Some(Value::Number(nbf)) => seconds(&nbf),
        Some(_) => return Err(VerificationError::NotBeforeNotANumber),
        None => None,
    };
    let (scope, other_scope) = if raw.scope.is_some() { (raw.scope, raw.scp) } else { (raw.scp, None) };
    Ok(VerifiedClaims {
        exp: seconds(&exp).ok_or(VerificationError::ExpiryNotANumber)?,
        nbf,
        scope: scope.map(Into::into),
        other_scope: other_scope.map(Into::into),
    })
}

fn explain(error: &jsonwebtoken::errors::Error) -> VerificationError {
    match error.kind() {
        ErrorKind::InvalidSignature => VerificationError::Signature,
        ErrorKind::InvalidIssuer => VerificationError::Issuer,
        ErrorKind::InvalidAudience => VerificationError::Audience,
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "iss" => VerificationError::MissingClaim(RequiredClaim::Issuer),
            "aud" => VerificationError::MissingClaim(RequiredClaim::Audience),
            _ => VerificationError::Malformed,
        },
        ErrorKind::InvalidAlgorithm
        | ErrorKind::UnsupportedAlgorithm
        | ErrorKind::InvalidKeyFormat
        | ErrorKind::InvalidEcdsaKey
        | ErrorKind::InvalidEddsaKey
        | ErrorKind::InvalidRsaKey(_) => VerificationError::AlgorithmMismatch,
        _ => VerificationError::Malformed,
    }
}
