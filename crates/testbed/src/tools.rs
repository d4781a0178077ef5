//! The programs of the testbed, built from pinned modules into a cache outside the work tree.
//!
//! It downloads only modules, with the ordinary clients of Go and npm. The pins are the key of the cache: a changed
//! pin causes a new build, an unchanged one costs nothing. The programs of a node are built only for a node.

mod cache;
mod keycloak_archive;
mod modules;

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

pub(crate) use self::cache::{locked_cache, pinned};
pub use self::keycloak_archive::keycloak;
use self::modules::{Module, NEWEST, VERSION, announce, build, kubernetes_module, version};
use crate::output;

/// Packages of the Go module `tools/kubernetes`, the names of their programs, and the approximate time of a first
/// build. All versions of Kubernetes share this etcd.
const ETCD: [(&str, &str, &str); 1] = [("go.etcd.io/etcd/server/v3", "etcd", "half a minute")];
/// The same for the Go module of each Kubernetes version.
const KUBERNETES: [(&str, &str, &str); 2] = [
    ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver", "3 minutes"),
    ("k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager", "1 minute"),
];
/// The same, for what also an existing cluster needs.
const KUBECTL: [(&str, &str, &str); 1] = [("k8s.io/kubernetes/cmd/kubectl", "kubectl", "1 minute")];
/// The same for the Go module `tools/helm`.
const HELM: [(&str, &str, &str); 1] = [("helm.sh/helm/v4/cmd/helm", "helm", "1 minute")];
/// The same for the Go module `tools/helm3`: users have both versions, and they differ in what they wait for.
const HELM3: [(&str, &str, &str); 1] = [("helm.sh/helm/v3/cmd/helm", "helm", "1 minute")];

/// The same for the Go module `tools/prometheus`.
const PROMETHEUS: [(&str, &str, &str); 1] =
    [("github.com/prometheus/prometheus/cmd/promtool", "promtool", "2 minutes")];
/// The same for the Go module `tools/alertmanager`.
const ALERTMANAGER: [(&str, &str, &str); 1] = [("github.com/prometheus/alertmanager/cmd/amtool", "amtool", "1 minute")];
/// Leaves out service discovery: checking rules does not need it, and it is most of the build.
const PROMETHEUS_TAGS: &str = "remove_all_sd";
/// The same for the Go module `tools/lua`: the interpreter that Argo CD runs health checks with.
const LUA: [(&str, &str, &str); 1] = [("github.com/yuin/gopher-lua/cmd/glua", "glua", "5 seconds")];
/// The same for the Go module `tools/krew`: krew, and what checks a plugin before krew offers it.
const KREW: [(&str, &str, &str); 2] = [
    ("sigs.k8s.io/krew/cmd/krew", "krew", "1 minute"),
    ("sigs.k8s.io/krew/cmd/validate-krew-manifest", "validate-krew-manifest", "5 seconds"),
];
/// The same for the Go module `tools/kube-state-metrics`.
const STATE_METRICS: [(&str, &str, &str); 1] = [("k8s.io/kube-state-metrics/v2", "kube-state-metrics", "2 minutes")];
/// The same for the Go module `tools/node`.
const NODE: [(&str, &str, &str); 3] = [
    ("k8s.io/kubernetes/cmd/kubelet", "kubelet", "1 minute"),
    ("k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler", "10 seconds"),
    ("k8s.io/kubernetes/cmd/kube-proxy", "kube-proxy", "10 seconds"),
];
/// The same for the Go module `tools/containerd`.
const CONTAINERD: [(&str, &str, &str); 3] = [
    ("github.com/containerd/containerd/v2/cmd/containerd", "containerd", "1 minute"),
    ("github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", "containerd-shim-runc-v2", "5 seconds"),
    ("github.com/containerd/containerd/v2/cmd/ctr", "ctr", "10 seconds"),
];
/// The same for the Go module `tools/registry`: the registry that the node pulls from.
const REGISTRY: [(&str, &str, &str); 1] =
    [("github.com/distribution/distribution/v3/cmd/registry", "registry", "1 minute")];
/// Leaves out storage that no node here has, and whose code needs C libraries.
const CONTAINERD_TAGS: &str = "no_btrfs,no_zfs,no_devmapper";

/// The files of the authorization servers.
const NPM_FILES: [&str; 4] = ["package.json", "package-lock.json", "server.mjs", "faults.mjs"];

/// What the programs are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// An authorization server and an existing cluster.
    Clients,
    /// Also a cluster of one's own.
    Cluster,
    /// Also what only tests run.
    Tests,
}

/// Paths of the programs. They are there if they were needed.
pub struct Tools {
    etcd: PathBuf,
    kubernetes: PathBuf,
    helm: PathBuf,
    helm3: PathBuf,
    prometheus: PathBuf,
    alertmanager: PathBuf,
    lua: PathBuf,
    krew: PathBuf,
    state_metrics: PathBuf,
    /// The authorization server with its packages.
    pub authority: PathBuf,
}

impl Tools {
    /// Builds what is needed and not in the cache.
    ///
    /// # Errors
    /// Fails if Go, Node or npm is missing, or a build fails.
    pub async fn ready(needs: Needs) -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let kubernetes = kubernetes_module(&here.join("tools"), &version())?;
        let (cache, _lock) = locked_cache()?;
        let module =
            |name: &'static str, programs, tags| Module { folder: here.join("tools").join(name), programs, tags };
        let clients = [Module { folder: kubernetes.clone(), programs: &KUBECTL, tags: "" }, module("helm", &HELM, "")];
        let control_plane = [module(NEWEST, &ETCD, ""), Module { folder: kubernetes, programs: &KUBERNETES, tags: "" }];
        let of_tests = [
            module("helm3", &HELM3, ""),
            module("alertmanager", &ALERTMANAGER, ""),
            module("prometheus", &PROMETHEUS, PROMETHEUS_TAGS),
            module("lua", &LUA, ""),
            module("krew", &KREW, ""),
            module("kube-state-metrics", &STATE_METRICS, ""),
        ];
        let (control_plane_built, of_tests_built) = match needs {
            Needs::Clients => (&[][..], &[][..]),
            Needs::Cluster => (&control_plane[..], &[][..]),
            Needs::Tests => (&control_plane[..], &of_tests[..]),
        };
        announce(clients.iter().chain(control_plane_built).chain(of_tests_built), &cache)?;
        let packages = here.join("authority");
        let authority = async {
            let packages = npm_packages(&packages, &cache).await?;
            build(&clients, &cache).await?;
            build(of_tests_built, &cache).await.map(|()| packages)
        };
        // two at a time: a program is linked by one thread
        let ((), authority) = tokio::try_join!(build(control_plane_built, &cache), authority)?;
        let [etcd, kubernetes] = control_plane.map(|module| module.built(&cache));
        let [_, helm] = clients.map(|module| module.built(&cache));
        let [helm3, alertmanager, prometheus, lua, krew, state_metrics] = of_tests.map(|module| module.built(&cache));
        Ok(Self {
            etcd: etcd?,
            kubernetes: kubernetes?,
            helm: helm?,
            helm3: helm3?,
            prometheus: prometheus?,
            alertmanager: alertmanager?,
            lua: lua?,
            krew: krew?,
            state_metrics: state_metrics?,
            authority,
        })
    }

    /// A program of the control plane.
    #[must_use]
    pub fn kubernetes(&self, name: &str) -> PathBuf {
        if name == ETCD[0].1 { self.etcd.join(name) } else { self.kubernetes.join(name) }
    }

    /// Helm.
    #[must_use]
    pub fn helm(&self) -> PathBuf {
        self.helm.join("helm")
    }

    /// Helm 3.
    #[must_use]
    pub fn helm3(&self) -> PathBuf {
        self.helm3.join("helm")
    }

    /// amtool, which checks the configuration of an Alertmanager.
    #[must_use]
    pub fn amtool(&self) -> PathBuf {
        self.alertmanager.join("amtool")
    }

    /// promtool, which checks and tests rules of Prometheus.
    #[must_use]
    pub fn promtool(&self) -> PathBuf {
        self.prometheus.join("promtool")
    }

    /// The Lua interpreter.
    #[must_use]
    pub fn lua(&self) -> PathBuf {
        self.lua.join("glua")
    }

    /// The folder of krew, and of what checks its manifests.
    #[must_use]
    pub fn krew(&self) -> PathBuf {
        self.krew.clone()
    }

    /// kube-state-metrics, which makes metrics of objects.
    #[must_use]
    pub fn state_metrics(&self) -> PathBuf {
        self.state_metrics.join(STATE_METRICS[0].1)
    }
}

/// Paths of the programs of a node.
pub struct NodeTools {
    /// Folder with kubelet, kube-scheduler and kube-proxy.
    pub node: PathBuf,
    /// Folder with containerd, its shim and ctr.
    pub containerd: PathBuf,
    /// The registry.
    pub registry: PathBuf,
}

impl NodeTools {
    /// Builds what is not in the cache.
    ///
    /// # Errors
    /// Fails if Go is missing, a build fails, or an older Kubernetes version is selected.
    pub async fn ready() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let kubernetes = kubernetes_module(&here.join("tools"), &version())?;
        if !kubernetes.ends_with(NEWEST) {
            bail!("a node has the newest Kubernetes version only: unset {VERSION}");
        }
        let (cache, _lock) = locked_cache()?;
        let modules = [
            Module { folder: here.join("tools/node"), programs: &NODE, tags: "" },
            Module { folder: here.join("tools/containerd"), programs: &CONTAINERD, tags: CONTAINERD_TAGS },
            Module { folder: here.join("tools/registry"), programs: &REGISTRY, tags: "" },
        ];
        announce(&modules, &cache)?;
        build(&modules, &cache).await?;
        let [node, containerd, registry] = modules.map(|module| module.built(&cache));
        Ok(Self { node: node?, containerd: containerd?, registry: registry?.join(REGISTRY[0].1) })
    }
}

async fn npm_packages(source: &Path, cache: &Path) -> Result<PathBuf> {
    let folder = pinned(cache, source, &NPM_FILES)?;
    let finished = folder.join("finished");
    if !finished.exists() {
        eprintln!("testbed: installing the authorization server's packages (a few seconds, once)");
        std::fs::create_dir_all(&folder)?;
        for file in NPM_FILES {
            std::fs::copy(source.join(file), folder.join(file))?;
        }
        let mut command = Command::new("npm");
        command.current_dir(&folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        output(command, None).await.context("Node 20 or later with npm is needed")?;
        File::create(finished)?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demo_names_in_its_first_lines_what_it_builds() {
        let script = include_str!("../../../scripts/first-build");
        let lines = script.lines().map(|line| line.trim_end_matches('\''));
        let named: Vec<&str> = lines.filter(|line| line.starts_with(NEWEST) || line.starts_with("helm ")).collect();
        let of_newest = KUBECTL.iter().map(|program| (NEWEST, program));
        let of_newest_too = ETCD.iter().chain(&KUBERNETES).map(|program| (NEWEST, program));
        let programs = of_newest.chain(HELM.iter().map(|program| ("helm", program))).chain(of_newest_too);
        let built: Vec<String> =
            programs.map(|(module, (_, program, about))| format!("{module} {program} {about}")).collect();
        assert_eq!(named, built);
    }

    #[test]
    fn script_compiles_what_this_file_links() {
        let script = include_str!("../../../scripts/tools");
        let tags = script.lines().find_map(|line| line.strip_prefix("tags=")).unwrap_or_default();
        let known: Vec<&str> = tags.split(',').collect();
        // other tags, or another mode of the linker, would compile everything again
        assert_eq!(known, [PROMETHEUS_TAGS, CONTAINERD_TAGS].join(",").split(',').collect::<Vec<_>>());
        assert!(script.contains("CGO_ENABLED=0 GOWORK=off go list -export -trimpath"));
    }
}
