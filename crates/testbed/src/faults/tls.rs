//! Ports of the faulty authority at which a client fails in TLS.

use std::path::Path;

use anyhow::Result;
use base64::Engine;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    authority::{Ca, certificate},
    process::free_ports,
};

/// The name of the certificate at [`TlsFaults::wrong_name`].
const OTHER_NAME: &str = "elsewhere.example.com";

/// The ports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TlsFaults {
    /// Its certificate expired at 2020-02-01.
    pub expired: u16,
    /// Its certificate is valid from 2100-01-01 on.
    pub not_yet_valid: u16,
    /// Its certificate is self-signed.
    pub self_signed: u16,
    /// Its certificate is for elsewhere.example.com.
    pub wrong_name: u16,
    /// Its certificate is self-signed and that of a CA, [`Self::ca_certificate`].
    pub ca_as_server: u16,
    /// The certificate at [`Self::ca_as_server`], in PEM.
    pub ca_certificate: String,
    /// It speaks TLS 1.1 only.
    pub old_version: u16,
    /// It speaks TLS 1.2 with a cipher suite that clients no longer offer.
    pub old_cipher: u16,
    /// It requires a client certificate, with TLS 1.2.
    pub client_certificate_tls12: u16,
    /// It requires a client certificate, with TLS 1.3.
    pub client_certificate_tls13: u16,
    /// It asks for a client certificate and answers requests without one as nginx does, with HTTP 400.
    pub client_certificate_http: u16,
    /// It asks for a client certificate and serves clients without one like all others.
    pub client_certificate_optional: u16,
    /// It speaks HTTP without TLS.
    pub plain_http: u16,
    /// It closes each connection when the handshake begins.
    pub closing: u16,
}

impl TlsFaults {
    /// Writes the certificates into `directory`; adds the ports to the options of the server.
    pub(super) fn prepare(ca: &Ca, directory: &Path, options: &mut Value) -> Result<Self> {
        let [expired, not_yet_valid, self_signed, wrong_name, ca_as_server, old_version, old_cipher] = free_ports()?;
        let [client_certificate_tls12, client_certificate_tls13, client_certificate_http] = free_ports()?;
        let [client_certificate_optional, plain_http, closing] = free_ports()?;
        let good = || certificate(ca, &["localhost"], |_| {});
        let write = |name, port, files| listener(directory, name, port, files);
        let (ca_certificate, ca_key) = self_signed_certificate(IsCa::Ca(BasicConstraints::Unconstrained))?;
        let demanding = json!({"requestCert": true, "rejectUnauthorized": true});
        let mut optional = with(
            write("optional", client_certificate_optional, good()?)?,
            &json!({"requestCert": true, "rejectUnauthorized": false}),
        );
        optional["serves"] = json!(true);
        options["tls"] = json!([
            write("expired", expired, certificate(ca, &["localhost"], |params| valid(params, 2020))?)?,
            write("not-yet-valid", not_yet_valid, certificate(ca, &["localhost"], |params| valid(params, 2100))?)?,
            write("self-signed", self_signed, self_signed_certificate(IsCa::NoCa)?)?,
            write("wrong-name", wrong_name, certificate(ca, &[OTHER_NAME], |_| {})?)?,
            write("ca-as-server", ca_as_server, (ca_certificate.clone(), ca_key))?,
            // OpenSSL speaks it at its lowest security level only
            with(
                write("old-version", old_version, good()?)?,
                &json!({"minVersion": "TLSv1.1", "maxVersion": "TLSv1.1", "ciphers": "DEFAULT@SECLEVEL=0"}),
            ),
            with(
                write("old-cipher", old_cipher, good()?)?,
                &json!({"maxVersion": "TLSv1.2", "ciphers": "ECDHE-ECDSA-AES128-SHA"}),
            ),
            with(
                with(write("demanding-12", client_certificate_tls12, good()?)?, &demanding),
                &json!({"maxVersion": "TLSv1.2"})
            ),
            with(
                with(write("demanding-13", client_certificate_tls13, good()?)?, &demanding),
                &json!({"minVersion": "TLSv1.3"})
            ),
            with(
                write("asking", client_certificate_http, good()?)?,
                &json!({"requestCert": true, "rejectUnauthorized": false}),
            ),
            optional,
        ]);
        options["plainHttpPort"] = json!(plain_http);
        options["closingPort"] = json!(closing);
        Ok(Self {
            expired,
            not_yet_valid,
            self_signed,
            wrong_name,
            ca_as_server,
            ca_certificate,
            old_version,
            old_cipher,
            client_certificate_tls12,
            client_certificate_tls13,
            client_certificate_http,
            client_certificate_optional,
            plain_http,
            closing,
        })
    }

    /// [`Self::ca_certificate`] in addition to this CA, in the form of `spec.caBundle`.
    #[must_use]
    pub fn ca_bundle(&self, ca: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(format!("{ca}{}", self.ca_certificate))
    }
}

/// The options of the server for a port.
pub(super) fn listener(directory: &Path, name: &str, port: u16, (certificate, key): (String, String)) -> Result<Value> {
    let file = |end: &str| directory.join(format!("{name}.{end}"));
    std::fs::write(file("crt"), certificate)?;
    std::fs::write(file("key"), key)?;
    Ok(json!({"port": port, "certificate": file("crt"), "key": file("key"), "tls": {}}))
}

/// The same with options of Node's `tls.createServer`.
fn with(mut listener: Value, tls: &Value) -> Value {
    crate::objects::merge(&mut listener["tls"], tls);
    listener
}

/// Valid in January of that year.
fn valid(params: &mut CertificateParams, year: i32) {
    params.not_before = date_time_ymd(year, 1, 1);
    params.not_after = date_time_ymd(year, 2, 1);
}

fn self_signed_certificate(is_ca: IsCa) -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params.is_ca = is_ca;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}
