//! The plugin as kubectl finds and completes it, and its scripts in real shells.

use std::{path::Path, process::Stdio};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::plugin::{finished, run};
use crate::{
    fixture::{Fixture, NAME},
    plugin_program::{LIMIT, plugin},
};

#[tokio::test]
async fn kubectl_finds_the_plugin_and_completes_names() -> Result<()> {
    let fixture = Fixture::ready("plugin-kubectl").await?;
    let folder = tempfile::tempdir()?;
    std::os::unix::fs::symlink(plugin()?, folder.path().join("kubectl-itcred"))?;
    let script = run(&fixture, &["completion", "kubectl"]).await?;
    let completer = folder.path().join("kubectl_complete-itcred");
    std::fs::write(&completer, script.out)?;
    std::fs::set_permissions(&completer, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
    let kubectl = async |arguments: &[&str]| {
        let mut kubectl = Command::new(&fixture.namespace.testbed.kubectl);
        kubectl.args(arguments).env("PATH", &path).env("KUBECONFIG", &fixture.namespace.testbed.kubeconfig);
        kubectl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        finished(kubectl.spawn()?).await
    };
    let namespace = fixture.namespace.name.as_str();
    let status = kubectl(&["itcred", "status", "-n", namespace]).await?;
    assert!(status.code == 0 && status.out.contains("agent   Ok"), "{status:?}");
    let completed = kubectl(&["__complete", "itcred", "check", "-n", namespace, ""]).await?;
    assert!(completed.out.lines().any(|line| line == NAME) && completed.out.contains(":4"), "{completed:?}");
    let commands = kubectl(&["__complete", "itcred", "ti"]).await?;
    assert!(commands.out.starts_with("timeline\t"), "{commands:?}");
    let wrong = kubectl(&["itcred", "unknown"]).await?;
    assert_eq!(wrong.code, 2, "{wrong:?}");
    Ok(())
}

/// How each shell prints what its script completes: the last word of `kubectl-itcred completion z`.
const SHELLS: [(&str, &[&str], &str); 3] = [
    (
        "bash",
        &["--norc", "-c"],
        "source \"$SCRIPT\"; complete -p kubectl-itcred; COMP_WORDS=(kubectl-itcred completion z); COMP_CWORD=2; \
         COMP_LINE='kubectl-itcred completion z'; _kubectl_itcred; printf '%s\\n' \"${COMPREPLY[@]}\"",
    ),
    // what completes in zsh needs a terminal: the functions that it calls print
    (
        "zsh",
        &["-f", "-c"],
        "compdef() { print -- \"$@\" }; _describe() { print -l -- \"${candidates[@]}\" }; source \"$SCRIPT\"; \
         words=(kubectl-itcred completion z); CURRENT=3; _kubectl_itcred",
    ),
    ("fish", &["--no-config", "-c"], "source $SCRIPT; complete --do-complete 'kubectl-itcred completion z'"),
];

/// What a shell prints for words that it handles in its own way: bash breaks them at `=`, fish must be asked for files.
const OTHERS: [(&str, &str, &str); 2] = [
    (
        "bash",
        "source \"$SCRIPT\"; COMP_LINE='kubectl-itcred status -l a=b --output=j'; COMP_CWORD=8; \
         COMP_WORDS=(kubectl-itcred status -l a = b --output = j); _kubectl_itcred; printf '%s\\n' \"${COMPREPLY[@]}\"",
        "json",
    ),
    ("fish", "source $SCRIPT; complete --do-complete 'kubectl-itcred lint -f Cargo.t'", "Cargo.toml"),
];

/// What a shell prints, with the plugin in its path.
async fn printed(shell: &str, arguments: &[&str], text: &str, folder: &Path) -> Result<String> {
    let mut command = Command::new(shell);
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    command.args(arguments).arg(text).env("PATH", path).env("SCRIPT", folder.join(shell)).env("HOME", folder);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let output = output.with_context(|| format!("{shell} takes too long"))??;
    ensure!(output.status.success(), "{shell}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test]
async fn scripts_complete_in_real_shells() -> Result<()> {
    let testbed = testbed::Testbed::current()?;
    let folder = tempfile::tempdir()?;
    std::os::unix::fs::symlink(plugin()?, folder.path().join("kubectl-itcred"))?;
    for (shell, arguments, text) in SHELLS {
        let mut script = Command::new(plugin()?);
        script.args(["completion", shell]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        std::fs::write(folder.path().join(shell), finished(script.spawn()?).await?.out)?;
        if printed(shell, &["-c"], "true", folder.path()).await.is_err() {
            testbed
                .skip(&format!("the completion of kubectl itcred in {shell}"), &format!("{shell} is not installed"))?;
            continue;
        }
        let shown = printed(shell, arguments, text, folder.path()).await?;
        assert!(shown.lines().any(|line| line.split([':', '\t']).next() == Some("zsh")), "{shell}: {shown}");
        assert!(!shown.contains("fish") && !shown.contains(":4"), "{shell}: {shown}");
        for (_, text, expected) in OTHERS.iter().filter(|(other, ..)| *other == shell) {
            let shown = printed(shell, arguments, text, folder.path()).await?;
            assert_eq!(shown.split(['\t', '\n']).next(), Some(*expected), "{shell}: {shown}");
        }
    }
    Ok(())
}
