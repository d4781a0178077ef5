//! Images for the pods of the node: built on the spot, since no registry is asked for any.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::machine::BUSYBOX_PROGRAM;
use crate::output;

/// An image with a shell and nothing else. It sleeps, unless it is told otherwise, and so is also what holds a pod's
/// namespaces.
pub const BUSYBOX: &str = "localhost/stage-busybox:1";

/// containerd as tests see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Runtime {
    /// Its socket.
    pub socket: PathBuf,
    /// Its command line.
    pub ctr: PathBuf,
    /// Folder with the logs and the state of the node.
    pub directory: PathBuf,
}

impl Runtime {
    /// Runs ctr among the images and containers of Kubernetes, and gives what it printed.
    ///
    /// # Errors
    /// Where it fails: what it said.
    pub async fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::new(&self.ctr);
        command.arg("--address").arg(&self.socket).args(["--namespace", "k8s.io"]).args(arguments);
        output(command, None).await
    }

    /// Takes the image of an archive, under the name that is written there.
    ///
    /// # Errors
    /// Where containerd refuses it.
    pub async fn import(&self, archive: &Path) -> Result<()> {
        let archive = archive.to_str().context("the archive's path is no text")?;
        self.ctr(&["images", "import", archive]).await.map(drop)
    }

    /// Gives an image another name beside its own.
    ///
    /// # Errors
    /// Where there is no such image.
    pub async fn tag(&self, image: &str, name: &str) -> Result<()> {
        self.ctr(&["images", "tag", "--force", image, name]).await?;
        // by which the kubelet knows that it need not ask a registry
        self.ctr(&["images", "label", name, "io.cri-containerd.image=managed"]).await.map(drop)
    }

    /// Makes [`BUSYBOX`] and takes it.
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
