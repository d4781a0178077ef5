//! The program as a process: arguments, probes, metrics, signals.

use std::{
    fs::File,
    io::pipe,
    process::{Command, Output, Stdio},
};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::{
    fixture::{Fixture, PATIENCE, PROGRAM},
    plugin_program::plugin,
};

#[test]
fn wrong_arguments_end_with_2_and_say_what_is_wrong() -> Result<()> {
    for (arguments, reported) in [
        (&["run", "--concurrency", "0"][..], "--concurrency"),
        (&["run", "--namespaces", "Not_A_Namespace"], "--namespaces"),
        (&["run", "--namespaces", "a,team-"], "--namespaces"),
        (&["run", "--lease-namespace", "Not_A_Namespace"], "--lease-namespace"),
        (&["run", "--log-level", "loud"], "--log-level"),
        (&["walk"], "walk"),
        (&[], "subcommand"),
    ] {
        let output = Command::new(PROGRAM).args(arguments).output()?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.starts_with("error: ") && text.contains(reported) && text.lines().count() == 1, "{text}");
    }
    Ok(())
}

/// What each command of operator and plugin that needs no cluster does, if its output goes there.
fn printed_to(out: impl Fn() -> Result<Stdio>) -> Result<Vec<(Output, i32)>> {
    let (operator, plugin) = (std::path::PathBuf::from(PROGRAM), plugin()?);
    let commands: [(_, &[&str], i32); 6] = [
        (&operator, &["crd"], 1),
        (&operator, &["--help"], 1),
        (&operator, &["run", "--help"], 1),
        (&operator, &["--version"], 1),
        (&plugin, &["--help"], 2),
        (&plugin, &["completion", "bash"], 2),
    ];
    let mut ended = Vec::new();
    for (program, arguments, failure) in commands {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(out()?).stderr(Stdio::piped());
        ended.push((command.output()?, failure));
    }
    Ok(ended)
}

#[test]
fn output_that_cannot_be_written_ends_with_one_line() -> Result<()> {
    // each write to it fails
    for (output, failure) in printed_to(|| Ok(File::options().write(true).open("/dev/full")?.into()))? {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.starts_with("error: the output could not be written: "), "{text}");
        assert!(text.lines().count() == 1 && output.status.code() == Some(failure), "{output:?}");
    }
    Ok(())
}

#[test]
fn reader_that_went_away_is_no_error() -> Result<()> {
    let closed = || -> Result<Stdio> {
        let (reader, writer) = pipe()?;
        drop(reader);
        Ok(writer.into())
    };
    for (output, _) in printed_to(closed)? {
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
    Ok(())
}

/// Starts the program with this kubeconfig, which it cannot use; returns the line that it prints.
fn refused(kubeconfig: &str, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), kubeconfig)?;
    let mut command = Command::new(PROGRAM);
    command.arg("run").args(arguments).env("KUBECONFIG", file.path());
    command.env("ITWIN_OPERATOR_METRICS_ADDRESS", "127.0.0.1:0");
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.starts_with("error: ") && text.lines().count() == 1, "{text}");
    for raw in ["Error", "{", "}", "Os {", "Output"] {
        assert!(!text.contains(raw), "a raw structure: {text}");
    }
    Ok((output.status.code(), text))
}

#[test]
fn outside_a_pod_a_lease_needs_a_namespace() -> Result<()> {
    // taken, which is not found out first
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let (code, text) = refused("", &["--metrics-address", &address])?;
    assert_eq!(code, Some(2));
    assert!(text.contains("--lease-namespace") && text.contains("--leader-election=false"), "{text}");
    Ok(())
}

#[test]
fn unusable_kubeconfig_ends_with_one_line_that_quotes_nothing_of_it() -> Result<()> {
    let config = |server: &str, user: &str| {
        format!(
            "{{apiVersion: v1, kind: Config, current-context: x, contexts: [{{name: x, context: {{cluster: c, user: u}}}}], \
             clusters: [{{name: c, cluster: {{{server}}}}}], users: [{{name: u, user: {{{user}}}}}]}}"
        )
    };
    let server = "server: 'https://127.0.0.1:1'";
    let script = "exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: sh, args: ['-c', \
                  'echo hidden-value; exit 3']}";
    for (kubeconfig, says) in [
        ("token: [hidden-value".to_owned(), "not valid YAML"),
        ("hidden-value".to_owned(), "not valid YAML"),
        ("{apiVersion: v1, kind: Config, current-context: y}".to_owned(), "context \"y\""),
        (config("server: 'not a url hidden-value'", ""), "no URL"),
        (config(&format!("{server}, certificate-authority-data: hidden-value"), ""), "certificate authority"),
        (
            config(&format!("{server}, proxy-url: 'socks5://user:hidden-value@127.0.0.1:1080'"), ""),
            "kubeconfig: proxy-url of the cluster: SOCKS proxies are not supported; write the URL of an HTTP proxy",
        ),
        (config(server, "tokenFile: /nonexistent/token"), "/nonexistent/token"),
        (
            config(
                server,
                "exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: /no/such}",
            ),
            "exec plugin cannot be started",
        ),
        (config(server, script), "exec plugin ended with exit status: 3"),
    ] {
        let (code, text) = refused(&kubeconfig, &["--leader-election=false"])?;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(says) && !text.contains("hidden-value"), "{kubeconfig}: {text}");
    }
    Ok(())
}

/// The log of a program whose API server does not respond: lines of this program alone.
#[tokio::test]
async fn log_of_an_unreachable_api_server_has_no_line_of_a_library() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(
        &kubeconfig,
        "{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: c, user: u}}], clusters: \
         [{name: c, cluster: {server: 'https://127.0.0.1:1'}}], users: [{name: u, user: {token: hidden-value}}]}",
    )?;
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--metrics-address", "127.0.0.1:0", "--lease-namespace", "team-a", "--log-level", "debug"]);
    command.args(["--log-format", "json"]).env("KUBECONFIG", &kubeconfig);
    let process = testbed::process::Process::start("unreachable", command, folder.path())?;
    let log = testbed::eventually("several attempts", PATIENCE, async || {
        let log = std::fs::read_to_string(process.log()).ok()?;
        (log.lines().count() > 5).then_some(log)
    })
    .await?;
    // the last line may be incomplete
    for line in log.lines().take(5) {
        let entry: serde_json::Value = serde_json::from_str(line)?;
        let message = entry["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("watch failed, it is made again: ") && !message.contains('{'), "{line}");
    }
    assert!(!log.contains("hidden-value"));
    Ok(())
}

#[test]
fn proxy_that_cannot_be_used_ends_the_process_with_one_line() -> Result<()> {
    let output =
        Command::new(PROGRAM).arg("run").env("HTTPS_PROXY", "socks5://user:hunter2@127.0.0.1:1080").output()?;
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.starts_with("error: HTTPS_PROXY: SOCKS proxies are not supported") && text.lines().count() == 1,
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
    Ok(())
}

#[test]
fn unusable_address_ends_with_one_line() -> Result<()> {
    let output = Command::new(PROGRAM)
        .args(["run", "--lease-namespace", "itwin", "--metrics-address", "192.0.2.1:1"])
        .output()?;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.starts_with("error: failed to listen on --metrics-address 192.0.2.1:1") && text.lines().count() == 1,
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn probes_metrics_and_a_clean_end() -> Result<()> {
    let mut fixture = Fixture::ready("process").await?;
    assert_eq!(fixture.operator.get("/healthz").await?, "ok\n");
    assert_eq!(fixture.operator.get("/readyz").await?, "ok\n");
    let metrics = fixture.operator.get("/metrics").await?;
    for series in [
        format!(
            "itwin_credential_ready{{authority=\"{0}\",name=\"agent\",namespace=\"{0}\"}} 1",
            fixture.namespace.name
        ),
        format!("itwin_token_requests_total{{authority=\"{}\",result=\"success\"}} 1", fixture.namespace.name),
        "itwin_kubernetes_requests_total{resource=\"secrets\",result=\"success\",verb=\"create\"} 1".to_owned(),
        "itwin_leader 1".to_owned(),
        "itwin_build_info{version=\"".to_owned(),
        "process_resident_memory_bytes ".to_owned(),
    ] {
        assert!(metrics.contains(&series), "{series} is missing in:\n{metrics}");
    }
    fixture.operator.process.signal(Signal::SIGTERM);
    assert_eq!(fixture.operator.process.wait(PATIENCE), Some(0));
    Ok(())
}

#[tokio::test]
async fn memory_is_never_dumped() -> Result<()> {
    let fixture = Fixture::bare("core-dump").await?;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", fixture.operator.process.id()))?;
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[4..6], ["1", "1"], "{line}");
    Ok(())
}

#[tokio::test]
async fn logs_are_json_lines() -> Result<()> {
    let fixture = Fixture::ready("json-log").await?;
    let log = std::fs::read_to_string(fixture.operator.process.log())?;
    for line in log.lines() {
        let entry: serde_json::Value = serde_json::from_str(line)?;
        assert!(entry["timestamp"].is_string() && entry["level"].is_string() && entry["message"].is_string(), "{line}");
    }
    Ok(())
}
