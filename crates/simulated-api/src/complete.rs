//! What decoding makes of an object: defaults, `stringData`, and what the type does not have is dropped.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{
    object,
    resources::{Resource, Rules},
};

/// Completes an object as if it had been decoded into its type and encoded again.
///
/// # Errors
/// Why it cannot be decoded.
pub fn complete(resource: &Resource, object: &mut Value) -> Result<(), String> {
    object["apiVersion"] = json!(resource.api_version());
    object["kind"] = json!(resource.kind);
    match resource.rules {
        Rules::Secret => secret(object)?,
        Rules::ConfigMap => keep(object, &["data", "binaryData", "immutable"]),
        Rules::Namespace => namespace(object),
        Rules::Lease => {
            keep(object, &["spec"]);
            default(object, "spec", json!({}));
        }
        Rules::Event => event(object),
        Rules::Workload => {
            keep(object, &["spec", "status"]);
            object::drop_empty(&mut object["spec"]["template"]);
        }
        Rules::Custom => {
            if let Some(schema) = &resource.schema {
                schema.complete(object);
            }
        }
    }
    if let Some(defaulter) = &resource.defaulter {
        defaulter(object);
    }
    if let Some(Value::Array(owners)) = object::metadata_mut(object).get_mut("ownerReferences") {
        let mut seen = BTreeSet::new();
        owners.retain(|owner| seen.insert(owner.to_string()));
    }
    object::drop_empty(object);
    Ok(())
}

/// Drops what encoding leaves out. Until then it counts: no data and empty data are different to a validation.
pub fn drop_empty(resource: &Resource, object: &mut Value) {
    object::drop_empty(object);
    if let (Rules::Secret | Rules::ConfigMap, Some(fields)) = (resource.rules, object.as_object_mut()) {
        fields.retain(|name, value| !(matches!(name.as_str(), "data" | "binaryData") && object::is_empty(value)));
    }
}

/// Drops all fields but these, and these where they are null.
fn keep(object: &mut Value, names: &[&str]) {
    let Some(fields) = object.as_object_mut() else { return };
    let always = ["apiVersion", "kind", "metadata"];
    fields.retain(|name, value| always.contains(&name.as_str()) || names.contains(&name.as_str()) && !value.is_null());
}

fn default(object: &mut Value, field: &str, value: Value) {
    if object[field].is_null() {
        object[field] = value;
    }
}

fn secret(object: &mut Value) -> Result<(), String> {
    let texts = object["stringData"].take();
    let given = object["data"].take();
    let has_data = given.is_object() || texts.is_object();
    let mut data = match given {
        Value::Object(data) => data,
        _ => Map::new(),
    };
    for (name, text) in texts.as_object().into_iter().flatten() {
        data.insert(name.clone(), json!(STANDARD.encode(text.as_str().unwrap_or_default())));
    }
    for value in data.values() {
        let text = value.as_str().ok_or("a value of data is no text")?;
        STANDARD.decode(text).map_err(|error| format!("illegal base64 data: {error}"))?;
    }
    object["data"] = if has_data { Value::Object(data) } else { Value::Null };
    keep(object, &["data", "immutable", "type"]);
    if object["type"].as_str().unwrap_or_default().is_empty() {
        object["type"] = json!("Opaque");
    }
    Ok(())
}

fn namespace(object: &mut Value) {
    keep(object, &["spec", "status"]);
    default(object, "spec", json!({}));
    default(object, "status", json!({}));
    let name = object["metadata"]["name"].clone();
    let metadata = object::metadata_mut(object);
    if metadata.get("labels").is_none_or(Value::is_null) {
        metadata.insert("labels".to_owned(), json!({}));
    }
    metadata["labels"]["kubernetes.io/metadata.name"] = name;
}

fn event(object: &mut Value) {
    keep(
        object,
        &[
            "action",
            "eventTime",
            "note",
            "reason",
            "regarding",
            "related",
            "reportingController",
            "reportingInstance",
            "series",
            "type",
        ],
    );
    default(object, "regarding", json!({}));
    object["deprecatedSource"] = json!({});
    object["deprecatedFirstTimestamp"] = Value::Null;
    object["deprecatedLastTimestamp"] = Value::Null;
}
