//! Copies of etcd's data directory, and a control plane that goes back to one of them: what an administrator does who
//! restores a cluster from a backup.

use anyhow::Result;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::ControlPlane;
use crate::copy_directory;

/// A copy of etcd's data directory. It is removed when this is dropped.
pub struct Backup(TempDir);

/// What is restarted with the older data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// Only etcd. Kubernetes' documentation asks for all API servers to be stopped, so this is a mistake.
    EtcdOnly,
    /// etcd and its clients: the API server and the controller manager.
    All,
}

impl ControlPlane {
    /// Copies etcd's data directory. etcd is stopped for that moment, so that the copy is what a crash would leave.
    ///
    /// # Errors
    /// Fails if a file cannot be copied.
    pub fn back_up(&self, name: &str) -> Result<Backup> {
        let copy = tempfile::Builder::new().prefix(&format!("backup-{name}-")).tempdir_in(&self.programs.directory)?;
        self.etcd.signal(Signal::SIGSTOP);
        let copied = copy_directory(self.etcd_data.path(), copy.path());
        self.etcd.signal(Signal::SIGCONT);
        copied.map(|()| Backup(copy))
    }

    /// Replaces etcd's data directory by a backup, and waits until the API server is ready.
    ///
    /// # Errors
    /// Fails, with the log of the API server, if it does not become ready.
    pub async fn restore(&mut self, backup: &Backup, what: Restored) -> Result<()> {
        if what == Restored::All {
            self.controller_manager.kill();
            self.apiserver.kill();
        }
        self.etcd.kill();
        let directory = self.etcd_data.path();
        std::fs::remove_dir_all(directory)?;
        copy_directory(backup.0.path(), directory)?;
        self.restart().await?;
        if what == Restored::All {
            self.controller_manager = self.programs.controller_manager(&self.kubeconfig)?;
        }
        Ok(())
    }
}
