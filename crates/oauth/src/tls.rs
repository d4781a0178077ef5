//! Why there is no TLS connection to an authorization server, as far as someone can act upon it.
//!
//! Nothing here changes with the time of the attempt: what is said about the same certificate stays the same, so that a
//! status need not be written again.

use chrono::{DateTime, Utc};

/// How many names of a certificate are kept: it can have thousands.
const NAMES_MAX: usize = 5;
/// How much of a name is kept, in characters. DNS allows 253.
const NAME_MAX: usize = 64;

/// Why TLS failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The certificate is signed by none of the trusted CAs.
    #[error("unknown issuer")]
    UntrustedIssuer(TrustedRoots),
    /// The server uses a CA certificate as its own.
    #[error("CA certificate used by a server")]
    CaUsedAsEndEntity,
    /// The certificate is for other names.
    #[error("certificate for {presented}, not for {expected}")]
    WrongName {
        /// The host of the URL.
        expected: String,
        /// The names of the certificate.
        presented: CertificateNames,
    },
    /// A certificate of the chain has expired.
    #[error("certificate expired at {at}")]
    Expired {
        /// Its `notAfter`.
        at: DateTime<Utc>,
    },
    /// A certificate of the chain is not valid yet.
    #[error("certificate not valid before {at}")]
    NotYetValid {
        /// Its `notBefore`.
        at: DateTime<Utc>,
    },
    /// The certificate may not be used by servers (its `extendedKeyUsage`).
    #[error("certificate not for servers")]
    NotForServers,
    /// A certificate of the chain is signed with an algorithm that is not accepted.
    #[error("signature algorithm not accepted")]
    UnsupportedSignature,
    /// Server and client have no TLS version or cipher suite in common.
    #[error("handshake refused")]
    HandshakeRefused,
    /// The server does not serve this name.
    #[error("name not served")]
    NameRefused,
    /// The server asked for a client certificate on this connection, and ended it without an answer.
    #[error("client certificate wanted")]
    ClientCertificateWanted,
    /// What answers does not speak TLS.
    #[error("not TLS")]
    NotTls,
    /// The connection ended during the handshake.
    #[error("connection closed during the handshake")]
    Closed,
    /// Another reason, in the words of the TLS library.
    #[error("{0}")]
    Other(String),
}

/// The certificates that a server's must be signed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedRoots {
    /// Those of `spec.caBundle`.
    Configured,
    /// Those that `spec.caBundleRef` refers to.
    Referenced,
    /// Those of the system.
    System,
}

/// The names of a server's certificate as a message may show them: the server chooses them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateNames(String);

impl CertificateNames {
    /// The first few names, cut, with `?` for each character that no DNS name or IP address has.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names = names.into_iter();
        let mut shown: Vec<String> = names.by_ref().take(NAMES_MAX).map(shown).collect();
        if names.next().is_some() {
            shown.push("…".to_owned());
        }
        Self(if shown.is_empty() { "no name".to_owned() } else { shown.join(", ") })
    }
}

impl std::fmt::Display for CertificateNames {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn shown(name: &str) -> String {
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || "-._*:".contains(c);
    let mut characters = name.chars().map(|c| if of_a_name(c) { c } else { '?' });
    let mut text: String = characters.by_ref().take(NAME_MAX).collect();
    if characters.next().is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> String {
        CertificateNames::new(names.iter().copied()).to_string()
    }

    #[test]
    fn names_of_a_certificate_are_shown_as_they_are() {
        assert_eq!(
            names(&["*.example.com", "10.0.0.1", "fd00::1", "a_b-c"]),
            "*.example.com, 10.0.0.1, fd00::1, a_b-c"
        );
        assert_eq!(names(&[]), "no name");
    }

    #[test]
    fn names_are_bounded_and_hold_nothing_but_names() {
        assert_eq!(names(&["a\r\nb; run \"this\"", "ä"]), "a??b??run??this?, ?");
        assert_eq!(names(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e, …");
        let long = "x".repeat(100_000);
        assert!(names(&[long.as_str(); 1000]).chars().count() <= NAMES_MAX * (NAME_MAX + 3) + 1);
    }
}
