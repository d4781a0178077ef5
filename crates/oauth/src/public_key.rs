//! Public keys that verify signatures, from the parameters of a JSON Web Key (RFC 7518 section 6, RFC 8037 section 2).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, VerificationAlgorithm,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, EllipticCurveKeyParameters, OctetKeyPairParameters, RSAKeyParameters},
};

/// Sizes of RSA keys that signatures can be verified with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Bits of the exponent of an RSA key, at most: the limit of the library.
const EXPONENT_BITS: usize = 33;

/// The key; `None` where no signature can be verified with it. The library reads more keys than it verifies with.
pub fn read(parameters: &AlgorithmParameters) -> Option<DecodingKey> {
    match parameters {
        AlgorithmParameters::RSA(key) => rsa(key),
        AlgorithmParameters::EllipticCurve(key) => elliptic(key),
        AlgorithmParameters::OctetKeyPair(key) => edwards(key),
        _ => None,
    }
}

/// An RSA key of a size that signatures can be verified with.
fn rsa(key: &RSAKeyParameters) -> Option<DecodingKey> {
    let (modulus, exponent) = (number(&key.n)?, number(&key.e)?);
    let is_odd = exponent.last().is_some_and(|last| last % 2 == 1);
    let fits = RSA_BITS.contains(&bits(&modulus)) && is_odd && (2..=EXPONENT_BITS).contains(&bits(&exponent));
    fits.then(|| DecodingKey::from_rsa_raw_components(&modulus, &exponent))
}

/// A key of one of the two curves that signatures can be verified with.
fn elliptic(key: &EllipticCurveKeyParameters) -> Option<DecodingKey> {
    let (size, algorithm): (_, &'static dyn VerificationAlgorithm) = match key.curve {
        EllipticCurve::P256 => (32, &ECDSA_P256_SHA256_FIXED),
        EllipticCurve::P384 => (48, &ECDSA_P384_SHA384_FIXED),
        _ => return None,
    };
    let (x, y) = (coordinate(&key.x, size)?, coordinate(&key.y, size)?);
    // the form of SEC 1 section 2.3.3, which is not compressed
    ParsedPublicKey::new(algorithm, [&[4][..], &x, &y].concat()).ok()?;
    DecodingKey::from_ec_components(&URL_SAFE_NO_PAD.encode(x), &URL_SAFE_NO_PAD.encode(y)).ok()
}

fn edwards(key: &OctetKeyPairParameters) -> Option<DecodingKey> {
    let bytes = (key.curve == EllipticCurve::Ed25519).then(|| decoded(&key.x))??;
    ParsedPublicKey::new(&ED25519, &bytes).ok()?;
    DecodingKey::from_ed_components(&URL_SAFE_NO_PAD.encode(bytes)).ok()
}

/// The bytes of a parameter in base64url (RFC 7515 section 2). Some servers write padding or the other alphabet of base64.
fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=').replace('+', "-").replace('/', "_")).ok()
}

/// The bytes of a number without the zeros before it, which some servers write as in DER, and the library refuses.
fn number(base64: &str) -> Option<Vec<u8>> {
    let bytes = decoded(base64)?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes[first..].to_vec())
}

/// How many bits a number without zeros before it has.
fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

/// A coordinate, in as many bytes as its curve has (RFC 7518 section 6.2.1.2). Some servers write one more or fewer, as
/// they write other numbers.
fn coordinate(base64: &str, size: usize) -> Option<Vec<u8>> {
    let number = number(base64)?;
    let missing = size.checked_sub(number.len())?;
    Some([vec![0; missing], number].concat())
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use jsonwebtoken::{Algorithm, EncodingKey, Header};
    use serde_json::{Value, json};

    use super::*;
    use crate::{key_set::KeySet, sensitive::Sensitive};

    /// Whether a signature of this pair is verified with the key alone; `None` where the key is not used.
    fn verifies(key: &Value, algorithm: Algorithm, pair: &rcgen::KeyPair) -> Option<bool> {
        let der = pair.serialized_der();
        let private = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).expect("a key"),
            Algorithm::EdDSA => EncodingKey::from_ed_der(der),
            _ => EncodingKey::from_ec_der(der),
        };
        let claims = json!({"iss": "https://ims", "exp": 4_000_000_000_u32});
        let token = jsonwebtoken::encode(&Header::new(algorithm), &claims, &private).expect("signed");
        let set = KeySet::parse(json!({"keys": [key]}).to_string().as_bytes()).ok()?;
        Some(set.verify(&Sensitive::new(token), "https://ims", &[]).is_ok())
    }

    #[test]
    fn parameters_are_read_with_padding_and_in_both_alphabets() {
        let rsa = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).expect("a key");
        let public = rsa.public_key_raw();
        let modulus = &public[public.len() - 5 - 256..public.len() - 5];
        let ec = rcgen::KeyPair::generate().expect("a key");
        let (x, y) = ec.public_key_raw()[1..].split_at(32);
        let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let encodings: [fn(&[u8]) -> String; 3] =
            [|bytes| URL_SAFE_NO_PAD.encode(bytes), |bytes| URL_SAFE.encode(bytes), |bytes| STANDARD.encode(bytes)];
        for (number, encoded) in encodings.into_iter().enumerate() {
            let key = json!({"kty": "RSA", "n": encoded(modulus), "e": "AQAB"});
            assert_eq!(verifies(&key, Algorithm::RS256, &rsa), Some(true), "{number}");
            let key = json!({"kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y)});
            assert_eq!(verifies(&key, Algorithm::ES256, &ec), Some(true), "{number}");
            let key = json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(ed.public_key_raw())});
            assert_eq!(verifies(&key, Algorithm::EdDSA, &ed), Some(true), "{number}");
        }
        // both of its characters that differ, which a key need not have
        assert_eq!(decoded("+/+/"), URL_SAFE_NO_PAD.decode("-_-_").ok());
        for text in ["A=BC", "AB CD", "?"] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_read_with_and_without_zeros_before_them() {
        let zeros = |count: usize, number: &[u8]| URL_SAFE_NO_PAD.encode([vec![0; count], number.to_vec()].concat());
        let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).expect("a key");
        // the modulus and the exponent of a PKCS #1 public key of 2048 bits, which are the end of its DER
        let public = pair.public_key_raw();
        let exponent = &public[public.len() - 3..];
        let modulus = &public[public.len() - 5 - 256..public.len() - 5];
        for (before_modulus, before_exponent) in [(0, 0), (1, 0), (0, 1), (1, 1), (2, 5)] {
            let key = json!({"kty": "RSA", "n": zeros(before_modulus, modulus), "e": zeros(before_exponent, exponent)});
            assert_eq!(verifies(&key, Algorithm::RS256, &pair), Some(true), "{before_modulus} {before_exponent}");
        }
        for exponent in [&[][..], &[0], &[1], &[1, 0, 0], &[4, 0, 0, 0, 1]] {
            let key = json!({"kty": "RSA", "n": zeros(0, modulus), "e": zeros(0, exponent)});
            assert_eq!(verifies(&key, Algorithm::RS256, &pair), None, "{exponent:?} is no exponent");
        }
        // a coordinate that begins with a zero, which is left out
        let pair = std::iter::repeat_with(|| rcgen::KeyPair::generate().expect("a key"))
            .find(|pair| pair.public_key_raw()[1] == 0)
            .expect("one of 256");
        let (x, y) = pair.public_key_raw()[1..].split_at(32);
        for x in [x, &x[1..], &[&[0][..], x].concat()] {
            let key = json!({"kty": "EC", "crv": "P-256", "x": zeros(0, x), "y": zeros(1, y)});
            assert_eq!(verifies(&key, Algorithm::ES256, &pair), Some(true), "{} bytes", x.len());
        }
        let off_the_curve = json!({"kty": "EC", "crv": "P-256", "x": zeros(0, y), "y": zeros(0, &x[1..])});
        assert_eq!(verifies(&off_the_curve, Algorithm::ES256, &pair), None);
    }
}
