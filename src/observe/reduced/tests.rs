//! What is read of the metadata of a Secret, and the limits of what is read.

use itwin_api::MANAGER;
use serde_json::json;

use super::*;

fn read(metadata: Value) -> ObjectMeta {
    // from text, as the API server sends it
    serde_json::from_str::<Reduced>(&metadata.to_string()).expect("metadata").0
}

fn many(count: usize, prefix: &str) -> Value {
    (0..count).map(|number| (format!("{prefix}{number:05}"), json!({}))).collect()
}

#[test]
fn everything_that_the_operator_writes_is_read() {
    let pairs: BTreeMap<String, String> = secret_keys::OUR_OWN.map(|key| (key.to_owned(), key.to_owned())).into();
    let owner = json!({
        "apiVersion": "credentials.itwin.dev/v1alpha1", "kind": "ITwinServiceCredential", "name": "n", "uid": "u",
        "controller": true,
    });
    // as after a manual edit
    let mut same = owner.clone();
    drop(same.as_object_mut().expect("an object").remove("controller"));
    let fields = json!({"f:data": {".": {}, "f:a": {}}, "f:metadata": {"f:labels": {"f:team": {}}}});
    let metadata = read(json!({
        "name": "a", "uid": "uid", "annotations": pairs, "labels": {"team": "a"},
        "ownerReferences": [{"uid": "another"}, owner, same],
        "managedFields": [{"manager": MANAGER, "operation": "Update", "fieldsV1": fields}],
    }));
    assert_eq!((metadata.name.as_deref(), metadata.uid.as_deref()), (Some("a"), Some("uid")));
    assert_eq!(metadata.annotations.as_ref(), Some(&pairs));
    assert_eq!(metadata.owner_references.map(|owners| json!(owners)), Some(json!([owner, same])));
    let entry = metadata.managed_fields.expect("entries").remove(0);
    assert_eq!((entry.manager.as_deref(), entry.fields_v1.map(|fields| fields.0)), (Some(MANAGER), Some(fields)));
}

#[test]
fn own_annotations_are_read_among_tens_of_thousands() {
    let mut annotations: BTreeMap<String, String> =
        (0..20_000).map(|number| (format!("a{number:05}"), "x".to_owned())).collect();
    annotations.insert(secret_keys::OWNER_UID.to_owned(), "uid".to_owned());
    annotations.insert("long".to_owned(), "x".repeat(VALUE_MAX + 1));
    let read = read(json!({"annotations": annotations})).annotations.expect("annotations");
    assert_eq!(read.len(), PAIRS_MAX + 2, "one more shows that there are more");
    assert_eq!(read.get(secret_keys::OWNER_UID).map(String::as_str), Some("uid"));
}

#[test]
fn long_value_is_omitted() {
    let annotations = json!({"long": "x".repeat(VALUE_MAX + 1), "fits": "x".repeat(VALUE_MAX)});
    let read = read(json!({"annotations": annotations})).annotations.expect("annotations");
    assert_eq!(read.into_keys().collect::<Vec<_>>(), ["fits"]);
}

#[test]
fn strings_of_an_owner_are_truncated() {
    let long = "\u{fc}".repeat(NAME_MAX);
    let owner = json!({"apiVersion": long, "kind": long, "name": long, "uid": long, "controller": true});
    let owner = read(json!({"ownerReferences": [owner]})).owner_references.expect("owners").remove(0);
    for text in [owner.api_version, owner.kind, owner.name, owner.uid] {
        assert_eq!(text.len(), NAME_MAX);
    }
}

#[test]
fn one_more_managed_field_is_read_than_the_limit() {
    let parts = json!({"f:labels": many(20_000, "f:"), "f:annotations": many(20_000, "f:"), "f:ownerReferences": {}});
    let fields = json!({"f:metadata": parts, "f:data": many(20_000, "f:"), "f:type": {}});
    let entries: Vec<Value> = (0..100)
        .map(|number| json!({"manager": "m", "fieldsV1": if number == 0 { fields.clone() } else { json!({}) }}))
        .collect();
    let entries = read(json!({"managedFields": entries})).managed_fields.expect("entries");
    assert_eq!(entries.len(), MANAGERS_MAX + 1);
    let fields = &entries[0].fields_v1.as_ref().expect("fields").0;
    let count = |part: &Value| part.as_object().map(Map::len);
    assert_eq!(count(&fields["f:data"]), Some(FIELDS_MAX + 1));
    assert_eq!(count(&fields["f:metadata"]["f:labels"]), Some(FIELDS_MAX + 1));
    assert_eq!(count(&fields["f:metadata"]["f:annotations"]), Some(FIELDS_MAX + 1));
    assert!(fields.get("f:type").is_none());
}
