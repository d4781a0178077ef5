//! Everything up, in order, and down again.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use kube::{Api, api::PostParams};
use tempfile::TempDir;

use crate::{
    INSTALLATION, Stage, VARIABLE,
    authority::Authority,
    control_plane::{ControlPlane, Durability, write_kubeconfig},
    eventually,
    faults::Faults,
    node::{self, Node},
    output,
    process::Process,
    project,
    tools::Tools,
};

/// How long the operator's token is good for, in seconds: longer than any run of the tests.
const TOKEN_SECONDS: i64 = 4 * 3600;

/// How long the API server may take to offer new kinds; about a second.
const DISCOVERY: Duration = Duration::from_secs(60);

/// A stage that is up. It goes down when this is dropped.
pub struct Running {
    /// What tests need to know of it.
    pub stage: Stage,
    /// The file that describes it.
    pub description: PathBuf,
    _authorities: [Process; 2],
    // before the API server that it talks to
    _node: Option<Node>,
    _control_plane: Option<ControlPlane>,
    // last: logs are in it
    directory: TempDir,
}

impl Running {
    /// Builds what is missing and starts everything, the chart installed.
    ///
    /// # Errors
    /// With the log of what did not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(Durability::Fast, false).await
    }

    /// The same with an etcd that syncs its writes to the disk, for what is measured.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_durable() -> Result<Self> {
        Self::start_with(Durability::Durable, false).await
    }

    /// Starts everything with a node for pods, in namespaces that [`node::machine`] has made. The chart is not
    /// installed: that is for the test to do.
    ///
    /// # Errors
    /// With the log of what did not start.
    pub async fn start_with_node() -> Result<Self> {
        Self::start_with(Durability::Fast, true).await
    }

    async fn start_with(durability: Durability, with_node: bool) -> Result<Self> {
        crate::choose_cryptography();
        let tools = Tools::ready().await?;
        let directory = tempfile::Builder::new().prefix("stage-").tempdir()?;
        if with_node {
            node::prepare(directory.path()).await?;
        }
        let (address, host) = (with_node.then_some(node::ADDRESS), with_node.then_some(node::AUTHORITY));
        let (control_plane, kubeconfig) = match std::env::var("CLUSTER") {
            Ok(context) if !context.is_empty() => {
                ensure!(!with_node, "pods are run on a node of our own only: unset CLUSTER");
                eprintln!("stage: using the existing cluster of context {context}");
                (None, existing_cluster(&tools, &context, directory.path()).await?)
            }
            _ => {
                eprintln!("stage: starting etcd, kube-apiserver and kube-controller-manager");
                let control_plane = ControlPlane::start(&tools, directory.path(), durability, address).await?;
                let kubeconfig = control_plane.kubeconfig.clone();
                (Some(control_plane), kubeconfig)
            }
        };
        eprintln!("stage: starting the authorization server, and one that misbehaves on demand");
        let (authority_process, authority) = Authority::start(&tools, directory.path(), host).await?;
        let (faults_process, faults) = Faults::start(&tools, directory.path()).await?;
        let mut stage = Stage {
            directory: directory.path().to_path_buf(),
            operator_kubeconfig: directory.path().join("operator.kubeconfig"),
            kubectl: tools.kubernetes("kubectl"),
            helm: tools.helm(),
            promtool: tools.promtool(),
            lua: tools.lua(),
            packages: tools.authority.clone(),
            kubeconfig,
            authority,
            faults,
            runtime: None,
        };
        let running_node = match &control_plane {
            Some(control_plane) if with_node => {
                eprintln!("stage: starting containerd, kubelet, kube-scheduler and kube-proxy");
                let (node, runtime) = Node::start(control_plane, &stage).await?;
                stage.runtime = Some(runtime);
                Some(node)
            }
            _ => {
                eprintln!("stage: installing the chart (CRDs, service account, permissions)");
                install_chart(&stage).await?;
                account_kubeconfig(&stage, INSTALLATION, INSTALLATION, &stage.operator_kubeconfig).await?;
                None
            }
        };
        let description = directory.path().join("stage.json");
        std::fs::write(&description, serde_json::to_string(&stage)?)?;
        eprintln!("stage: ready; logs are in {}", directory.path().display());
        Ok(Self {
            stage,
            description,
            _authorities: [authority_process, faults_process],
            _node: running_node,
            _control_plane: control_plane,
            directory,
        })
    }

    /// Leaves the folder with the logs where it is.
    pub fn keep_logs(&mut self) {
        self.directory.disable_cleanup(true);
    }

    /// The variable and its value by which [`Stage::current`] finds the stage.
    #[must_use]
    pub fn variable(&self) -> (&'static str, &Path) {
        (VARIABLE, &self.description)
    }
}

/// A control plane of one test's own, with the chart installed and the authorization servers of the stage that the
/// test runs on. Its logs are kept, and looked through for secrets, with that stage's.
///
/// # Errors
/// With the log of what did not start.
pub async fn own_control_plane(stage: &Stage, name: &str) -> Result<(ControlPlane, Stage)> {
    let tools = Tools::ready().await?;
    let directory = stage.directory.join(name);
    std::fs::create_dir_all(&directory)?;
    let control_plane = ControlPlane::start(&tools, &directory, Durability::Fast, None).await?;
    let own = Stage {
        kubeconfig: control_plane.kubeconfig.clone(),
        operator_kubeconfig: directory.join("operator.kubeconfig"),
        directory,
        ..stage.clone()
    };
    install_chart(&own).await?;
    account_kubeconfig(&own, INSTALLATION, INSTALLATION, &own.operator_kubeconfig).await?;
    Ok((control_plane, own))
}

/// A kubeconfig with one context of the user's own, so that nothing else of it is ever touched.
async fn existing_cluster(tools: &Tools, context: &str, directory: &Path) -> Result<PathBuf> {
    let mut command = tokio::process::Command::new(tools.kubernetes("kubectl"));
    command.args(["config", "view", "--raw", "--minify", "--flatten", "--context", context]);
    let text =
        output(command, None).await.with_context(|| format!("CLUSTER={context} is no context of your kubeconfig"))?;
    let file = directory.join("admin.kubeconfig");
    std::fs::write(&file, text)?;
    Ok(file)
}

/// Installs the chart without pods, since the operator runs outside the cluster, and without the real authority, which
/// no test may ever call.
async fn install_chart(stage: &Stage) -> Result<()> {
    let chart = project().join("charts").join(INSTALLATION);
    let chart = chart.to_str().context("the project's path is no text")?;
    let settings =
        ["replicaCount=0", "authorities.bentley-ims=null", "rolloutRestart.enabled=true"].map(|s| ["--set", s]);
    let install = ["upgrade", "--install", INSTALLATION, chart, "--namespace", INSTALLATION, "--create-namespace"];
    stage.helm(&[&install[..], &settings.concat()].concat()).await?;
    // this also renews what kubectl remembers of the server, which `kubectl explain` never asks for anew
    eventually("both kinds in the API", DISCOVERY, async || {
        let group = "--api-group=credentials.itwin.dev";
        let kinds = stage.kubectl(&["api-resources", group, "-o", "name"]).await.ok()?;
        (kinds.lines().count() == 2).then_some(())
    })
    .await
}

/// Writes a kubeconfig of a service account into `file`.
///
/// # Errors
/// Where there is no such account.
pub async fn account_kubeconfig(stage: &Stage, namespace: &str, account: &str, file: &Path) -> Result<()> {
    let client = stage.client().await?;
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(client, namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..Default::default() },
        ..Default::default()
    };
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    let token = answer.status.context("no token was issued")?.token;
    let kubeconfig = kube::config::Kubeconfig::read_from(&stage.kubeconfig)?;
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
