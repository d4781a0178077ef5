//! The thumbprints of a certificate, by which some servers find the key of a client (RFC 7515 sections 4.1.7 and 4.1.8).

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::{der, limits::PRIVATE_KEY_MAX};

/// The thumbprints of a certificate, as the headers of an assertion carry them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbprints {
    /// `x5t`. SHA-1 is what the header is defined with; nothing relies on it.
    pub sha1: String,
    /// `x5t#S256`.
    pub sha256: String,
}

impl Thumbprints {
    /// Those of the first certificate of a PEM text; `None` where there is none. Only its frame is read.
    #[must_use]
    pub fn from_pem(pem: &str) -> Option<Self> {
        if pem.len() > PRIVATE_KEY_MAX {
            return None;
        }
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        der::only(&certificate, der::SEQUENCE)?;
        let of = |algorithm| URL_SAFE_NO_PAD.encode(digest::digest(algorithm, &certificate));
        Some(Self { sha1: of(&digest::SHA1_FOR_LEGACY_USE_ONLY), sha256: of(&digest::SHA256) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbprints_are_the_digests_of_the_certificate() {
        // an empty sequence: 30 00
        let read = Thumbprints::from_pem("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
        let expected = Thumbprints {
            sha1: "-UTc1jX5gB96yQpAf7xHmWTewCQ".to_owned(),
            sha256: "5PYNCqbX89O2pklLHIYbmfZJxvnsUauvIBsg8pcyfJU".to_owned(),
        };
        assert_eq!(read, Some(expected));
    }

    #[test]
    fn text_without_a_certificate_has_none() {
        for pem in [
            "",
            "no certificate",
            "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert_eq!(Thumbprints::from_pem(pem), None, "{pem}");
        }
    }
}
