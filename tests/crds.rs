//! The committed files are those that the types generate.

#![allow(missing_docs, clippy::panic)]

use std::path::Path;

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

#[test]
fn no_message_is_a_regular_expression() {
    for crd in [ITwinServiceCredential::crd(), ITwinAuthority::crd()] {
        let text = serde_json::to_value(crd).expect("JSON").to_string();
        let patterns: Vec<&str> = text.split("\"pattern\":").skip(1).collect();
        assert!(patterns.iter().all(|pattern| pattern.starts_with("\"^[ -~]*$\"")), "{patterns:?}");
    }
}
