//! The program `kubectl-itcred`, and its commands that call the API server.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::fixture::{NAME, PROGRAM};

/// The limit of one command, which includes the start of a process on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// The commands that call the API server.
pub const COMMANDS: [&[&str]; 10] = [
    &["status"],
    &["status", "--all-namespaces"],
    &["timeline", NAME],
    &["renew", NAME],
    &["suspend", NAME],
    &["resume", "--all"],
    &["token", NAME, "--raw"],
    &["check", NAME],
    &["lint"],
    &["rotate", NAME],
];

/// The plugin, next to the operator.
pub fn plugin() -> Result<PathBuf> {
    let plugin = Path::new(PROGRAM).with_file_name("kubectl-itcred");
    ensure!(plugin.exists(), "{} does not exist: cargo build --workspace", plugin.display());
    Ok(plugin)
}
