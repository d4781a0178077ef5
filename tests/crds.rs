//! The committed files are those that the types generate.

#![allow(missing_docs, clippy::panic)]

use std::{collections::BTreeSet, path::Path};

use itwin_api::{authority::ITwinAuthority, credential::ITwinServiceCredential, limits};
use kube::CustomResourceExt;
use serde_json::Value;

/// The limit of a credential's spec, in bytes of JSON; characters that JSON escapes count once.
const SPEC_MAX: usize = 64_000;
/// Quotes, colon and comma of an entry of a map; quotes and comma of one of a list need fewer.
const ENTRY: usize = 6;
/// The longest character of UTF-8.
const CHARACTER: usize = 4;

/// The length of what a CEL rule bounds in total; the rest of the schema does not show it.
fn bounded_as_a_whole(field: &str) -> Option<usize> {
    match field {
        "scopes" => Some(limits::SCOPE_MAX + 64 * ENTRY),
        "resources" => Some(limits::RESOURCES_MAX + 16 * ENTRY),
        "data" => Some(limits::TEMPLATES_TOTAL_MAX + limits::TEMPLATES_MAX * ENTRY),
        // the rule is about the sum of both
        "labels" => Some(limits::LABELS_TOTAL_MAX + 2 * limits::LABELS_MAX * ENTRY),
        "annotations" => Some(0),
        _ => None,
    }
}

/// The longest JSON of a field that the schema accepts.
fn longest(field: &str, schema: &Value) -> usize {
    let number = |key: &str| schema[key].as_f64().map(|number| number as usize);
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|value| value.to_string().len()).max().unwrap_or_default();
    }
    match schema["type"].as_str() {
        Some("boolean") => "false".len(),
        Some("integer") => number("maximum").unwrap_or_else(|| panic!("{field} has no maximum")).to_string().len(),
        Some("string") => {
            let characters = number("maxLength").unwrap_or_else(|| panic!("{field} has no maxLength"));
            // the patterns of this schema are of ASCII characters
            2 + characters * if schema["pattern"].is_string() { 1 } else { CHARACTER }
        }
        Some("array") => {
            let items = number("maxItems").unwrap_or_else(|| panic!("{field} has no maxItems"));
            bounded_as_a_whole(field).unwrap_or_else(|| items * (1 + longest(field, &schema["items"])))
        }
        Some("object") if schema["additionalProperties"].is_object() => {
            assert!(number("maxProperties").is_some(), "{field} has no maxProperties");
            bounded_as_a_whole(field).unwrap_or_else(|| panic!("{field} has keys of any length"))
        }
        Some("object") => {
            let properties = schema["properties"].as_object().expect("properties").iter();
            properties.map(|(name, schema)| name.len() + ENTRY + longest(name, schema)).sum()
        }
        other => panic!("{field} is of type {other:?}"),
    }
}

#[test]
fn spec_of_every_credential_that_the_schema_accepts_is_under_64_kb() {
    let crd = serde_json::to_value(ITwinServiceCredential::crd()).expect("JSON");
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let longest = longest("spec", spec);
    assert!((48_000..SPEC_MAX).contains(&longest), "{longest}");
}

#[test]
fn committed_crds_are_fresh() {
    let generated = itwin_api::crds().expect("YAML");
    for file in ["crds/credentials.itwin.dev.yaml", "charts/itwin-credential-operator/files/crds.yaml"] {
        let committed =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("the file is there");
        assert!(committed == generated, "{file} is stale: run `make generate`");
    }
}

/// All properties of a schema with their paths.
fn properties<'a>(path: &str, schema: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        properties(&path, property, found);
        properties(&path, &property["items"], found);
        found.push((path, property));
    }
}

#[test]
fn description_of_every_field_with_a_default_names_it() {
    for crd in [ITwinServiceCredential::crd(), ITwinAuthority::crd()] {
        let crd = serde_json::to_value(crd).expect("JSON");
        let mut all = Vec::new();
        properties("", &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"], &mut all);
        let with_default: Vec<_> = all.into_iter().filter(|(_, property)| !property["default"].is_null()).collect();
        assert!(with_default.len() >= 6, "{with_default:?}");
        for (path, property) in with_default {
            // kubectl explain shows descriptions and no defaults
            let description = property["description"].as_str().unwrap_or_default();
            assert!(description.contains("Default:"), "{path}: {description}");
        }
    }
}

/// What differs between the bounds of a field in the CRD and in the schema of the chart's values.
fn differences(path: &str, crd: &Value, chart: &Value, found: &mut Vec<String>) {
    let names = |list: &Value| -> BTreeSet<String> {
        // an optional field may be null in the CRD; in values, null leaves it out
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let fields = |schema: &Value| -> BTreeSet<String> {
        schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let mut differ = |what: &str, is_same: bool| {
        if !is_same {
            found.push(format!("{path}: {what}"));
        }
    };
    for bound in ["maxLength", "maxItems", "minimum", "maximum"] {
        let is_same = crd[bound].is_null() || crd[bound].as_f64() == chart[bound].as_f64();
        differ(bound, is_same);
    }
    differ("enum", crd["enum"].is_null() || names(&crd["enum"]) == names(&chart["enum"]));
    differ("required", crd["required"].is_null() || names(&crd["required"]) == names(&chart["required"]));
    differ("uniqueItems", (crd["x-kubernetes-list-type"] == "set") == (chart["uniqueItems"] == true));
    // where a rule of the CRD is about the form of a text, the chart says the same in words
    let is_worded = !crd["x-kubernetes-validations"].is_null();
    for bound in ["minLength", "minItems"] {
        let least = |schema: &Value| schema[bound].as_u64().unwrap_or_default();
        differ(bound, is_worded || least(crd) == least(chart));
    }
    differ("properties", fields(crd) == fields(chart));
    for name in fields(crd) {
        differences(&format!("{path}.{name}"), &crd["properties"][&name], &chart["properties"][&name], found);
    }
    if crd["items"].is_object() {
        differences(&format!("{path}[]"), &crd["items"], &chart["items"], found);
    }
}

/// All messages of the rules of a schema.
fn messages(schema: &Value, found: &mut Vec<String>) {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    found.extend(rules.filter_map(|rule| rule["message"].as_str()).map(str::to_owned));
    for property in schema["properties"].as_object().into_iter().flat_map(|fields| fields.values()) {
        messages(property, found);
    }
    if schema["items"].is_object() {
        messages(&schema["items"], found);
    }
}

#[test]
fn chart_refuses_the_authorities_that_the_crd_refuses() {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/itwin-credential-operator");
    let read = |file: &str| std::fs::read_to_string(chart.join(file)).expect("the file is there");
    let values: Value = serde_json::from_str(&read("values.schema.json")).expect("JSON");
    let crd = serde_json::to_value(ITwinAuthority::crd()).expect("JSON");
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut found = Vec::new();
    differences("spec", spec, &values["properties"]["authorities"]["additionalProperties"], &mut found);
    // the CRD takes it from Kubernetes, which names the operators in the description
    found.retain(|difference| !difference.starts_with("spec.allowedNamespaces.matchExpressions[].operator: enum"));
    assert!(found.is_empty(), "{found:?}");

    let mut all = Vec::new();
    messages(spec, &mut all);
    assert!(all.len() > 15, "{all:?}");
    // a string of the template
    let words = read("templates/validation.yaml").replace(r"\\", r"\");
    for message in all.iter().filter(|message| !message.contains("is immutable")) {
        // the template prints the path of the field
        let (field, rest) = message.split_once(' ').expect("words");
        let rest = if spec["properties"][field].is_object() || field.ends_with(':') { rest } else { message };
        assert!(words.contains(rest), "validation.yaml does not say: {message}");
    }
}

#[test]
fn no_message_is_a_regular_expression() {
    for crd in [ITwinServiceCredential::crd(), ITwinAuthority::crd()] {
        let text = serde_json::to_value(crd).expect("JSON").to_string();
        let patterns: Vec<&str> = text.split("\"pattern\":").skip(1).collect();
        assert!(patterns.iter().all(|pattern| pattern.starts_with("\"^[ -~]*$\"")), "{patterns:?}");
    }
}
