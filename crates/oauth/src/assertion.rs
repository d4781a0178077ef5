//! The signed assertion by which a client shows who it is without sending a secret (RFC 7523 section 2.2).

use aws_lc_rs::rand;
use base64::Engine;
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::Header;
use serde::Serialize;

use super::private_key::PrivateKey;
use crate::sensitive::Sensitive;

/// The value of `client_assertion_type`.
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How long an assertion is good for: one request and the difference between two clocks.
const LIFETIME: TimeDelta = TimeDelta::minutes(2);
/// Random bytes of a `jti`: never the same twice.
const JTI_BYTES: usize = 16;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: String,
    iat: i64,
    exp: i64,
}

/// Signs an assertion with a PEM private key: RSA (RS256), EC P-256 (ES256), EC P-384 (ES384) or Ed25519 (EdDSA).
///
/// # Errors
/// What is wrong with the key, to be put behind its name.
pub fn sign(pem: &Sensitive, client_id: &str, audience: &str, now: DateTime<Utc>) -> Result<String, &'static str> {
    let mut jti = [0_u8; JTI_BYTES];
    rand::fill(&mut jti).map_err(|_| "cannot be used: there is no randomness on this machine")?;
    let claims = Claims {
        iss: client_id,
        sub: client_id,
        aud: audience,
        jti: base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(jti),
        iat: now.timestamp(),
        exp: (now + LIFETIME).timestamp(),
    };
    let signed = PrivateKey::from_pem(pem).and_then(|PrivateKey { key, algorithms }| {
        algorithms.iter().find_map(|algorithm| jsonwebtoken::encode(&Header::new(*algorithm), &claims, &key).ok())
    });
    signed.ok_or(
        "is no PEM private key that can be used: write an RSA (2048 to 4096 bits), EC P-256, EC P-384 or Ed25519 key \
         in PKCS #8, of at most 16 KiB",
    )
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).expect("in range")
    }

    #[test]
    fn assertion_is_signed_by_the_kind_of_key_and_never_twice_the_same() {
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
            let first = read(&sign(&pem, "id", "https://ims", now()).expect("signed"));
            let second = read(&sign(&pem, "id", "https://ims", now()).expect("signed"));
            assert_eq!(first["sub"], "id");
            assert_eq!(first["exp"], now().timestamp() + 120);
            assert_ne!(first["jti"], second["jti"]);
        }
    }

    #[test]
    fn what_is_no_key_is_reported() {
        for pem in ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"] {
            assert!(
                sign(&Sensitive::new(pem.to_owned()), "id", "https://ims", now()).is_err_and(|why| why.contains("PEM"))
            );
        }
    }
}
