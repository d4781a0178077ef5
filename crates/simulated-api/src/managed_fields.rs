//! Which field manager owns which fields (`metadata.managedFields`), as updates change it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::resources::{Resource, Rules, Shape};

/// Metadata that the server sets itself, so that it is never owned.
const UNOWNED: [&str; 8] =
    ["name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion"];

/// A set of fields, each as the elements of its path (`f:spec`, `k:{"type":"Ready"}`, `v:"x"`).
type Fields = BTreeSet<Vec<String>>;

/// What one manager owns by one kind of operation.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    subresource: String,
    time: String,
    fields: Fields,
}

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
    /// `managedFields` after `old` was replaced by `new`, both without theirs; null where nothing is owned. `managed`
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

/// Whether two lists differ in more than times.
pub fn differ(a: &Value, b: &Value) -> bool {
    let untimed = |list: &Value| {
        let mut entries = decode(list);
        entries.iter_mut().for_each(|entry| entry.time.clear());
        entries.sort_by(|a, b| key(a).cmp(&key(b)));
        entries
    };
    untimed(a) != untimed(b)
}

/// Whether the list is one by which a client resets ownership.
pub fn is_reset(list: &Value) -> bool {
    list.as_array().is_some_and(|list| list.is_empty() || list[..] == [json!({})])
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

fn encode(entry: &Entry) -> Value {
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

fn decode(list: &Value) -> Vec<Entry> {
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
