//! The private key of a client, from PEM (RFC 7468) to the key that signs.
//!
//! A tenant writes it, so that it is bounded before any parser of keys sees it: its size, the nesting of its DER and
//! the size of an RSA modulus. Nothing here recurses. The PEM parser of jsonwebtoken does, without a limit, and is not
//! used.

use jsonwebtoken::{Algorithm, EncodingKey};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use zeroize::Zeroize;

use crate::{der, limits::PRIVATE_KEY_MAX, sensitive::Sensitive};

/// RSA keys, in bits: fewer are weak, and one signature with 8192 takes twenty times as long as with 4096, on a thread
/// that others wait for.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Identifiers of kinds of keys: rsaEncryption, id-ecPublicKey and id-Ed25519 (RFC 3279, RFC 5480, RFC 8410).
const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01];
const ED25519: &[u8] = &[0x2B, 0x65, 0x70];
/// Identifiers of curves: P-256 and P-384 (RFC 5480).
const P256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2B, 0x81, 0x04, 0x00, 0x22];

/// A key, and the algorithms that it may be for: which curve an EC key is on shows when it signs.
pub struct PrivateKey {
    /// The key.
    pub key: EncodingKey,
    /// The algorithms, one of which fits.
    pub algorithms: &'static [Algorithm],
}

impl PrivateKey {
    /// Reads the first private key of a PEM text: PKCS #8, or PKCS #1 for RSA, or SEC 1 for EC.
    ///
    /// `None` where it is of no use. The cause is not given: a message that named it would depend on the key.
    #[must_use]
    pub fn from_pem(pem: &Sensitive) -> Option<Self> {
        let pem = pem.expose().as_bytes();
        if pem.len() > PRIVATE_KEY_MAX {
            return None;
        }
        let mut der = PrivateKeyDer::from_pem_slice(pem).ok()?;
        let key = match &der {
            PrivateKeyDer::Pkcs1(pkcs1) => rsa(pkcs1.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(pkcs8) => from_pkcs8(pkcs8.secret_pkcs8_der()),
            PrivateKeyDer::Sec1(sec1) => from_sec1(sec1.secret_sec1_der()),
            _ => None,
        };
        der.zeroize();
        key
    }
}

/// `PrivateKeyInfo` of RFC 5208, section 5, and its successor: a version, an algorithm, and the key.
fn from_pkcs8(pkcs8: &[u8]) -> Option<PrivateKey> {
    if !der::is_bounded(pkcs8) {
        return None;
    }
    let mut info = der::Reader::new(der::only(pkcs8, der::SEQUENCE)?);
    info.next(der::INTEGER)?;
    let mut algorithm = der::Reader::new(info.next(der::SEQUENCE)?);
    let kind = algorithm.next(der::OBJECT_IDENTIFIER)?;
    let key = info.next(der::OCTET_STRING)?;
    match kind {
        RSA => rsa(key),
        EC => {
            let algorithms = &[Algorithm::ES256, Algorithm::ES384];
            Some(PrivateKey { key: EncodingKey::from_ec_der(pkcs8), algorithms })
        }
        ED25519 => Some(PrivateKey { key: EncodingKey::from_ed_der(pkcs8), algorithms: &[Algorithm::EdDSA] }),
        _ => None,
    }
}

/// `ECPrivateKey` of RFC 5915, section 3: a version, the key, and mostly the curve. It is the same that PKCS #8 wraps.
fn from_sec1(sec1: &[u8]) -> Option<PrivateKey> {
    if !der::is_bounded(sec1) {
        return None;
    }
    let mut numbers = der::Reader::new(der::only(sec1, der::SEQUENCE)?);
    numbers.next(der::INTEGER)?;
    let curve = match numbers.next(der::OCTET_STRING)?.len() {
        32 => P256,
        48 => P384,
        _ => return None,
    };
    let kind = [der::encode(der::OBJECT_IDENTIFIER, EC), der::encode(der::OBJECT_IDENTIFIER, curve)].concat();
    let mut key = der::encode(der::OCTET_STRING, sec1);
    let mut info = [der::encode(der::INTEGER, &[0]), der::encode(der::SEQUENCE, &kind), key.clone()].concat();
    let mut pkcs8 = der::encode(der::SEQUENCE, &info);
    let read = from_pkcs8(&pkcs8);
    [&mut key, &mut info, &mut pkcs8].into_iter().for_each(Zeroize::zeroize);
    read
}

/// `RSAPrivateKey` of RFC 8017, appendix A.1.2: a version, the modulus, and six more numbers.
fn rsa(pkcs1: &[u8]) -> Option<PrivateKey> {
    if !der::is_bounded(pkcs1) {
        return None;
    }
    let mut numbers = der::Reader::new(der::only(pkcs1, der::SEQUENCE)?);
    numbers.next(der::INTEGER)?;
    let modulus = numbers.next(der::INTEGER)?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let bits = (modulus.len() - zeros) * 8 - modulus.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    RSA_BITS.contains(&bits).then(|| PrivateKey {
        key: EncodingKey::from_rsa_der(pkcs1),
        algorithms: &[Algorithm::RS256, Algorithm::PS256],
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::*;

    fn pem(label: &str, der: &[u8]) -> Sensitive {
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        Sensitive::new(format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"))
    }

    /// A key with a modulus of so many bits, of no other use.
    fn rsa_key(bits: usize) -> Vec<u8> {
        let mut modulus = vec![0xFF_u8; bits.div_ceil(8)];
        modulus[0] >>= bits.div_ceil(8) * 8 - bits;
        let numbers =
            [der::encode(der::INTEGER, &[0]), der::encode(der::INTEGER, &[&[0], &modulus[..]].concat())].concat();
        der::encode(der::SEQUENCE, &numbers)
    }

    fn accepted(pem: &Sensitive) -> bool {
        PrivateKey::from_pem(pem).is_some()
    }

    #[test]
    fn rsa_modulus_is_bounded_in_both_forms() {
        for (bits, good) in [(0, false), (1024, false), (2047, false), (2048, true), (4096, true), (4097, false)] {
            let pkcs1 = if bits == 0 { der::encode(der::SEQUENCE, &[]) } else { rsa_key(bits) };
            assert_eq!(accepted(&pem("RSA PRIVATE KEY", &pkcs1)), good, "{bits}");
            let kind = der::encode(der::SEQUENCE, &der::encode(der::OBJECT_IDENTIFIER, RSA));
            let info = [der::encode(der::INTEGER, &[0]), kind, der::encode(der::OCTET_STRING, &pkcs1)].concat();
            assert_eq!(accepted(&pem("PRIVATE KEY", &der::encode(der::SEQUENCE, &info))), good, "{bits}");
        }
    }

    #[test]
    fn sec1_key_is_that_of_its_pkcs8_form_with_and_without_its_curve() {
        for (generator, algorithm) in
            [(&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256), (&rcgen::PKCS_ECDSA_P384_SHA384, Algorithm::ES384)]
        {
            let pair = rcgen::KeyPair::generate_for(generator).expect("a key");
            let pkcs8 = pair.serialize_der();
            let mut info = der::Reader::new(der::only(&pkcs8, der::SEQUENCE).expect("a sequence"));
            info.next(der::INTEGER).expect("a version");
            info.next(der::SEQUENCE).expect("an algorithm");
            let sec1 = info.next(der::OCTET_STRING).expect("a key");
            let mut numbers = der::Reader::new(der::only(sec1, der::SEQUENCE).expect("a sequence"));
            let (version, key) = (numbers.next(der::INTEGER), numbers.next(der::OCTET_STRING).expect("a key"));
            let (version, key) =
                (der::encode(der::INTEGER, version.expect("one")), der::encode(der::OCTET_STRING, key));
            let curve = der::encode(der::OBJECT_IDENTIFIER, if algorithm == Algorithm::ES256 { P256 } else { P384 });
            // [0] is the tag of the curve
            let with_curve = [&version[..], &key, &der::encode(0xA0, &curve)].concat();
            let bare = [&version[..], &key].concat();
            for content in [with_curve, bare] {
                let pem = pem("EC PRIVATE KEY", &der::encode(der::SEQUENCE, &content));
                let key = PrivateKey::from_pem(&pem).expect("a key").key;
                let signed = jsonwebtoken::encode(&jsonwebtoken::Header::new(algorithm), &(), &key).expect("signed");
                let public = jsonwebtoken::DecodingKey::from_ec_pem(pair.public_key_pem().as_bytes()).expect("a key");
                let (message, signature) = signed.rsplit_once('.').expect("a signature");
                let verified = jsonwebtoken::crypto::verify(signature, message.as_bytes(), &public, algorithm);
                assert!(verified.expect("a signature"), "{algorithm:?}");
            }
        }
    }

    #[test]
    fn longer_text_is_not_parsed() {
        let good = pem("RSA PRIVATE KEY", &rsa_key(2048));
        let padded =
            |size: usize| Sensitive::new(format!("{}{}", good.expose(), "\n".repeat(size - good.expose().len())));
        assert!(accepted(&padded(PRIVATE_KEY_MAX)) && !accepted(&padded(PRIVATE_KEY_MAX + 1)));
    }

    #[test]
    fn what_is_no_private_key_is_refused() {
        for (label, der) in [
            ("PRIVATE KEY", &b""[..]),
            ("PRIVATE KEY", b"\x30"),
            ("PRIVATE KEY", b"\x30\x80\x00\x00"),
            ("EC PRIVATE KEY", b"\x30\x00"),
            ("EC PRIVATE KEY", b"\x30\x06\x02\x01\x01\x04\x01\x07"),
            ("ENCRYPTED PRIVATE KEY", b"\x30\x00"),
            ("CERTIFICATE", b"\x30\x00"),
        ] {
            assert!(!accepted(&pem(label, der)), "{label} {der:?}");
        }
    }
}
