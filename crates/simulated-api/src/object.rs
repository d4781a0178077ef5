//! Reading and writing the metadata of objects that are JSON values.

use serde_json::{Map, Value, json};

/// Fields of the metadata that the server omits where they are empty.
const OMITTED: [&str; 4] = ["labels", "annotations", "ownerReferences", "finalizers"];

/// A text of the metadata; empty where it is absent.
pub fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Sets a field of the metadata.
pub fn set_meta(object: &mut Value, field: &str, value: Value) {
    metadata_mut(object).insert(field.to_owned(), value);
}

/// Removes a field of the metadata.
pub fn remove_meta(object: &mut Value, field: &str) -> Option<Value> {
    metadata_mut(object).remove(field)
}

/// The metadata, made where it is missing.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    match &mut object["metadata"] {
        Value::Object(metadata) => metadata,
        _ => unreachable!("it was just made an object"),
    }
}

/// Finalizers, in their order.
pub fn finalizers(object: &Value) -> Vec<String> {
    let list = object["metadata"]["finalizers"].as_array().into_iter().flatten();
    list.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// The `resourceVersion` as a number, which it is (KEP-5504); 0 where it is absent or none.
pub fn version(object: &Value) -> u64 {
    meta(object, "resourceVersion").parse().unwrap_or_default()
}

/// The generation; 0 where the resource counts none.
pub fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap_or_default()
}

/// Whether its deletion has begun.
pub fn is_terminating(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// Whether garbage collection may have to do with it: its deletion has begun, or it has an owner.
pub fn may_be_collected(object: &Value) -> bool {
    is_terminating(object) || !object["metadata"]["ownerReferences"].is_null()
}

/// Removes what the server does not write: null fields and empty lists and maps of the metadata.
pub fn drop_empty(object: &mut Value) {
    let metadata = metadata_mut(object);
    metadata.retain(|_, value| !value.is_null());
    metadata.retain(|key, value| !(OMITTED.contains(&key.as_str()) && is_empty(value)));
}

/// Whether a map or list has no elements.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// The object without everything but its metadata (`PartialObjectMetadata`).
pub fn partial(object: &Value) -> Value {
    let mut partial = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"});
    // cloned, since the macro would serialize it
    partial["metadata"] = object["metadata"].clone();
    partial
}

/// The fields of an object or of its metadata, without one.
pub fn fields_but<'a>(object: &'a Value, name: &'a str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object.as_object().into_iter().flatten().filter(move |(field, _)| *field != name)
}

/// The JSON of a value.
pub fn bytes(value: &Value) -> Vec<u8> {
    // it has no maps whose keys are no texts, so this cannot fail
    serde_json::to_vec(value).unwrap_or_default()
}
