//! Tokens that must be trusted, and many that must not.

use jsonwebtoken::{EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};

use super::*;
use crate::{
    identifier::Identifier,
    token::{ClientCredentials, Proof},
};

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
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a key")).expect("JSON");
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

fn verdict(keys: &KeySet, token: &Sensitive) -> Result<(), VerificationError> {
    keys.verify(token, ISSUER, &[]).map(drop)
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
fn header_and_claims_are_read_without_a_key_and_the_signature_is_left_out() {
    let token = token(&signer("1"), Some("1"), &claims());
    let parts = read(&token).expect("a JWT");
    assert_eq!((&parts.header["kid"], &parts.claims["iss"]), (&json!("1"), &json!(ISSUER)));
    let signature = token.expose().rsplit('.').next().unwrap_or_default().to_owned();
    assert!(!format!("{parts:?}").contains(&signature));
    let deep = format!("{}0{}", "[".repeat(100), "]".repeat(100));
    let deep = format!("{}.{}.x", URL_SAFE_NO_PAD.encode("{}"), URL_SAFE_NO_PAD.encode(deep));
    for other in ["opaque", "a.b.c", "..", "e30.W10.x", &deep, &"a.".repeat(50_000)] {
        assert_eq!(read(&Sensitive::new(other.to_owned())), None, "{:.20}", other);
    }
}

#[test]
fn algorithm_none_is_refused() {
    let signer = signer("1");
    for alg in ["none", "None", "NONE"] {
        let token = forged(&json!({"alg": alg, "kid": "1"}), &claims(), |_| String::new());
        assert_eq!(verdict(&key_set(&[&signer.jwk]), &token), Err(VerificationError::SymmetricAlgorithm), "{alg}");
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
        assert_eq!(verdict(&keys, &Sensitive::new(token)), Err(VerificationError::SymmetricAlgorithm));
    }
}

#[test]
fn signature_of_another_key_under_our_kid_is_refused() {
    let (ours, theirs) = (signer("1"), signer("1"));
    assert_eq!(
        verdict(&key_set(&[&ours.jwk]), &token(&theirs, Some("1"), &claims())),
        Err(VerificationError::Signature)
    );
}

#[test]
fn changed_claims_break_the_signature() {
    let signer = signer("1");
    let signed = token(&signer, Some("1"), &claims());
    let signature = signed.expose().rsplit('.').next().expect("a signature").to_owned();
    let changed = forged(&json!({"alg": "ES256", "kid": "1"}), &with("scope", json!("admin")), |_| signature.clone());
    assert_eq!(verdict(&key_set(&[&signer.jwk]), &changed), Err(VerificationError::Signature));
}

#[test]
fn algorithm_that_cannot_be_checked_is_named_if_it_is_known() {
    let signer = signer("1");
    for (alg, name) in [("ES512", Some("ES512")), ("Ed448", Some("Ed448")), ("ATTACKER", None), ("", None)] {
        let token = forged(&json!({"alg": alg, "kid": "1"}), &claims(), |_| "AA".to_owned());
        assert_eq!(verdict(&key_set(&[&signer.jwk]), &token), Err(VerificationError::UnsupportedAlgorithm(name)));
    }
}

#[test]
fn critical_extension_is_refused_whatever_it_is() {
    let signer = signer("1");
    for crit in [json!(["exp"]), json!(["b64"]), json!([]), Value::Null] {
        let token = forged(&json!({"alg": "ES256", "kid": "1", "crit": crit}), &claims(), |message| {
            jsonwebtoken::crypto::sign(message.as_bytes(), &signer.key, Algorithm::ES256).expect("signed")
        });
        assert_eq!(verdict(&key_set(&[&signer.jwk]), &token), Err(VerificationError::CriticalExtension), "{crit}");
    }
}

#[test]
fn each_key_of_a_kid_is_tried() {
    let (old, new) = (signer("1"), signer("1"));
    let mut unusable = old.jwk.clone();
    unusable["x"] = json!("AA");
    let keys = key_set(&[&unusable, &old.jwk, &new.jwk]);
    assert_eq!(verdict(&keys, &token(&new, Some("1"), &claims())), Ok(()));
    let mut without_kid = new.jwk.clone();
    without_kid["kid"] = Value::Null;
    assert_eq!(verdict(&key_set(&[&old.jwk, &without_kid]), &token(&new, Some("2"), &claims())), Ok(()));
    // the claims of a token with a good signature say what is wrong with it, whatever the other keys say
    let wrong_issuer = token(&old, Some("1"), &with("iss", json!("https://other.example.com")));
    assert_eq!(verdict(&keys, &wrong_issuer), Err(VerificationError::Issuer));
}

#[test]
fn scope_is_read_under_the_name_that_the_server_gives_it() {
    let signer = signer("1");
    let keys = key_set(&[&signer.jwk]);
    let mut only_scp = claims();
    let object = only_scp.as_object_mut().expect("an object");
    object.remove("scope");
    object.insert("scp".to_owned(), json!(["c"]));
    let scopes = |claims: &Value| {
        let read = keys.verify(&token(&signer, Some("1"), claims), ISSUER, &[]).expect("trusted");
        [read.scope, read.other_scope].map(|scopes| scopes.map(|scopes| scopes.join(" ")))
    };
    assert_eq!(scopes(&only_scp), [Some("c".to_owned()), None]);
    assert_eq!(scopes(&with("scp", json!(["c"]))), [Some("a b".to_owned()), Some("c".to_owned())]);
    assert_eq!(scopes(&claims()), [Some("a b".to_owned()), None]);
}

#[test]
fn key_that_cannot_be_used_is_distinguished_from_an_unknown_one() {
    let signer = signer("1");
    let unusable = json!({"kty": "EC", "crv": "P-521", "kid": "2", "x": "AA", "y": "AA"});
    let keys = key_set(&[&signer.jwk, &unusable]);
    let signed = |kid: &str| verdict(&keys, &token(&signer, Some(kid), &claims()));
    assert_eq!(signed("1"), Ok(()));
    assert_eq!(signed("2"), Err(VerificationError::UnusableKey));
    assert_eq!(signed("3"), Err(VerificationError::UnknownKey));
}

#[test]
fn every_accepted_algorithm_is_verified() {
    for (generator, algorithms) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, &[Algorithm::ES256][..]),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &[Algorithm::ES384]),
        (&rcgen::PKCS_ED25519, &[Algorithm::EdDSA]),
        (
            &rcgen::PKCS_RSA_SHA256,
            &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
        ),
    ] {
        let pair = rcgen::KeyPair::generate_for(generator).expect("a key");
        let pem = pair.serialize_pem();
        let key = match algorithms[0] {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_ec_pem(pem.as_bytes()),
        };
        let key = key.expect("a key");
        for algorithm in algorithms {
            let jwk = match algorithm {
                Algorithm::EdDSA => {
                    json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(pair.public_key_raw())})
                }
                _ => serde_json::to_value(Jwk::from_encoding_key(&key, *algorithm).expect("a key")).expect("JSON"),
            };
            let keys = key_set(&[&jwk]);
            let token = jsonwebtoken::encode(&Header::new(*algorithm), &claims(), &key).expect("signed");
            assert_eq!(verdict(&keys, &Sensitive::new(token)), Ok(()), "{algorithm:?}");
        }
    }
}

#[test]
fn unknown_kid_is_an_error_of_its_own_so_that_the_keys_are_fetched_again() {
    let (old, new) = (signer("1"), signer("2"));
    assert_eq!(verdict(&key_set(&[&old.jwk]), &token(&new, Some("2"), &claims())), Err(VerificationError::UnknownKey));
    assert_eq!(verdict(&key_set(&[&old.jwk, &new.jwk]), &token(&new, Some("2"), &claims())), Ok(()));
}

#[test]
fn token_without_kid_is_tried_with_every_key() {
    let (first, second) = (signer("1"), signer("2"));
    assert_eq!(verdict(&key_set(&[&first.jwk, &second.jwk]), &token(&second, None, &claims())), Ok(()));
}

#[test]
fn key_for_another_algorithm_is_not_used() {
    let signer = signer("1");
    let token = token(&signer, Some("1"), &claims());
    let mut other_algorithm = signer.jwk.clone();
    other_algorithm["alg"] = json!("ES384");
    assert_eq!(verdict(&key_set(&[&other_algorithm]), &token), Err(VerificationError::UnknownKey));
}

#[test]
fn issuer_must_be_the_authority_with_or_without_a_slash() {
    let signer = signer("1");
    let keys = key_set(&[&signer.jwk]);
    let with_issuer = |issuer: Value| verdict(&keys, &token(&signer, Some("1"), &with("iss", issuer)));
    assert_eq!(with_issuer(json!("https://ims.example.com/")), Ok(()));
    for issuer in ["https://evil.example.com", "https://ims.example.com.evil.com", "https://ims.example.com/x", ""] {
        assert_eq!(with_issuer(json!(issuer)), Err(VerificationError::Issuer), "{issuer}");
    }
    let missing = Err(VerificationError::MissingClaim(RequiredClaim::Issuer));
    assert_eq!(with_issuer(Value::Null), missing);
}

#[test]
fn audience_is_checked_where_one_is_wanted() {
    let signer = signer("1");
    let keys = key_set(&[&signer.jwk]);
    let with_audience = |aud: Value, wanted: &[&str]| {
        let wanted: Vec<String> = wanted.iter().map(|audience| (*audience).to_owned()).collect();
        keys.verify(&token(&signer, Some("1"), &with("aud", aud)), ISSUER, &wanted).map(drop)
    };
    assert_eq!(with_audience(json!(["x", "api"]), &["api"]), Ok(()));
    assert_eq!(with_audience(json!("api"), &["api", "z"]), Ok(()));
    assert_eq!(with_audience(json!("x"), &[]), Ok(()));
    assert_eq!(with_audience(json!("x"), &["api"]), Err(VerificationError::Audience));
    assert_eq!(with_audience(json!([]), &["api"]), Err(VerificationError::Audience));
    let missing = Err(VerificationError::MissingClaim(RequiredClaim::Audience));
    assert_eq!(with_audience(Value::Null, &["api"]), missing);
}

#[test]
fn expiry_is_required_and_may_have_a_fraction() {
    let signer = signer("1");
    let keys = key_set(&[&signer.jwk]);
    let with_expiry = |exp: Value| keys.verify(&token(&signer, Some("1"), &with("exp", exp)), ISSUER, &[]);
    assert_eq!(with_expiry(json!(2_000_000_000.9)).map(|claims| claims.exp), Ok(2_000_000_000));
    for exp in [json!("2000000000"), json!("soon"), json!({}), json!(true)] {
        assert_eq!(with_expiry(exp.clone()), Err(VerificationError::ExpiryNotANumber), "{exp}");
    }
    let mut without = claims();
    without.as_object_mut().expect("an object").remove("exp");
    let missing = Err(VerificationError::MissingClaim(RequiredClaim::Expiry));
    assert_eq!(with_expiry(Value::Null), missing);
    assert_eq!(verdict(&keys, &token(&signer, Some("1"), &without)), missing.map(drop));
}

#[test]
fn time_before_which_a_token_is_not_valid_is_optional_and_a_number() {
    let signer = signer("1");
    let keys = key_set(&[&signer.jwk]);
    let with_nbf =
        |nbf: Value| keys.verify(&token(&signer, Some("1"), &with("nbf", nbf)), ISSUER, &[]).map(|claims| claims.nbf);
    assert_eq!(with_nbf(json!(1_700_000_000.9)), Ok(Some(1_700_000_000)));
    assert_eq!(with_nbf(Value::Null), Ok(None));
    for nbf in [json!("1700000000"), json!({}), json!(true)] {
        assert_eq!(with_nbf(nbf.clone()), Err(VerificationError::NotBeforeNotANumber), "{nbf}");
    }
    // it is not checked
    assert_eq!(verdict(&keys, &token(&signer, Some("1"), &with("iat", json!("1700000000")))), Ok(()));
}

#[test]
fn jwt_whose_header_makes_no_sense_is_not_taken_for_an_opaque_token() {
    let signer = signer("1");
    for header in [json!({"alg": "ES256", "kid": 1}), json!({"alg": "ES256", "typ": ["JWT"]})] {
        let token = forged(&header, &claims(), |message| {
            jsonwebtoken::crypto::sign(message.as_bytes(), &signer.key, Algorithm::ES256).expect("signed")
        });
        assert_eq!(verdict(&key_set(&[&signer.jwk]), &token), Err(VerificationError::Malformed), "{header}");
    }
}

#[test]
fn text_that_is_no_jwt_is_refused() {
    let keys = key_set(&[&signer("1").jwk]);
    for text in ["", "opaque", "a.b", "a.b.c", "a.b.c.d.e", "..."] {
        assert_eq!(verdict(&keys, &Sensitive::new(text.to_owned())), Err(VerificationError::NotAJwt), "{text}");
    }
    let without_signature = Sensitive::new("eyJhbGciOiJFUzI1NiJ9.e30.".to_owned());
    assert_eq!(verdict(&keys, &without_signature), Err(VerificationError::Signature));
}

#[test]
fn longer_token_is_refused_before_anything_of_it_is_decoded() {
    let signer = signer("1");
    let keys = key_set(&[&signer.jwk]);
    let with_claim = |size: usize| token(&signer, Some("1"), &with("x", json!("x".repeat(size))));
    assert_eq!(verdict(&keys, &with_claim(ACCESS_TOKEN_MAX / 2)), Ok(()));
    assert_eq!(verdict(&keys, &with_claim(ACCESS_TOKEN_MAX)), Err(VerificationError::TooLong));
}

#[test]
fn deeply_nested_header_and_claims_are_refused_and_what_servers_write_is_not() {
    let signer = signer("1");
    let keys = key_set(&[&signer.jwk]);
    let nested = |levels: usize| (0..levels).fold(json!(0), |inner, _| json!([inner]));
    assert_eq!(verdict(&keys, &token(&signer, Some("1"), &with("x", nested(8)))), Ok(()));
    assert_eq!(verdict(&keys, &token(&signer, Some("1"), &with("x", nested(40)))), Err(VerificationError::TooDeep));
    let header = forged(&json!({"alg": "ES256", "x": nested(40)}), &claims(), |_| String::new());
    assert_eq!(verdict(&keys, &header), Err(VerificationError::TooDeep));
}

/// What a message shows of these audiences of a token, for a request with this secret, audience, resources and scopes.
fn presented_audiences(
    audiences: &Value,
    secret: &str,
    named: Option<&str>,
    resources: &[&str],
    scopes: &[&str],
) -> Option<String> {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let payload = URL_SAFE_NO_PAD.encode(json!({"aud": audiences}).to_string());
    let proof = Proof::SecretInBody(Sensitive::new(secret.to_owned()));
    let request = TokenRequest {
        client: ClientCredentials { id: Identifier::Public("id".to_owned()), proof, user: None },
        scopes: owned(scopes),
        resources: owned(resources),
        audience: named.map(str::to_owned),
    };
    let token = Sensitive::new(format!("e30.{payload}.c2ln"));
    let wanted = ["urn:wanted".to_owned()];
    presented(&token, VerificationError::Audience, &request, ISSUER, &wanted).map(|shown| shown.to_string())
}

#[test]
fn audience_that_the_request_named_is_shown_and_compared_with_no_secret() {
    let (secret, other) = ("guess-me-now", "https://other");
    for (audiences, named, resources, shown) in [
        (json!([secret, other]), Some(secret), &[other][..], "guess-me-now, https://other"),
        (json!(secret), Some("a guess-me-now"), &[], "guess-me-now"),
        (json!("a guess-me-now"), Some("a guess-me-now"), &[], "a guess-me-now"),
        // what the server adds or writes in another way shows the same whether it is the secret or not
        (json!([secret, other]), Some(secret), &[], "guess-me-now, [redacted]"),
        (json!([other, secret]), None, &[other], "https://other, [redacted]"),
        (json!("GUESS-ME-NOW"), Some(secret), &[], "[redacted]"),
        (json!("guess-me-now, a"), Some("guess-me-now a"), &[], "[redacted]"),
        (json!(other), Some("a"), &[], "[redacted]"),
        (json!([secret, other]), None, &[], "[redacted], [redacted]"),
        // words of the administrator, and those that are in use
        (json!(["urn:wanted:api", "account"]), None, &[], "urn:wanted:api, account"),
    ] {
        let expected = Some(format!("\"{shown}\""));
        let presented = presented_audiences(&audiences, secret, named, resources, &[]);
        assert_eq!(presented, expected, "{audiences} {named:?} {resources:?}");
    }
}

#[test]
fn audience_that_a_server_derives_from_a_scope_is_shown_the_same_whatever_the_secret_is() {
    let scopes = ["api://guess-me-now/.default", "api://guess-me-now/read"];
    for audience in ["api://guess-me-now", "guess-me-now", "GUESS-ME-NOW"] {
        for secret in ["guess-me-now", "xguess-me-nowx", "another-secret"] {
            let presented = presented_audiences(&json!(audience), secret, None, &[], &scopes);
            assert_eq!(presented.as_deref(), Some("\"[redacted]\""), "{audience} {secret}");
        }
    }
}
