//! The images on the node: that of pods with a shell is built locally and imported. Others come from a
//! [`registry`](super::registry).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::machine::BUSYBOX_PROGRAM;
use crate::output;

/// An image with a shell and nothing else. It sleeps by default, so it also serves as the pause image that holds a
/// pod's namespaces.
pub const BUSYBOX: &str = "localhost/testbed-busybox:1";

/// containerd, from the point of view of a test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Runtime {
    /// Its socket.
    pub socket: PathBuf,
    /// Its command line.
    pub ctr: PathBuf,
    /// The program of the registry that it can pull from.
    pub registry: PathBuf,
    /// Folder with the logs and the state of the node.
    pub directory: PathBuf,
}

impl Runtime {
    /// Runs ctr among the images and containers of Kubernetes, and returns its output.
    ///
    /// # Errors
    /// Fails if the command fails; the error holds its output.
    pub async fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::new(&self.ctr);
        command.arg("--address").arg(&self.socket).args(["--namespace", "k8s.io"]).args(arguments);
        output(command, None).await
    }

    /// Imports the image of an archive, under the name in the archive.
    ///
    /// # Errors
    /// Fails if containerd rejects it.
    async fn import(&self, archive: &Path) -> Result<()> {
        let archive = archive.to_str().context("the archive's path is no text")?;
        self.ctr(&["images", "import", archive]).await.map(drop)
    }

    /// Builds [`BUSYBOX`] and imports it.
    pub(super) async fn build_busybox(&self) -> Result<()> {
        let folder = self.directory.join("busybox");
        std::fs::create_dir_all(&folder)?;
        std::fs::copy(BUSYBOX_PROGRAM, folder.join("busybox"))?;
        std::fs::write(folder.join("Dockerfile"), BUSYBOX_IMAGE)?;
        let archive = folder.join("image.tar");
        let buildah = |arguments: &[&str]| {
            let mut command = tokio::process::Command::new("buildah");
            command.arg("--root").arg(folder.join("storage")).arg("--runroot").arg(folder.join("run"));
            command.args(["--storage-driver", "vfs"]).args(arguments);
            command
        };
        let place = folder.to_str().context("the folder's path is no text")?;
        output(buildah(&["bud", "--isolation", "chroot", "--tag", BUSYBOX, place]), None).await?;
        output(buildah(&["push", BUSYBOX, &format!("oci-archive:{}:{BUSYBOX}", archive.display())]), None).await?;
        self.import(&archive).await
    }
}

const BUSYBOX_IMAGE: &str = r#"FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "/bin"]
USER 65532:65532
ENTRYPOINT ["/bin/sleep", "2147483647"]
"#;
