//! What a structural schema does to an object without validating it: defaults, pruning, and how lists are owned.

use serde_json::{Map, Value};

use crate::resources::Shape;

/// The `openAPIV3Schema` of a version of a CRD.
pub struct Schema(Value);

impl Schema {
    /// Wraps a schema.
    #[must_use]
    pub fn new(schema: Value) -> Self {
        Self(schema)
    }

    /// Drops the fields that the schema does not name, and sets missing ones that have a default.
    pub fn complete(&self, object: &mut Value) {
        let Some(fields) = object.as_object_mut() else { return };
        let top = &self.0["properties"];
        fields.retain(|key, _| matches!(key.as_str(), "apiVersion" | "kind" | "metadata") || !top[key].is_null());
        for (key, value) in fields.iter_mut().filter(|(key, _)| key.as_str() != "metadata") {
            prune(value, &top[key]);
        }
        set_defaults(object, &self.0);
    }

    pub(crate) fn shape(&self, path: &[&str]) -> Option<Shape> {
        let mut schema = &self.0;
        for element in path {
            schema = match *element {
                "*" => &schema["items"],
                field if schema["properties"][field].is_object() => &schema["properties"][field],
                _ => &schema["additionalProperties"],
            };
        }
        match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => return Some(Shape::Set),
            Some("map") => {
                let keys = schema["x-kubernetes-list-map-keys"].as_array()?;
                return Some(Shape::Keyed(keys.iter().filter_map(|key| key.as_str().map(str::to_owned)).collect()));
            }
            _ => {}
        }
        (schema["x-kubernetes-map-type"] == "atomic").then_some(Shape::Atomic)
    }
}

fn prune(value: &mut Value, schema: &Value) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    match value {
        Value::Object(fields) => {
            let (named, others) = (&schema["properties"], &schema["additionalProperties"]);
            fields.retain(|key, _| named.get(key).is_some() || others.is_object() || *others == true);
            for (key, value) in fields {
                prune(value, named.get(key).unwrap_or(others));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prune(item, &schema["items"])),
        _ => {}
    }
}

fn set_defaults(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => default_fields(fields, schema),
        Value::Array(items) => items.iter_mut().for_each(|item| set_defaults(item, &schema["items"])),
        _ => {}
    }
}

fn default_fields(fields: &mut Map<String, Value>, schema: &Value) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let is_nullable = property["nullable"] == true;
        let is_missing = fields.get(name).is_none_or(|value| value.is_null() && !is_nullable);
        if is_missing && !property["default"].is_null() {
            fields.insert(name.clone(), property["default"].clone());
        }
        if let Some(value) = fields.get_mut(name) {
            set_defaults(value, property);
        }
    }
    let others = &schema["additionalProperties"];
    if others.is_object() {
        fields.values_mut().for_each(|value| set_defaults(value, others));
    }
}
