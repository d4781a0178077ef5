//! The signed assertion that authenticates a client without sending a secret (RFC 7523 section 2.2).

use base64::Engine;
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::Header;
use serde::Serialize;

use crate::{private_key::PrivateKey, sensitive::Sensitive};

/// The value of `client_assertion_type` (RFC 7523 section 2.2).
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How long an assertion is good for: one request and the difference between two clocks.
const LIFETIME: TimeDelta = TimeDelta::minutes(2);
/// Random bytes of an [`AssertionId`]: too many for two of them to be equal.
pub const ID_BYTES: usize = 16;

/// The identifier of an assertion, `jti` (RFC 7523 section 3): a server accepts each only once.
pub struct AssertionId(String);

impl AssertionId {
    /// An identifier of bytes that the caller drew at random for this one assertion.
    #[must_use]
    pub fn from_random(bytes: [u8; ID_BYTES]) -> Self {
        Self(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// A private key that signs no assertion. What is wrong with it is not said: that would depend on the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no PEM private key of a kind that can be used")]
pub struct ClientKeyError;

/// The claims of RFC 7523 section 3.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: &'a str,
    iat: i64,
    exp: i64,
}

/// Signs an assertion with a PEM private key: RSA (RS256), EC P-256 (ES256), EC P-384 (ES384) or Ed25519 (EdDSA).
///
/// # Errors
/// [`ClientKeyError`]: the key is none of these, or longer than [`crate::limits::PRIVATE_KEY_MAX`].
pub fn sign(
    pem: &Sensitive,
    client_id: &str,
    audience: &str,
    now: DateTime<Utc>,
    id: &AssertionId,
) -> Result<String, ClientKeyError> {
    let claims = Claims {
        iss: client_id,
        sub: client_id,
        aud: audience,
        jti: &id.0,
        iat: now.timestamp(),
        exp: (now + LIFETIME).timestamp(),
    };
    let PrivateKey { key, algorithms } = PrivateKey::from_pem(pem).ok_or(ClientKeyError)?;
    let mut signed = algorithms.iter().map(|algorithm| jsonwebtoken::encode(&Header::new(*algorithm), &claims, &key));
    signed.find_map(Result::ok).ok_or(ClientKeyError)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).expect("in range")
    }

    #[test]
    fn assertion_is_signed_by_each_kind_of_key_and_carries_its_identifier() {
        for (generator, algorithm) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Algorithm::ES384),
            (&rcgen::PKCS_ED25519, Algorithm::EdDSA),
            (&rcgen::PKCS_RSA_SHA256, Algorithm::RS256),
        ] {
            let pair = rcgen::KeyPair::generate_for(generator).expect("a key");
            let pem = Sensitive::new(pair.serialize_pem());
            let public = pair.public_key_pem();
            let key = match algorithm {
                Algorithm::RS256 => DecodingKey::from_rsa_pem(public.as_bytes()),
                Algorithm::EdDSA => DecodingKey::from_ed_pem(public.as_bytes()),
                _ => DecodingKey::from_ec_pem(public.as_bytes()),
            };
            let mut validation = Validation::new(algorithm);
            validation.set_audience(&["https://ims"]);
            validation.set_issuer(&["id"]);
            validation.validate_exp = false;
            let read = |assertion: &str| {
                jsonwebtoken::decode::<serde_json::Value>(assertion, key.as_ref().expect("a key"), &validation)
                    .expect("a valid assertion")
                    .claims
            };
            let signed = |byte| sign(&pem, "id", "https://ims", now(), &AssertionId::from_random([byte; ID_BYTES]));
            let first = read(&signed(1).expect("signed"));
            let second = read(&signed(2).expect("signed"));
            assert_eq!(first["sub"], "id");
            assert_eq!(first["exp"], now().timestamp() + 120);
            assert_eq!(first["jti"], "AQEBAQEBAQEBAQEBAQEBAQ");
            assert_ne!(first["jti"], second["jti"]);
        }
    }

    #[test]
    fn text_that_is_no_key_signs_nothing() {
        for pem in ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"] {
            let id = AssertionId::from_random([0; ID_BYTES]);
            let signed = sign(&Sensitive::new(pem.to_owned()), "id", "https://ims", now(), &id);
            assert_eq!(signed, Err(ClientKeyError), "{pem}");
        }
    }
}
