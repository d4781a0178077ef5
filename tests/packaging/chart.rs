//! The annotations of Chart.yaml that Artifact Hub reads.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{chart, crds, none, project, read, yaml};

/// What Artifact Hub knows as the kind of a change.
const CHANGES: [&str; 6] = ["added", "changed", "deprecated", "removed", "fixed", "security"];

fn metadata() -> Value {
    yaml(&read(chart().join("Chart.yaml")))
}

/// The YAML in an annotation.
fn annotation(name: &str) -> Value {
    let metadata = metadata();
    let text = metadata["annotations"][format!("artifacthub.io/{name}")].as_str();
    yaml(text.unwrap_or_else(|| panic!("Chart.yaml has no annotation artifacthub.io/{name}")))
}

fn list(name: &str) -> Vec<Value> {
    annotation(name).as_array().expect("a list").clone()
}

#[test]
fn annotated_crds_are_those_of_the_chart() {
    let of_chart: BTreeSet<[String; 3]> = crds()
        .iter()
        .map(|crd| {
            let spec = &crd["spec"];
            let fields = [&spec["names"]["kind"], &spec["versions"][0]["name"], &crd["metadata"]["name"]];
            fields.map(|field| field.as_str().expect("text").to_owned())
        })
        .collect();
    let annotated: BTreeSet<[String; 3]> = list("crds")
        .iter()
        .map(|crd| ["kind", "version", "name"].map(|field| crd[field].as_str().expect("text").to_owned()))
        .collect();
    assert_eq!(annotated, of_chart);
    for crd in list("crds") {
        let described = ["displayName", "description"].iter().all(|field| crd[*field].is_string());
        assert!(described, "{crd} is not described");
    }
}

#[test]
fn annotated_examples_are_those_of_the_documentation() {
    let examples: Vec<Value> = ["examples/authority.yaml", "examples/credential.yaml"]
        .iter()
        .map(|file| yaml(&read(project().join(file))))
        .collect();
    assert_eq!(list("crdsExamples"), examples);
}

#[test]
fn annotated_image_is_the_default_of_the_chart() {
    let values = yaml(&read(chart().join("values.yaml")));
    let repository = values["image"]["repository"].as_str().expect("a repository");
    let version = metadata()["appVersion"].as_str().expect("a version").to_owned();
    let images = list("images");
    assert_eq!(images.len(), 1);
    assert_eq!(images[0]["image"].as_str(), Some(format!("{repository}:{version}").as_str()));
    assert_eq!(images[0]["platforms"], serde_json::json!(["linux/amd64", "linux/arm64"]));
}

#[test]
fn annotated_license_is_that_of_the_project() {
    let cargo = read(project().join("Cargo.toml"));
    let license = metadata()["annotations"]["artifacthub.io/license"].as_str().expect("a license").to_owned();
    assert!(cargo.contains(&format!("license = \"{license}\"")), "Cargo.toml names another license than {license}");
}

#[test]
fn annotated_changes_are_in_the_changelog() {
    let changelog = read(project().join("CHANGELOG.md")).split_whitespace().collect::<Vec<_>>().join(" ");
    let changes = list("changes");
    assert!(!changes.is_empty());
    let mut wrong = Vec::new();
    for change in changes {
        let (kind, text) = (change["kind"].as_str(), change["description"].as_str().expect("a description"));
        if !kind.is_some_and(|kind| CHANGES.contains(&kind)) {
            wrong.push(format!("{change}: Artifact Hub knows no such kind"));
        }
        if !changelog.contains(text) {
            wrong.push(format!("CHANGELOG.md does not say {text:?}"));
        }
    }
    none(&wrong);
}
