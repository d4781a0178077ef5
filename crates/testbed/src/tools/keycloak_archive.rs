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
