//! The testbed on which tests and the demo run: a real etcd, kube-apiserver and kube-controller-manager built from pinned
//! Go modules, Helm, and a real authorization server over TLS with a certificate authority generated for each run.
//!
//! `testbed run -- COMMAND` starts everything and runs the command. The variable `TESTBED` names the file that describes
//! the testbed, which [`Testbed::current`] reads. In the end, also after Ctrl-C, everything stops. An existing cluster is
//! used only when `CLUSTER` names its kubeconfig context. `testbed run --node -- COMMAND` adds a real node for pods.

pub mod api_proxy;
pub mod audit;
pub mod authority;
pub mod control_plane;
pub mod dns;
pub mod faults;
pub mod keycloak;
pub mod leaks;
pub mod namespace;
pub mod node;
pub mod objects;
pub mod operator;
pub mod packages;
pub mod process;
mod programs;
pub mod setup;
pub mod space;
pub mod tools;
pub mod tunnels;
pub mod version;
pub mod webhook;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

pub use self::programs::node;
pub(crate) use self::programs::output;

/// The variable that names the file with the description of the testbed.
pub const VARIABLE: &str = "TESTBED";

/// The file of what did not run, in the folder of the testbed.
const SKIPPED: &str = "skipped";
/// The file of secrets that tests made themselves.
const SECRETS: &str = "kept-secrets";

/// The namespace and name of the operator's installation, and so of its service account.
pub const INSTALLATION: &str = "itwin-credential-operator";

/// What a test needs to know about the testbed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Testbed {
    /// Folder with logs and configuration; it is deleted with the testbed.
    pub directory: PathBuf,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The kubeconfig of the operator's service account, with its real permissions.
    pub operator_kubeconfig: PathBuf,
    /// kubectl.
    pub kubectl: PathBuf,
    /// Helm.
    pub helm: PathBuf,
    /// Helm 3, for what it does differently.
    pub helm3: PathBuf,
    /// amtool, which checks the configuration of an Alertmanager.
    pub amtool: PathBuf,
    /// promtool, which checks and tests rules of Prometheus.
    pub promtool: PathBuf,
    /// The Lua interpreter that Argo CD runs health checks with.
    pub lua: PathBuf,
    /// Folder with krew, which installs plugins of kubectl, and with what checks its manifests.
    pub krew: PathBuf,
    /// kube-state-metrics, which makes metrics of objects.
    pub state_metrics: PathBuf,
    /// The authorization server.
    pub authority: authority::Authority,
    /// The faulty authority, for faults that a real server cannot cause.
    pub faults: faults::Faults,
    /// Folder with the server's packages, for scripts that use them.
    pub packages: PathBuf,
    /// Where Keycloak is unpacked, or why it is not there.
    pub keycloak: std::result::Result<PathBuf, String>,
    /// Where Envoy is, or why it is not there.
    pub envoy: std::result::Result<PathBuf, String>,
    /// The folder of the packages of iTwin.js, or why it is not there.
    pub itwin_js: std::result::Result<PathBuf, String>,
    /// The container runtime of the node; none without a node.
    pub runtime: Option<node::runtime::Runtime>,
}

impl Testbed {
    /// The testbed that the test runs on.
    ///
    /// # Errors
    /// Fails if there is none: the test was not started by `make test`.
    pub fn current() -> Result<Self> {
        choose_cryptography();
        let file = std::env::var(VARIABLE)
            .context("these tests need the testbed: run them with `make test`, or `make test ARGS=name_of_test`")?;
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("the testbed described by {file} is gone"))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Notes that tests did not run, for the end of the run: a test that does nothing looks like one that passed.
    ///
    /// # Errors
    /// Fails if it cannot be noted.
    pub fn skip(&self, what: &str, why: &str) -> Result<()> {
        let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
        self.note(SKIPPED, &format!("{what}: {why}"))
    }

    /// What did not run, and why.
    #[must_use]
    pub fn skipped(&self) -> BTreeSet<String> {
        self.notes(SKIPPED)
    }

    /// Has the scan at the end of the run search for a secret that no server of the testbed knows.
    ///
    /// # Errors
    /// Fails if it cannot be noted.
    pub fn keep_secret(&self, secret: &str) -> Result<()> {
        self.note(SECRETS, secret)
    }

    pub(crate) fn kept_secrets(&self) -> BTreeSet<String> {
        self.notes(SECRETS)
    }

    fn note(&self, file: &str, line: &str) -> Result<()> {
        use std::io::Write;
        let mut file = std::fs::File::options().create(true).append(true).open(self.directory.join(file))?;
        // in one write: tests write at the same time
        Ok(file.write_all(format!("{line}\n").as_bytes())?)
    }

    fn notes(&self, file: &str) -> BTreeSet<String> {
        let text = std::fs::read_to_string(self.directory.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// A client with the administrator's permissions.
    ///
    /// # Errors
    /// Fails if the kubeconfig cannot be used.
    pub async fn client(&self) -> Result<kube::Client> {
        use hyper_util::{client::legacy::Client, rt::TokioExecutor};
        use kube::client::{Body, ConfigExt};

        choose_cryptography();
        let kubeconfig = kube::config::Kubeconfig::read_from(&self.kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        // connections that send immediately, as those of the operator
        let mut tcp = hyper_util::client::legacy::connect::HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let http: Client<_, Body> =
            Client::builder(TokioExecutor::new()).build(config.rustls_https_connector_with_connector(tcp)?);
        let service = tower::ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer()?)
            .map_err(tower::BoxError::from)
            .service(http);
        Ok(kube::Client::new(service, config.default_namespace))
    }
}

/// Chooses the cryptography provider of the process; rustls needs it before any connection. A second call has no
/// effect.
pub fn choose_cryptography() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// An HTTP client of the testbed: all its servers are on this machine, whatever proxy the user's environment names.
pub fn http() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy()
}

/// Waits until `condition` returns something.
///
/// # Errors
/// Fails after `limit`; the error names `what`.
pub async fn eventually<T, F>(what: &str, limit: Duration, mut condition: F) -> Result<T>
where
    F: AsyncFnMut() -> Option<T>,
{
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        if let Some(found) = condition().await {
            return Ok(found);
        }
        if tokio::time::Instant::now() >= deadline {
            bail!("timed out after {limit:?}, waiting for: {what}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The folder of the project.
#[must_use]
pub fn project() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Copies a folder with everything in it.
///
/// # Errors
/// Fails, with its name, if it cannot be read, or if a file cannot be copied.
pub fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
