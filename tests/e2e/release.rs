//! A release in the registry of the node, published as by `scripts/release`: an image, and a chart that names it by its
//! digest.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use testbed::{
    INSTALLATION, Testbed, copy_directory,
    node::registry::{self, Registry},
    project,
};

/// The repository of the charts.
const CHARTS: &str = "team/charts";

pub struct Release {
    pub version: String,
    /// The repository of the image, without the registry. Each release has its own: only the name of the image shows the
    /// version of a pod.
    repository: String,
    digest: String,
}

impl Release {
    /// Publishes the image of an archive and the chart of the work tree under this version.
    pub async fn publish(testbed: &Testbed, registry: &Registry, archive: &Path, version: &str) -> Result<Self> {
        let repository = format!("team/v{version}/{INSTALLATION}");
        let digest = registry.push(archive, &repository, version).await?;
        let release = Self { version: version.to_owned(), repository, digest };
        let folder = testbed.directory.join("releases").join(version);
        let chart = folder.join(INSTALLATION);
        copy_directory(&source(), &chart)?;
        release.prepare(&chart).await?;
        let package = folder.join(format!("{INSTALLATION}-{version}.tgz"));
        let [chart, folder, package] = [&chart, &folder, &package].map(|path| path.to_str().unwrap());
        testbed.helm(&["package", chart, "--destination", folder]).await?;
        let charts = format!("oci://{}/{CHARTS}", registry::host());
        testbed.helm(&["push", package, &charts, "--plain-http"]).await?;
        Ok(release)
    }

    /// The version of the work tree.
    pub fn current() -> Result<String> {
        let text = std::fs::read_to_string(source().join("Chart.yaml"))?;
        let version = text.lines().find_map(|line| line.strip_prefix("version:"));
        Ok(version.context("the chart has no version")?.trim().to_owned())
    }

    /// The chart, with what `helm install` and `helm upgrade` need to get it.
    pub fn chart(&self) -> [String; 4] {
        let chart = format!("oci://{}/{CHARTS}/{INSTALLATION}", registry::host());
        [chart, "--version".to_owned(), self.version.clone(), "--plain-http".to_owned()]
    }

    /// The image, as in a pod.
    pub fn image(&self) -> String {
        format!("{}/{}@{}", registry::host(), self.repository, self.digest)
    }

    /// Checks that the node read all of the image from the registry.
    pub async fn was_sent(&self, registry: &Registry) -> Result<()> {
        registry.sent_all(&self.repository, &self.digest).await
    }

    /// Makes a copy of the chart that of this release.
    async fn prepare(&self, chart: &Path) -> Result<()> {
        let file = chart.join("Chart.yaml");
        let text = std::fs::read_to_string(&file)?;
        let versioned = |line: &str| match line.split_once(':') {
            Some((field @ ("version" | "appVersion"), _)) => format!("{field}: {}\n", self.version),
            _ => format!("{line}\n"),
        };
        std::fs::write(file, text.lines().map(versioned).collect::<String>())?;
        let repository = format!("{}/{}", registry::host(), self.repository);
        let mut command = tokio::process::Command::new("node");
        command.arg(project().join("charts/release-chart.mjs")).arg(chart);
        let done = command.args([repository.as_str(), &self.version, &self.digest, "amd64"]).output().await?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }
}

/// The chart of the work tree.
fn source() -> PathBuf {
    project().join("charts").join(INSTALLATION)
}
