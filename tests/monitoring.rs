//! Alerts, dashboard, runbooks and the description of the chart's values describe what exists. No server is needed.
//! `tests/docs/metrics.rs` compares the metrics that they name with those of the operator.

#![allow(missing_docs)]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use itwin_api::{authority::ITwinAuthority, conditions::Reason};
use kube::CustomResourceExt;
use serde_json::Value;

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn chart() -> PathBuf {
    project().join("charts/itwin-credential-operator")
}

fn read(file: impl AsRef<Path>) -> String {
    std::fs::read_to_string(file.as_ref()).expect("the file is there")
}

/// The alerts and their runbooks, by the lines of the file.
fn alerts() -> Vec<(String, String)> {
    let text = read(chart().join("files/alerts.yaml"));
    let values = |key: &str| -> Vec<String> {
        let lines = text.lines().map(|line| line.trim().trim_start_matches("- "));
        lines.filter_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned()).collect()
    };
    let (names, runbooks) = (values("alert:"), values("runbook_url:"));
    assert_eq!(names.len(), runbooks.len(), "an alert has no runbook");
    for key in ["severity:", "summary:", "description:", "expr:"] {
        assert_eq!(names.len(), values(key).len(), "an alert has no {key}");
    }
    names.into_iter().zip(runbooks).collect()
}

#[test]
fn faults_of_an_authority_are_named_as_the_operator_names_them() {
    for file in ["files/alerts.yaml", "files/dashboard.json"] {
        let text = read(chart().join(file));
        let at = text.find("ServerError|").expect("faults are counted");
        let reasons = text[at..].split(|c: char| !(c.is_ascii_alphabetic() || c == '|')).next().unwrap_or_default();
        for reason in reasons.split('|') {
            assert!(Reason::parse(reason).is_some(), "{file}: there is no reason {reason}");
        }
    }
}

#[test]
fn every_alert_has_its_runbook_and_every_runbook_its_alert() {
    let alerts = alerts();
    assert!(alerts.len() > 10);
    for (alert, runbook) in &alerts {
        assert!(runbook.ends_with(&format!("/docs/runbooks/{alert}.md")), "{alert} names {runbook}");
        assert!(read(project().join(format!("docs/runbooks/{alert}.md"))).starts_with(&format!("# {alert}\n")));
    }
    let index = read(project().join("docs/runbooks/README.md"));
    for entry in std::fs::read_dir(project().join("docs/runbooks")).expect("the folder is there") {
        let name = entry.expect("an entry").file_name().to_string_lossy().replace(".md", "");
        assert!(name == "README" || alerts.iter().any(|(alert, _)| *alert == name), "{name} is about no alert");
        assert!(name == "README" || index.contains(&format!("({name}.md)")), "{name} is not in the index");
    }
}

#[test]
fn dashboard_has_one_panel_of_each_number() {
    let dashboard: Value = serde_json::from_str(&read(chart().join("files/dashboard.json"))).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let numbers: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(numbers.len(), panels.len());
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert!(
            panel["description"].as_str().is_some_and(|text| !text.is_empty()),
            "{} is not explained",
            panel["title"]
        );
    }
}

#[test]
fn table_and_schema_of_values_are_current() {
    for script in ["charts/values-table.mjs", "charts/values-schema.mjs"] {
        let script = project().join(script);
        let output = Command::new("node").arg(script).arg("--check").output().expect("Node 20 or later is needed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The schema that another default would get, or how the script fails.
fn schema_with(name: &str, change: [&str; 2]) -> Result<Value, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("schema-{name}"));
    std::fs::create_dir_all(&folder).expect("created");
    let values = read(chart().join("values.yaml"));
    assert!(values.contains(change[0]), "values.yaml has no {:?}", change[0]);
    std::fs::write(folder.join("values.yaml"), values.replace(change[0], change[1])).expect("written");
    let script = project().join("charts/values-schema.mjs");
    let output = Command::new("node").arg(script).arg("--chart").arg(&folder).output().expect("Node 20 or later");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(serde_json::from_str(&read(folder.join("values.schema.json"))).expect("JSON"))
}

#[test]
fn schema_follows_the_values_and_their_comments() {
    let new = "\nlogLevel: info\n\n# A new value. For example:\n#   added: 2\nadded: 1\n";
    let schema = schema_with("added", ["\nlogLevel: info\n", new]).expect("a schema");
    let expected = serde_json::json!({"description": "A new value.", "default": 1, "type": "integer"});
    assert_eq!(schema["properties"]["added"], expected);
    assert_eq!(schema["properties"]["logLevel"]["enum"].as_array().map(Vec::len), Some(4), "constraints stay");

    let error = schema_with("renamed", ["\nlogLevel: info\n", "\nlevel: info\n"]).expect_err("no longer a value");
    assert!(error.contains("logLevel is not in values.yaml"), "{error}");
    let error = schema_with("bare", ["\nlogLevel: info\n", "\n\nbare: info\n"]).expect_err("no description");
    assert!(error.contains("bare has no comment"), "{error}");
}

fn schema() -> Value {
    serde_json::from_str(&read(chart().join("values.schema.json"))).expect("JSON")
}

/// Calls `visit` with the path and the schema of each object that has named properties.
fn objects<'a>(schema: &'a Value, path: &str, visit: &mut impl FnMut(&str, &'a Value)) {
    if let Some(properties) = schema["properties"].as_object() {
        visit(path, schema);
        for (name, property) in properties {
            objects(property, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, visit);
        }
    }
    for part in ["items", "additionalProperties"] {
        if schema[part].is_object() {
            objects(&schema[part], path, visit);
        }
    }
}

#[test]
fn values_that_are_named_are_the_only_ones() {
    objects(&schema(), "", &mut |path, object| {
        assert_eq!(object["additionalProperties"], false, "{path} takes unknown values");
    });
}

#[test]
fn schema_of_the_values_answers_with_no_regular_expression() {
    // templates/validation.yaml says in words what to write
    assert!(!schema().to_string().contains("\"pattern"));
}

#[test]
fn every_value_of_the_schema_is_described() {
    let readme = read(chart().join("README.md"));
    objects(&schema(), "", &mut |path, object| {
        let described = |path: &str| readme.contains(&format!("| `{path}` |"));
        // the parts of a value are described with it
        if path.match_indices('.').map(|(at, _)| &path[..at]).chain([path]).any(described) {
            return;
        }
        for (name, property) in object["properties"].as_object().into_iter().flatten() {
            let full = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let is_section = property["properties"].is_object();
            assert!(described(&full) || is_section || full == "global", "{full} is not described in values.yaml");
        }
    });
}

#[test]
fn authorities_of_the_chart_accept_every_field_of_the_crd_and_no_other() {
    let crd = serde_json::to_value(ITwinAuthority::crd()).expect("JSON");
    let names = |object: &Value| -> BTreeSet<String> {
        object["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let ours = &schema()["properties"]["authorities"]["additionalProperties"];
    assert!(names(spec).contains("issuer"));
    assert_eq!(names(ours), names(spec));
    assert_eq!(ours["required"], spec["required"]);
}
