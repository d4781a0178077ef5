//! Keycloak, fetched with Maven into the cache of the testbed's programs, checked against a digest, and prepared once.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::cache::locked_cache;
use crate::{keycloak::java_arguments, output};

/// The version of Keycloak, and the digest of its archive (SHA-256).
const KEYCLOAK: (&str, &str) = ("26.7.3", "27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f");
/// What unpacks it.
const UNPACK: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:unpack";
/// A network that loses packets must not hold up the tests that need none.
const KEYCLOAK_WITHIN: Duration = Duration::from_secs(600);

/// The archive is another one than the pin says. Unlike what a machine lacks, this must not skip a test: a version that
/// was updated without its digest would never be tested.
#[derive(Debug)]
struct WrongArchive {
    found: String,
}

impl std::fmt::Display for WrongArchive {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ((version, digest), found) = (KEYCLOAK, &self.found);
        write!(formatter, "the archive of Keycloak {version} has the digest {found} in place of {digest}")
    }
}

impl std::error::Error for WrongArchive {}

/// The folder of Keycloak, ready to start, or why this machine cannot have it: Java, Maven or the archive is missing.
///
/// # Errors
/// Fails if the archive is another one than the pin says.
pub async fn keycloak() -> Result<Result<PathBuf, String>> {
    or_why(prepared().await)
}

/// Separates a wrong pin from what a machine lacks.
fn or_why(prepared: Result<PathBuf>) -> Result<Result<PathBuf, String>> {
    match prepared {
        Err(error) if error.is::<WrongArchive>() => Err(error),
        prepared => Ok(prepared.map_err(|error| format!("{error:#}"))),
    }
}

/// Keycloak, fetched with Maven, and prepared by its own `build`, once.
async fn prepared() -> Result<PathBuf> {
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
    is_pinned(&archive, digest)?;
    std::fs::remove_dir_all(&repository)?;
    let home = folder.join(format!("keycloak-{version}"));
    let mut build = Command::new("java");
    build.current_dir(&home).args(java_arguments(&home)).args(["build", "--db=dev-mem", "--cache=local"]);
    output(build, None).await.context("Keycloak could not be prepared: Java 17 or later is needed").map(drop)
}

/// Whether an archive has this digest.
fn is_pinned(archive: &[u8], digest: &str) -> Result<()> {
    let found = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, archive);
    let found: String = found.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(found == digest, WrongArchive { found });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_of_another_digest_skips_no_test() {
        let wrong = is_pinned(b"another", KEYCLOAK.1).expect_err("the pin is wrong");
        let found = wrong.downcast_ref::<WrongArchive>().map(|wrong| wrong.found.clone());
        assert!(is_pinned(b"another", &found.expect("the digest is named")).is_ok());
        let error = or_why(Err(wrong.context("while it is fetched"))).expect_err("it is no reason to skip a test");
        assert!(format!("{error:#}").contains(KEYCLOAK.1), "{error:#}");
    }

    #[test]
    fn what_a_machine_lacks_is_the_reason_to_skip_a_test() {
        let lacking = or_why(Err(anyhow::anyhow!("no such file").context("Maven is needed")));
        assert_eq!(lacking.ok(), Some(Err("Maven is needed: no such file".to_owned())));
    }
}
