//! A real Keycloak over TLS, with a realm for each test. It is started by the first test that needs it, and once for a
//! program: it takes half a minute of processor time.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    Testbed,
    authority::certificates,
    control_plane::random_token,
    eventually, http,
    process::{Process, bound_to_us, free_ports},
};

/// On a machine whose processors are busy with the other tests.
const READY: Duration = Duration::from_secs(240);
const ANSWER: Duration = Duration::from_secs(60);
/// The administrator of all realms.
const ADMIN: &str = "admin";
/// Where Keycloak has its own administrators.
const MASTER: &str = "master";

/// How Java runs Keycloak; its own script would be a process between Java and the one that ends it.
const JAVA: [&str; 10] = [
    "-Xms64m",
    "-Xmx512m",
    // starts sooner, and it runs for a minute only
    "-XX:TieredStopAtLevel=1",
    "-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.security=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "-cp",
    "lib/quarkus-run.jar",
];
const MAIN: &str = "io.quarkus.bootstrap.runner.QuarkusEntryPoint";

/// The arguments of Java for a command of Keycloak that is unpacked in `home`, its working directory.
#[must_use]
pub fn java_arguments(home: &Path) -> Vec<String> {
    let home = format!("-Dkc.home.dir={}", home.display());
    JAVA.map(str::to_owned).into_iter().chain([home, MAIN.to_owned()]).collect()
}

/// A running Keycloak.
pub struct Keycloak {
    _process: Process,
    address: String,
    ca: String,
    password: String,
    testbed: Testbed,
}

/// A realm of one test.
pub struct Realm<'a> {
    keycloak: &'a Keycloak,
    /// Its name.
    pub name: String,
}

impl Keycloak {
    /// Starts it; `None`, which the end of the run reports, where the testbed has none. It ends with this process.
    ///
    /// # Errors
    /// Fails, with its log, if it does not become ready.
    pub async fn start(testbed: &Testbed) -> Result<Option<Self>> {
        let home = match &testbed.keycloak {
            Ok(home) => home.clone(),
            Err(why) => {
                testbed.skip("tests with Keycloak", why)?;
                return Ok(None);
            }
        };
        let [port] = free_ports()?;
        let address = format!("https://localhost:{port}");
        let (ca, certificate, key) = certificates(&["localhost"])?;
        let password = random_token();
        testbed.keep_secret(&password)?;
        let command = command(&home, &testbed.directory, port, &certificate, &key, &password)?;
        let mut process = start_for_good(command, testbed.directory.clone()).await?;
        let client = client(&ca)?;
        let url = format!("{address}/realms/{MASTER}");
        let ready = eventually("Keycloak", READY, async || {
            if !process.is_running() {
                return Some(false);
            }
            client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()).then_some(true)
        });
        if !matches!(ready.await, Ok(true)) {
            bail!("Keycloak did not start; {}", process.log_tail());
        }
        Ok(Some(Self { _process: process, address, ca, password, testbed: testbed.clone() }))
    }

    /// A secret of a client or a user, which must not be found in any log.
    ///
    /// # Errors
    /// Fails if it cannot be noted.
    pub fn secret(&self) -> Result<String> {
        let secret = random_token();
        self.testbed.keep_secret(&secret)?;
        Ok(secret)
    }

    /// Creates a realm of this name out of its representation in the Admin REST API.
    ///
    /// # Errors
    /// Fails if Keycloak rejects it.
    pub async fn realm(&self, name: &str, mut representation: Value) -> Result<Realm<'_>> {
        representation["realm"] = json!(name);
        representation["enabled"] = json!(true);
        self.call(Method::POST, "/admin/realms", Some(&representation)).await?;
        Ok(Realm { keycloak: self, name: name.to_owned() })
    }

    /// Calls the Admin REST API.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        // valid for a minute
        let token = self.admin_token().await?;
        let request = client(&self.ca)?.request(method.clone(), format!("{}{path}", self.address)).bearer_auth(token);
        let request = body.into_iter().fold(request, |request, body| request.json(body));
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{method} {path}: {status} {text}");
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    async fn admin_token(&self) -> Result<String> {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("grant_type", "password"),
                ("client_id", "admin-cli"),
                ("username", ADMIN),
                ("password", &self.password),
            ])
            .finish();
        let request = client(&self.ca)?
            .post(format!("{}/realms/{MASTER}/protocol/openid-connect/token", self.address))
            .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        Ok(answer["access_token"].as_str().context("no token for the administrator")?.to_owned())
    }
}

/// A client for one call: a connection belongs to the test that made it.
fn client(ca: &str) -> Result<reqwest::Client> {
    let ca = reqwest::Certificate::from_pem(ca.as_bytes())?;
    Ok(http().tls_certs_only([ca]).timeout(ANSWER).build()?)
}

fn command(home: &Path, directory: &Path, port: u16, certificate: &str, key: &str, password: &str) -> Result<Command> {
    let (certificate_file, key_file) = (directory.join("keycloak.crt"), directory.join("keycloak.key"));
    std::fs::write(&certificate_file, certificate)?;
    std::fs::write(&key_file, key)?;
    let mut command = bound_to_us(Path::new("java"));
    command.current_dir(home).args(java_arguments(home)).args(["start", "--optimized", "--http-host=127.0.0.1"]);
    command.arg(format!("--https-port={port}")).arg(format!("--hostname=https://localhost:{port}"));
    command.arg(format!("--https-certificate-file={}", certificate_file.display()));
    command.arg(format!("--https-certificate-key-file={}", key_file.display()));
    command.env("KC_BOOTSTRAP_ADMIN_USERNAME", ADMIN).env("KC_BOOTSTRAP_ADMIN_PASSWORD", password);
    Ok(command)
}

/// Starts the process on a thread that never ends, since it ends with the thread that started it, and tests have one each.
async fn start_for_good(command: Command, directory: PathBuf) -> Result<Process> {
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = send.send(Process::start("keycloak", command, &directory));
        loop {
            std::thread::park();
        }
    });
    receive.await?
}

impl Realm<'_> {
    /// The issuer of its tokens.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("{}/realms/{}", self.keycloak.address, self.name)
    }

    /// The fields of an ITwinAuthority that name it.
    #[must_use]
    pub fn spec(&self) -> Value {
        use base64::Engine;
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.keycloak.ca);
        json!({"issuer": self.issuer(), "caBundle": ca})
    }

    /// Calls the Admin REST API, with a path below that of the realm.
    ///
    /// # Errors
    /// Fails if Keycloak rejects it.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        self.keycloak.call(method, &format!("/admin/realms/{}{path}", self.name), body).await
    }

    /// Switches the realm on or off.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn set_enabled(&self, enabled: bool) -> Result<()> {
        self.call(Method::PUT, "", Some(&json!({"enabled": enabled}))).await.map(drop)
    }

    /// Switches a client on or off.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn set_client_enabled(&self, client_id: &str, enabled: bool) -> Result<()> {
        let found = self.call(Method::GET, &format!("/clients?clientId={client_id}"), None).await?;
        let id = found[0]["id"].as_str().with_context(|| format!("no client {client_id}"))?;
        let change = json!({"clientId": client_id, "enabled": enabled});
        self.call(Method::PUT, &format!("/clients/{id}"), Some(&change)).await.map(drop)
    }

    /// Replaces the key that signs tokens: a new one signs, and the old one is no longer published.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn rotate_key(&self) -> Result<()> {
        let providers = self.call(Method::GET, "/components?type=org.keycloak.keys.KeyProvider", None).await?;
        let is_signing = |provider: &&Value| provider["providerId"] == "rsa-generated";
        let old: Vec<_> = providers.as_array().into_iter().flatten().filter(is_signing).collect();
        let realm = old.first().context("no key that signs")?["parentId"].clone();
        let new = json!({
            "name": format!("rotated-{}", old.len()),
            "providerId": "rsa-generated",
            "providerType": "org.keycloak.keys.KeyProvider",
            "parentId": realm,
            "config": {"priority": ["200"], "enabled": ["true"], "active": ["true"], "algorithm": ["RS256"]},
        });
        self.call(Method::POST, "/components", Some(&new)).await?;
        for provider in old {
            let id = provider["id"].as_str().context("a provider has an id")?;
            self.call(Method::DELETE, &format!("/components/{id}"), None).await?;
        }
        Ok(())
    }

    /// Verifies a token with the keys that the realm publishes now, as a resource server does; returns the identifier of
    /// the key, and the claims.
    ///
    /// # Errors
    /// Fails if it does not verify.
    pub async fn verify(&self, token: &str) -> Result<(String, Value)> {
        self.keycloak.testbed.keep_secret(token.rsplit('.').next().unwrap_or(token))?;
        let url = format!("{}/protocol/openid-connect/certs", self.issuer());
        let keys: JwkSet = client(&self.keycloak.ca)?.get(url).send().await?.error_for_status()?.json().await?;
        let kid = jsonwebtoken::decode_header(token)?.kid.context("the token names no key")?;
        let key = DecodingKey::from_jwk(keys.find(&kid).with_context(|| format!("no key {kid} is published"))?)?;
        let mut validation = Validation::new(Algorithm::RS256);
        validation.validate_aud = false;
        validation.set_issuer(&[self.issuer()]);
        Ok((kid, jsonwebtoken::decode::<Value>(token, &key, &validation)?.claims))
    }
}
