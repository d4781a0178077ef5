//! What users read when there is no TLS connection to an authorization server: the cause, and what to change.

use chrono::{DateTime, Utc};
use itwin_api::time;
use itwin_oauth::tls::{CertificateNames, TlsError, TrustedRoots};

/// The fields that name a server. The issuer names one too, but is immutable.
const URL_FIELDS: &str =
    "tokenEndpoint or jwksUri of the ITwinAuthority (for another issuer, create another ITwinAuthority)";

/// The message. `what` names the resource, such as "token endpoint of ITwinAuthority bentley-ims".
pub(super) fn message(error: &TlsError, what: &str) -> String {
    format!("{}; it is tried again", cause(error, what))
}

fn cause(error: &TlsError, what: &str) -> String {
    match error {
        TlsError::UntrustedIssuer(roots) => untrusted(*roots, what),
        TlsError::CaUsedAsEndEntity => certificate_of_a_ca(what),
        TlsError::WrongName { expected, presented } => wrong_name(expected, presented, what),
        TlsError::Expired { at } => expired(*at, what),
        TlsError::NotYetValid { at } => not_yet_valid(*at, what),
        TlsError::NotForServers => format!(
            "the server of the {what} has a certificate that servers may not use: issue it one with extendedKeyUsage \
             serverAuth"
        ),
        TlsError::UnsupportedSignature => format!(
            "the server of the {what} has a certificate signed with an algorithm that is not accepted, such as SHA-1: \
             issue it one signed with SHA-256 or better"
        ),
        TlsError::HandshakeRefused => handshake_refused(what),
        TlsError::NameRefused => {
            format!("the server of the {what} does not serve this host name: correct the host in {URL_FIELDS}")
        }
        TlsError::ClientCertificateWanted => client_certificate(what),
        TlsError::NotTls => format!(
            "what answers at the host and port of the {what} does not speak TLS: correct host and port in {URL_FIELDS}"
        ),
        TlsError::Closed => closed(what),
        TlsError::Other(cause) => {
            format!("TLS with the server of the {what} failed ({cause}): check the TLS configuration of the server")
        }
    }
}

fn untrusted(roots: TrustedRoots, what: &str) -> String {
    let (signers, place) = match roots {
        TrustedRoots::Configured => ("spec.caBundle", "spec.caBundle"),
        TrustedRoots::Referenced => ("spec.caBundleRef", "the object that spec.caBundleRef names"),
        TrustedRoots::System => ("the system's roots", "spec.caBundle or spec.caBundleRef"),
    };
    format!(
        "the server of the {what} has a certificate signed by no CA of {signers}: put the CA that signed it into {place} \
         of the ITwinAuthority"
    )
}

fn certificate_of_a_ca(what: &str) -> String {
    format!(
        "the server of the {what} uses a CA certificate as its own: issue it a server certificate (basicConstraints \
         CA:FALSE), and put the CA that signs that one into spec.caBundle, or what spec.caBundleRef names, of the \
         ITwinAuthority"
    )
}

fn wrong_name(expected: &str, presented: &CertificateNames, what: &str) -> String {
    format!(
        "the server of the {what} has a certificate for {presented}, not for {expected}: set {URL_FIELDS} to a name of \
         the certificate, or add {expected} to subjectAltName of the server's certificate"
    )
}

fn expired(at: DateTime<Utc>, what: &str) -> String {
    format!(
        "the certificate of the server of the {what}, or of a CA between it and the root, expired at {}: renew that \
         certificate, or correct the clock of this cluster",
        time::to_rfc3339(at)
    )
}

fn not_yet_valid(at: DateTime<Utc>, what: &str) -> String {
    format!(
        "the certificate of the server of the {what}, or of a CA between it and the root, is valid only from {}: \
         compare the clocks of this cluster and of the CA that issued that certificate",
        time::to_rfc3339(at)
    )
}

fn handshake_refused(what: &str) -> String {
    format!(
        "the server of the {what} refused the TLS handshake: configure it for TLS 1.2 or later with a cipher suite of \
         ECDHE and AES-GCM or ChaCha20-Poly1305"
    )
}

fn closed(what: &str) -> String {
    format!(
        "the connection to the {what} was closed during the TLS handshake: check that the server speaks TLS for this \
         host name, and firewalls and proxies on the way to it"
    )
}

fn client_certificate(what: &str) -> String {
    format!(
        "the server of the {what} wants a client certificate, which this operator does not have, and refused the \
         connection without one: have the server ask for none, or name an endpoint that asks for none in {URL_FIELDS}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHAT: &str = "token endpoint of ITwinAuthority ims";

    fn errors() -> Vec<(TlsError, &'static [&'static str])> {
        let at = DateTime::UNIX_EPOCH;
        let presented = CertificateNames::new(["a.example.com", "b.example.com"]);
        vec![
            (
                TlsError::UntrustedIssuer(TrustedRoots::Configured),
                &["signed by no CA of spec.caBundle: put the CA that signed it into spec.caBundle"],
            ),
            (
                TlsError::UntrustedIssuer(TrustedRoots::Referenced),
                &["no CA of spec.caBundleRef: put the CA that signed it into the object that spec.caBundleRef names"],
            ),
            (
                TlsError::UntrustedIssuer(TrustedRoots::System),
                &["no CA of the system's roots: put the CA that signed it into spec.caBundle or spec.caBundleRef"],
            ),
            (TlsError::CaUsedAsEndEntity, &["uses a CA certificate as its own: issue it", "CA:FALSE"]),
            (
                TlsError::WrongName { expected: "ims.example.com".to_owned(), presented },
                &[
                    "for a.example.com, b.example.com, not for ims.example.com: set tokenEndpoint or jwksUri",
                    "add ims.example.com to subjectAltName",
                ],
            ),
            (TlsError::Expired { at }, &["expired at 1970-01-01T00:00:00Z: renew"]),
            (TlsError::NotYetValid { at }, &["valid only from 1970-01-01T00:00:00Z: compare the clocks"]),
            (TlsError::NotForServers, &["serverAuth"]),
            (TlsError::UnsupportedSignature, &["SHA-256"]),
            (TlsError::HandshakeRefused, &["refused the TLS handshake: configure it for TLS 1.2 or later"]),
            (TlsError::NameRefused, &["correct the host in tokenEndpoint or jwksUri"]),
            (
                TlsError::ClientCertificateWanted,
                &["wants a client certificate", "refused the connection without one: have the server ask for none"],
            ),
            (TlsError::NotTls, &["does not speak TLS: correct host and port in tokenEndpoint or jwksUri"]),
            (TlsError::Closed, &["closed during the TLS handshake: check"]),
            (TlsError::Other("unexpected message".to_owned()), &["failed (unexpected message): check"]),
        ]
    }

    #[test]
    fn every_cause_is_named_with_what_to_change() {
        for (error, texts) in errors() {
            let message = message(&error, WHAT);
            assert!(message.contains(WHAT), "{message}");
            for text in texts {
                assert!(message.contains(text), "{text:?} is not in: {message}");
            }
        }
    }

    #[test]
    fn only_a_certificate_of_another_issuer_is_about_the_ca_bundle() {
        for (error, _) in errors() {
            let of_trust = matches!(error, TlsError::UntrustedIssuer(_) | TlsError::CaUsedAsEndEntity);
            assert_eq!(message(&error, WHAT).contains("caBundle"), of_trust, "{error}");
        }
    }
}
