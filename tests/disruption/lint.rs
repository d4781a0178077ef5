//! `kubectl itcred lint` reads ten thousand pods, in pages. How long that takes is measured by `make bench`.

use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::{INSTALLATION, eventually};
use tokio::process::Command;

use crate::{
    audit::calls,
    cluster::Cluster,
    fixture::{NAME, PATIENCE},
    plugin_program::{LIMIT, plugin},
};

const PODS: usize = 10_000;
/// The objects of a page, as docs/kubectl-itcred.md says.
const PAGE: usize = 500;
/// Pods that are created at the same time: few, since other tests share the processor.
const AT_ONCE: usize = 8;
/// The one pod that keeps its first token: in a page in the middle.
const STALE: usize = 7_321;

/// A pod that reads the token of the credential: from a file, or from a variable.
fn pod(number: usize) -> Value {
    let mut container = json!({"name": "main", "image": "example.com/app"});
    if number == STALE {
        let variable = json!({"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": NAME, "key": "access_token"}}});
        container["env"] = json!([variable]);
    } else {
        container["volumeMounts"] = json!([{"name": "token", "mountPath": "/var/run/secrets/itwin"}]);
    }
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("app-{number}")},
        "spec": {"containers": [container], "volumes": [{"name": "token", "secret": {"secretName": NAME}}]},
    })
}

#[tokio::test]
async fn one_stale_reader_among_ten_thousand_pods_is_found_and_each_page_is_read_once() -> Result<()> {
    let cluster = Cluster::start("ten-thousand").await?;
    let namespace = cluster.namespace("ten-thousand").await?;
    namespace.apply(&namespace.credential(NAME, &json!({}))).await?;
    // the audit log holds the calls of this account alone
    let account = format!("--serviceaccount={INSTALLATION}:{INSTALLATION}");
    namespace.kubectl(&["create", "rolebinding", "lint", "--clusterrole=cluster-admin", &account]).await?;
    let user = format!("system:serviceaccount:{INSTALLATION}:{INSTALLATION}");
    let may = ["auth", "can-i", "list", "pods", "--as", &user];
    eventually("the permission", PATIENCE, async || namespace.kubectl(&may).await.ok()).await?;
    namespace.create_all((0..PODS).map(pod), AT_ONCE).await?;

    let mut lint = Command::new(plugin()?);
    lint.args(["lint", "-o", "json", "--request-timeout", "60s", "--namespace", &namespace.name]);
    lint.env("KUBECONFIG", &namespace.testbed.operator_kubeconfig).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(LIMIT, lint.output()).await.context("it takes too long")??;
    assert_eq!(ended.status.code(), Some(1), "{}", String::from_utf8_lossy(&ended.stderr));
    let report: Value = serde_json::from_slice(&ended.stdout)?;
    assert_eq!((&report["workloads"], &report["unread"]), (&json!(PODS), &json!([])), "{report}");
    let findings = report["findings"].as_array().context("findings")?;
    let found: Vec<_> = findings.iter().map(|finding| (&finding["rule"], &finding["object"])).collect();
    assert_eq!(found, [(&json!("env"), &json!(format!("Pod/app-{STALE}")))]);

    let lists = calls(&namespace)?.into_iter().filter(|call| call.verb == "list" && call.resource == "pods").count();
    assert_eq!(lists, PODS.div_ceil(PAGE), "a page is read once, and no page is too long");
    Ok(())
}
