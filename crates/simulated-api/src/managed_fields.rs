//! Which field manager owns which fields (`metadata.managedFields`), as updates change it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    fields_v1::{Entry, Fields, decode, encode},
    resources::{Resource, Rules, Shape},
};

/// Managers whose updates are recorded separately; the oldest of more are joined under one name.
const MANAGERS_MAX: usize = 10;
/// That name.
const ANCIENT: &str = "ancient-changes";
/// Metadata that the server sets itself, so that it is never owned.
const UNOWNED: [&str; 8] =
    ["name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion"];

/// Who writes, through what, and when.
pub struct Writer<'a> {
    /// The resource.
    pub resource: &'a Resource,
    /// Name of the subresource; empty for the object itself.
    pub subresource: &'a str,
    /// Name of the manager.
    pub manager: &'a str,
    /// The time, in RFC 3339 with whole seconds.
    pub now: &'a str,
}

impl Writer<'_> {
    /// `managedFields` after `old` was replaced by `new`, which is without them; null where nothing is owned. `managed`
    /// is the list before.
    pub fn update(&self, old: &Value, new: &Value, managed: &Value) -> Value {
        let mut entries = decode(managed);
        if entries.is_empty() && !old["metadata"]["uid"].is_null() {
            return Value::Null;
        }
        let Comparison { added, removed, modified } = self.compare(old, new);
        let changed: Fields = added.union(&modified).cloned().collect();
        for entry in &mut entries {
            entry.fields.retain(|path| !changed.contains(path) && !removed.contains(path));
        }
        let mut own = changed;
        own.retain(|path| !is_unowned(path));
        if !own.is_empty() {
            self.add(&mut entries, own);
        }
        entries.retain(|entry| !entry.fields.is_empty());
        entries.sort_by(|a, b| key(a).cmp(&key(b)));
        join_oldest(&mut entries);
        entries.sort_by(|a, b| key(a).cmp(&key(b)));
        if entries.is_empty() { Value::Null } else { entries.iter().map(encode).collect() }
    }

    fn add(&self, entries: &mut Vec<Entry>, own: Fields) {
        let api_version = self.resource.api_version();
        let is_ours = |entry: &Entry| {
            entry.manager == self.manager
                && entry.operation == "Update"
                && entry.api_version == api_version
                && entry.subresource == self.subresource
        };
        if let Some(entry) = entries.iter_mut().find(|entry| is_ours(entry)) {
            // what it owned before and wrote again is still its own
            entry.fields.extend(own);
            entry.time = self.now.to_owned();
            return;
        }
        entries.push(Entry {
            manager: self.manager.to_owned(),
            operation: "Update".to_owned(),
            api_version,
            subresource: self.subresource.to_owned(),
            time: self.now.to_owned(),
            fields: own,
        });
    }

    fn compare(&self, old: &Value, new: &Value) -> Comparison {
        let mut comparison = Comparison::default();
        let mut place = Place { resource: self.resource, path: Vec::new(), plain: Vec::new() };
        place.walk(Some(old), Some(new), &mut comparison);
        for fields in [&mut comparison.added, &mut comparison.removed, &mut comparison.modified] {
            fields.retain(|path| !self.is_reset(path));
        }
        comparison
    }

    /// Whether a write through this subresource cannot change the field.
    fn is_reset(&self, path: &[String]) -> bool {
        let begins = |prefix: &[&str]| path.len() >= prefix.len() && prefix.iter().zip(path).all(|(a, b)| a == b);
        match (self.resource.rules, self.subresource) {
            (Rules::Custom, "status") => begins(&["f:spec"]) || begins(&["f:metadata"]),
            (Rules::Workload, "status") => begins(&["f:spec"]) || begins(&["f:metadata", "f:labels"]),
            (Rules::Namespace, "status") => begins(&["f:spec"]),
            _ => self.resource.has_status() && begins(&["f:status"]),
        }
    }
}

/// Joins the oldest of too many managers; `entries` are sorted by time.
fn join_oldest(entries: &mut Vec<Entry>) {
    let is_update = |entry: &Entry| entry.operation == "Update";
    let mut surplus = entries.iter().filter(|entry| is_update(entry)).count().saturating_sub(MANAGERS_MAX);
    while surplus > 0
        && let Some(first) = entries.iter().position(is_update)
        && let Some(second) = entries[first + 1..].iter().position(is_update)
    {
        let joined = entries.remove(first + 1 + second);
        let oldest = &mut entries[first];
        oldest.manager = ANCIENT.to_owned();
        oldest.subresource = String::new();
        oldest.time = joined.time;
        oldest.fields.extend(joined.fields);
        surplus -= 1;
    }
}

/// Whether two lists differ in more than times.
pub fn differ(a: &Value, b: &Value) -> bool {
    if a == b {
        return false;
    }
    let untimed = |list: &Value| {
        let mut entries = decode(list);
        entries.iter_mut().for_each(|entry| entry.time.clear());
        entries.sort_by(|a, b| key(a).cmp(&key(b)));
        entries
    };
    untimed(a) != untimed(b)
}

/// Whether the list is one by which a client resets ownership: with one empty entry, or, for built-in types, with none.
pub fn is_reset(resource: &Resource, list: &Value) -> bool {
    let is_none = |list: &[Value]| list.is_empty() && resource.rules != Rules::Custom;
    list.as_array().is_some_and(|list| is_none(list) || list[..] == [json!({})])
}

fn key(entry: &Entry) -> (&str, &str, &str, &str, &str) {
    (&entry.operation, &entry.time, &entry.manager, &entry.api_version, &entry.subresource)
}

fn is_unowned(path: &[String]) -> bool {
    match path {
        [top] => matches!(top.as_str(), "f:apiVersion" | "f:kind" | "f:metadata"),
        [top, field] if top == "f:metadata" => field.strip_prefix("f:").is_some_and(|name| UNOWNED.contains(&name)),
        _ => false,
    }
}

#[derive(Default)]
struct Comparison {
    added: Fields,
    removed: Fields,
    modified: Fields,
}

/// Where in the object a comparison is.
struct Place<'a> {
    resource: &'a Resource,
    path: Vec<String>,
    plain: Vec<String>,
}

impl Place<'_> {
    fn walk(&mut self, old: Option<&Value>, new: Option<&Value>, into: &mut Comparison) {
        // then no part differs
        if old == new {
            return;
        }
        let is_leaf = self.descend(old, new, into);
        if self.path.is_empty() {
            return;
        }
        match (old, new) {
            (None, Some(_)) => drop(into.added.insert(self.path.clone())),
            (Some(_), None) => drop(into.removed.insert(self.path.clone())),
            (Some(old), Some(new)) if is_leaf && old != new => drop(into.modified.insert(self.path.clone())),
            _ => {}
        }
    }

    /// Compares the parts; returns whether there are none that are owned by themselves.
    fn descend(&mut self, old: Option<&Value>, new: Option<&Value>, into: &mut Comparison) -> bool {
        let is_empty = |value: Option<&Value>| value.is_none_or(crate::object::is_empty);
        let sample = if is_empty(new) { old } else { new };
        let is_list = sample.is_some_and(Value::is_array);
        if !is_list && !sample.is_some_and(Value::is_object) || is_empty(old) && is_empty(new) {
            return true;
        }
        let plain: Vec<&str> = self.plain.iter().map(String::as_str).collect();
        match self.resource.shape(&plain, is_list) {
            Shape::Atomic => return true,
            Shape::Granular => self.fields(old, new, into),
            Shape::Set => self.items(old, new, into, |item| format!("v:{item}")),
            Shape::Keyed(keys) => self.items(old, new, into, |item| {
                let keys = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
                format!("k:{}", Value::Object(keys.collect()))
            }),
        }
        false
    }

    fn fields(&mut self, old: Option<&Value>, new: Option<&Value>, into: &mut Comparison) {
        let sides = [old, new].map(|side| side.and_then(Value::as_object));
        let names: BTreeSet<&String> = sides.iter().flatten().flat_map(|fields| fields.keys()).collect();
        for name in names {
            let [old, new] = sides.map(|side| side.and_then(|fields| fields.get(name)));
            self.step(format!("f:{name}"), name, old, new, into);
        }
    }

    fn items(
        &mut self,
        old: Option<&Value>,
        new: Option<&Value>,
        into: &mut Comparison,
        element: impl Fn(&Value) -> String,
    ) {
        let sides = [old, new].map(|side| side.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default());
        let names: BTreeSet<String> = sides.iter().flat_map(|items| items.iter().map(&element)).collect();
        for name in names {
            let [old, new] = sides.map(|items| items.iter().find(|item| element(item) == name));
            self.step(name, "*", old, new, into);
        }
    }

    fn step(&mut self, element: String, plain: &str, old: Option<&Value>, new: Option<&Value>, into: &mut Comparison) {
        self.path.push(element);
        self.plain.push(plain.to_owned());
        self.walk(old, new, into);
        self.path.pop();
        self.plain.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::table;

    fn secrets() -> Resource {
        table().into_iter().find(|resource| resource.plural == "secrets").expect("it is in the table")
    }

    /// `managedFields` after these writes, each of a manager, as manager and fields.
    fn after(writes: &[(&str, Value)]) -> Vec<(String, Value)> {
        let resource = secrets();
        let (mut old, mut managed) = (resource.empty(), Value::Null);
        for (manager, new) in writes {
            let writer = Writer { resource: &resource, subresource: "", manager, now: "2026-01-01T00:00:00Z" };
            managed = writer.update(&old, new, &managed);
            old = new.clone();
            old["metadata"]["uid"] = json!("uid");
        }
        let entries = managed.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| (entry["manager"].to_string(), entry["fieldsV1"].clone())).collect()
    }

    #[test]
    fn field_belongs_to_who_changed_it_last() {
        let first = json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "data": {"k": "1", "l": "1"}});
        let mut second = first.clone();
        second["data"]["k"] = json!("2");
        let own = |fields: Value| json!({"f:data": fields});
        assert_eq!(
            after(&[("a", first.clone()), ("b", second.clone())]),
            [
                (
                    "\"a\"".to_owned(),
                    json!({"f:data": {".": {}, "f:l": {}}, "f:metadata": {"f:labels": {".": {}, "f:x": {}}}})
                ),
                ("\"b\"".to_owned(), own(json!({"f:k": {}}))),
            ]
        );
    }

    #[test]
    fn removed_field_belongs_to_no_one() {
        let first = json!({"metadata": {}, "data": {"k": "1"}});
        assert_eq!(after(&[("a", first), ("b", json!({"metadata": {}}))]), []);
    }

    #[test]
    fn items_of_owner_references_are_owned_one_by_one() {
        let owner = |uid: &str| json!({"kind": "X", "uid": uid});
        let first = json!({"metadata": {"ownerReferences": [owner("1")]}});
        let second = json!({"metadata": {"ownerReferences": [owner("1"), owner("2")]}});
        let found = after(&[("a", first), ("b", second)]);
        assert_eq!(found[1].1, json!({"f:metadata": {"f:ownerReferences": {"k:{\"uid\":\"2\"}": {}}}}));
    }

    #[test]
    fn lists_that_differ_in_times_alone_do_not_differ() {
        let entry = |time: &str, field: &str| json!([{"manager": "a", "time": time, "fieldsV1": {field: {}}}]);
        assert!(!differ(&entry("1", "f:x"), &entry("2", "f:x")));
        assert!(differ(&entry("1", "f:x"), &entry("1", "f:y")));
    }
}
