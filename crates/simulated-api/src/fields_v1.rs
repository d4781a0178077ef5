//! The entries of `managedFields` and their encoding (`FieldsV1`).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// A set of fields, each as the elements of its path (`f:spec`, `k:{"type":"Ready"}`, `v:"x"`).
pub type Fields = BTreeSet<Vec<String>>;

/// What one manager owns by one kind of operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Name of the manager.
    pub manager: String,
    /// `Update` or `Apply`.
    pub operation: String,
    /// `apiVersion` that it wrote.
    pub api_version: String,
    /// Subresource that it wrote through; empty for the object itself.
    pub subresource: String,
    /// When it last changed something, in RFC 3339.
    pub time: String,
    /// What it owns.
    pub fields: Fields,
}

/// An entry as it is in `managedFields`.
pub fn encode(entry: &Entry) -> Value {
    let mut tree = json!({});
    for path in &entry.fields {
        let mut node = &mut tree;
        for element in path {
            node = &mut node[element.as_str()];
            if node.is_null() {
                *node = json!({});
            }
        }
        node["."] = json!({});
    }
    trim_leaves(&mut tree);
    let mut encoded = json!({
        "manager": entry.manager,
        "operation": entry.operation,
        "apiVersion": entry.api_version,
        "time": entry.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": tree,
    });
    if !entry.subresource.is_empty() {
        encoded["subresource"] = json!(entry.subresource);
    }
    encoded
}

/// A field that is owned without any of its parts is written as an empty object.
fn trim_leaves(node: &mut Value) {
    let Value::Object(parts) = node else { return };
    if parts.len() == 1 && parts.contains_key(".") {
        parts.clear();
    }
    parts.iter_mut().filter(|(name, _)| name.as_str() != ".").for_each(|(_, part)| trim_leaves(part));
}

/// The entries of `managedFields`; those that cannot be read are left out.
pub fn decode(list: &Value) -> Vec<Entry> {
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let entries = list.as_array().into_iter().flatten().filter(|entry| entry["fieldsV1"].is_object());
    entries
        .map(|entry| {
            let mut fields = Fields::new();
            collect(&entry["fieldsV1"], &mut Vec::new(), &mut fields);
            Entry {
                manager: text(entry, "manager"),
                operation: text(entry, "operation"),
                api_version: text(entry, "apiVersion"),
                subresource: text(entry, "subresource"),
                time: text(entry, "time"),
                fields,
            }
        })
        .collect()
}

fn collect(node: &Value, path: &mut Vec<String>, into: &mut Fields) {
    let none = Map::new();
    let parts = node.as_object().unwrap_or(&none);
    if (parts.is_empty() || parts.contains_key(".")) && !path.is_empty() {
        into.insert(path.clone());
    }
    for (name, part) in parts.iter().filter(|(name, _)| name.as_str() != ".") {
        path.push(name.clone());
        collect(part, path, into);
        path.pop();
    }
}
