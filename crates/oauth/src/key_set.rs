//! The signing keys of an authorization server, from its JSON Web Key Set (RFC 7517 section 5).

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{Jwk, PublicKeyUse},
};
use serde::Deserialize;

use crate::json;

/// Keys of a set that are considered: a set with more is cut, so that a token without `kid` costs a bounded number of
/// signature checks.
const KEYS_MAX: usize = 32;

/// Signature algorithms that are accepted: asymmetric ones only (RFC 8725 sections 2.1 and 3.1).
pub(crate) const ALGORITHMS: [Algorithm; 9] = [
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

/// One public key, and what it is for.
pub(crate) struct SigningKey {
    pub(crate) kid: Option<String>,
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) key: DecodingKey,
}

/// The signing keys of an authorization server: at least one.
pub struct KeySet(Vec<SigningKey>);

/// What is wrong with a key set. Nothing of its text is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not a JSON object with an array `keys`.
    #[error("no JSON Web Key Set")]
    NotAKeySet,
    /// No key of it is one that verifies signatures: RSA, EC P-256 or P-384, Ed25519.
    #[error("no signing key of a known kind")]
    NoSigningKey,
}

impl KeySet {
    /// Reads a JSON Web Key Set. Keys that verify no signature are left out: a set may hold keys for encryption, or of
    /// kinds that are not known yet.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn parse(body: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<serde_json::Value>,
        }
        let document: Document = json::read(body).ok_or(KeySetError::NotAKeySet)?;
        let keys: Vec<_> = document.keys.into_iter().filter_map(signing_key).take(KEYS_MAX).collect();
        if keys.is_empty() { Err(KeySetError::NoSigningKey) } else { Ok(Self(keys)) }
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

    /// The keys that may have signed a token with this header: those of its `kid`, of its algorithm.
    pub(crate) fn candidates<'a>(
        &'a self,
        kid: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a SigningKey> {
        self.0.iter().filter(move |key| {
            let named = match (kid, &key.kid) {
                (Some(wanted), Some(kid)) => wanted == kid,
                (Some(_), None) | (None, _) => true,
            };
            named && algorithm.family() == key.key.family() && key.algorithm.is_none_or(|own| own == algorithm)
        })
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn key() -> Value {
        json!({"kty": "EC", "crv": "P-256", "kid": "1", "use": "sig",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})
    }

    fn parse(keys: &[Value]) -> Result<usize, KeySetError> {
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).map(|keys| keys.len())
    }

    #[test]
    fn keys_that_verify_nothing_do_no_harm_to_the_others() {
        let unknown = json!({"kty": "PQC", "kid": "9", "x": "y"});
        assert_eq!(parse(&[unknown, json!({"kty": "RSA"}), json!(1), key()]), Ok(1));
    }

    #[test]
    fn key_for_encryption_and_symmetric_key_are_never_used() {
        let mut for_encryption = key();
        for_encryption["use"] = json!("enc");
        assert_eq!(parse(&[for_encryption]), Err(KeySetError::NoSigningKey));
        let symmetric = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "1", "alg": "HS256"});
        assert_eq!(parse(&[symmetric]), Err(KeySetError::NoSigningKey));
        assert_eq!(parse(&[]), Err(KeySetError::NoSigningKey));
    }

    #[test]
    fn longer_set_is_cut() {
        assert_eq!(parse(&vec![key(); KEYS_MAX + 1]), Ok(KEYS_MAX));
    }

    #[test]
    fn nonsense_is_refused() {
        for body in ["", "null", "[]", "<html>", r#"{"keys": 1}"#, "{}", "\u{feff}{}"] {
            assert_eq!(KeySet::parse(body.as_bytes()).err(), Some(KeySetError::NotAKeySet), "{body}");
        }
    }
}
