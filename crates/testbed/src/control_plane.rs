//! etcd, kube-apiserver and kube-controller-manager, with the permissions of a real cluster. They listen on loopback,
//! unless a node's pods must reach the API server.

mod backup;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};
use base64::Engine;
use tempfile::TempDir;

pub use self::backup::{Backup, Restored};
use crate::{
    eventually,
    process::{Process, bound_to_us, free_ports},
    tools::Tools,
};

/// How long the API server may take to become ready; about 3 s on an idle machine.
const READY: Duration = Duration::from_secs(120);

/// The most that etcd suggests for its database, in bytes.
const ETCD_QUOTA: &str = "8589934592";

/// Whether etcd syncs its writes to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It does not: for tests.
    Fast,
    /// It does: for measurements.
    Durable,
}

/// A running control plane. It stops, in the right order, when this is dropped. Its data are removed, its logs stay.
pub struct ControlPlane {
    // dropped in this order: the clients of the API server first, then etcd, and its data last
    controller_manager: Process,
    apiserver: Process,
    etcd: Process,
    // a folder of logs that is kept has no use for data, and dozens of control planes would fill the disk
    etcd_data: TempDir,
    programs: Programs,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
}

impl ControlPlane {
    /// Starts a control plane that keeps its state in `directory`. With an address, pods can reach its API server.
    ///
    /// # Errors
    /// Fails, with its log, if a program does not become ready.
    pub async fn start(tools: &Tools, directory: &Path, durability: Durability, address: Option<&str>) -> Result<Self> {
        let programs = Programs::new(tools, directory, durability, address)?;
        let etcd_data = tempfile::Builder::new().prefix("etcd-").tempdir_in(directory)?;
        let etcd = programs.etcd(etcd_data.path())?;
        let mut apiserver = programs.apiserver()?;
        let (certificate, key) =
            (programs.certificates.join("apiserver.crt"), programs.certificates.join("apiserver.key"));
        // the certificate, which may be empty for a moment, is written before the key
        let is_written = || std::fs::read_to_string(&key).is_ok_and(|key| key.contains("-----END"));
        let ready = eventually("the API server's certificate", READY, async || {
            if apiserver.is_running() { is_written().then_some(Ok(())) } else { Some(Err(())) }
        });
        if !matches!(ready.await, Ok(Ok(()))) {
            bail!("kube-apiserver did not start; {}\n{}", apiserver.log_tail(), etcd.log_tail());
        }
        let kubeconfig = directory.join("admin.kubeconfig");
        write_kubeconfig(&kubeconfig, &programs.url(), &std::fs::read(&certificate)?, programs.token(ADMIN))?;
        programs.ready(&apiserver, &etcd).await?;
        let controller_manager = programs.controller_manager(&kubeconfig)?;
        Ok(Self { controller_manager, apiserver, etcd, etcd_data, programs, kubeconfig })
    }

    /// Writes the kubeconfig of one of the static users of the API server.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn user_kubeconfig(&self, user: &str, file: &Path) -> Result<()> {
        let certificate = std::fs::read(self.programs.certificates.join("apiserver.crt"))?;
        write_kubeconfig(file, &self.programs.url(), &certificate, self.programs.token(user))
    }

    /// Kills etcd.
    pub fn kill_etcd(&mut self) {
        self.etcd.kill();
    }

    /// Kills the API server.
    pub fn kill_apiserver(&mut self) {
        self.apiserver.kill();
    }

    /// Restarts what was killed, on the same ports and data, and waits until the API server is ready.
    ///
    /// # Errors
    /// With the log of the API server where it does not become ready.
    pub async fn restart(&mut self) -> Result<()> {
        if !self.etcd.is_running() {
            self.etcd = self.programs.etcd(self.etcd_data.path())?;
        }
        if !self.apiserver.is_running() {
            self.apiserver = self.programs.apiserver()?;
        }
        self.programs.ready(&self.apiserver, &self.etcd).await
    }
}

/// A user with all permissions.
const ADMIN: &str = "admin";
/// The static users of the API server, and their groups.
const USERS: [(&str, &str); 4] = [
    (ADMIN, "system:masters"),
    ("system:kube-scheduler", ""),
    ("system:kube-proxy", ""),
    (crate::node::USER, "system:nodes"),
];

/// How the programs of one control plane are started and restarted.
struct Programs {
    paths: [PathBuf; 3],
    directory: PathBuf,
    certificates: PathBuf,
    ports: [u16; 3],
    durability: Durability,
    /// The address at which pods reach the API server; none on loopback.
    address: Option<String>,
    /// The tokens of the users, in the same order.
    tokens: [String; USERS.len()],
}

impl Programs {
    fn new(tools: &Tools, directory: &Path, durability: Durability, address: Option<&str>) -> Result<Self> {
        let programs = Self {
            paths: ["etcd", "kube-apiserver", "kube-controller-manager"].map(|name| tools.kubernetes(name)),
            certificates: directory.join("apiserver"),
            directory: directory.to_path_buf(),
            ports: free_ports()?,
            durability,
            address: address.map(str::to_owned),
            tokens: USERS.map(|_| random_token()),
        };
        std::fs::create_dir_all(&programs.certificates)?;
        let key = rcgen::KeyPair::generate()?;
        let write = |name: &str, text: String| std::fs::write(programs.certificates.join(name), text);
        write("service-account.key", key.serialize_pem())?;
        write("service-account.pub", key.public_key_pem())?;
        let users = USERS.iter().zip(&programs.tokens);
        write(
            "tokens.csv",
            users.map(|((user, groups), token)| format!("{token},{user},{user},{groups}\n")).collect(),
        )?;
        let audited = match durability {
            Durability::Fast => AUDIT_POLICY.to_owned(),
            // a client that is compared with the operator pays for the audit log, too
            Durability::Durable => AUDIT_POLICY.replace("'system:serviceaccount", "'admin', 'system:serviceaccount"),
        };
        write("audit-policy.yaml", audited)?;
        Ok(programs)
    }

    fn url(&self) -> String {
        format!("https://{}:{}", self.address.as_deref().unwrap_or("127.0.0.1"), self.ports[2])
    }

    fn token(&self, user: &str) -> &str {
        let position = USERS.iter().position(|(name, _)| *name == user);
        position.map_or("", |position| &self.tokens[position])
    }

    fn etcd(&self, data: &Path) -> Result<Process> {
        let [client_url, peer_url] = [self.ports[0], self.ports[1]].map(|port| format!("http://127.0.0.1:{port}"));
        let mut etcd = bound_to_us(&self.paths[0]);
        etcd.arg("--data-dir").arg(data);
        etcd.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
        etcd.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
        etcd.args(["--initial-cluster", &format!("default={peer_url}"), "--log-level", "warn"]);
        match self.durability {
            Durability::Fast => etcd.arg("--unsafe-no-fsync"),
            // a hundred thousand credentials and their history take more than the default of 2 GB
            Durability::Durable => etcd.args(["--quota-backend-bytes", ETCD_QUOTA]),
        };
        Process::start("etcd", etcd, &self.directory)
    }

    fn apiserver(&self) -> Result<Process> {
        let file = |name: &str| self.certificates.join(name);
        let mut apiserver = bound_to_us(&self.paths[1]);
        apiserver.args(["--etcd-servers", &format!("http://127.0.0.1:{}", self.ports[0])]);
        apiserver.args(["--secure-port", &self.ports[2].to_string()]);
        match &self.address {
            None => apiserver.args(["--bind-address", "127.0.0.1"]),
            Some(address) => apiserver
                .args(["--bind-address", "0.0.0.0", "--advertise-address", address, "--allow-privileged=true"])
                .args(["--kubelet-preferred-address-types", "InternalIP", "--enable-admission-plugins"])
                .arg("NodeRestriction"),
        };
        apiserver.arg("--cert-dir").arg(&self.certificates).arg("--token-auth-file").arg(file("tokens.csv"));
        apiserver.arg("--service-account-key-file").arg(file("service-account.pub"));
        apiserver.arg("--service-account-signing-key-file").arg(file("service-account.key"));
        apiserver.args(["--service-account-issuer", "https://kubernetes.default.svc"]);
        apiserver.args(["--authorization-mode", "Node,RBAC"]);
        apiserver.args(["--service-cluster-ip-range", "10.0.0.0/24", "--profiling=false"]);
        apiserver.arg("--audit-policy-file").arg(file("audit-policy.yaml"));
        apiserver.arg("--audit-log-path").arg(self.directory.join("audit.log"));
        // in MB: a log that is rotated in the middle of a measurement gives wrong counts
        apiserver.arg("--audit-log-maxsize=100000");
        Process::start("kube-apiserver", apiserver, &self.directory)
    }

    fn controller_manager(&self, kubeconfig: &Path) -> Result<Process> {
        let mut manager = bound_to_us(&self.paths[2]);
        manager.arg("--kubeconfig").arg(kubeconfig);
        manager.arg("--service-account-private-key-file").arg(self.certificates.join("service-account.key"));
        manager.arg("--root-ca-file").arg(self.certificates.join("apiserver.crt"));
        manager.args(["--leader-elect=false", "--secure-port=0", "--use-service-account-credentials=false"]);
        Process::start("kube-controller-manager", manager, &self.directory)
    }

    /// Waits until the API server is ready.
    async fn ready(&self, apiserver: &Process, etcd: &Process) -> Result<()> {
        let client = reqwest_client(&self.certificates.join("apiserver.crt"))?;
        let url = format!("{}/readyz", self.url());
        let probe = |url: &str| client.get(url).bearer_auth(self.token(ADMIN)).send();
        let ready = eventually("the API server", READY, async || {
            probe(&url).await.is_ok_and(|answer| answer.status().is_success()).then_some(())
        });
        if ready.await.is_err() {
            let checks = match probe(&format!("{url}?verbose")).await {
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(error) => format!("{error:?}"),
            };
            bail!("kube-apiserver did not become ready: {checks}; {}\n{}", apiserver.log_tail(), etcd.log_tail());
        }
        Ok(())
    }
}

/// The audit log records the calls of the operator without bodies: which verbs, on which objects.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    users: ['system:serviceaccount:itwin-credential-operator:itwin-credential-operator']
  - level: None
";

fn reqwest_client(certificate: &Path) -> Result<reqwest::Client> {
    let certificate = reqwest::Certificate::from_pem(&std::fs::read(certificate)?)?;
    Ok(crate::http().tls_certs_only([certificate]).timeout(Duration::from_secs(5)).build()?)
}

/// Writes a kubeconfig for one user of the API server at this URL.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write_kubeconfig(file: &Path, server: &str, certificate: &[u8], token: &str) -> Result<()> {
    let certificate = base64::engine::general_purpose::STANDARD.encode(certificate);
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "testbed",
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "testbed"}}],
        "clusters": [{"name": "testbed", "cluster": {"server": server, "certificate-authority-data": certificate}}],
        "users": [{"name": "testbed", "user": {"token": token}}],
    });
    Ok(std::fs::write(file, kubeconfig.to_string())?)
}

/// A secret for this run only.
#[must_use]
pub fn random_token() -> String {
    // the key generator is the source of randomness that is available
    let key = rcgen::KeyPair::generate().map(|key| key.serialize_der()).unwrap_or_default();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&key[key.len().saturating_sub(32)..])
}
