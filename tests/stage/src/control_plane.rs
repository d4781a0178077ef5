//! etcd, kube-apiserver and kube-controller-manager on loopback, with the permissions of a real cluster.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};
use base64::Engine;

use crate::{
    eventually,
    process::{Process, bound_to_us, free_ports},
    tools::Tools,
};

/// How long the API server may take to become ready; about 3 s where nothing else runs.
const READY: Duration = Duration::from_secs(90);

/// A running control plane. It stops, in the right order, when this is dropped.
pub struct ControlPlane {
    // dropped in this order: what talks to the API server before it, etcd last
    _controller_manager: Process,
    _apiserver: Process,
    _etcd: Process,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
}

impl ControlPlane {
    /// Starts a control plane that keeps its state in `directory`.
    ///
    /// # Errors
    /// With the log of whichever process did not become ready.
    pub async fn start(tools: &Tools, directory: &Path) -> Result<Self> {
        let [client_port, peer_port, api_port] = free_ports()?;
        let mut etcd = bound_to_us(&tools.kubernetes("etcd"));
        let (client_url, peer_url) =
            (format!("http://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
        etcd.arg("--data-dir").arg(directory.join("etcd"));
        etcd.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
        etcd.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
        etcd.args(["--initial-cluster", &format!("default={peer_url}"), "--unsafe-no-fsync", "--log-level", "warn"]);
        let etcd = Process::start("etcd", etcd, directory)?;

        let certificates = directory.join("apiserver");
        std::fs::create_dir_all(&certificates)?;
        let (service_account_key, service_account_public) =
            (certificates.join("service-account.key"), certificates.join("service-account.pub"));
        let key = rcgen::KeyPair::generate()?;
        std::fs::write(&service_account_key, key.serialize_pem())?;
        std::fs::write(&service_account_public, key.public_key_pem())?;
        let token = random_token();
        let tokens = certificates.join("tokens.csv");
        std::fs::write(&tokens, format!("{token},admin,admin,system:masters\n"))?;
        let audit_policy = certificates.join("audit-policy.yaml");
        std::fs::write(&audit_policy, AUDIT_POLICY)?;
        let mut apiserver = bound_to_us(&tools.kubernetes("kube-apiserver"));
        apiserver.args([
            "--etcd-servers",
            &client_url,
            "--bind-address",
            "127.0.0.1",
            "--secure-port",
            &api_port.to_string(),
        ]);
        apiserver.arg("--cert-dir").arg(&certificates).arg("--token-auth-file").arg(&tokens);
        apiserver.arg("--service-account-key-file").arg(&service_account_public);
        apiserver.arg("--service-account-signing-key-file").arg(&service_account_key);
        apiserver.args([
            "--service-account-issuer",
            "https://kubernetes.default.svc",
            "--authorization-mode",
            "Node,RBAC",
        ]);
        apiserver.args(["--service-cluster-ip-range", "10.0.0.0/24", "--profiling=false"]);
        apiserver
            .arg("--audit-policy-file")
            .arg(&audit_policy)
            .arg("--audit-log-path")
            .arg(directory.join("audit.log"));
        let mut apiserver = Process::start("kube-apiserver", apiserver, directory)?;

        let certificate = certificates.join("apiserver.crt");
        let ready = eventually("the API server's certificate", READY, async || {
            if apiserver.is_running() { certificate.exists().then_some(Ok(())) } else { Some(Err(())) }
        });
        if !matches!(ready.await, Ok(Ok(()))) {
            bail!("kube-apiserver did not start; {}\n{}", apiserver.log_tail(), etcd.log_tail());
        }
        let kubeconfig = directory.join("admin.kubeconfig");
        write_kubeconfig(&kubeconfig, &format!("https://127.0.0.1:{api_port}"), &std::fs::read(&certificate)?, &token)?;
        let client = reqwest_client(&certificate)?;
        let url = format!("https://127.0.0.1:{api_port}/readyz");
        let ready = eventually("the API server", READY, async || {
            let answer = client.get(&url).bearer_auth(&token).send().await;
            answer.is_ok_and(|answer| answer.status().is_success()).then_some(())
        });
        if ready.await.is_err() {
            bail!("kube-apiserver did not become ready; {}", apiserver.log_tail());
        }

        let mut manager = bound_to_us(&tools.kubernetes("kube-controller-manager"));
        manager
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .arg("--service-account-private-key-file")
            .arg(&service_account_key);
        manager.arg("--root-ca-file").arg(&certificate).args([
            "--leader-elect=false",
            "--secure-port=0",
            "--use-service-account-credentials=false",
        ]);
        Ok(Self {
            _controller_manager: Process::start("kube-controller-manager", manager, directory)?,
            _apiserver: apiserver,
            _etcd: etcd,
            kubeconfig,
        })
    }
}

/// What the operator asks of the API server is written down, without bodies: which verbs, on what.
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
    Ok(reqwest::Client::builder().tls_certs_only([certificate]).timeout(Duration::from_secs(5)).build()?)
}

/// Writes a kubeconfig for one user of the API server at this URL.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_kubeconfig(file: &Path, server: &str, certificate: &[u8], token: &str) -> Result<()> {
    let certificate = base64::engine::general_purpose::STANDARD.encode(certificate);
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "stage",
        "contexts": [{"name": "stage", "context": {"cluster": "stage", "user": "stage"}}],
        "clusters": [{"name": "stage", "cluster": {"server": server, "certificate-authority-data": certificate}}],
        "users": [{"name": "stage", "user": {"token": token}}],
    });
    Ok(std::fs::write(file, kubeconfig.to_string())?)
}

/// A secret for this run only.
#[must_use]
pub fn random_token() -> String {
    // the key generator is the source of randomness at hand
    let key = rcgen::KeyPair::generate().map(|key| key.serialize_der()).unwrap_or_default();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&key[key.len().saturating_sub(32)..])
}
