//! What surrounds the operator when it is shipped matches it: the annotations of the chart, the configuration of
//! kube-state-metrics, workflows, Kubernetes versions, the steps of a release. No server is needed.

#![allow(missing_docs, clippy::panic)]

mod chart;
mod dependencies;
mod first_build;
mod lanes;
mod linkage;
mod pins;
mod release;
mod release_begin;
mod state_metrics;
mod updates;
mod versions;
mod workflows;

use std::path::{Path, PathBuf};

use serde_json::Value;

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn chart() -> PathBuf {
    project().join("charts/itwin-credential-operator")
}

fn read(file: impl AsRef<Path>) -> String {
    let file = file.as_ref();
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("YAML")
}

/// The CustomResourceDefinitions.
fn crds() -> Vec<Value> {
    serde_saphyr::from_multiple(&read(project().join("crds/credentials.itwin.dev.yaml"))).expect("YAML")
}

/// Fails with all problems, not only with the first.
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The texts in a list.
fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Files that describe the project to machines name only files that exist.
#[test]
fn security_insights_name_files_that_exist() {
    let text = read(project().join("security-insights.yml"));
    let insights = yaml(&text);
    for path in [
        "/header/schema-version",
        "/header/last-reviewed",
        "/header/last-updated",
        "/header/url",
        "/project/name",
        "/project/administrators/0/name",
        "/project/repositories/0/url",
        "/project/vulnerability-reporting/reports-accepted",
        "/project/vulnerability-reporting/bug-bounty-available",
        "/repository/url",
        "/repository/status",
        "/repository/core-team/0/name",
        "/repository/license/expression",
        "/repository/security/assessments/self/comment",
    ] {
        assert!(insights.pointer(path).is_some(), "security-insights.yml has no {path}");
    }
    let repository = insights["repository"]["url"].as_str().expect("a URL");
    let (mut wrong, mut count) = (Vec::new(), 0);
    for word in text.split_whitespace() {
        let Some(file) = word.strip_prefix(&format!("{repository}/blob/main/")) else { continue };
        let file = file.split('#').next().unwrap_or_default();
        count += 1;
        if !project().join(file).is_file() {
            wrong.push(format!("security-insights.yml: there is no {file}"));
        }
    }
    none(&wrong);
    assert!(count > 10, "only {count} files were found");
}
