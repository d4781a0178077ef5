//! Verification of access tokens that are JWTs (RFC 7519, RFC 9068).
//!
//! `jsonwebtoken` checks the signature, the issuer and the audience. What is decided here is which algorithms may be
//! used at all: asymmetric ones only, and only those of the key, so that neither `none` nor an HMAC with the public
//! key as its secret can pass (RFC 8725 sections 2.1 and 3.1).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use itwin_api::limits::ACCESS_TOKEN_MAX;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, Validation,
    errors::ErrorKind,
    jwk::{Jwk, PublicKeyUse},
};
use serde::Deserialize;

use super::json;
use crate::{answer::Claims, sensitive::Sensitive};

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
        let document = if json::is_shallow(body) { serde_json::from_slice::<Document>(body).ok() } else { None };
        let document = document.ok_or("it is no JSON Web Key Set")?;
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
        // header and claims are parts of it, and are read only then
        if token.expose().len() > ACCESS_TOKEN_MAX {
            return Err(rejected(&format!("it has more than {ACCESS_TOKEN_MAX} bytes")));
        }
        if !parts_are_shallow(token.expose()) {
            return Err(rejected("its JSON is nested too deeply"));
        }
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

/// Whether header and claims are not nested too deeply. What is not even base64, the parser refuses.
fn parts_are_shallow(token: &str) -> bool {
    let mut parts = token.split('.').take(2).filter_map(|part| URL_SAFE_NO_PAD.decode(part).ok());
    parts.all(|text| json::is_shallow(&text))
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

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    use super::*;

    const ISSUER: &str = "https://ims.example.com";

    /// An authority's key, as it signs and as it publishes.
    struct Signer {
        key: EncodingKey,
        public_pem: String,
        jwk: Value,
    }

    fn signer(kid: &str) -> Signer {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key");
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a key")).expect("JSON");
        jwk["kid"] = json!(kid);
        jwk["use"] = json!("sig");
        Signer { key, public_pem: pair.public_key_pem(), jwk }
    }

    fn key_set(keys: &[&Value]) -> KeySet {
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).expect("a key set")
    }

    fn claims() -> Value {
        json!({"iss": ISSUER, "exp": 2_000_000_000, "aud": ["api", "other"], "scope": ["a", "b"]})
    }

    fn token(signer: &Signer, kid: Option<&str>, claims: &Value) -> Sensitive {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::ES256) };
        Sensitive::new(jsonwebtoken::encode(&header, claims, &signer.key).expect("signed"))
    }

    /// A token with a header and a signature of the attacker's choice.
    fn forged(header: &Value, claims: &Value, sign: impl Fn(&str) -> String) -> Sensitive {
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = sign(&message);
        Sensitive::new(format!("{message}.{signature}"))
    }

    fn verdict(keys: &KeySet, token: &Sensitive) -> String {
        match keys.verify(token, ISSUER, &[]) {
            Ok(_) => "trusted".to_owned(),
            Err(Untrusted::UnknownKey) => "unknown key".to_owned(),
            Err(Untrusted::Rejected(why)) => why,
        }
    }

    fn with(field: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[field] = value;
        claims
    }

    #[test]
    fn signed_token_is_trusted_and_its_scope_read_in_both_forms() {
        let signer = signer("1");
        let keys = key_set(&[&signer.jwk]);
        for scope in [json!(["a", "b"]), json!("a b")] {
            let read = keys.verify(&token(&signer, Some("1"), &with("scope", scope)), ISSUER, &[]).expect("trusted");
            assert_eq!(read.exp, 2_000_000_000);
            assert_eq!(read.scope, Some(vec!["a".to_owned(), "b".to_owned()]));
        }
    }

    #[test]
    fn algorithm_none_is_refused() {
        let signer = signer("1");
        for alg in ["none", "None", "NONE"] {
            let token = forged(&json!({"alg": alg, "kid": "1"}), &claims(), |_| String::new());
            assert_ne!(verdict(&key_set(&[&signer.jwk]), &token), "trusted", "{alg}");
        }
    }

    #[test]
    fn hmac_with_the_public_key_is_refused() {
        let signer = signer("1");
        let keys = key_set(&[&signer.jwk]);
        let jwk = signer.jwk.to_string();
        for secret in [signer.public_pem.as_bytes(), signer.public_pem.trim().as_bytes(), jwk.as_bytes()] {
            let header = Header { kid: Some("1".to_owned()), ..Header::new(Algorithm::HS256) };
            let token = jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(secret)).expect("signed");
            assert!(verdict(&keys, &Sensitive::new(token)).contains("HMAC"));
        }
    }

    #[test]
    fn symmetric_key_in_the_set_is_never_used() {
        let only_symmetric = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "1", "alg": "HS256"}]});
        assert!(KeySet::parse(only_symmetric.to_string().as_bytes()).is_err());
    }

    #[test]
    fn signature_of_another_key_under_our_kid_is_refused() {
        let (ours, theirs) = (signer("1"), signer("1"));
        assert!(verdict(&key_set(&[&ours.jwk]), &token(&theirs, Some("1"), &claims())).contains("signature"));
    }

    #[test]
    fn changed_claims_break_the_signature() {
        let signer = signer("1");
        let signed = token(&signer, Some("1"), &claims());
        let signature = signed.expose().rsplit('.').next().expect("a signature").to_owned();
        let changed =
            forged(&json!({"alg": "ES256", "kid": "1"}), &with("scope", json!("admin")), |_| signature.clone());
        assert!(verdict(&key_set(&[&signer.jwk]), &changed).contains("signature"));
    }

    #[test]
    fn unknown_kid_is_reported_apart_so_that_the_keys_are_fetched_anew() {
        let (old, new) = (signer("1"), signer("2"));
        assert_eq!(verdict(&key_set(&[&old.jwk]), &token(&new, Some("2"), &claims())), "unknown key");
        assert_eq!(verdict(&key_set(&[&old.jwk, &new.jwk]), &token(&new, Some("2"), &claims())), "trusted");
    }

    #[test]
    fn token_without_kid_is_tried_with_every_key() {
        let (first, second) = (signer("1"), signer("2"));
        assert_eq!(verdict(&key_set(&[&first.jwk, &second.jwk]), &token(&second, None, &claims())), "trusted");
    }

    #[test]
    fn key_for_another_algorithm_or_use_is_not_used() {
        let signer = signer("1");
        let token = token(&signer, Some("1"), &claims());
        let mut other_algorithm = signer.jwk.clone();
        other_algorithm["alg"] = json!("ES384");
        assert_ne!(verdict(&key_set(&[&other_algorithm]), &token), "trusted");
        let mut for_encryption = signer.jwk.clone();
        for_encryption["use"] = json!("enc");
        assert!(KeySet::parse(json!({"keys": [for_encryption]}).to_string().as_bytes()).is_err());
    }

    #[test]
    fn issuer_must_be_the_authority_with_or_without_a_slash() {
        let signer = signer("1");
        let keys = key_set(&[&signer.jwk]);
        let judge = |issuer: Value| verdict(&keys, &token(&signer, Some("1"), &with("iss", issuer)));
        assert_eq!(judge(json!("https://ims.example.com/")), "trusted");
        for issuer in ["https://evil.example.com", "https://ims.example.com.evil.com", "https://ims.example.com/x", ""]
        {
            assert!(judge(json!(issuer)).contains("iss"), "{issuer}");
        }
        assert!(judge(Value::Null).contains("iss"), "missing");
    }

    #[test]
    fn audience_is_checked_where_one_is_wished() {
        let signer = signer("1");
        let keys = key_set(&[&signer.jwk]);
        let judge = |aud: Value, wished: &[&str]| {
            let wished: Vec<String> = wished.iter().map(|audience| (*audience).to_owned()).collect();
            keys.verify(&token(&signer, Some("1"), &with("aud", aud)), ISSUER, &wished).is_ok()
        };
        assert!(judge(json!(["x", "api"]), &["api"]) && judge(json!("api"), &["api", "z"]) && judge(json!("x"), &[]));
        assert!(!judge(json!("x"), &["api"]) && !judge(Value::Null, &["api"]) && !judge(json!([]), &["api"]));
    }

    #[test]
    fn expiry_is_required_and_may_have_a_fraction() {
        let signer = signer("1");
        let keys = key_set(&[&signer.jwk]);
        let judge = |exp: Value| keys.verify(&token(&signer, Some("1"), &with("exp", exp)), ISSUER, &[]);
        assert_eq!(judge(json!(2_000_000_000.9)).map(|claims| claims.exp), Ok(2_000_000_000));
        for exp in [Value::Null, json!("soon"), json!({})] {
            assert!(matches!(judge(exp.clone()), Err(Untrusted::Rejected(_))), "{exp}");
        }
    }

    #[test]
    fn what_is_no_jwt_is_refused_with_advice() {
        let keys = key_set(&[&signer("1").jwk]);
        for text in ["", "opaque", "a.b", "a.b.c", "a.b.c.d.e", "...", "eyJhbGciOiJFUzI1NiJ9.e30."] {
            assert_ne!(verdict(&keys, &Sensitive::new(text.to_owned())), "trusted", "{text}");
        }
        assert!(verdict(&keys, &Sensitive::new("opaque".to_owned())).contains("accessTokenFormat"));
    }

    #[test]
    fn longer_token_is_refused_before_anything_of_it_is_decoded() {
        let signer = signer("1");
        let keys = key_set(&[&signer.jwk]);
        let with_claim = |size: usize| token(&signer, Some("1"), &with("x", json!("x".repeat(size))));
        assert_eq!(verdict(&keys, &with_claim(ACCESS_TOKEN_MAX / 2)), "trusted");
        assert!(verdict(&keys, &with_claim(ACCESS_TOKEN_MAX)).contains("more than 32768 bytes"));
    }

    #[test]
    fn deeply_nested_header_and_claims_are_refused_and_what_servers_write_is_not() {
        let signer = signer("1");
        let keys = key_set(&[&signer.jwk]);
        let nested = |levels: usize| (0..levels).fold(json!(0), |inner, _| json!([inner]));
        assert_eq!(verdict(&keys, &token(&signer, Some("1"), &with("x", nested(8)))), "trusted");
        assert!(verdict(&keys, &token(&signer, Some("1"), &with("x", nested(40)))).contains("nested too deeply"));
        let header = forged(&json!({"alg": "ES256", "x": nested(40)}), &claims(), |_| String::new());
        assert!(verdict(&keys, &header).contains("nested too deeply"));
    }

    #[test]
    fn useless_keys_beside_a_good_one_do_no_harm() {
        let signer = signer("1");
        let unknown = json!({"kty": "PQC", "kid": "9", "x": "y"});
        let keys = key_set(&[&unknown, &json!({"kty": "RSA"}), &json!(1), &signer.jwk]);
        assert_eq!(keys.len(), 1);
        assert_eq!(verdict(&keys, &token(&signer, Some("1"), &claims())), "trusted");
    }
}
