//! What surrounds the operator when it is shipped matches it: the annotations of the chart, the configuration of
//! kube-state-metrics, workflows, Kubernetes versions, the steps of a release. No server is needed.

#![allow(missing_docs, clippy::panic)]

mod chart;
mod dependencies;
mod first_build;
mod pins;
mod release;
mod state_metrics;
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

/// The minor versions of Kubernetes that the testbed pins, oldest first: the older ones, and the newest.
fn kubernetes_versions() -> (Vec<String>, String) {
    let tools = project().join("crates/testbed/tools");
    let mut older: Vec<String> = std::fs::read_dir(&tools)
        .expect("the folder is there")
        .filter_map(|entry| {
            Some(entry.expect("an entry").file_name().to_string_lossy().strip_prefix("kubernetes-")?.to_owned())
        })
        .collect();
    let minor = |version: &String| -> u32 { version.trim_start_matches("1.").parse().expect("a minor version") };
    older.sort_by_key(minor);
    let newest = read(tools.join("kubernetes/go.mod"));
    let newest = newest.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v")).expect("a version");
    let newest = newest.split_whitespace().next().expect("a version");
    (older, newest.rsplit_once('.').expect("a patch version").0.to_owned())
}

#[test]
fn what_is_claimed_about_kubernetes_is_what_the_tests_can_run_on() {
    let (older, newest) = kubernetes_versions();
    let oldest = older.first().expect("older versions");
    let releasing = read(project().join("RELEASING.md"));
    let table = releasing.split("<!-- versions: begin -->").nth(1).expect("the table");
    let table = table.split("<!-- versions: end -->").next().expect("its end");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| 1.")).filter_map(|row| row.split(' ').next());
    let listed: Vec<String> = rows.map(|minor| format!("1.{minor}")).collect();
    let pinned: Vec<String> = [newest.clone()].into_iter().chain(older.iter().rev().cloned()).collect();
    assert_eq!(listed, pinned, "the table of versions in RELEASING.md");

    let of_chart = yaml(&read(chart().join("Chart.yaml")))["kubeVersion"].as_str().map(str::to_owned);
    assert_eq!(of_chart, Some(format!(">={oldest}.0-0")), "kubeVersion in Chart.yaml");
    for file in ["README.md", "docs/installation.md"] {
        assert!(read(project().join(file)).contains(&format!("{oldest} or later")), "{file} names another version");
    }
    let ci = yaml(&read(project().join(".github/workflows/ci.yml")));
    let of_ci = texts(&ci["jobs"]["versions"]["strategy"]["matrix"]["kubernetes"]);
    assert_eq!(of_ci, older, "the versions in .github/workflows/ci.yml");
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
