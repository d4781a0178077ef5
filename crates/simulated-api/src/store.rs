//! The objects and their history, as etcd keeps them: one revision for each change, compaction, restoring a backup.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use tokio::time::Instant;

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
        self.resource.cmp(&other.resource).then_with(|| {
            // most keys that are compared are of one namespace
            let is_near = self.namespace == other.namespace;
            if is_near { self.name.cmp(&other.name) } else { path(self).cmp(path(other)) }
        })
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
    /// When it was made.
    pub at: Instant,
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
    /// What was there before a restore, and the revision of then: caches that outlived it go on with that.
    outlived: Option<(u64, Objects)>,
    /// Something changed that garbage collection has not seen: an object with an owner, one that ends, or one that is gone.
    may_leave_garbage: bool,
}

impl Store {
    /// An empty store at this revision that keeps at least the last `kept` changes.
    #[must_use]
    pub fn new(revision: u64, kept: usize) -> Self {
        Self {
            objects: Objects::new(),
            history: Vec::new(),
            revision,
            compacted: revision,
            kept,
            outlived: None,
            may_leave_garbage: false,
        }
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

    /// An object as it was at a revision that was not compacted away.
    #[must_use]
    pub fn get_at(&self, key: &Key, revision: u64) -> Option<Arc<Value>> {
        match self.since(revision).iter().find(|change| change.key == *key) {
            Some(change) => change.old.clone(),
            None => self.get(key),
        }
    }

    /// The revision of some time ago, as far back as the history goes.
    #[must_use]
    pub fn revision_at(&self, time: Instant) -> u64 {
        let later = self.history.partition_point(|change| change.at <= time);
        self.history.get(later).map_or(self.revision, |change| change.revision - 1)
    }

    /// When a revision was reached, as far back as the history goes.
    #[must_use]
    pub fn reached_at(&self, revision: u64) -> Option<Instant> {
        self.since(revision.saturating_sub(1)).first().map(|change| change.at)
    }

    /// What a cache still shows that outlived a restore: until the revision of before it has passed again.
    #[must_use]
    pub fn outlived(&self) -> Option<&(u64, Objects)> {
        self.outlived.as_ref().filter(|(revision, _)| *revision > self.revision)
    }

    /// Caches begin with what is there now, as when the API server starts.
    pub fn forget_outlived(&mut self) {
        self.outlived = None;
    }

    /// Writes an object at the next revision, which becomes its `resourceVersion`.
    pub fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        object::set_meta(&mut object, "resourceVersion", json!(self.revision.to_string()));
        self.may_leave_garbage |= object::may_be_collected(&object);
        let new = Arc::new(object);
        let old = self.objects.insert(key.clone(), new.clone());
        self.record(Change { revision: self.revision, key, old, new: Some(new.clone()), at: Instant::now() });
        new
    }

    /// Deletes an object.
    pub fn delete(&mut self, key: &Key) -> Option<Arc<Value>> {
        let old = self.objects.remove(key)?;
        self.may_leave_garbage = true;
        self.revision += 1;
        let at = Instant::now();
        self.record(Change { revision: self.revision, key: key.clone(), old: Some(old.clone()), new: None, at });
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
        let before = (self.revision, std::mem::replace(&mut self.objects, objects));
        // a cache that outlived an earlier restore too still shows what was before that
        let still_shown = self.outlived.take().filter(|(shown, _)| *shown > before.0);
        self.outlived = Some(still_shown.unwrap_or(before));
        self.history.retain(|change| change.revision <= revision);
        self.revision = revision;
        self.may_leave_garbage = true;
        true
    }

    /// Whether garbage collection may have something to do since this was asked last.
    pub fn take_garbage(&mut self) -> bool {
        std::mem::take(&mut self.may_leave_garbage)
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

    #[test]
    fn cache_that_outlives_a_restore_shows_what_was_before_until_the_revision_has_passed() {
        let mut store = Store::new(1, 100);
        store.put(key("a"), json!({"data": 1}));
        store.put(key("a"), json!({"data": 2}));
        assert!(store.outlived().is_none() && store.restore(2));
        let shown = store.outlived().map(|(revision, objects)| (*revision, objects[&key("a")]["data"].clone()));
        assert_eq!(shown, Some((3, json!(2))));
        store.put(key("a"), json!({"data": 3}));
        assert!(store.outlived().is_none(), "the cache has taken in what came since");
    }

    #[tokio::test(start_paused = true)]
    async fn revisions_are_found_by_their_time() {
        let mut store = Store::new(1, 100);
        let began = Instant::now();
        store.put(key("a"), json!({"data": 1}));
        tokio::time::advance(std::time::Duration::from_secs(5)).await;
        store.put(key("a"), json!({"data": 2}));
        store.delete(&key("a"));
        assert_eq!([began, Instant::now()].map(|at| store.revision_at(at)), [2, 4]);
        assert_eq!((store.reached_at(2), store.reached_at(4)), (Some(began), Some(Instant::now())));
        assert_eq!(store.reached_at(5), None);
        assert_eq!(store.get_at(&key("a"), 2).expect("there")["data"], 1);
        assert_eq!(store.get_at(&key("a"), 3).expect("there")["data"], 2);
        assert!(store.get_at(&key("a"), 4).is_none() && store.get_at(&key("a"), 1).is_none());
    }
}
