//! The signed assertion that authenticates a client without sending a secret (RFC 7523 section 2.2).
//!
//! Servers differ in what they demand of it: who its audience is, which algorithm signs it, and by which header they
//! find the client's key. All of that is chosen by the caller.

mod thumbprints;

use base64::Engine;
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, Header};
use serde::Serialize;
pub use thumbprints::Thumbprints;

use crate::{identifier::Identifier, private_key::PrivateKey, sensitive::Sensitive};

/// The value of `client_assertion_type` (RFC 7523 section 2.2).
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How long an assertion is good for where both clocks agree: one request.
const LIFETIME: TimeDelta = TimeDelta::minutes(2);
/// How long an assertion is good for at most, however far the clocks may differ: Auth0 accepts 5 minutes from `iat`, and
/// none of the servers that are documented accepts less.
const LIFETIME_MAX: TimeDelta = TimeDelta::minutes(5);
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

/// The key of a client, and how the server finds it among the keys that are registered for the client.
#[derive(Clone)]
pub struct ClientKey {
    /// The private key, in PEM.
    pub pem: Sensitive,
    /// Header `kid`.
    pub key_id: Option<Identifier>,
    /// Headers `x5t` and `x5t#S256`.
    pub certificate: Option<Thumbprints>,
}

/// What an authorization server demands of assertions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssertionRules {
    /// The claim `aud`.
    pub audience: AssertionAudience,
    /// The algorithm; none chooses the one that is usual for the kind of key.
    pub algorithm: Option<SigningAlgorithm>,
    /// How far its clock may be ahead.
    pub clock_skew: TimeDelta,
}

/// The audience of an assertion: RFC 7523 section 3 names two, and some servers want a text of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AssertionAudience {
    /// The issuer identifier, to the letter.
    #[default]
    Issuer,
    /// The token endpoint.
    TokenEndpoint,
    /// This text.
    Text(String),
}

/// An algorithm that signs assertions (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// RSA with PKCS #1 padding and SHA-256.
    Rs256,
    /// RSA with PSS padding and SHA-256.
    Ps256,
    /// EC P-256 and SHA-256.
    Es256,
    /// EC P-384 and SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl SigningAlgorithm {
    /// As the header `alg` names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Ps256 => Algorithm::PS256,
            Self::Es256 => Algorithm::ES256,
            Self::Es384 => Algorithm::ES384,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

/// A private key that signs no assertion. What is wrong with it is not said: that would depend on the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no PEM private key of a kind that can be used")]
pub struct ClientKeyError {
    /// The algorithm that the key must be for, where the server demands one.
    pub algorithm: Option<SigningAlgorithm>,
}

/// What an assertion says.
pub struct Assertion<'a> {
    /// The client.
    pub client_id: &'a str,
    /// Whom it is for.
    pub audience: &'a str,
    /// The algorithm; none chooses the one that is usual for the kind of key.
    pub algorithm: Option<SigningAlgorithm>,
    /// The time now.
    pub now: DateTime<Utc>,
    /// How far the clock of the server may be ahead.
    pub clock_skew: TimeDelta,
    /// Its identifier.
    pub id: &'a AssertionId,
}

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

/// Signs an assertion. The usual algorithms are RS256 for RSA, ES256 for EC P-256, ES384 for EC P-384, and EdDSA for
/// Ed25519.
///
/// # Errors
/// [`ClientKeyError`]: the key is none of these, or longer than [`crate::limits::PRIVATE_KEY_MAX`], or not for the
/// algorithm.
pub fn sign(key: &ClientKey, assertion: &Assertion<'_>) -> Result<String, ClientKeyError> {
    let Assertion { client_id, audience, algorithm, now, clock_skew, id } = *assertion;
    let lifetime = (LIFETIME + clock_skew).min(LIFETIME_MAX);
    let claims = Claims {
        iss: client_id,
        sub: client_id,
        aud: audience,
        jti: &id.0,
        iat: now.timestamp(),
        exp: (now + lifetime).timestamp(),
    };
    let unusable = ClientKeyError { algorithm };
    let private_key = PrivateKey::from_pem(&key.pem).ok_or(unusable)?;
    let wanted = algorithm.map(SigningAlgorithm::algorithm);
    let mut candidates =
        private_key.algorithms.iter().filter(|own| wanted.map_or(**own != Algorithm::PS256, |wanted| wanted == **own));
    let signed = candidates.find_map(|own| jsonwebtoken::encode(&header(key, *own), &claims, &private_key.key).ok());
    signed.ok_or(unusable)
}

fn header(key: &ClientKey, algorithm: Algorithm) -> Header {
    let certificate = key.certificate.as_ref();
    Header {
        kid: key.key_id.as_ref().map(|key_id| key_id.sent().to_owned()),
        x5t: certificate.map(|certificate| certificate.sha1.clone()),
        x5t_s256: certificate.map(|certificate| certificate.sha256.clone()),
        ..Header::new(algorithm)
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, TokenData, Validation};
    use rcgen::{KeyPair, SignatureAlgorithm};

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).expect("in range")
    }

    fn key(pem: &str) -> ClientKey {
        ClientKey { pem: Sensitive::new(pem.to_owned()), key_id: None, certificate: None }
    }

    fn signed(key: &ClientKey, algorithm: Option<SigningAlgorithm>, byte: u8) -> Result<String, ClientKeyError> {
        let id = AssertionId::from_random([byte; ID_BYTES]);
        let clock_skew = TimeDelta::zero();
        sign(key, &Assertion { client_id: "id", audience: "https://ims", algorithm, now: now(), clock_skew, id: &id })
    }

    fn read(pair: &KeyPair, algorithm: Algorithm, assertion: &str) -> TokenData<serde_json::Value> {
        let public = pair.public_key_pem();
        let key = match algorithm {
            Algorithm::RS256 | Algorithm::PS256 => DecodingKey::from_rsa_pem(public.as_bytes()),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(public.as_bytes()),
            _ => DecodingKey::from_ec_pem(public.as_bytes()),
        };
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&["https://ims"]);
        validation.set_issuer(&["id"]);
        validation.validate_exp = false;
        jsonwebtoken::decode(assertion, &key.expect("a key"), &validation).expect("a valid assertion")
    }

    fn pair(generator: &'static SignatureAlgorithm) -> KeyPair {
        KeyPair::generate_for(generator).expect("a key")
    }

    #[test]
    fn assertion_is_signed_by_each_kind_of_key_and_carries_its_identifier() {
        for (generator, algorithm) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Algorithm::ES384),
            (&rcgen::PKCS_ED25519, Algorithm::EdDSA),
            (&rcgen::PKCS_RSA_SHA256, Algorithm::RS256),
        ] {
            let pair = pair(generator);
            let key = key(&pair.serialize_pem());
            let claims = |byte| read(&pair, algorithm, &signed(&key, None, byte).expect("signed")).claims;
            let (first, second) = (claims(1), claims(2));
            assert_eq!(first["sub"], "id");
            assert_eq!(first["exp"], now().timestamp() + 120);
            assert_eq!(first["jti"], "AQEBAQEBAQEBAQEBAQEBAQ");
            assert_ne!(first["jti"], second["jti"]);
        }
    }

    #[test]
    fn assertion_lasts_longer_where_the_clock_of_the_server_may_be_ahead_but_never_more_than_five_minutes() {
        let pair = pair(&rcgen::PKCS_ED25519);
        let key = key(&pair.serialize_pem());
        let id = AssertionId::from_random([1; ID_BYTES]);
        for (minutes, expected) in [(0, 120), (1, 180), (3, 300), (10, 300)] {
            let clock_skew = TimeDelta::minutes(minutes);
            let content = Assertion {
                client_id: "id",
                audience: "https://ims",
                algorithm: None,
                now: now(),
                clock_skew,
                id: &id,
            };
            let claims = read(&pair, Algorithm::EdDSA, &sign(&key, &content).expect("signed")).claims;
            assert_eq!(claims["exp"], now().timestamp() + expected, "{minutes} minutes");
            assert_eq!(claims["iat"], now().timestamp(), "servers refuse what is too old");
        }
    }

    #[test]
    fn algorithm_of_the_server_is_used_if_the_key_is_for_it() {
        let (rsa, ec) = (pair(&rcgen::PKCS_RSA_SHA256), pair(&rcgen::PKCS_ECDSA_P256_SHA256));
        let (rsa_key, ec_key) = (key(&rsa.serialize_pem()), key(&ec.serialize_pem()));
        for (pair, key, wanted, algorithm) in [
            (&rsa, &rsa_key, SigningAlgorithm::Ps256, Algorithm::PS256),
            (&rsa, &rsa_key, SigningAlgorithm::Rs256, Algorithm::RS256),
            (&ec, &ec_key, SigningAlgorithm::Es256, Algorithm::ES256),
        ] {
            let assertion = signed(key, Some(wanted), 1).expect("signed");
            assert_eq!(read(pair, algorithm, &assertion).header.alg, algorithm);
        }
        for (key, wanted) in [
            (&rsa_key, SigningAlgorithm::Es256),
            (&ec_key, SigningAlgorithm::Es384),
            (&ec_key, SigningAlgorithm::Ps256),
            (&ec_key, SigningAlgorithm::EdDsa),
        ] {
            assert_eq!(signed(key, Some(wanted), 1), Err(ClientKeyError { algorithm: Some(wanted) }));
        }
    }

    #[test]
    fn header_names_key_and_certificate_where_they_are_known() {
        let pair = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let plain = key(&pair.serialize_pem());
        let header = read(&pair, Algorithm::ES256, &signed(&plain, None, 1).expect("signed")).header;
        assert_eq!((header.kid, header.x5t, header.x5t_s256), (None, None, None));
        let certificate = Thumbprints { sha1: "one".to_owned(), sha256: "two".to_owned() };
        let named =
            ClientKey { key_id: Some(Identifier::Public("first".to_owned())), certificate: Some(certificate), ..plain };
        let header = read(&pair, Algorithm::ES256, &signed(&named, None, 1).expect("signed")).header;
        let expected = (Some("first".to_owned()), Some("one".to_owned()), Some("two".to_owned()));
        assert_eq!((header.kid, header.x5t, header.x5t_s256), expected);
    }

    #[test]
    fn text_that_is_no_key_signs_nothing() {
        for pem in ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"] {
            assert_eq!(signed(&key(pem), None, 0), Err(ClientKeyError { algorithm: None }), "{pem}");
        }
    }
}
