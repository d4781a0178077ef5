//! The Go modules that pin the testbed's programs: which one is that of a Kubernetes version, and how its programs are
//! built into the cache, once.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::cache::pinned;
use crate::output;

/// The Go module of the newest Kubernetes version. That of an older one has its minor version as a suffix:
/// `scripts/kubernetes-module` writes it.
pub(super) const NEWEST: &str = "kubernetes";
/// Names the minor version of Kubernetes to test on, such as 1.33. None or an empty one is the newest.
pub(super) const VERSION: &str = "KUBERNETES_VERSION";

/// The selected Kubernetes version.
pub(super) fn version() -> String {
    std::env::var(VERSION).unwrap_or_default()
}

/// The Go module that pins a minor version of Kubernetes.
pub(super) fn kubernetes_module(tools: &Path, version: &str) -> Result<PathBuf> {
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

/// A Go module whose pins say what to build.
pub(super) struct Module {
    pub(super) folder: PathBuf,
    /// The package of each program, its name, and the approximate time of a first build.
    pub(super) programs: &'static [(&'static str, &'static str, &'static str)],
    pub(super) tags: &'static str,
}

impl Module {
    /// The folder of the programs.
    pub(super) fn built(&self, cache: &Path) -> Result<PathBuf> {
        pinned(cache, &self.folder, &["go.mod", "go.sum"])
    }
}

/// Says before the first build how much is to come, and where it will be kept.
pub(super) fn announce<'a>(modules: impl IntoIterator<Item = &'a Module>, cache: &Path) -> Result<()> {
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
pub(super) async fn build(modules: &[Module], cache: &Path) -> Result<()> {
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
}
