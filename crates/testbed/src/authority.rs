//! The authorization server over TLS, and its control socket for tests.

use std::{path::Path, time::Duration};

use anyhow::{Result, bail};
use base64::Engine;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde::{Deserialize, Serialize};

use crate::{
    eventually,
    process::{Process, bound_to_us, free_ports},
    tools::Tools,
};

const READY: Duration = Duration::from_secs(60);

/// An authorization server, from the point of view of a test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Authority {
    /// Its issuer identifier.
    pub issuer: String,
    /// PEM of the certificate authority that issued its certificate.
    pub ca: String,
    control: String,
}

/// A client to register.
#[derive(Clone, Debug, Serialize)]
pub struct Client {
    /// Client identifier.
    pub client_id: String,
    /// Client secret.
    pub client_secret: String,
    /// Lifetime of its tokens, in seconds.
    pub lifetime: u32,
    /// Scopes that it may request, separated by spaces.
    pub scope: String,
    /// `client_secret_post`, `client_secret_basic` or `private_key_jwt`.
    pub authentication: String,
    /// Keys of a client that signs assertions, as a JSON Web Key Set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks: Option<serde_json::Value>,
    /// The service user of a client with grant type `password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
}

/// A service user.
#[derive(Clone, Debug, Serialize)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: String,
}

impl Client {
    /// A client with its own secret and tokens that are valid for an hour.
    #[must_use]
    pub fn new(client_id: &str) -> Self {
        Self {
            client_id: client_id.to_owned(),
            client_secret: crate::control_plane::random_token(),
            lifetime: 3600,
            scope: "itwin-platform".to_owned(),
            authentication: "client_secret_post".to_owned(),
            jwks: None,
            user: None,
        }
    }
}

/// A token request that the server received.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRequest {
    /// When it came, in milliseconds since the start of Unix time.
    pub at: i64,
    /// `basic`, `post` or `other`.
    pub authentication: String,
    /// The requested scopes.
    pub scope: Option<String>,
    /// HTTP status of the response.
    pub status: u16,
    /// OAuth error of the response.
    pub error: Option<String>,
}

impl Authority {
    /// Starts a server with a newly generated certificate authority. If `name` is given, the server listens on the
    /// address of that name; otherwise on loopback.
    ///
    /// # Errors
    /// Fails, with its log, if it does not become ready.
    pub async fn start(tools: &Tools, directory: &Path, name: Option<&str>) -> Result<(Process, Self)> {
        let [port, control_port] = free_ports()?;
        let host = name.unwrap_or("localhost");
        let (ca, certificate, key) = certificates(&[host, "127.0.0.1"])?;
        let (certificate_file, key_file) = (directory.join("authority.crt"), directory.join("authority.key"));
        std::fs::write(&certificate_file, certificate)?;
        std::fs::write(&key_file, key)?;
        let options = serde_json::json!({
            "host": host,
            "port": port,
            "controlPort": control_port,
            "certificate": certificate_file,
            "key": key_file,
        });
        let mut command = bound_to_us(Path::new("node"));
        command.arg(tools.authority.join("server.mjs")).arg(options.to_string());
        let mut process = Process::start("authority", command, directory)?;
        let authority =
            Self { issuer: format!("https://{host}:{port}"), ca, control: format!("http://127.0.0.1:{control_port}") };
        let client = authority.http()?;
        let url = format!("{}/.well-known/openid-configuration", authority.issuer);
        let ready = eventually("the authorization server", READY, async || {
            if !process.is_running() {
                return Some(false);
            }
            client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()).then_some(true)
        });
        if !matches!(ready.await, Ok(true)) {
            bail!("the authorization server did not start; {}", process.log_tail());
        }
        Ok((process, authority))
    }

    /// A client that trusts the server.
    ///
    /// # Errors
    /// Fails if it cannot be made.
    pub fn http(&self) -> Result<reqwest::Client> {
        let ca = reqwest::Certificate::from_pem(self.ca.as_bytes())?;
        Ok(crate::http().tls_certs_only([ca]).timeout(Duration::from_secs(10)).build()?)
    }

    /// The fields of an ITwinAuthority that name this server.
    #[must_use]
    pub fn spec(&self) -> serde_json::Value {
        serde_json::json!({"issuer": self.issuer, "caBundle": self.ca_bundle()})
    }

    /// The certificate authority, in the form of `spec.caBundle`.
    #[must_use]
    pub fn ca_bundle(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(&self.ca)
    }

    /// Registers or changes a client.
    ///
    /// # Errors
    /// Fails if the server does not respond.
    pub async fn register(&self, client: &Client) -> Result<()> {
        self.http()?.put(format!("{}/clients", self.control)).json(client).send().await?.error_for_status()?;
        Ok(())
    }

    /// The token requests of a client up to now.
    ///
    /// # Errors
    /// Fails if the server does not respond.
    pub async fn requests(&self, client_id: &str) -> Result<Vec<TokenRequest>> {
        let url = format!("{}/requests?client_id={client_id}", self.control);
        Ok(self.http()?.get(url).send().await?.error_for_status()?.json().await?)
    }

    /// Everything that must stay secret: client secrets, passwords, signatures of tokens.
    ///
    /// # Errors
    /// Fails if the server does not respond.
    pub async fn secrets(&self) -> Result<Vec<String>> {
        let url = format!("{}/secrets", self.control);
        Ok(self.http()?.get(url).send().await?.error_for_status()?.json().await?)
    }

    /// The key set, as the server publishes it.
    ///
    /// # Errors
    /// Fails if the server does not respond.
    pub async fn keys(&self) -> Result<serde_json::Value> {
        let url = format!("{}/.well-known/openid-configuration/jwks", self.issuer);
        Ok(self.http()?.get(url).send().await?.error_for_status()?.json().await?)
    }
}

/// A certificate authority, and a certificate with its key for these names, in PEM.
///
/// # Errors
/// Fails if a name is invalid.
pub fn certificates(names: &[&str]) -> Result<(String, String, String)> {
    let ca = certificate_authority()?;
    let (certificate, key) = certificate(&ca, names, |_| {})?;
    Ok((ca.pem(), certificate, key))
}

/// A private key of a client for this signature algorithm (RFC 7518 section 3.1), and a certificate of it, in PEM.
///
/// # Errors
/// Fails if it cannot be made.
pub fn client_key(algorithm: &str) -> Result<(String, String)> {
    let key = match algorithm {
        "ES256" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
        "ES384" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?,
        "EdDSA" => KeyPair::generate_for(&rcgen::PKCS_ED25519)?,
        _ => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)?,
    };
    let certificate = CertificateParams::new(["client.example.com".to_owned()])?.self_signed(&key)?;
    Ok((key.serialize_pem(), certificate.pem()))
}

pub(crate) type Ca = CertifiedIssuer<'static, KeyPair>;

/// A certificate authority.
pub(crate) fn certificate_authority() -> Result<Ca> {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "testbed authority");
    Ok(CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?)
}

/// A certificate for these names and its key, in PEM; `change` may invalidate it.
pub(crate) fn certificate(
    ca: &Ca,
    names: &[&str],
    change: impl FnOnce(&mut CertificateParams),
) -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    change(&mut params);
    Ok((params.signed_by(&key, ca)?.pem(), key.serialize_pem()))
}
