//! The configuration of kube-state-metrics reads fields that exist.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{chart, crds, none, project, read, texts, yaml};

fn resources() -> Vec<Value> {
    let configuration = yaml(&read(chart().join("files/kube-state-metrics.yaml")));
    assert_eq!(configuration["kind"], "CustomResourceStateMetrics");
    configuration["spec"]["resources"].as_array().expect("a list").clone()
}

/// The schema of a field at a path, where the steps into a list are left out.
fn field(schema: &Value, path: &[&str]) -> Option<Value> {
    let schema = if schema["type"] == "array" && !path.is_empty() { &schema["items"] } else { schema };
    let Some((name, rest)) = path.split_first() else { return Some(schema.clone()) };
    field(schema["properties"].get(*name)?, rest)
}

/// The schema of an object. That of the CRD does not contain the metadata that each object has.
fn schema(crd: &Value) -> Value {
    let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    let text = json!({"type": "string"});
    let properties = json!({"name": text, "namespace": text, "uid": text, "creationTimestamp": text});
    schema["properties"]["metadata"] = json!({"type": "object", "properties": properties});
    schema
}

/// What is wrong with the paths of a metric, or with the labels of a resource.
fn unknown(schema: &Value, base: &[&str], labels: &Value, wrong: &mut Vec<String>) {
    for (label, path) in labels.as_object().into_iter().flatten() {
        let path: Vec<&str> = base.iter().copied().chain(texts(path)).collect();
        match field(schema, &path).map(|found| found["type"].clone()) {
            Some(kind) if kind == "string" => {}
            Some(kind) => wrong.push(format!("label {label}: {} is no text but {kind}", path.join("."))),
            None => wrong.push(format!("label {label}: there is no field {}", path.join("."))),
        }
    }
}

#[test]
fn state_metrics_cover_both_resources_and_read_fields_that_exist() {
    let (mut wrong, mut covered) = (Vec::new(), BTreeSet::new());
    for resource in resources() {
        let kind = &resource["groupVersionKind"];
        let crds = crds();
        let crd = crds.iter().find(|crd| crd["spec"]["names"]["kind"] == kind["kind"]);
        let Some(crd) = crd else {
            wrong.push(format!("there is no resource {kind}"));
            continue;
        };
        assert_eq!(kind["group"], crd["spec"]["group"]);
        assert_eq!(kind["version"], crd["spec"]["versions"][0]["name"]);
        assert_eq!(resource["resourcePlural"], crd["spec"]["names"]["plural"]);
        covered.insert(kind["kind"].to_string());
        let schema = schema(crd);
        unknown(&schema, &[], &resource["labelsFromPath"], &mut wrong);
        for metric in resource["metrics"].as_array().expect("metrics") {
            let each = &metric["each"];
            let body = &each[each["type"].as_str().expect("a type").to_lowercase()];
            let path = texts(&body["path"]);
            unknown(&schema, &path, &body["labelsFromPath"], &mut wrong);
            let value: Vec<&str> = path.iter().copied().chain(texts(&body["valueFrom"])).collect();
            match field(&schema, &value).map(|found| found["type"].clone()) {
                Some(found)
                    if each["type"] == "Info" || ["string", "integer", "boolean"].iter().any(|is| found == *is) => {}
                found => wrong.push(format!("{}: {} has no value ({found:?})", metric["name"], value.join("."))),
            }
        }
    }
    none(&wrong);
    assert_eq!(covered.len(), crds().len(), "only {covered:?}");
}

#[test]
fn state_metrics_are_documented() {
    let operating = read(project().join("docs/operating.md"));
    let section = operating.split("\n### kube-state-metrics\n").nth(1).expect("the section");
    let section = section.split("\n## ").next().expect("its end");
    let documented: BTreeSet<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `kube_")?.split('`').next())
        .map(|name| format!("kube_{name}"))
        .collect();
    let mut configured = BTreeSet::new();
    for resource in resources() {
        let prefix = resource["metricNamePrefix"].as_str().expect("a prefix");
        let metrics = resource["metrics"].as_array().expect("metrics");
        configured
            .extend(metrics.iter().map(|metric| format!("{prefix}_{}", metric["name"].as_str().expect("a name"))));
    }
    assert_eq!(documented, configured);
}
