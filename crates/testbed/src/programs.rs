//! How tests run the programs of the testbed: kubectl, Helm and others, each to its end.

use std::{path::Path, process::Stdio};

use anyhow::{Context, Result, bail};

use crate::Testbed;

impl Testbed {
    /// Runs kubectl as the administrator and returns its output.
    ///
    /// # Errors
    /// Fails if its exit code is not 0; the error holds its output.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, None).await
    }

    /// Like [`Self::kubectl`], with text on standard input.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub async fn kubectl_with(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let mut command = tokio::process::Command::new(&self.kubectl);
        // the discovery cache of kubectl for one server must not be used for another one
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(self.directory.join("kubectl"))
            .args(arguments);
        output(command, input).await
    }

    /// Runs Helm as the administrator, without the user's own configuration, and returns its output.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub async fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.helm_with(&self.helm, arguments).await
    }

    /// Like [`Self::helm`], with this program: Helm 3 or Helm 4.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub async fn helm_with(&self, program: &Path, arguments: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::new(program);
        let home = self.directory.join("helm");
        command.env("HELM_CACHE_HOME", &home).env("HELM_CONFIG_HOME", &home).env("HELM_DATA_HOME", &home);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        output(command, None).await
    }

    /// Runs amtool and returns its output.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub async fn amtool(&self, arguments: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::new(&self.amtool);
        command.args(arguments);
        output(command, None).await
    }

    /// Runs promtool and returns its output.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub async fn promtool(&self, arguments: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::new(&self.promtool);
        command.args(arguments);
        output(command, None).await
    }

    /// Runs a script in Lua and returns its output.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub async fn lua(&self, script: &str) -> Result<String> {
        let mut command = tokio::process::Command::new(&self.lua);
        command.args(["-e", script]);
        output(command, None).await
    }
}

/// Runs a Node script that can use the authorization server's packages, and returns its output.
///
/// # Errors
/// Fails if its exit code is not 0.
pub async fn node(testbed: &Testbed, script: &str, arguments: &[&str]) -> Result<String> {
    let mut command = tokio::process::Command::new("node");
    command.current_dir(&testbed.packages).args(["--input-type=module", "-e", script, "--"]).args(arguments);
    output(command, None).await
}

/// Runs a command to its end and returns its output.
pub(crate) async fn output(mut command: tokio::process::Command, input: Option<&str>) -> Result<String> {
    use tokio::io::AsyncWriteExt;
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let name = format!("{:?}", command.as_std());
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let stdin = input.zip(child.stdin.take());
    // at the same time: a command that prints while it reads waits for its output to be read
    let write = async {
        if let Some((input, mut stdin)) = stdin {
            stdin.write_all(input.as_bytes()).await?;
        }
        std::io::Result::Ok(())
    };
    let (written, output) = tokio::join!(write, child.wait_with_output());
    let output = output?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        written.with_context(|| format!("{name} did not read all of its input"))?;
        Ok(text)
    } else {
        bail!("{name} ended with {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr))
    }
}
