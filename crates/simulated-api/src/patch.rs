//! JSON merge patch (RFC 7386), and as much of the strategic merge patch of Kubernetes as differs for metadata.

use serde_json::{Map, Value};

/// Applies a merge patch: members that are null are removed, objects are merged, everything else is replaced.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Applies a strategic merge patch: like [`merge`], but owner references are merged by UID, and one with the directive
/// `$patch: delete` is removed.
pub fn strategic(target: &mut Value, patch: &Value) {
    let mut patch = patch.clone();
    let references = patch["metadata"].as_object_mut().and_then(|metadata| metadata.remove("ownerReferences"));
    merge(target, &patch);
    let Some(Value::Array(references)) = references else { return };
    let mut merged = target["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    for reference in references {
        let at = merged.iter().position(|present| present["uid"] == reference["uid"]);
        match (reference["$patch"] == "delete", at) {
            (true, Some(at)) => drop(merged.remove(at)),
            (true, None) => {}
            (false, Some(at)) => merge(&mut merged[at], &reference),
            (false, None) => merged.push(reference),
        }
    }
    target["metadata"]["ownerReferences"] = if merged.is_empty() { Value::Null } else { merged.into() };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn examples_of_the_rfc_give_its_results() {
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut result = target;
            merge(&mut result, &patch);
            assert_eq!(result, expected, "{patch}");
        }
    }

    #[test]
    fn owner_references_are_merged_by_uid() {
        let owner = |uid: &str, name: &str| json!({"uid": uid, "name": name});
        let patched = |patch: Value| {
            let mut target = json!({"metadata": {"ownerReferences": [owner("1", "a"), owner("2", "b")]}});
            strategic(&mut target, &json!({"metadata": {"ownerReferences": patch}}));
            target["metadata"]["ownerReferences"].take()
        };
        let gone = |uid: &str| json!({"$patch": "delete", "uid": uid});
        assert_eq!(patched(json!([owner("3", "c")])), json!([owner("1", "a"), owner("2", "b"), owner("3", "c")]));
        assert_eq!(patched(json!([owner("2", "c")])), json!([owner("1", "a"), owner("2", "c")]));
        assert_eq!(patched(json!([gone("1"), owner("3", "c")])), json!([owner("2", "b"), owner("3", "c")]));
        assert_eq!(patched(json!([gone("1"), gone("2")])), Value::Null);
    }
}
