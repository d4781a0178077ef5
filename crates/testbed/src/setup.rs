//! Starts everything in order, and stops it again.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use kube::{Api, api::PostParams};
use tempfile::TempDir;

use crate::{
    INSTALLATION, Testbed, VARIABLE,
    authority::Authority,
    control_plane::{ControlPlane, Durability, write_kubeconfig},
    eventually,
    faults::Faults,
    node::{self, Node},
    output, packages,
    process::Process,
    project, space,
    tools::{self, Needs, Tools},
};

/// Lifetime of the operator's token, in seconds: longer than any run of the tests.
const TOKEN_SECONDS: i64 = 4 * 3600;

/// How long the API server may take to serve new CRDs; about a second.
const DISCOVERY: Duration = Duration::from_secs(60);

/// A running testbed. It stops when this is dropped.
pub struct Running {
    /// What tests need to know about it.
    pub testbed: Testbed,
    /// The file that describes it.
    pub description: PathBuf,
    _authorities: [Process; 2],
    // before the API server that it calls
    _node: Option<Node>,
    control_plane: Option<ControlPlane>,
    // last, because it contains the logs
    directory: TempDir,
}

impl Running {
    /// Builds what is missing, starts everything and installs the chart.
    ///
    /// # Errors
    /// Fails, with its log, if a program does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(Durability::Fast, false, true).await
    }

    /// Like [`Self::start`], but installs nothing: the cluster may be that of the user.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_empty() -> Result<Self> {
        Self::start_with(Durability::Fast, false, false).await
    }

    /// Whether the cluster is one of the user's, named by `CLUSTER`.
    #[must_use]
    pub fn is_of_the_user(&self) -> bool {
        self.control_plane.is_none()
    }

    /// Like [`Self::start`], with an etcd that syncs its writes to the disk, for measurements.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_durable() -> Result<Self> {
        Self::start_with(Durability::Durable, false, true).await
    }

    /// Starts everything with a node for pods, in namespaces that [`node::machine`] has created. It does not install
    /// the chart: that is up to the test.
    ///
    /// # Errors
    /// Fails, with its log, if a program does not start.
    pub async fn start_with_node() -> Result<Self> {
        Self::start_with(Durability::Fast, true, false).await
    }

    async fn start_with(durability: Durability, with_node: bool, with_chart: bool) -> Result<Self> {
        crate::choose_cryptography();
        let existing = std::env::var("CLUSTER").ok().filter(|context| !context.is_empty());
        // the demo and the benchmark run less than the tests do
        let needs = match (durability, with_node || with_chart, &existing) {
            (Durability::Fast, true, _) => Needs::Tests,
            (_, _, Some(_)) => Needs::Clients,
            (_, _, None) => Needs::Cluster,
        };
        let folder = std::env::temp_dir();
        space::check(&folder, if needs == Needs::Tests { space::TESTS } else { space::CLUSTER })?;
        let tools = Tools::ready(needs).await?;
        // pods have no use for them
        let is_run = needs == Needs::Tests && !with_node;
        let keycloak = keycloak(is_run).await?;
        let (envoy, itwin_js) = packages(is_run).await;
        let directory = tempfile::Builder::new().prefix("testbed-").tempdir_in(folder)?;
        if with_node {
            node::prepare(directory.path()).await?;
        }
        let (address, host) = (with_node.then_some(node::ADDRESS), with_node.then_some(node::AUTHORITY));
        let (control_plane, kubeconfig) = match existing {
            Some(context) => {
                ensure!(!with_node, "pods run only on a node of the testbed: unset CLUSTER");
                eprintln!("testbed: using the existing cluster of context {context}");
                (None, existing_cluster(&tools, &context, directory.path()).await?)
            }
            None => {
                eprintln!("testbed: starting etcd, kube-apiserver and kube-controller-manager");
                let control_plane = ControlPlane::start(&tools, directory.path(), durability, address).await?;
                let kubeconfig = control_plane.kubeconfig.clone();
                (Some(control_plane), kubeconfig)
            }
        };
        eprintln!("testbed: starting the authorization server, and a faulty one");
        let (authority_process, authority) = Authority::start(&tools, directory.path(), host).await?;
        let (faults_process, faults) = Faults::start(&tools, directory.path()).await?;
        let mut testbed = Testbed {
            directory: directory.path().to_path_buf(),
            operator_kubeconfig: directory.path().join("operator.kubeconfig"),
            kubectl: tools.kubernetes("kubectl"),
            helm: tools.helm(),
            helm3: tools.helm3(),
            amtool: tools.amtool(),
            promtool: tools.promtool(),
            lua: tools.lua(),
            krew: tools.krew(),
            state_metrics: tools.state_metrics(),
            packages: tools.authority.clone(),
            kubeconfig,
            authority,
            faults,
            keycloak,
            envoy,
            itwin_js,
            runtime: None,
        };
        let running_node = match &control_plane {
            Some(control_plane) if with_node => {
                eprintln!("testbed: starting containerd, kubelet, kube-scheduler and kube-proxy");
                let (node, runtime) = Node::start(control_plane, &testbed).await?;
                testbed.runtime = Some(runtime);
                Some(node)
            }
            _ if !with_chart => None,
            _ => {
                eprintln!("testbed: installing the chart (CRDs, service account, permissions)");
                install_chart(&testbed).await?;
                account_kubeconfig(&testbed, INSTALLATION, INSTALLATION, &testbed.operator_kubeconfig).await?;
                None
            }
        };
        let description = directory.path().join("testbed.json");
        std::fs::write(&description, serde_json::to_string(&testbed)?)?;
        eprintln!("testbed: ready; logs are in {}", directory.path().display());
        Ok(Self {
            testbed,
            description,
            _authorities: [authority_process, faults_process],
            _node: running_node,
            control_plane,
            directory,
        })
    }

    /// Keeps the folder with the logs.
    pub fn keep_logs(&mut self) {
        self.directory.disable_cleanup(true);
    }

    /// The environment variable, and its value, with which [`Testbed::current`] finds the testbed.
    #[must_use]
    pub fn variable(&self) -> (&'static str, &Path) {
        (VARIABLE, &self.description)
    }
}

/// Why something is not there that single tests need.
const NOT_RUN: &str = "it is there for `testbed run` alone";

/// Keycloak, or why it is not there.
async fn keycloak(is_run: bool) -> Result<Result<PathBuf, String>> {
    if !is_run {
        return Ok(Err(NOT_RUN.to_owned()));
    }
    tools::keycloak().await
}

/// Envoy and the packages of iTwin.js, or why they are not there.
async fn packages(is_run: bool) -> (Result<PathBuf, String>, Result<PathBuf, String>) {
    if !is_run {
        return (Err(NOT_RUN.to_owned()), Err(NOT_RUN.to_owned()));
    }
    let (envoy, itwin_js) = packages::envoy_and_itwin_js().await;
    (envoy.map_err(|error| format!("{error:#}")), itwin_js.map_err(|error| format!("{error:#}")))
}

/// A control plane for one test, with the chart installed and the authorization servers of the test's testbed.
/// Its logs are kept, and scanned for secrets, with those of that testbed.
///
/// # Errors
/// Fails, with its log, if a program does not start.
pub async fn own_control_plane(testbed: &Testbed, name: &str) -> Result<(ControlPlane, Testbed)> {
    let (control_plane, own) = empty_control_plane(testbed, name).await?;
    install_chart(&own).await?;
    account_kubeconfig(&own, INSTALLATION, INSTALLATION, &own.operator_kubeconfig).await?;
    Ok((control_plane, own))
}

/// Like [`own_control_plane`], without the chart, for tests of its installation.
///
/// # Errors
/// As [`own_control_plane`].
pub async fn empty_control_plane(testbed: &Testbed, name: &str) -> Result<(ControlPlane, Testbed)> {
    let tools = Tools::ready(Needs::Tests).await?;
    let directory = testbed.directory.join(name);
    std::fs::create_dir_all(&directory)?;
    let control_plane = ControlPlane::start(&tools, &directory, Durability::Fast, None).await?;
    let own = Testbed {
        kubeconfig: control_plane.kubeconfig.clone(),
        operator_kubeconfig: directory.join("operator.kubeconfig"),
        directory,
        ..testbed.clone()
    };
    Ok((control_plane, own))
}

/// A kubeconfig with only one context of the user's, so that no other one is ever used.
async fn existing_cluster(tools: &Tools, context: &str, directory: &Path) -> Result<PathBuf> {
    let mut command = tokio::process::Command::new(tools.kubernetes("kubectl"));
    command.args(["config", "view", "--raw", "--minify", "--flatten", "--context", context]);
    let text =
        output(command, None).await.with_context(|| format!("CLUSTER={context} is no context of your kubeconfig"))?;
    let file = directory.join("admin.kubeconfig");
    std::fs::write(&file, text)?;
    Ok(file)
}

/// Installs the chart without pods, because the operator runs outside the cluster, and without the real authority,
/// which no test may ever call.
async fn install_chart(testbed: &Testbed) -> Result<()> {
    let chart = project().join("charts").join(INSTALLATION);
    let chart = chart.to_str().context("the project's path is no text")?;
    let settings =
        ["replicaCount=0", "authorities.bentley-ims=null", "rolloutRestart.enabled=true"].map(|s| ["--set", s]);
    let install = ["upgrade", "--install", INSTALLATION, chart, "--namespace", INSTALLATION, "--create-namespace"];
    testbed.helm(&[&install[..], &settings.concat()].concat()).await?;
    // this also refreshes the discovery cache of kubectl, which `kubectl explain` never refreshes
    eventually("both CRDs in the API", DISCOVERY, async || {
        let group = "--api-group=credentials.itwin.dev";
        let kinds = testbed.kubectl(&["api-resources", group, "-o", "name"]).await.ok()?;
        (kinds.lines().count() == 2).then_some(())
    })
    .await
}

/// Writes a kubeconfig of a service account to `file`.
///
/// # Errors
/// Fails if there is no such account.
pub async fn account_kubeconfig(testbed: &Testbed, namespace: &str, account: &str, file: &Path) -> Result<()> {
    let client = testbed.client().await?;
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(client, namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..Default::default() },
        ..Default::default()
    };
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    let token = answer.status.context("no token was issued")?.token;
    let kubeconfig = kube::config::Kubeconfig::read_from(&testbed.kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    let certificates = config.root_cert.unwrap_or_default();
    let pem: String = certificates.iter().map(|der| pem("CERTIFICATE", der)).collect();
    let server = config.cluster_url.to_string();
    write_kubeconfig(file, server.trim_end_matches('/'), pem.as_bytes(), &token)
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
