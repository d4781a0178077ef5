//! The programs of the testbed, built from pinned modules into a cache outside the work tree.
//!
//! It downloads only modules, with the ordinary clients of Go and npm. The pins are the key of the cache: a changed
//! pin causes a new build, an unchanged one costs nothing. The programs of a node are built only for a node.

use std::{
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use crate::{keycloak::java_arguments, output};

/// The Go module of the newest Kubernetes version. That of an older one has its minor version as a suffix:
/// `scripts/kubernetes-module` writes it.
const NEWEST: &str = "kubernetes";
/// Names the minor version of Kubernetes to test on, such as 1.33. None or an empty one is the newest.
const VERSION: &str = "KUBERNETES_VERSION";

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

/// The version of Keycloak, and the digest of its archive (SHA-256).
const KEYCLOAK: (&str, &str) = ("26.7.3", "27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f");
/// What unpacks it.
const UNPACK: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:unpack";
/// A network that loses packets must not hold up the tests that need none.
const KEYCLOAK_WITHIN: Duration = Duration::from_secs(600);

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

/// The folder of Keycloak, ready to start: fetched with Maven, and prepared by its own `build`, once.
///
/// # Errors
/// Says what is missing: Java, Maven, or the archive.
pub async fn keycloak() -> Result<PathBuf> {
    let mut java = Command::new("java");
    java.arg("-version");
    output(java, None).await.context("Java 17 or later is needed")?;
    let (cache, _lock) = locked_cache()?;
    let folder = cache.join(format!("keycloak-{}", KEYCLOAK.0));
    let finished = folder.join("finished");
    if !finished.exists() {
        eprintln!("testbed: fetching and preparing Keycloak (180 MB and about 2 minutes, once)");
        let fetched = tokio::time::timeout(KEYCLOAK_WITHIN, fetch_keycloak(&folder)).await;
        fetched.with_context(|| format!("it could not be fetched within {KEYCLOAK_WITHIN:?}"))??;
        File::create(finished)?;
    }
    Ok(folder.join(format!("keycloak-{}", KEYCLOAK.0)))
}

async fn fetch_keycloak(folder: &Path) -> Result<()> {
    let (version, digest) = KEYCLOAK;
    // what an interrupted attempt left
    let _ = std::fs::remove_dir_all(folder);
    let repository = folder.join("repository");
    std::fs::create_dir_all(&repository)?;
    let mut maven = Command::new("mvn");
    // a wrong checksum ends it
    maven.current_dir(folder).args(["--quiet", "--batch-mode", "--strict-checksums", UNPACK]);
    maven.arg(format!("-Dmaven.repo.local={}", repository.display()));
    maven.arg(format!("-Dartifact=org.keycloak:keycloak-quarkus-dist:{version}:zip"));
    maven.arg(format!("-DoutputDirectory={}", folder.display()));
    output(maven, None).await.context("Maven is needed, and a repository that it can fetch Keycloak from")?;
    let archive = format!("org/keycloak/keycloak-quarkus-dist/{version}/keycloak-quarkus-dist-{version}.zip");
    let archive = std::fs::read(repository.join(archive)).context("the archive of Keycloak")?;
    let found = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &archive);
    let found: String = found.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(found == digest, "the archive of Keycloak {version} has the digest {found} in place of {digest}");
    std::fs::remove_dir_all(&repository)?;
    let home = folder.join(format!("keycloak-{version}"));
    let mut build = Command::new("java");
    build.current_dir(&home).args(java_arguments(&home)).args(["build", "--db=dev-mem", "--cache=local"]);
    output(build, None).await.context("Keycloak could not be prepared: Java 17 or later is needed").map(drop)
}

/// The cache, locked while the file is open: two runs that start together must not build into one folder.
pub(crate) fn locked_cache() -> Result<(PathBuf, File)> {
    let cache = cache()?;
    std::fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join("lock"))?;
    lock.lock().context("the cache cannot be locked")?;
    Ok((cache, lock))
}

/// The selected Kubernetes version.
fn version() -> String {
    std::env::var(VERSION).unwrap_or_default()
}

/// The Go module that pins a minor version of Kubernetes.
fn kubernetes_module(tools: &Path, version: &str) -> Result<PathBuf> {
    let newest = tools.join(NEWEST);
    let pinned = pinned_version(&newest.join("go.mod"), "k8s.io/kubernetes")?.unwrap_or_default();
    let minor = pinned.trim_start_matches('v').rsplit_once('.').map_or("", |(minor, _)| minor);
    if version.is_empty() || version == minor {
        return Ok(newest);
    }
    let mut known = vec![minor.to_owned()];
    for entry in std::fs::read_dir(tools)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.strip_prefix(&format!("{NEWEST}-")) {
            Some(found) if found == version => return Ok(entry.path()),
            Some(found) => known.push(found.to_owned()),
            None => {}
        }
    }
    known.sort();
    bail!("{VERSION} is {version:?}; the testbed has {}", known.join(", "))
}

fn cache() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("TESTBED_CACHE") {
        return Ok(named.into());
    }
    let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) => Path::new(&home).join(".cache"),
        _ => bail!("neither TESTBED_CACHE nor HOME is set: name a folder for built tools in TESTBED_CACHE"),
    };
    Ok(base.join("itwin-credential-operator-testbed"))
}

/// The folder in the cache for what these files pin.
pub(crate) fn pinned(cache: &Path, module: &Path, files: &[&str]) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(module.join(file))
            .with_context(|| format!("{} is missing", module.join(file).display()))?
            .hash(&mut hasher);
    }
    let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(cache.join(format!("{name}-{:016x}", hasher.finish())))
}

/// A Go module whose pins say what to build.
struct Module {
    folder: PathBuf,
    /// The package of each program, its name, and the approximate time of a first build.
    programs: &'static [(&'static str, &'static str, &'static str)],
    tags: &'static str,
}

impl Module {
    /// The folder of the programs.
    fn built(&self, cache: &Path) -> Result<PathBuf> {
        pinned(cache, &self.folder, &["go.mod", "go.sum"])
    }
}

/// Says before the first build how much is to come, and where it will be kept.
fn announce<'a>(modules: impl IntoIterator<Item = &'a Module>, cache: &Path) -> Result<()> {
    let mut missing = Vec::new();
    for module in modules {
        let built = module.built(cache)?;
        let programs = module.programs.iter().filter(|(_, program, _)| !built.join(program).exists());
        missing.extend(programs.map(|(_, program, about)| format!("{program} ({about})")));
    }
    if !missing.is_empty() {
        eprintln!(
            "testbed: this is built from source once, and kept in {}; the times are those of 2 cores: {}",
            cache.display(),
            missing.join(", ")
        );
    }
    Ok(())
}

/// Builds the programs that are not in the cache.
async fn build(modules: &[Module], cache: &Path) -> Result<()> {
    for module in modules {
        go_programs(module, cache).await?;
    }
    Ok(())
}

async fn go_programs(Module { folder: module, programs, tags }: &Module, cache: &Path) -> Result<()> {
    let folder = pinned(cache, module, &["go.mod", "go.sum"])?;
    std::fs::create_dir_all(&folder)?;
    let mut flags = "-s -w".to_owned();
    if let Some(version) = pinned_version(&module.join("go.mod"), "k8s.io/kubernetes")? {
        // without it kubectl and Helm report a server of version 0.0.0
        flags.push_str(&format!(" -X k8s.io/component-base/version.gitVersion={version}"));
    }
    for (package, program, _) in *programs {
        let target = folder.join(program);
        if target.exists() {
            continue;
        }
        eprintln!("testbed: building {program}");
        let start = Instant::now();
        // built under another name: an interrupted build leaves nothing that looks complete
        let unfinished = folder.join(format!("{program}.unfinished"));
        let mut command = Command::new("go");
        command.current_dir(module).env("CGO_ENABLED", "0").env("GOWORK", "off");
        command.args(["build", "-trimpath", "-tags", tags, "-ldflags", &flags, "-o"]).arg(&unfinished).arg(package);
        output(command, None).await.context("Go 1.26 or later is needed")?;
        std::fs::rename(&unfinished, &target)?;
        eprintln!("testbed: {program} built in {} s", start.elapsed().as_secs());
    }
    Ok(())
}

fn pinned_version(go_mod: &Path, module: &str) -> Result<Option<String>> {
    let text = std::fs::read_to_string(go_mod)?;
    let line = text.lines().map(str::trim).find(|line| line.starts_with(&format!("{module} v")));
    Ok(line.and_then(|line| line.split_whitespace().nth(1)).map(str::to_owned))
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

    fn tools() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tools")
    }

    #[test]
    fn kubernetes_version_selects_its_own_pins() -> Result<()> {
        for entry in std::fs::read_dir(tools())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let Some(minor) = name.strip_prefix("kubernetes-") else { continue };
            let module = kubernetes_module(&tools(), minor)?;
            assert!(module.ends_with(&name), "{minor} is {}", module.display());
            let pinned = pinned_version(&module.join("go.mod"), "k8s.io/kubernetes")?.unwrap_or_default();
            assert!(pinned.starts_with(&format!("v{minor}.")), "{name} pins {pinned}");
        }
        Ok(())
    }

    #[test]
    fn newest_kubernetes_version_is_the_default() -> Result<()> {
        let newest = kubernetes_module(&tools(), "")?;
        assert!(newest.ends_with(NEWEST));
        let pinned = pinned_version(&newest.join("go.mod"), "k8s.io/kubernetes")?.unwrap_or_default();
        let (minor, _) = pinned.trim_start_matches('v').rsplit_once('.').context("no version is pinned")?;
        assert_eq!(kubernetes_module(&tools(), minor)?, newest);
        Ok(())
    }

    #[test]
    fn kubernetes_version_that_is_not_pinned_is_refused_with_those_that_are() {
        let error = kubernetes_module(&tools(), "1.2").map_err(|error| error.to_string());
        let message = error.expect_err("there is no such version");
        assert!(message.contains("1.2") && message.contains("1.30"), "{message}");
    }

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
