//! `kubectl itcred` where the CRDs are not installed.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use testbed::namespace::Namespace;
use tokio::process::Command;

use crate::plugin_program::{COMMANDS, LIMIT, plugin};

/// The last line on standard error of a command that must print nothing else and end with exit code 2.
async fn said(namespace: &Namespace, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(plugin()?);
    command.args(arguments).args(["--request-timeout", "60s", "--namespace", &namespace.name]);
    command.env("KUBECONFIG", &namespace.testbed.kubeconfig).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(LIMIT, command.output()).await;
    let ended = ended.with_context(|| format!("{arguments:?} takes too long"))??;
    ensure!(ended.status.code() == Some(2) && ended.stdout.is_empty(), "{arguments:?}: {ended:?}");
    let text = String::from_utf8(ended.stderr)?;
    text.lines().last().map(str::to_owned).with_context(|| format!("{arguments:?} says nothing"))
}

/// Fails unless every command says that the CRDs are to be installed, or which permission is missing.
pub async fn says_what_is_missing(namespace: &Namespace) -> Result<()> {
    for arguments in COMMANDS {
        let text = said(namespace, arguments).await?;
        ensure!(text.starts_with("error: ") && text.contains("install the operator's CRDs"), "{arguments:?}: {text}");
        // the API server checks permissions first
        let text = said(namespace, &[arguments, &["--as", "stranger"]].concat()).await?;
        let resource = "resource \"itwinservicecredentials\"";
        ensure!(text.contains("stranger") && text.contains(resource), "{arguments:?}: {text}");
    }
    Ok(())
}
