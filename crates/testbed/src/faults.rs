//! The faulty authority, and its control socket for tests.

mod tls;

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use base64::Engine;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
pub use tls::TlsFaults;

use crate::{
    authority::{TokenRequest, certificate, certificate_authority},
    eventually,
    process::{Process, bound_to_us, free_ports},
    tools::Tools,
};

const READY: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(10);

/// The faulty authority.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Faults {
    /// Its issuer identifier.
    pub issuer: String,
    /// PEM of the certificate authority that issued its certificate.
    pub ca: String,
    /// Ports at which a client fails in TLS.
    pub tls: TlsFaults,
    /// A port that accepts connections and never responds.
    pub black_hole: u16,
    control: String,
}

/// What the server counted.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Requests for the key set, by the query of its URL.
    pub key_set_requests: BTreeMap<String, u32>,
    /// Requests that followed a redirect.
    pub redirected: u32,
}

impl Faults {
    /// Starts the server.
    ///
    /// # Errors
    /// Fails, with its log, if it does not become ready.
    pub async fn start(tools: &Tools, directory: &Path) -> Result<(Process, Self)> {
        let [port, control_port, black_hole] = free_ports()?;
        let ca = certificate_authority()?;
        let mut options = tls::listener(directory, "faults", port, certificate(&ca, &["localhost"], |_| {})?)?;
        let tls = TlsFaults::prepare(&ca, directory, &mut options)?;
        options["controlPort"] = json!(control_port);
        options["blackHolePort"] = json!(black_hole);
        let mut command = bound_to_us(Path::new("node"));
        command.arg(tools.authority.join("faults.mjs")).arg(options.to_string());
        let mut process = Process::start("faults", command, directory)?;
        let faults = Self {
            issuer: format!("https://localhost:{port}"),
            ca: ca.pem(),
            tls,
            black_hole,
            control: format!("http://127.0.0.1:{control_port}"),
        };
        let ready = eventually("the faulty authority", READY, async || {
            if process.is_running() { faults.counts().await.ok().map(|_| true) } else { Some(false) }
        });
        if !matches!(ready.await, Ok(true)) {
            bail!("the faulty authority did not start; {}", process.log_tail());
        }
        Ok((process, faults))
    }

    /// The fields of an ITwinAuthority that name this server.
    #[must_use]
    pub fn spec(&self) -> Value {
        json!({"issuer": self.issuer, "caBundle": self.ca_bundle()})
    }

    /// The certificate authority, in the form of `spec.caBundle`.
    #[must_use]
    pub fn ca_bundle(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(&self.ca)
    }

    /// Sets what happens to the token requests of a client from now on: the name of a behaviour and its `value`.
    ///
    /// # Errors
    /// Fails if the server does not respond.
    pub async fn behave(&self, client_id: &str, behaviour: &Value) -> Result<()> {
        let mut body = behaviour.clone();
        body["client_id"] = json!(client_id);
        self.http()?.put(format!("{}/behaviours", self.control)).json(&body).send().await?.error_for_status()?;
        Ok(())
    }

    /// The token requests of a client up to now.
    ///
    /// # Errors
    /// Fails if the server does not respond.
    pub async fn requests(&self, client_id: &str) -> Result<Vec<TokenRequest>> {
        self.ask(&format!("requests?client_id={client_id}")).await
    }

    /// The key set, as the server publishes it.
    ///
    /// # Errors
    /// Fails if the server does not respond.
    pub async fn keys(&self) -> Result<Value> {
        let ca = reqwest::Certificate::from_pem(self.ca.as_bytes())?;
        let client = crate::http().tls_certs_only([ca]).timeout(ANSWER).build()?;
        Ok(client.get(format!("{}/keys", self.issuer)).send().await?.error_for_status()?.json().await?)
    }

    /// Everything that must stay secret: client secrets, signatures of tokens.
    ///
    /// # Errors
    /// Fails if the server does not respond.
    pub async fn secrets(&self) -> Result<Vec<String>> {
        self.ask("secrets").await
    }

    /// What the server counted up to now.
    ///
    /// # Errors
    /// Fails if the server does not respond.
    pub async fn counts(&self) -> Result<Counts> {
        self.ask("counts").await
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.http()?.get(format!("{}/{path}", self.control)).send().await?.error_for_status()?;
        answer.json().await.context("the control socket answers JSON")
    }

    fn http(&self) -> Result<reqwest::Client> {
        Ok(crate::http().timeout(ANSWER).build()?)
    }
}
