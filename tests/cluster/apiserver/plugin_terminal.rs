//! `kubectl itcred` on a terminal, which `script` of util-linux makes: it shows all that is typed, except while a
//! program hides it.

use std::process::Stdio;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{
    fixture::{Fixture, NAME},
    plugin_program::{LIMIT, plugin},
};

/// The new client secret.
const SECRET: &str = "pasted-into-a-terminal";
/// What a terminal sends for Ctrl-C.
const CTRL_C: &str = "\u{3}";
/// The same for Ctrl-D, the end of the input.
const CTRL_D: &str = "\u{4}";
/// The same for Ctrl-Z, which suspends a program.
const CTRL_Z: &str = "\u{1a}";

/// The command of a rotation.
fn rotation(fixture: &Fixture) -> Result<String> {
    let (program, namespace) = (plugin()?, &fixture.namespace.name);
    Ok(format!("'{}' rotate {NAME} --request-timeout 60s -n {namespace}", program.display()))
}

/// A terminal in which a command runs.
struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: ChildStdout,
    shown: String,
}

impl Terminal {
    fn with_a_rotation(fixture: &Fixture) -> Result<Self> {
        // the terminal signals the process that it started, which is not to be a shell
        Self::start(fixture, &format!("exec {}", rotation(fixture)?))
    }

    /// A shell with job control, which goes on where the rotation ends or is suspended: it reads a line.
    fn with_a_rotation_as_a_job(fixture: &Fixture) -> Result<Self> {
        let job = rotation(fixture)?;
        Self::start(fixture, &format!("set -m; {job}; code=$?; read -r line; echo \"next=$line\"; exit $code"))
    }

    fn start(fixture: &Fixture, line: &str) -> Result<Self> {
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--echo", "always", "--command", line, "/dev/null"]);
        script.env("KUBECONFIG", &fixture.namespace.testbed.kubeconfig).env("SHELL", "/bin/sh");
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let (keyboard, screen) = (child.stdin.take().context("a keyboard")?, child.stdout.take().context("a screen")?);
        Ok(Self { child, keyboard, screen, shown: String::new() })
    }

    /// Reads what comes onto the screen; false at its end.
    async fn read(&mut self) -> Result<bool> {
        let mut bytes = [0; 1024];
        let read = tokio::time::timeout(LIMIT, self.screen.read(&mut bytes)).await;
        let length = read.with_context(|| format!("it takes too long: {}", self.shown))??;
        // the plugin and the names of these tests are ASCII
        self.shown.push_str(&String::from_utf8_lossy(&bytes[..length]));
        Ok(length > 0)
    }

    /// Waits until the screen shows a text.
    async fn shows(&mut self, text: &str) -> Result<()> {
        while !self.shown.contains(text) {
            anyhow::ensure!(self.read().await?, "it ended without {text:?}: {}", self.shown);
        }
        Ok(())
    }

    async fn types(&mut self, text: &str) -> Result<()> {
        self.keyboard.write_all(text.as_bytes()).await?;
        self.keyboard.flush().await?;
        Ok(())
    }

    /// The exit code, and all that the screen showed.
    async fn ended(mut self) -> Result<(Option<i32>, String)> {
        while self.read().await? {}
        let status = tokio::time::timeout(LIMIT, self.child.wait()).await.context("it does not end")??;
        Ok((status.code(), self.shown))
    }
}

/// A credential that is Ready; `None`, which is noted, where no terminal can be made.
async fn ready(prefix: &str) -> Result<Option<Fixture>> {
    let help = Command::new("script").arg("--help").stdin(Stdio::null()).kill_on_drop(true).output();
    let help = tokio::time::timeout(LIMIT, help).await.context("script takes too long")?;
    let fixture = Fixture::ready(prefix).await?;
    if help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--echo")) {
        return Ok(Some(fixture));
    }
    fixture.namespace.testbed.skip("kubectl itcred on a terminal", "it needs script of util-linux with --echo")?;
    Ok(None)
}

#[tokio::test]
async fn colors_are_on_a_terminal_unless_the_user_declines_them() -> Result<()> {
    let Some(fixture) = ready("terminal-colors").await? else { return Ok(()) };
    let (program, namespace) = (plugin()?, &fixture.namespace.name);
    for (variables, is_colored) in [
        ("-u NO_COLOR TERM=xterm", true),
        ("NO_COLOR= TERM=xterm", true),
        ("NO_COLOR=1 TERM=xterm", false),
        ("-u NO_COLOR TERM=dumb", false),
    ] {
        let line = format!("exec env {variables} '{}' status --request-timeout 60s -n {namespace}", program.display());
        let (code, shown) = Terminal::start(&fixture, &line)?.ended().await?;
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains(NAME), "{variables}: {shown}");
        assert_eq!(shown.contains("\u{1b}[32m"), is_colored, "{variables}: {shown:?}");
        assert_eq!(shown.contains('\u{1b}'), is_colored, "{variables}: {shown:?}");
    }
    Ok(())
}

#[tokio::test]
async fn rotation_on_a_terminal_does_not_show_the_secret() -> Result<()> {
    let Some(mut fixture) = ready("terminal").await? else { return Ok(()) };
    // so that the first step lasts until something was typed
    fixture.operator.process.signal(Signal::SIGSTOP);
    let mut terminal = Terminal::with_a_rotation(&fixture)?;
    terminal.shows("waiting for the operator").await?;
    terminal.types("typed-too-early\n").await?;
    terminal.shows("typed-too-early").await?;
    fixture.operator.process.signal(Signal::SIGCONT);
    terminal.shows("Paste the new client_secret, which is not shown").await?;
    fixture.client.client_secret = SECRET.to_owned();
    fixture.register().await?;
    terminal.types(&format!("{SECRET}\n")).await?;
    let (code, shown) = terminal.ended().await?;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("new token with the new secret") && !shown.contains(SECRET), "{shown}");
    let secret = fixture.namespace.get("secret", "agent-client").await?.context("no client Secret")?;
    assert_eq!(testbed::namespace::data(&secret)?["client_secret"], SECRET, "what was typed before is no secret");
    Ok(())
}

#[tokio::test]
async fn rotation_that_waits_for_the_secret_cannot_be_suspended_and_leaves_the_shell_nothing_of_it() -> Result<()> {
    let Some(mut fixture) = ready("terminal-job").await? else { return Ok(()) };
    let mut terminal = Terminal::with_a_rotation_as_a_job(&fixture)?;
    terminal.shows("press Enter").await?;
    fixture.client.client_secret = SECRET.to_owned();
    fixture.register().await?;
    terminal.types(&format!("{CTRL_Z}{SECRET}\nrest-of-{SECRET}\n")).await?;
    terminal.shows("Step 3 of 4").await?;
    terminal.types("typed-later\n").await?;
    let (code, shown) = terminal.ended().await?;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("next=typed-later") && !shown.contains(SECRET), "{shown}");
    let secret = fixture.namespace.get("secret", "agent-client").await?.context("no client Secret")?;
    assert_eq!(testbed::namespace::data(&secret)?["client_secret"], SECRET, "what was to suspend it is no secret");
    Ok(())
}

#[tokio::test]
async fn rotation_on_a_terminal_ends_with_what_was_written() -> Result<()> {
    let Some(fixture) = ready("terminal-end").await? else { return Ok(()) };
    let before = fixture.namespace.get("secret", "agent-client").await?;
    let empty = "it is empty: write the new client_secret there";
    for (typed, said) in [("\n", empty), (CTRL_D, empty), (CTRL_C, "interrupted")] {
        let mut terminal = Terminal::with_a_rotation(&fixture)?;
        terminal.shows("press Enter").await?;
        terminal.types(typed).await?;
        let (code, shown) = terminal.ended().await?;
        let last = shown.trim_end().lines().last().unwrap_or_default();
        assert!(code == Some(2) && last.starts_with("error: standard input: "), "{typed:?}: {code:?}: {shown}");
        assert!(last.contains(said) && last.ends_with("nothing was written"), "{typed:?}: {shown}");
        assert_eq!(fixture.namespace.get("secret", "agent-client").await?, before, "{typed:?}");
    }
    // a secret that the authority does not accept: the plugin waits, until it is interrupted
    let mut terminal = Terminal::with_a_rotation(&fixture)?;
    terminal.shows("press Enter").await?;
    terminal.types(&format!("{SECRET}\n")).await?;
    terminal.shows("InvalidClient").await?;
    terminal.types(CTRL_C).await?;
    let (code, shown) = terminal.ended().await?;
    assert!(code == Some(2) && shown.contains("agent-client has the new value"), "{code:?}: {shown}");
    assert!(!shown.contains(SECRET), "{shown}");
    Ok(())
}
