//! Verification of access tokens that are JWTs (RFC 7519, RFC 9068).
//!
//! `jsonwebtoken` checks the signature, the issuer and the audience. What is decided here is which algorithms may be
//! used at all: asymmetric ones only, and only those of the key, so that neither `none` nor an HMAC with the public
//! key as its secret can pass (RFC 8725 sections 2.1 and 3.1).

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, Validation,
    errors::ErrorKind,
    jwk::{Jwk, PublicKeyUse},
};
use serde::Deserialize;

use crate::{decide::grant::Claims, sensitive::Sensitive};

/// Keys of a set that are considered: a set with more is cut, so that a token without `kid` costs a bounded number of
/// signature checks.
const KEYS_MAX: usize = 32;

/// Signature algorithms that are accepted.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

struct SigningKey {
    kid: Option<String>,
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

/// The signing keys of an authority.
pub struct KeySet(Vec<SigningKey>);

/// Why a token is not to be trusted.
#[derive(Debug, PartialEq, Eq)]
pub enum Untrusted {
    /// Signed by a key that is not in the set: the keys may have been rotated.
    UnknownKey,
    /// Not to be trusted, whatever the keys are.
    Rejected(String),
}

#[derive(Deserialize)]
struct RawClaims {
    exp: Option<serde_json::Number>,
    nbf: Option<serde_json::Number>,
    scope: Option<ScopeClaim>,
}

/// IMS writes `scope` as an array, RFC 9068 as a string with spaces.
#[derive(Deserialize)]
#[serde(untagged)]
enum ScopeClaim {
    Text(String),
    List(Vec<String>),
}

impl KeySet {
    /// Reads a JSON Web Key Set (RFC 7517). Keys that are of no use to us are left out: a set may hold keys for
    /// encryption, or of kinds that nobody knows yet.
    ///
    /// # Errors
    /// Text that says what is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<serde_json::Value>,
        }
        let document: Document = serde_json::from_slice(body).map_err(|_| "it is no JSON Web Key Set".to_owned())?;
        let keys: Vec<_> = document.keys.into_iter().filter_map(signing_key).take(KEYS_MAX).collect();
        if keys.is_empty() {
            return Err("it holds no signing key of a known kind (RSA, EC P-256 or P-384, Ed25519)".to_owned());
        }
        Ok(Self(keys))
    }

    /// How many signing keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key; never so for a parsed set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks signature, issuer and, if any are given, audiences. The times are the caller's business.
    ///
    /// # Errors
    /// [`Untrusted`].
    pub fn verify(&self, token: &Sensitive, issuer: &str, audiences: &[String]) -> Result<Claims, Untrusted> {
        let header = jsonwebtoken::decode_header(token.expose()).map_err(|_| {
            rejected("it is no JWT with a known algorithm; if its tokens are opaque, set accessTokenFormat to opaque")
        })?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(rejected("it is signed with an algorithm that proves nothing (none or HMAC)"));
        }
        let candidates = self.0.iter().filter(|key| match (&header.kid, &key.kid) {
            (Some(wanted), Some(kid)) => wanted == kid,
            (Some(_), None) | (None, _) => true,
        });
        let mut refused = Untrusted::UnknownKey;
        for key in candidates {
            let family_fits = header.alg.family() == key.key.family();
            if !family_fits || key.algorithm.is_some_and(|algorithm| algorithm != header.alg) {
                continue;
            }
            match jsonwebtoken::decode::<RawClaims>(
                token.expose(),
                &key.key,
                &validation(header.alg, issuer, audiences),
            ) {
                Ok(data) => return claims(data.claims),
                Err(error) => {
                    let verdict = explain(error.kind());
                    // a wrong signature by one of several keys says nothing of the others
                    if matches!(error.kind(), ErrorKind::InvalidSignature) {
                        refused = verdict;
                    } else {
                        return Err(verdict);
                    }
                }
            }
        }
        Err(refused)
    }
}

fn validation(algorithm: Algorithm, issuer: &str, audiences: &[String]) -> Validation {
    let mut validation = Validation::new(algorithm);
    // the times are weighed by decide::grant, which is told what the time is
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.set_required_spec_claims(if audiences.is_empty() {
        &["exp", "iss"][..]
    } else {
        &["exp", "iss", "aud"]
    });
    validation.set_issuer(&[issuer.to_owned(), format!("{issuer}/")]);
    if audiences.is_empty() {
        validation.validate_aud = false;
    } else {
        validation.set_audience(audiences);
    }
    validation
}

fn claims(raw: RawClaims) -> Result<Claims, Untrusted> {
    // NumericDate may have a fraction (RFC 7519 section 2)
    let seconds =
        |number: serde_json::Number| number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64));
    Ok(Claims {
        exp: raw.exp.and_then(seconds).ok_or_else(|| rejected("its exp claim is no number"))?,
        nbf: raw.nbf.and_then(seconds),
        scope: raw.scope.map(|scope| match scope {
            ScopeClaim::Text(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
            ScopeClaim::List(list) => list,
        }),
    })
}

fn rejected(why: &str) -> Untrusted {
    Untrusted::Rejected(why.to_owned())
}

fn explain(kind: &ErrorKind) -> Untrusted {
    match kind {
        ErrorKind::InvalidSignature => rejected("its signature does not match the authority's key"),
        ErrorKind::InvalidIssuer => rejected("its iss claim is not the authority's issuer"),
        ErrorKind::InvalidAudience => rejected("its aud claim holds none of the audiences of the ITwinAuthority"),
        ErrorKind::MissingRequiredClaim(claim) => rejected(&format!("it has no usable {claim} claim")),
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => rejected("its algorithm does not fit the key"),
        _ => rejected("it is no well-formed JWT"),
    }
}

fn signing_key(value: serde_json::Value) -> Option<SigningKey> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    if key.family() == AlgorithmFamily::Hmac {
        return None;
    }
    let algorithm = match jwk.common.key_algorithm {
        None => None,
        Some(named) => Some(named.to_string().parse().ok().filter(|algorithm| ALGORITHMS.contains(algorithm))?),
    };
    Some(SigningKey { kid: jwk.common.key_id, algorithm, key })
}
