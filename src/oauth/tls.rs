//! TLS with one authority: what is trusted, and why a handshake failed.
//!
//! Every handshake is a full one. A resumed one repeats neither the server's certificate, whose time passes, nor its
//! request for a client certificate; and connections are few, since they are kept.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use itwin_oauth::tls::{CertificateNames, TlsError, TrustedRoots};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, InvalidMessage, RootCertStore,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, UnixTime},
    version::{TLS12, TLS13},
};

use super::{cause::bounded, handshake::NoClientCertificate};

/// There is nothing that a server's certificate could be signed by.
const NO_CONFIGURED_ROOTS: &str =
    "caBundle or caBundleRef: no certificate in it can be used: write the PEM certificate of the CA";
const NO_SYSTEM_ROOTS: &str = "the operator has no root certificates of the system, such as those of \
     /etc/ssl/certs/ca-certificates.crt in its image: put the CA of the server into spec.caBundle, or correct the image \
     (SSL_CERT_FILE, SSL_CERT_DIR)";

/// The configuration of a client that trusts `roots`, or the system's roots where there are none.
///
/// # Errors
/// Text that names where the roots come from, and says what is wrong with them.
pub fn config(roots: Option<&[CertificateDer<'static>]>) -> Result<ClientConfig, String> {
    let provider = CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| format!("no TLS client can be made ({})", bounded(&error.to_string())))?
        .with_root_certificates(roots.map_or_else(system_roots, configured_roots)?)
        .with_client_cert_resolver(Arc::new(NoClientCertificate));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn configured_roots(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    // as for those of the system: one of many that cannot be read is no reason to trust none
    let (usable, _) = store.add_parsable_certificates(certificates.iter().cloned());
    if usable == 0 { Err(NO_CONFIGURED_ROOTS.to_owned()) } else { Ok(store) }
}

fn system_roots() -> Result<RootCertStore, String> {
    trusted_by_system(rustls_native_certs::load_native_certs().certs)
}

fn trusted_by_system(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates);
    if store.is_empty() { Err(NO_SYSTEM_ROOTS.to_owned()) } else { Ok(store) }
}

/// Why TLS failed. `asked` is whether the server asked for a client certificate on this connection: a server refuses a
/// client without one with whatever alert it likes.
pub fn cause(error: &Error, roots: TrustedRoots, asked: bool) -> TlsError {
    match error {
        Error::InvalidCertificate(error) => certificate(error, roots),
        Error::AlertReceived(AlertDescription::CertificateRequired) => TlsError::ClientCertificateWanted,
        Error::AlertReceived(_) if asked => TlsError::ClientCertificateWanted,
        Error::AlertReceived(
            AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity,
        )
        | Error::PeerIncompatible(_) => TlsError::HandshakeRefused,
        Error::AlertReceived(AlertDescription::UnrecognisedName) => TlsError::NameRefused,
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            TlsError::NotTls
        }
        other => TlsError::Other(bounded(&other.to_string())),
    }
}

fn certificate(error: &CertificateError, roots: TrustedRoots) -> TlsError {
    match error {
        // a bad signature is that of another key: a CA that was made again under its name
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsError::UntrustedIssuer(roots),
        CertificateError::NotValidForNameContext { expected, presented } => TlsError::WrongName {
            expected: expected.to_str().into_owned(),
            presented: CertificateNames::new(presented.iter().filter_map(|name| general_name(name))),
        },
        CertificateError::ExpiredContext { not_after, .. } => TlsError::Expired { at: instant(*not_after) },
        CertificateError::NotValidYetContext { not_before, .. } => TlsError::NotYetValid { at: instant(*not_before) },
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => TlsError::NotForServers,
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => TlsError::UnsupportedSignature,
        CertificateError::Other(other) => match other.0.downcast_ref() {
            Some(webpki::Error::CaUsedAsEndEntity) => TlsError::CaUsedAsEndEntity,
            _ => TlsError::Other(bounded(&other.to_string())),
        },
        other => TlsError::Other(bounded(&other.to_string())),
    }
}

/// A name as the library shows it, `DnsName("example.com")` or `IpAddress(10.0.0.1)`, without the kind. Names of other
/// kinds are none of a server's.
fn general_name(shown: &str) -> Option<&str> {
    let inside = |kind: &str, end: &str| shown.strip_prefix(kind)?.strip_suffix(end);
    inside("DnsName(\"", "\")").or_else(|| inside("IpAddress(", ")"))
}

fn instant(at: UnixTime) -> DateTime<Utc> {
    i64::try_from(at.as_secs()).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rustls::{
        ClientConnection, HandshakeKind, OtherError, PeerIncompatible, ServerConfig, ServerConnection,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    };

    use super::*;

    fn of(error: Error) -> TlsError {
        cause(&error, TrustedRoots::Configured, false)
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
    }

    /// Sends what both sides have to send, until neither has anything.
    fn exchange(client: &mut ClientConnection, server: &mut ServerConnection) {
        while client.wants_write() || server.wants_write() {
            let (mut sent, mut answered) = (Vec::new(), Vec::new());
            client.write_tls(&mut sent).expect("in memory");
            server.read_tls(&mut &*sent).expect("in memory");
            server.process_new_packets().expect("a client that is understood");
            server.write_tls(&mut answered).expect("in memory");
            client.read_tls(&mut &*answered).expect("in memory");
            client.process_new_packets().expect("a server that is trusted");
        }
    }

    #[test]
    fn every_handshake_is_a_full_one() {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let certificate = certified.cert.der().clone();
        let full = config(Some(std::slice::from_ref(&certificate))).expect("roots");
        // what a client without that setting does, or the test would pass with any server that resumes nothing
        let mut resuming = full.clone();
        resuming.resumption = Resumption::default();
        let kinds = [(full, HandshakeKind::Full), (resuming, HandshakeKind::Resumed)];
        for version in [&TLS12, &TLS13] {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
            let server = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
            let server = server.expect("a version").with_no_client_auth();
            let server = Arc::new(server.with_single_cert(vec![certificate.clone()], key).expect("a server"));
            for (client, kind) in &kinds {
                let client = Arc::new(client.clone());
                for number in 0..3 {
                    let name = ServerName::try_from("localhost").expect("a name");
                    let mut client = ClientConnection::new(client.clone(), name).expect("a client");
                    let mut server = ServerConnection::new(server.clone()).expect("a server");
                    exchange(&mut client, &mut server);
                    let expected = if number == 0 { HandshakeKind::Full } else { *kind };
                    assert_eq!(client.handshake_kind(), Some(expected), "{version:?}, connection {number}");
                }
            }
        }
    }

    #[test]
    fn message_about_missing_roots_names_what_is_missing() {
        let missing = trusted_by_system(Vec::new()).expect_err("nothing is trusted");
        assert!(missing.starts_with("the operator has no root certificates of the system"), "{missing}");
        let unusable = CertificateDer::from(vec![0]);
        let invalid = config(Some(std::slice::from_ref(&unusable))).expect_err("no certificate");
        assert!(invalid.starts_with("caBundle or caBundleRef: "), "{invalid}");
        let usable =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate").cert.der().clone();
        assert!(config(Some(&[unusable, usable])).is_ok(), "one of many that cannot be read does no harm");
    }

    #[test]
    fn certificate_is_reported_by_what_is_wrong_with_it() {
        let by_webpki = |error: webpki::Error| CertificateError::Other(OtherError(Arc::new(error)));
        let roots = TrustedRoots::Configured;
        for (error, expected) in [
            (CertificateError::UnknownIssuer, TlsError::UntrustedIssuer(roots)),
            (by_webpki(webpki::Error::CaUsedAsEndEntity), TlsError::CaUsedAsEndEntity),
            (CertificateError::InvalidPurpose, TlsError::NotForServers),
            (CertificateError::BadSignature, TlsError::UntrustedIssuer(roots)),
            (CertificateError::BadEncoding, TlsError::Other("BadEncoding".to_owned())),
        ] {
            assert_eq!(of(Error::InvalidCertificate(error)), expected);
        }
    }

    #[test]
    fn certificate_out_of_its_time_is_reported_alike_at_any_time() {
        let expired = |now| CertificateError::ExpiredContext { time: at(now), not_after: at(60) };
        let future = |now| CertificateError::NotValidYetContext { time: at(now), not_before: at(60) };
        let minute = instant(at(60));
        for now in [61, 7200] {
            assert_eq!(of(Error::InvalidCertificate(expired(now))), TlsError::Expired { at: minute });
        }
        for now in [0, 59] {
            assert_eq!(of(Error::InvalidCertificate(future(now))), TlsError::NotYetValid { at: minute });
        }
    }

    #[test]
    fn names_are_those_of_the_certificate() {
        let presented = ["DnsName(\"*.example.com\")", "IpAddress(10.0.0.1)", "UniformResourceIdentifier(\"x:y\")"];
        let error = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("ims.example.org").expect("a name"),
            presented: presented.map(str::to_owned).to_vec(),
        };
        let expected = "ims.example.org".to_owned();
        let presented = CertificateNames::new(["*.example.com", "10.0.0.1"]);
        assert_eq!(of(Error::InvalidCertificate(error)), TlsError::WrongName { expected, presented });
    }

    #[test]
    fn rejection_is_reported_by_its_alert() {
        for (error, expected) in [
            (Error::AlertReceived(AlertDescription::HandshakeFailure), TlsError::HandshakeRefused),
            (Error::AlertReceived(AlertDescription::ProtocolVersion), TlsError::HandshakeRefused),
            (Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13), TlsError::HandshakeRefused),
            (Error::AlertReceived(AlertDescription::UnrecognisedName), TlsError::NameRefused),
            (Error::AlertReceived(AlertDescription::CertificateRequired), TlsError::ClientCertificateWanted),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), TlsError::NotTls),
            (Error::DecryptError, TlsError::Other("cannot decrypt peer's message".to_owned())),
        ] {
            assert_eq!(of(error), expected);
        }
    }

    #[test]
    fn any_alert_after_a_request_for_a_certificate_is_about_that_certificate() {
        let after_request = |error: Error| cause(&error, TrustedRoots::System, true);
        for alert in [AlertDescription::HandshakeFailure, AlertDescription::BadCertificate] {
            assert_eq!(after_request(Error::AlertReceived(alert)), TlsError::ClientCertificateWanted);
        }
        // unless it is this side that refuses
        let error = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert_eq!(after_request(error), TlsError::UntrustedIssuer(TrustedRoots::System));
    }
}
