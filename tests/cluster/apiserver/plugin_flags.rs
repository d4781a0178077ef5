//! The flags of kubectl: the plugin takes each, or refuses it.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use testbed::Testbed;
use tokio::process::Command;

use super::plugin::{Ran, finished};
use crate::plugin_program::plugin;

/// Flags of kubectl that the plugin refuses, with the reason.
const REFUSED: [(&str, &str); 9] = [
    ("cache-dir", "the plugin keeps no cache"),
    ("kuberc", "the plugin has no aliases and no defaults of a user"),
    ("log-flush-frequency", "the plugin writes no log"),
    ("match-server-version", "the plugin has a version of its own"),
    ("profile", "kubectl measures itself"),
    ("profile-output", "kubectl measures itself"),
    ("v", "the plugin writes no log"),
    ("vmodule", "the plugin writes no log"),
    ("warnings-as-errors", "the plugin shows no warnings of the API server"),
];

async fn ran(mut command: Command) -> Result<Ran> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    finished(command.spawn()?).await
}

#[tokio::test]
async fn plugin_takes_each_flag_of_kubectl_or_refuses_it() -> Result<()> {
    let testbed = Testbed::current()?;
    let mut options = Command::new(&testbed.kubectl);
    options.arg("options");
    let options = ran(options).await?.out;
    // `    -n, --namespace='':`
    let named = options.lines().filter(|line| line.starts_with("    -"));
    let flags: Vec<&str> = named.filter_map(|line| line.split_once("--")?.1.split('=').next()).collect();
    ensure!(flags.contains(&"as-group") && flags.contains(&"v"), "these are not all: {flags:?}");

    let mut help = Command::new(plugin()?);
    help.args(["status", "--help"]);
    let help = ran(help).await?.out;
    let is_flag = |c: char| c.is_ascii_alphanumeric() || c == '-';
    for flag in flags {
        let is_taken = help.split(|c| !is_flag(c)).any(|word| word.strip_prefix("--") == Some(flag));
        let refused = REFUSED.iter().find(|(name, _)| *name == flag);
        ensure!(is_taken != refused.is_some(), "--{flag}: take it, or say why not (taken: {is_taken}; {refused:?})");
    }
    for (flag, why) in REFUSED {
        let mut status = Command::new(plugin()?);
        status.args(["status", &format!("--{flag}=1")]).env("KUBECONFIG", "/does/not/exist");
        let ended = ran(status).await?;
        ensure!(ended.code == 2 && ended.out.is_empty(), "--{flag} is not refused ({why}): {ended:?}");
        ended.err.lines().find(|line| line.contains(flag)).with_context(|| format!("--{flag}: {ended:?}"))?;
    }
    Ok(())
}
