//! `kubectl itcred lint` against a real API server, and on files.

use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::process::Command;

use super::plugin::{command, finished, run};
use crate::{
    fixture::{Fixture, NAME},
    plugin_program::plugin,
};

/// A workload of this kind that reads the token as a variable.
fn stale(group: &str, kind: &str) -> Value {
    let variable = json!({"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": NAME, "key": "access_token"}}});
    let pod = json!({"containers": [{"name": "main", "image": "example.com/app", "env": [variable]}]});
    let labeled = json!({"metadata": {"labels": {"app": "app"}}, "spec": pod});
    let mut run = labeled.clone();
    run["spec"]["restartPolicy"] = "Never".into();
    let spec = match kind {
        "Job" => json!({"template": run}),
        "CronJob" => json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": run}}}),
        _ => json!({"selector": {"matchLabels": {"app": "app"}}, "template": labeled}),
    };
    json!({"apiVersion": group, "kind": kind, "metadata": {"name": "app"}, "spec": spec})
}

#[tokio::test]
async fn plugin_lint_finds_stale_readers_in_the_cluster_and_in_files() -> Result<()> {
    let fixture = Fixture::ready("plugin-lint").await?;
    let deployment = stale("apps/v1", "Deployment");
    let kinds = ["StatefulSet", "DaemonSet"].map(|kind| stale("apps/v1", kind));
    let runs = ["Job", "CronJob"].map(|kind| stale("batch/v1", kind));
    for workload in kinds.iter().chain(&runs).chain([&deployment]) {
        fixture.namespace.apply(workload).await?;
    }
    let found = run(&fixture, &["lint", "-o", "json"]).await?;
    assert_eq!(found.code, 1, "{found:?}");
    let report = found.json()?;
    let findings = report["findings"].as_array().context("findings")?;
    let objects: Vec<_> = findings.iter().map(|finding| finding["object"].as_str().unwrap_or_default()).collect();
    assert_eq!(objects, ["DaemonSet/app", "Deployment/app", "StatefulSet/app", "CronJob/app", "Job/app"], "{report}");
    assert!(findings.iter().all(|finding| finding["rule"] == "env"), "{report}");
    assert_eq!(report["unread"], json!([]), "{report}");

    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("app.yaml"), deployment.to_string())?;
    let credential = fixture.namespace.credential(NAME, &json!({}));
    std::fs::write(folder.path().join("credential.json"), credential.to_string())?;
    let mut lint = Command::new(plugin()?);
    lint.args(["lint", "-f"]).arg(folder.path()).env("KUBECONFIG", "/does/not/exist");
    let of_files = finished(lint.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?).await?;
    assert!(of_files.code == 1 && of_files.out.contains("env: container main"), "{of_files:?}");

    // no Secret of an operator at all
    let empty = testbed::namespace::Namespace::new("plugin-empty").await?;
    let mut lint = command(&fixture, &["lint", "-o", "json"])?;
    let nothing = finished(lint.args(["--namespace", &empty.name]).spawn()?).await?;
    assert_eq!(nothing.json()?["unread"], json!([]), "{nothing:?}");

    // a Secret whose credential is gone, and a user who may not list Secrets
    fixture.namespace.kubectl(&["delete", "deployment,statefulset,daemonset,job,cronjob", "app"]).await?;
    fixture.namespace.orphan(NAME).await?;
    let orphaned = run(&fixture, &["lint"]).await?;
    assert!(orphaned.code == 1 && orphaned.out.contains("noCredential"), "{orphaned:?}");
    Ok(())
}

#[tokio::test]
async fn plugin_lint_reads_more_objects_than_a_page_holds() -> Result<()> {
    const PODS: usize = 520;
    let fixture = Fixture::ready("plugin-pages").await?;
    let variable = json!({"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": NAME, "key": "access_token"}}});
    let pods = (0..PODS).map(|number| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("app-{number}")},
            "spec": {"containers": [{"name": "main", "image": "example.com/app", "env": [variable]}]},
        })
    });
    fixture.namespace.create_all(pods, 16).await?;
    let report = run(&fixture, &["lint", "-o", "json"]).await?.json()?;
    assert_eq!(report["workloads"], PODS, "{}", report["unread"]);
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(PODS));
    Ok(())
}
