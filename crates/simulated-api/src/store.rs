//! The objects and their history, as etcd keeps them: one revision for each change, compaction, restoring a backup.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use crate::{object, resources::Resource};

/// Where an object is: resource (plural and group), namespace, name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Plural and group.
    pub resource: String,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of an object of a resource.
    #[must_use]
    pub fn new(resource: &Resource, namespace: Option<&str>, name: &str) -> Self {
        let namespace = namespace.unwrap_or_default().to_owned();
        Self { resource: resource.qualified(), namespace, name: name.to_owned() }
    }
}

/// The order of lists, which is that of paths: `a-b/x` comes before `a/x`.
impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        fn path(key: &Key) -> impl Iterator<Item = u8> + use<'_> {
            key.namespace.bytes().chain([b'/']).chain(key.name.bytes())
        }
        self.resource.cmp(&other.resource).then_with(|| path(self).cmp(path(other)))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The revision that it made.
    pub revision: u64,
    /// The object's key.
    pub key: Key,
    /// The object before; none where it was created.
    pub old: Option<Arc<Value>>,
    /// The object after; none where it was deleted.
    pub new: Option<Arc<Value>>,
}

impl Change {
    /// The object as a watch shows it: one that is gone, or no longer selected, in its last state before, at the
    /// revision of the change.
    #[must_use]
    pub fn shown(&self, is_gone: bool) -> Arc<Value> {
        match (&self.new, &self.old) {
            (Some(object), _) if !is_gone => object.clone(),
            (_, Some(old)) => {
                let mut last = Value::clone(old);
                object::set_meta(&mut last, "resourceVersion", json!(self.revision.to_string()));
                Arc::new(last)
            }
            _ => Arc::default(),
        }
    }
}

/// Objects by key.
pub type Objects = BTreeMap<Key, Arc<Value>>;

/// The store.
#[derive(Debug)]
pub struct Store {
    objects: Objects,
    history: Vec<Change>,
    revision: u64,
    compacted: u64,
    kept: usize,
}

impl Store {
    /// An empty store at this revision that keeps at least the last `kept` changes.
    #[must_use]
    pub fn new(revision: u64, kept: usize) -> Self {
        Self { objects: Objects::new(), history: Vec::new(), revision, compacted: revision, kept }
    }

    /// The current revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The oldest revision that can be read.
    #[must_use]
    pub fn compacted(&self) -> u64 {
        self.compacted
    }

    /// The current object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(key).cloned()
    }

    /// All current objects.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Changes after a revision, oldest first.
    #[must_use]
    pub fn since(&self, revision: u64) -> &[Change] {
        let first = self.history.partition_point(|change| change.revision <= revision);
        &self.history[first..]
    }

    /// The objects as they were at a revision; `None` where that was compacted away or has not been reached.
    #[must_use]
    pub fn at(&self, revision: u64) -> Option<Objects> {
        if revision < self.compacted || revision > self.revision {
            return None;
        }
        let mut objects = self.objects.clone();
        for change in self.since(revision).iter().rev() {
            match &change.old {
                Some(old) => drop(objects.insert(change.key.clone(), old.clone())),
                None => drop(objects.remove(&change.key)),
            }
        }
        Some(objects)
    }

    /// Writes an object at the next revision, which becomes its `resourceVersion`.
    pub fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        object::set_meta(&mut object, "resourceVersion", json!(self.revision.to_string()));
        let new = Arc::new(object);
        let old = self.objects.insert(key.clone(), new.clone());
        self.record(Change { revision: self.revision, key, old, new: Some(new.clone()) });
        new
    }

    /// Deletes an object.
    pub fn delete(&mut self, key: &Key) -> Option<Arc<Value>> {
        let old = self.objects.remove(key)?;
        self.revision += 1;
        self.record(Change { revision: self.revision, key: key.clone(), old: Some(old.clone()), new: None });
        Some(old)
    }

    fn record(&mut self, change: Change) {
        self.history.push(change);
        // not at each change, since all that is kept is moved
        if self.history.len() >= self.kept.saturating_mul(2).max(2) {
            self.compact(self.history[self.history.len() - self.kept - 1].revision);
        }
    }

    /// Forgets everything before a revision, as etcd's compaction does.
    pub fn compact(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision.min(self.revision));
        let compacted = self.compacted;
        self.history.retain(|change| change.revision > compacted);
    }

    /// Goes back to an older revision, as etcd does whose data directory is replaced by a backup: later objects and
    /// revisions are gone, and the next change makes the revision after this one again. Returns false where it was
    /// compacted away.
    pub fn restore(&mut self, revision: u64) -> bool {
        let Some(objects) = self.at(revision) else { return false };
        self.objects = objects;
        self.history.retain(|change| change.revision <= revision);
        self.revision = revision;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { resource: "secrets".to_owned(), namespace: "a".to_owned(), name: name.to_owned() }
    }

    fn names(objects: &Objects) -> Vec<&str> {
        objects.keys().map(|key| key.name.as_str()).collect()
    }

    #[test]
    fn older_revision_has_the_objects_of_then() {
        let mut store = Store::new(1, 100);
        store.put(key("a"), json!({"data": 1}));
        store.put(key("b"), json!({}));
        store.put(key("a"), json!({"data": 2}));
        store.delete(&key("b"));
        assert_eq!(store.revision(), 5);
        assert_eq!(names(&store.at(3).expect("kept")), ["a", "b"]);
        assert_eq!(store.at(3).expect("kept")[&key("a")]["data"], 1);
        assert!(store.at(6).is_none());
        store.compact(4);
        assert!(store.at(3).is_none() && store.at(4).is_some());
    }

    #[test]
    fn history_does_not_grow_without_a_bound() {
        let mut store = Store::new(0, 10);
        for number in 0..100 {
            store.put(key("a"), json!({"data": number}));
            assert!(store.history.len() < 20);
            assert!(store.at(store.revision().saturating_sub(9)).is_some());
        }
    }

    #[test]
    fn restored_store_repeats_revisions() {
        let mut store = Store::new(1, 100);
        store.put(key("a"), json!({"data": 1}));
        store.put(key("a"), json!({"data": 2}));
        assert!(store.restore(2));
        assert_eq!(store.get(&key("a")).expect("there")["data"], 1);
        assert_eq!(store.put(key("b"), json!({}))["metadata"]["resourceVersion"], "3");
        assert_eq!(store.since(2).len(), 1);
        assert!(!store.restore(0));
    }
}
