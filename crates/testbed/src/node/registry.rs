//! A registry on the network of the node, without TLS: containerd pulls from it as from that of a user. Images reach it
//! by skopeo and charts by Helm, as with `scripts/release`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{ADDRESS, config, runtime::Runtime};
use crate::{
    eventually, output,
    process::{Process, bound_to_us},
};

/// Not one of those that the other servers of the testbed choose from.
const PORT: u16 = 5000;
/// Until it answers; about a second on an idle machine.
const READY: Duration = Duration::from_secs(60);
/// The time limit of a request.
const WITHIN: Duration = Duration::from_secs(10);
/// The time limit of a push; a second for an image of 5 MB.
const PUSHED: Duration = Duration::from_secs(60);
/// The type of the manifest of an image for one platform.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// How the log shows that all or a part of something was sent.
const SENT: [&str; 2] = ["\" 200 ", "\" 206 "];

/// The address of the registry, as in the name of an image.
#[must_use]
pub fn host() -> String {
    format!("{ADDRESS}:{PORT}")
}

/// A running registry, empty at first. It stops when this is dropped.
pub struct Registry {
    process: Process,
    directory: PathBuf,
    http: reqwest::Client,
}

impl Registry {
    /// Starts it, and writes for containerd how to reach it.
    ///
    /// # Errors
    /// Fails, with its log, if it does not answer.
    pub async fn start(runtime: &Runtime) -> Result<Self> {
        let directory = runtime.directory.clone();
        // containerd reads it with each pull
        let hosts = directory.join(config::REGISTRIES).join(host());
        std::fs::create_dir_all(&hosts)?;
        std::fs::write(hosts.join("hosts.toml"), format!("server = \"http://{}\"\n", host()))?;
        let file = directory.join("registry.yaml");
        std::fs::write(&file, config::registry(&directory.join("registry"), &host()))?;
        let mut command = bound_to_us(&runtime.registry);
        command.arg("serve").arg(file).env("OTEL_TRACES_EXPORTER", "none");
        let mut process = Process::start("registry", command, &directory)?;
        let http = crate::http().timeout(WITHIN).build()?;
        let url = format!("http://{}/v2/", host());
        let ready = eventually("the registry", READY, async || {
            if !process.is_running() {
                return Some(false);
            }
            http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()).then_some(true)
        });
        if !matches!(ready.await, Ok(true)) {
            bail!("the registry did not start; {}", process.log_tail());
        }
        Ok(Self { process, directory, http })
    }

    /// Pushes the image of an archive in the format of OCI to a repository, and returns the digest of its manifest.
    ///
    /// # Errors
    /// Fails if there is no such image, or the push takes too long.
    pub async fn push(&self, archive: &Path, repository: &str, tag: &str) -> Result<String> {
        let digest = self.directory.join("pushed-digest");
        let mut command = tokio::process::Command::new("skopeo");
        command.args(["copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false", "--digestfile"]).arg(&digest);
        command.arg(format!("oci-archive:{}", archive.display()));
        command.arg(format!("docker://{}/{repository}:{tag}", host()));
        let pushed = tokio::time::timeout(PUSHED, output(command, None)).await;
        pushed.with_context(|| format!("the push to {repository} took longer than {PUSHED:?}"))??;
        let digest = std::fs::read_to_string(digest)?.trim().to_owned();
        ensure!(digest.starts_with("sha256:"), "{digest:?} is no digest");
        Ok(digest)
    }

    /// Checks that all of the image with this digest was read: its configuration and each of its layers.
    ///
    /// # Errors
    /// Names what was not read.
    pub async fn sent_all(&self, repository: &str, digest: &str) -> Result<()> {
        let url = format!("http://{}/v2/{repository}/manifests/{digest}", host());
        let answer = self.http.get(url).header("Accept", MANIFEST).send().await?;
        let manifest: Value = answer.error_for_status()?.json().await?;
        let layers = manifest["layers"].as_array().into_iter().flatten();
        let parts: Vec<&str> =
            [&manifest["config"]].into_iter().chain(layers).filter_map(|part| part["digest"].as_str()).collect();
        ensure!(parts.len() > 1, "an image without layers: {manifest}");
        let log = std::fs::read_to_string(self.process.log())?;
        for part in parts {
            ensure!(is_sent(&log, repository, part), "{part} was not read; {}", self.process.log_tail());
        }
        Ok(())
    }
}

/// Whether the log shows that a part of an image was sent.
fn is_sent(log: &str, repository: &str, part: &str) -> bool {
    let request = format!("\"GET /v2/{repository}/blobs/{part}");
    log.lines().any(|line| line.contains(&request) && SENT.iter().any(|sent| line.contains(sent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_of_an_image_is_sent_only_with_an_answer_that_contains_it() {
        let line = |method: &str, part: &str, status: u16| {
            format!(
                "10.88.0.1 - - [27/Nov/2026:15:00:00 +0000] \"{method} /v2/team/operator/blobs/{part} HTTP/1.1\" \
                 {status} 512 \"\" \"containerd/v2\"\n"
            )
        };
        let log =
            [line("HEAD", "sha256:aa", 200), line("GET", "sha256:bb", 404), line("GET", "sha256:cc", 206)].concat();
        let found = ["sha256:aa", "sha256:bb", "sha256:cc"].map(|part| is_sent(&log, "team/operator", part));
        assert_eq!(found, [false, false, true], "{log}");
        assert!(!is_sent(&log, "team/other", "sha256:cc"));
    }
}
