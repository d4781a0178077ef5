//! The signing keys of an authorization server, from its JSON Web Key Set (RFC 7517 section 5).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::json;

/// Keys of a set that are kept: the largest document holds about 1700 small ones, and the largest sets known 100.
const KEYS_MAX: usize = 1024;
/// The longest identifier of an unusable key that is kept, in bytes.
const KID_MAX: usize = 256;
/// Sizes of RSA keys that signatures can be verified with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Keys that one token is checked with: one that names no key costs a bounded number of signature checks.
const CHECKS_MAX: usize = 128;

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
pub struct KeySet {
    keys: Vec<SigningKey>,
    /// Identifiers of keys that verify no signature here, such as those of P-521.
    unusable: Vec<String>,
}

/// What is wrong with a key set. Nothing of its text is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not a JSON object with an array `keys`.
    #[error("no JSON Web Key Set")]
    NotAKeySet,
    /// No key of it is one that verifies signatures: RSA, EC P-256 or P-384, Ed25519. P-521 is none of them.
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
            keys: SigningKeys,
        }
        let document: Document = json::read(body).ok_or(KeySetError::NotAKeySet)?;
        let SigningKeys { keys, unusable } = document.keys;
        if keys.is_empty() { Err(KeySetError::NoSigningKey) } else { Ok(Self { keys, unusable }) }
    }

    /// How many signing keys there are that can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key; never so for a parsed set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the set has a key of this `kid` that verifies no signature here.
    pub(crate) fn is_unusable(&self, kid: Option<&str>) -> bool {
        kid.is_some_and(|kid| self.unusable.iter().any(|unusable| unusable == kid))
    }

    /// The keys that may have signed a token with this header: those of its `kid`, which are mostly one, then those
    /// that have none; of its algorithm.
    pub(crate) fn candidates<'a>(
        &'a self,
        kid: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a SigningKey> {
        let fits = move |key: &&SigningKey| {
            algorithm.family() == key.key.family() && key.algorithm.is_none_or(|own| own == algorithm)
        };
        let named = self.keys.iter().filter(move |key| kid.is_some() && key.kid.as_deref() == kid);
        let others = self.keys.iter().filter(move |key| kid.is_none() || key.kid.is_none());
        named.chain(others).filter(fits).take(CHECKS_MAX)
    }
}

/// The keys of a document that verify signatures. Each is read by itself, so that a document of many small values takes
/// no more memory than its text.
struct SigningKeys {
    keys: Vec<SigningKey>,
    unusable: Vec<String>,
}

impl<'de> Deserialize<'de> for SigningKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = SigningKeys;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an array of keys")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<SigningKeys, A::Error> {
                let mut read = SigningKeys { keys: Vec::new(), unusable: Vec::new() };
                while read.keys.len() < KEYS_MAX {
                    let Some(value) = values.next_element::<Box<RawValue>>()? else { return Ok(read) };
                    match signing_key(&value) {
                        Some(key) => read.keys.push(key),
                        None if read.unusable.len() < KEYS_MAX => read.unusable.extend(kid_of(&value)),
                        None => {}
                    }
                }
                while values.next_element::<IgnoredAny>()?.is_some() {}
                Ok(read)
            }
        }
        deserializer.deserialize_seq(Keys)
    }
}

fn signing_key(value: &RawValue) -> Option<SigningKey> {
    let jwk: Jwk = serde_json::from_str(value.get()).ok()?;
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    if key.family() == AlgorithmFamily::Hmac || !can_verify(&jwk.algorithm) {
        return None;
    }
    let algorithm = match jwk.common.key_algorithm {
        None => None,
        Some(named) => Some(named.to_string().parse().ok().filter(|algorithm| ALGORITHMS.contains(algorithm))?),
    };
    Some(SigningKey { kid: jwk.common.key_id, algorithm, key })
}

/// Whether signatures can be verified with such a key. The library reads more keys than it verifies with.
fn can_verify(parameters: &AlgorithmParameters) -> bool {
    match parameters {
        AlgorithmParameters::RSA(rsa) => modulus_bits(&rsa.n).is_some_and(|bits| RSA_BITS.contains(&bits)),
        AlgorithmParameters::EllipticCurve(key) => matches!(key.curve, EllipticCurve::P256 | EllipticCurve::P384),
        AlgorithmParameters::OctetKeyPair(key) => key.curve == EllipticCurve::Ed25519,
        _ => false,
    }
}

/// The size of an RSA key. Some servers write a zero before the modulus, as in DER.
fn modulus_bits(modulus: &str) -> Option<usize> {
    let bytes = URL_SAFE_NO_PAD.decode(modulus).ok()?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some((bytes.len() - first) * 8 - bytes[first].leading_zeros() as usize)
}

/// The identifier of a key that is not used; none where the key is not for signatures.
fn kid_of(value: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        kid: String,
        #[serde(rename = "use")]
        purpose: Option<String>,
    }
    let named: Named = serde_json::from_str(value.get()).ok()?;
    (named.purpose.as_deref() != Some("enc") && named.kid.len() <= KID_MAX).then_some(named.kid)
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
    fn keys_that_cannot_verify_are_not_counted_and_are_known_by_their_kid() {
        let p521 = json!({"kty": "EC", "crv": "P-521", "kid": "large", "use": "sig", "x": "AA", "y": "AA"});
        let es512 = json!({"kty": "EC", "crv": "P-521", "kid": "named", "alg": "ES512", "x": "AA", "y": "AA"});
        let rsa = |kid: &str, bytes: usize, first: u8| {
            let modulus = [vec![first], vec![0xff; bytes - 1]].concat();
            json!({"kty": "RSA", "kid": kid, "e": "AQAB", "n": URL_SAFE_NO_PAD.encode(modulus)})
        };
        let mut encryption = key();
        (encryption["use"], encryption["kid"]) = (json!("enc"), json!("encryption"));
        let keys = [
            p521,
            es512,
            key(),
            encryption,
            rsa("weak", 128, 0xff),
            rsa("almost", 256, 0x7f),
            rsa("smallest", 256, 0x80),
            rsa("with-zero", 257, 0),
            rsa("largest", 1024, 0xff),
            rsa("endless", 1025, 1),
        ];
        let set = KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).expect("a key set");
        let usable: Vec<_> = set.keys.iter().filter_map(|key| key.kid.as_deref()).collect();
        assert_eq!(usable, ["1", "smallest", "with-zero", "largest"]);
        for kid in ["large", "named", "weak", "almost", "endless"] {
            assert!(set.is_unusable(Some(kid)), "{kid}");
        }
        assert!(!set.is_unusable(Some("1")) && !set.is_unusable(Some("encryption")) && !set.is_unusable(None));
        assert_eq!(parse(&keys[..2]), Err(KeySetError::NoSigningKey));
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

    fn keys(kids: impl IntoIterator<Item = Option<String>>) -> KeySet {
        let keys = kids.into_iter().map(|kid| {
            let mut key = key();
            key["kid"] = json!(kid);
            key
        });
        KeySet::parse(json!({"keys": keys.collect::<Vec<_>>()}).to_string().as_bytes()).expect("a key set")
    }

    #[test]
    fn key_is_found_by_its_kid_wherever_it_stands() {
        let keys = keys((0..KEYS_MAX).map(|kid| Some(kid.to_string())));
        for kid in [0, 40, KEYS_MAX - 1].map(|kid| kid.to_string()) {
            let found: Vec<_> =
                keys.candidates(Some(&kid), Algorithm::ES256).map(|candidate| candidate.kid.clone()).collect();
            assert_eq!(found, [Some(kid)]);
        }
        assert_eq!(keys.candidates(Some("other"), Algorithm::ES256).count(), 0);
        assert_eq!(keys.candidates(Some("1"), Algorithm::RS256).count(), 0);
    }

    #[test]
    fn every_key_of_that_kid_and_those_without_one_are_tried_and_a_bounded_number_of_all() {
        let set = keys(["a", "b", "a"].map(|kid| Some(kid.to_owned())).into_iter().chain([None]));
        assert_eq!(set.candidates(Some("a"), Algorithm::ES256).count(), 3);
        assert_eq!(set.candidates(None, Algorithm::ES256).count(), 4);
        let many = keys((0..KEYS_MAX).map(|_| None));
        assert_eq!(many.candidates(None, Algorithm::ES256).count(), CHECKS_MAX);
        assert_eq!(many.candidates(Some("a"), Algorithm::ES256).count(), CHECKS_MAX);
    }

    #[test]
    fn nonsense_is_refused() {
        for body in ["", "null", "[]", "<html>", r#"{"keys": 1}"#, "{}", "\u{feff}{}"] {
            assert_eq!(KeySet::parse(body.as_bytes()).err(), Some(KeySetError::NotAKeySet), "{body}");
        }
    }
}
