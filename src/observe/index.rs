//! The Secrets that somebody here cares for, and nothing of any other.
//!
//! One watch sees the metadata of every Secret; what is not in this index is forgotten at once, so that memory does
//! not grow with foreign Secrets (cert-manager/cert-manager#4722: 30,000 of them, 8 GB). Our own writes and reads are
//! recorded too, so that a decision right after a write never rests on an older state
//! (external-secrets/external-secrets#2184: a token asked for twice).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use itwin_core::object::ObjectKey;

use super::target::SecretMetadata;

/// What is known of a Secret.
#[derive(Clone, Debug, Default)]
pub enum Known {
    /// Nothing: it must be read.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// There is one.
    Present(Arc<SecretMetadata>),
}

#[derive(Default)]
struct Slot {
    /// The credentials that write it, sorted, and behind them those that only read it, sorted; mostly one.
    credentials: Vec<Arc<ObjectKey>>,
    /// How many of them write it. Apart, since one client Secret may be read by thousands.
    writers: u32,
    known: Known,
    /// The newest resourceVersion that was seen, of the Secret or of its deletion.
    version: u64,
    /// Seen in the listing that is under way.
    listed: bool,
}

#[derive(Default)]
struct Inner {
    slots: HashMap<Arc<ObjectKey>, Slot>,
    /// For each credential the Secret that it writes and the one that it reads, to know what it referred to before.
    cared_for: HashMap<Arc<ObjectKey>, [Arc<ObjectKey>; 2]>,
}

/// The Secrets that somebody here cares for.
#[derive(Default)]
pub struct SecretIndex {
    inner: Mutex<Inner>,
}

impl SecretIndex {
    /// Says that `credential` writes and reads these Secrets of its namespace, in this order, and cares for no others.
    /// Returns the credentials that may do now what it was in the way of.
    pub fn register(&self, credential: &Arc<ObjectKey>, secrets: [&str; 2]) -> Vec<Arc<ObjectKey>> {
        let mut inner = self.inner();
        let is_same = |before: &[Arc<ObjectKey>; 2]| before.iter().map(|key| key.name.as_str()).eq(secrets);
        if inner.cared_for.get(credential).is_some_and(is_same) {
            return Vec::new();
        }
        let freed = inner.in_the_way_of(credential);
        inner.unregister(credential);
        let keys = secrets.map(|name| inner.key(credential, name));
        let [written, read] = &keys;
        inner.slots.entry(written.clone()).or_default().add_writer(credential);
        inner.slots.entry(read.clone()).or_default().add_reader(credential);
        inner.cared_for.insert(credential.clone(), keys);
        freed
    }

    /// Says that `credential` is gone. Returns as [`Self::register`] does.
    pub fn unregister(&self, credential: &ObjectKey) -> Vec<Arc<ObjectKey>> {
        let mut inner = self.inner();
        let freed = inner.in_the_way_of(credential);
        inner.unregister(credential);
        freed
    }

    /// The credentials that this one may be in the way of: all others that name the Secret that it writes, and those
    /// that write the one that it reads.
    #[must_use]
    pub fn in_the_way_of(&self, credential: &ObjectKey) -> Vec<Arc<ObjectKey>> {
        self.inner().in_the_way_of(credential)
    }

    /// What is known of a Secret.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Known {
        self.inner().slots.get(key).map(|slot| slot.known.clone()).unwrap_or_default()
    }

    /// The credentials that write a Secret: mostly one.
    #[must_use]
    pub fn writers(&self, key: &ObjectKey) -> Vec<Arc<ObjectKey>> {
        self.inner().slots.get(key).map(|slot| slot.writers().to_vec()).unwrap_or_default()
    }

    /// The credentials that read a Secret as their client Secret.
    #[must_use]
    pub fn readers(&self, key: &ObjectKey) -> Vec<Arc<ObjectKey>> {
        self.inner().slots.get(key).map(|slot| slot.readers().to_vec()).unwrap_or_default()
    }

    /// Whether anybody cares for a Secret: asked before its metadata is looked at.
    #[must_use]
    pub fn is_referenced(&self, key: &ObjectKey) -> bool {
        self.inner().slots.contains_key(key)
    }

    /// Records a Secret that was seen by the watch, read or written. Returns the credentials for which that is news;
    /// none where something newer is known.
    pub fn observe(&self, key: &ObjectKey, secret_metadata: SecretMetadata) -> Vec<Arc<ObjectKey>> {
        let mut inner = self.inner();
        let Some(slot) = inner.slots.get_mut(key) else { return Vec::new() };
        slot.listed = true;
        let version = numeric(secret_metadata.resource_version());
        let same = matches!(&slot.known, Known::Present(known) if known.version == secret_metadata.version);
        if same || version.is_some_and(|version| version < slot.version) {
            return Vec::new();
        }
        slot.version = version.unwrap_or_default();
        slot.known = Known::Present(Arc::new(secret_metadata));
        slot.credentials.clone()
    }

    /// Records that a Secret is gone, at this resourceVersion if it is known. Returns as [`Self::observe`] does.
    pub fn observe_absence(&self, key: &ObjectKey, resource_version: Option<&str>) -> Vec<Arc<ObjectKey>> {
        let mut inner = self.inner();
        let Some(slot) = inner.slots.get_mut(key) else { return Vec::new() };
        let version = resource_version.and_then(numeric);
        if matches!(slot.known, Known::Absent) || version.is_some_and(|version| version < slot.version) {
            return Vec::new();
        }
        slot.version = version.unwrap_or(slot.version);
        slot.known = Known::Absent;
        slot.credentials.clone()
    }

    /// Forgets what is known of a Secret, so that it is read before the next decision.
    pub fn invalidate(&self, key: &ObjectKey) {
        if let Some(slot) = self.inner().slots.get_mut(key) {
            slot.known = Known::Unknown;
        }
    }

    /// A listing of a namespace (or of all) begins.
    pub fn listing_began(&self, namespace: Option<&str>) {
        for (_, slot) in self.inner().slots.iter_mut().filter(|(key, _)| in_scope(key, namespace)) {
            slot.listed = false;
        }
    }

    /// A listing ended: what it did not hold is in doubt. It is not simply absent, since a Secret written by us after
    /// the listing began is not in it either. Returns the credentials that must look again.
    pub fn listing_ended(&self, namespace: Option<&str>) -> Vec<Arc<ObjectKey>> {
        let mut doubtful = Vec::new();
        for (_, slot) in self.inner().slots.iter_mut().filter(|(key, _)| in_scope(key, namespace)) {
            if !slot.listed && matches!(slot.known, Known::Present(_)) {
                slot.known = Known::Unknown;
                doubtful.extend(slot.credentials.iter().cloned());
            }
        }
        doubtful
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // every change is complete before anything can panic
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn writers(&self) -> &[Arc<ObjectKey>] {
        &self.credentials[..self.writers as usize]
    }

    fn readers(&self) -> &[Arc<ObjectKey>] {
        &self.credentials[self.writers as usize..]
    }

    fn add_writer(&mut self, credential: &Arc<ObjectKey>) {
        if let Err(place) = self.writers().binary_search(credential) {
            self.insert(place, credential);
            self.writers += 1;
        }
    }

    fn add_reader(&mut self, credential: &Arc<ObjectKey>) {
        if let Err(place) = self.readers().binary_search(credential) {
            self.insert(self.writers as usize + place, credential);
        }
    }

    fn insert(&mut self, place: usize, credential: &Arc<ObjectKey>) {
        self.credentials.reserve_exact(usize::from(self.credentials.is_empty()));
        self.credentials.insert(place, credential.clone());
    }

    fn remove(&mut self, credential: &ObjectKey) {
        self.writers -= u32::from(self.writers().iter().any(|writer| **writer == *credential));
        self.credentials.retain(|other| **other != *credential);
    }
}

impl Inner {
    fn in_the_way_of(&self, credential: &ObjectKey) -> Vec<Arc<ObjectKey>> {
        let Some([written, read]) = self.cared_for.get(credential) else { return Vec::new() };
        let all = self.slots.get(written).into_iter().flat_map(|slot| &slot.credentials);
        let writers = self.slots.get(read).into_iter().flat_map(Slot::writers);
        all.chain(writers).filter(|other| ***other != *credential).cloned().collect()
    }

    fn unregister(&mut self, credential: &ObjectKey) {
        for key in self.cared_for.remove(credential).into_iter().flatten() {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.remove(credential);
                if slot.credentials.is_empty() {
                    self.slots.remove(&key);
                }
            }
        }
    }

    /// The key of a Secret in the credential's namespace: the one that is there, and mostly that of the credential,
    /// whose name it has.
    fn key(&self, credential: &Arc<ObjectKey>, name: &str) -> Arc<ObjectKey> {
        if credential.name == name {
            return credential.clone();
        }
        let key = ObjectKey::new(&credential.namespace, name);
        self.slots.get_key_value(&key).map_or_else(|| Arc::new(key), |(key, _)| key.clone())
    }
}

fn in_scope(key: &ObjectKey, namespace: Option<&str>) -> bool {
    namespace.is_none_or(|namespace| key.namespace == namespace)
}

/// A resourceVersion as a number, to tell older from newer (KEP-5504); `None` where it is not one.
fn numeric(resource_version: &str) -> Option<u64> {
    resource_version.parse().ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn secret_metadata(version: &str) -> SecretMetadata {
        SecretMetadata::new(&ObjectMeta {
            uid: Some("uid".into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        })
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("team-a", name)
    }

    fn index() -> SecretIndex {
        let index = SecretIndex::default();
        index.register(&Arc::new(key("agent")), ["token", "client"]);
        index
    }

    fn version(index: &SecretIndex) -> Option<String> {
        match index.get(&key("token")) {
            Known::Present(secret_metadata) => Some(secret_metadata.resource_version().to_owned()),
            _ => None,
        }
    }

    #[test]
    fn foreign_secrets_leave_no_trace() {
        let index = index();
        assert!(index.observe(&key("foreign"), secret_metadata("1")).is_empty());
        assert!(!index.is_referenced(&key("foreign")));
    }

    #[test]
    fn secret_that_is_referenced_enqueues_its_credential_once() {
        let index = index();
        assert_eq!(index.observe(&key("token"), secret_metadata("5")), [Arc::new(key("agent"))]);
        assert!(index.observe(&key("token"), secret_metadata("5")).is_empty(), "the same version is no news");
    }

    #[test]
    fn older_events_after_our_own_write_change_nothing() {
        let index = index();
        index.observe(&key("token"), secret_metadata("10"));
        assert!(index.observe(&key("token"), secret_metadata("9")).is_empty());
        assert!(index.observe_absence(&key("token"), Some("9")).is_empty());
        assert_eq!(version(&index).as_deref(), Some("10"));
    }

    #[test]
    fn deletion_is_news() {
        let index = index();
        index.observe(&key("token"), secret_metadata("10"));
        assert_eq!(index.observe_absence(&key("token"), Some("11")), [Arc::new(key("agent"))]);
        assert!(matches!(index.get(&key("token")), Known::Absent));
    }

    #[test]
    fn secret_missing_from_a_new_listing_is_invalidated() {
        let index = index();
        index.observe(&key("token"), secret_metadata("10"));
        index.observe(&key("client"), secret_metadata("4"));
        index.listing_began(None);
        index.observe(&key("client"), secret_metadata("4"));
        assert_eq!(index.listing_ended(None), [Arc::new(key("agent"))]);
        assert!(matches!(index.get(&key("token")), Known::Unknown));
        assert!(matches!(index.get(&key("client")), Known::Present(_)));
    }

    #[test]
    fn listing_of_another_namespace_touches_nothing() {
        let index = index();
        index.observe(&key("token"), secret_metadata("10"));
        index.listing_began(Some("team-b"));
        assert!(index.listing_ended(Some("team-b")).is_empty());
        assert_eq!(version(&index).as_deref(), Some("10"));
    }

    #[test]
    fn secret_that_is_no_longer_referenced_is_forgotten() {
        let index = index();
        index.register(&Arc::new(key("agent")), ["token", "other-client"]);
        assert!(!index.is_referenced(&key("client")) && index.is_referenced(&key("other-client")));
        index.unregister(&key("agent"));
        assert!(!index.is_referenced(&key("token")) && !index.is_referenced(&key("other-client")));
    }

    fn names(keys: &[Arc<ObjectKey>]) -> Vec<&str> {
        keys.iter().map(|key| key.name.as_str()).collect()
    }

    #[test]
    fn writers_of_a_secret_are_distinguished_from_its_readers() {
        let index = index();
        for (name, secrets) in [("b", ["x", "token"]), ("a", ["y", "token"]), ("c", ["token", "client"])] {
            index.register(&Arc::new(key(name)), secrets);
        }
        assert_eq!(names(&index.writers(&key("token"))), ["agent", "c"]);
        assert_eq!(names(&index.readers(&key("token"))), ["a", "b"]);
        assert_eq!(names(&index.readers(&key("client"))), ["agent", "c"]);
        index.unregister(&key("agent"));
        assert_eq!(names(&index.writers(&key("token"))), ["c"]);
        assert_eq!(names(&index.readers(&key("token"))), ["a", "b"]);
    }

    #[test]
    fn credential_that_leaves_a_secret_frees_those_that_it_was_in_the_way_of() {
        let index = index();
        index.register(&Arc::new(key("reader")), ["x", "token"]);
        index.register(&Arc::new(key("neighbour")), ["y", "client"]);
        let rival = ["token", "another-client"];
        index.register(&Arc::new(key("rival")), rival);
        assert!(index.register(&Arc::new(key("rival")), rival).is_empty(), "nothing changed");
        assert_eq!(
            names(&index.in_the_way_of(&key("agent"))),
            ["rival", "reader"],
            "one that shares a client only is not"
        );
        assert_eq!(names(&index.register(&Arc::new(key("reader")), ["x", "z"])), ["agent", "rival"]);
        assert_eq!(names(&index.unregister(&key("rival"))), ["agent"]);
    }
}
