//! The program as a process: arguments, probes, metrics, signals.

use std::process::Command;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::fixture::{Fixture, PATIENCE, PROGRAM};

#[test]
fn wrong_arguments_end_with_2_and_say_what_is_wrong() -> Result<()> {
    for (arguments, reported) in [
        (&["run", "--concurrency", "0"][..], "--concurrency"),
        (&["run", "--namespaces", "Not_A_Namespace"], "--namespaces"),
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
    let output = Command::new(PROGRAM).args(["run", "--metrics-address", "192.0.2.1:1"]).output()?;
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
