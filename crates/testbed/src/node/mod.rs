//! A real node: containerd, kubelet, kube-scheduler and kube-proxy, for pods on a bridge.
//!
//! It runs in its own namespaces ([`machine`]), so that its bridge, its iptables rules, its mounts and its
//! containers do not touch the machine and end with the command that it was started for.

mod config;
pub mod machine;
mod names;
pub mod registry;
pub mod runtime;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    Testbed, control_plane::ControlPlane, eventually, output, process::Process, process::bound_to_us, tools::NodeTools,
};
use runtime::Runtime;

/// The node's name.
pub const NAME: &str = "testbed";
/// The user of the kubelet.
pub const USER: &str = "system:node:testbed";
/// The address of the bridge: of the node, and of all servers outside of it that pods call.
pub const ADDRESS: &str = "10.88.0.1";
/// The name by which pods and tests call the authorization server, which listens on that address.
pub const AUTHORITY: &str = "ims.testbed.test";
/// The addresses of the node and its pods.
const PODS: &str = "10.88.0.0/16";
const BRIDGE: &str = "stage0";

/// Until the node is Ready; about 3 s on an idle machine.
const READY: Duration = Duration::from_secs(90);

/// A running node. Its processes end when it is dropped; its pods end with the namespaces.
pub struct Node {
    // dropped in this order: what starts containers before what runs them
    _processes: [Process; 3],
    _containerd: Process,
}

impl Node {
    /// Starts a node for this control plane and waits until it is Ready.
    ///
    /// # Errors
    /// Fails, with its log, if a program does not start.
    pub async fn start(control_plane: &ControlPlane, testbed: &Testbed) -> Result<(Self, Runtime)> {
        let tools = NodeTools::ready().await?;
        let directory = testbed.directory.join("node");
        let (containerd, runtime) = containerd(&tools, &directory).await?;
        runtime.build_busybox().await?;
        let user_kubeconfig = |user: &str, name: &str| -> Result<PathBuf> {
            let file = directory.join(format!("{name}.kubeconfig"));
            control_plane.user_kubeconfig(user, &file)?;
            Ok(file)
        };
        let start = |name: &str, arguments: &[&str]| {
            let mut command = bound_to_us(&tools.node.join(name));
            command.args(arguments);
            Process::start(name, command, &directory)
        };
        let kubelet_config = directory.join("kubelet.yaml");
        std::fs::write(&kubelet_config, config::kubelet(&directory, &runtime.socket, &machine::cgroup()?))?;
        let kubeconfig = user_kubeconfig(USER, "kubelet")?;
        let root = directory.join("kubelet");
        let kubelet = start(
            "kubelet",
            &[
                &argument("--config", &kubelet_config),
                &argument("--kubeconfig", &kubeconfig),
                &argument("--root-dir", &root),
                &argument("--cert-dir", &root.join("pki")),
                &format!("--node-ip={ADDRESS}"),
                &format!("--hostname-override={NAME}"),
            ],
        )?;
        let kubeconfig = argument("--kubeconfig", &user_kubeconfig("system:kube-scheduler", "scheduler")?);
        let scheduler = start("kube-scheduler", &[&kubeconfig, "--leader-elect=false", "--secure-port=0"])?;
        let kubeconfig = argument("--kubeconfig", &user_kubeconfig("system:kube-proxy", "proxy")?);
        let cidr = format!("--cluster-cidr={PODS}");
        let name = format!("--hostname-override={NAME}");
        let conntrack = "--conntrack-max-per-core=0";
        let proxy = start("kube-proxy", &[&kubeconfig, "--proxy-mode=iptables", &cidr, &name, conntrack])?;

        let node = Self { _processes: [kubelet, scheduler, proxy], _containerd: containerd };
        let ready = eventually("a node that is Ready", READY, async || {
            let condition = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
            let answer = testbed.kubectl(&["get", "node", NAME, "-o", condition]).await.ok()?;
            (answer == "True").then_some(())
        });
        ready.await.with_context(|| node.logs())?;
        Ok((node, runtime))
    }

    fn logs(&self) -> String {
        let processes = self._processes.iter().chain([&self._containerd]);
        processes.map(Process::log_tail).collect::<Vec<_>>().join("\n")
    }
}

/// Creates what the control plane and a node share, in the current namespaces: folders, loopback, a bridge,
/// names.
///
/// # Errors
/// Fails outside of the namespaces of [`machine::in_namespaces`].
pub async fn prepare(directory: &Path) -> Result<()> {
    ensure!(machine::is_own(), "a node is started by `testbed run --node` only, which keeps it off the machine");
    let directory = directory.join("node");
    std::fs::create_dir_all(&directory)?;
    machine::prepare(&directory).await?;
    bridge().await?;
    names::serve(&directory).await
}

fn argument(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

async fn bridge() -> Result<()> {
    let address = format!("{ADDRESS}/16");
    for arguments in [
        &["link", "set", "lo", "up"][..],
        &["link", "add", BRIDGE, "type", "bridge"],
        &["address", "add", &address, "dev", BRIDGE],
        &["link", "set", BRIDGE, "up"],
    ] {
        let mut command = tokio::process::Command::new("ip");
        command.args(arguments);
        output(command, None).await?;
    }
    // the setting of this network namespace only
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("packets cannot be forwarded")
}

async fn containerd(tools: &NodeTools, directory: &Path) -> Result<(Process, Runtime)> {
    let networks = directory.join("cni");
    std::fs::create_dir_all(&networks)?;
    std::fs::write(networks.join("10-bridge.conflist"), config::network(directory))?;
    let runtime = Runtime {
        socket: directory.join("containerd.sock"),
        ctr: tools.containerd.join("ctr"),
        registry: tools.registry.clone(),
        directory: directory.to_path_buf(),
    };
    let file = directory.join("containerd.toml");
    std::fs::write(&file, config::containerd(directory, &runtime.socket))?;
    let mut command: Command = bound_to_us(&tools.containerd.join("containerd"));
    command.arg("--config").arg(file);
    // containerd finds its shim there
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:/usr/sbin:/sbin:{path}", tools.containerd.display()));
    let process = Process::start("containerd", command, directory)?;
    let ready = eventually("containerd", READY, async || runtime.ctr(&["version"]).await.ok());
    ready.await.with_context(|| process.log_tail())?;
    Ok((process, runtime))
}
