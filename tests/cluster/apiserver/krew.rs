//! The plugin as krew installs it, without a network: from the archive and the manifest that the steps of a release make.

use std::{
    path::Path,
    process::{Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use testbed::{Testbed, project};
use tokio::process::Command;

use crate::plugin_program::{LIMIT, plugin};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The architectures of a release.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

async fn ended(mut command: Command) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let name = format!("{:?}", command.as_std());
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    output.with_context(|| format!("{name} takes too long"))?.with_context(|| format!("{name} did not start"))
}

/// What a command printed, if its exit code is 0.
async fn printed(command: Command) -> Result<String> {
    let name = format!("{:?}", command.as_std());
    let output = ended(command).await?;
    ensure!(output.status.success(), "{name}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The name of this machine's architecture in a release.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => anyhow::bail!("a release has no binaries for {other}"),
    }
}

/// Makes archives and manifest in a folder, of the plugin that the tests run.
async fn release(folder: &Path) -> Result<()> {
    for arch in ARCHITECTURES {
        let programs = folder.join("bin").join(arch);
        std::fs::create_dir_all(&programs)?;
        // krew installs neither the operator nor the plugin of another architecture
        std::fs::write(programs.join("itwin-credential-operator"), "")?;
        std::fs::write(programs.join("kubectl-itcred"), "")?;
    }
    std::fs::copy(plugin()?, folder.join("bin").join(architecture()?).join("kubectl-itcred"))?;
    let mut release = Command::new("scripts/release");
    release.current_dir(project()).args([VERSION, "archives", "krew"]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RELEASE_")) {
        release.env_remove(name);
    }
    release.env("RELEASE_FOLDER", folder).env("RELEASE_ARCHS", ARCHITECTURES.join(" "));
    printed(release).await.map(drop)
}

#[tokio::test]
async fn krew_installs_and_removes_the_plugin_of_a_release() -> Result<()> {
    let testbed = Testbed::current()?;
    let folder = tempfile::tempdir()?;
    release(folder.path()).await?;
    let manifest = folder.path().join("itcred.yaml");
    let archive = folder.path().join(format!("kubectl-itcred-{VERSION}-linux-{}.tar.gz", architecture()?));

    let mut validate = Command::new(testbed.krew.join("validate-krew-manifest"));
    validate.args(["-skip-install", "-manifest"]).arg(&manifest);
    printed(validate).await?;

    let root = folder.path().join("krew");
    // what `krew update` makes: without it, krew removes nothing
    std::fs::create_dir_all(root.join("index/default/.git"))?;
    let krew = |arguments: &[&str]| {
        let mut krew = Command::new(testbed.krew.join("krew"));
        krew.args(arguments).env("KREW_ROOT", &root);
        krew
    };
    let install = |archive: &Path| {
        let mut install = krew(&["install"]);
        install.arg("--manifest").arg(&manifest).arg("--archive").arg(archive);
        install
    };
    let mut changed = std::fs::read(&archive)?;
    changed.push(0);
    let other = folder.path().join("changed.tar.gz");
    std::fs::write(&other, changed)?;
    let refused = ended(install(&other)).await?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && said.contains("checksum"), "another archive is installed: {refused:?}");

    printed(install(&archive)).await?;
    let installed = root.join("bin/kubectl-itcred");
    let mut version = Command::new(&installed);
    version.arg("--version");
    assert_eq!(printed(version).await?.trim(), format!("kubectl itcred {VERSION}"));
    let license = root.join("store/itcred").join(format!("v{VERSION}")).join("LICENSE");
    assert_eq!(std::fs::read(license)?, std::fs::read(project().join("LICENSE"))?);
    let mut kubectl = Command::new(&testbed.kubectl);
    let path = format!("{}:{}", root.join("bin").display(), std::env::var("PATH").unwrap_or_default());
    kubectl.args(["itcred", "--version"]).env("PATH", path);
    assert!(printed(kubectl).await?.contains(VERSION), "kubectl finds it");

    printed(krew(&["uninstall", "itcred"])).await?;
    assert!(!installed.exists(), "it is removed");
    Ok(())
}
