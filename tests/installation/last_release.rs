//! The last release, which `scripts/last-release` builds from its commit: where an upgrade starts.

use std::path::PathBuf;

use anyhow::{Context, Result};
use testbed::{INSTALLATION, project};

/// Names its version and its commit.
const NAMED: &str = "tests/installation/last-release";

/// Its source with the chart, and its operator.
pub struct LastRelease {
    pub version: String,
    folder: PathBuf,
}

impl LastRelease {
    /// The release; `None` if it was not built, or another commit was.
    pub fn find() -> Result<Option<Self>> {
        let text = std::fs::read_to_string(project().join(NAMED)).context(NAMED)?;
        let line = text.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
        let (version, commit) = line.split_once(' ').with_context(|| format!("{NAMED} names no release: {line:?}"))?;
        let folder = project().join("target/releases").join(version);
        let built = std::fs::read_to_string(folder.join("built")).unwrap_or_default();
        let is_built = built.split_whitespace().next() == Some(commit);
        Ok(is_built.then(|| Self { version: version.to_owned(), folder }))
    }

    /// Its operator.
    pub fn program(&self) -> PathBuf {
        self.folder.join(INSTALLATION)
    }

    /// Its source, with the chart and the CRDs.
    pub fn source(&self) -> PathBuf {
        self.folder.join("source")
    }
}
