//! The index of the Secrets that credentials reference.
//!
//! The watch receives the metadata of every Secret. Metadata of a Secret that is not referenced is dropped immediately,
//! so that memory hardly grows with other Secrets (cert-manager/cert-manager#4722: 8 GB for 30,000 Secrets): of those, only
//! which there are is kept (`names.rs`). The operator's own writes and reads are recorded too, so that a decision after a
//! write never uses an older state (external-secrets/external-secrets#2184: a token was requested twice).

mod slot;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use itwin_core::{
    object::ObjectKey,
    revisions::{self, Incarnation},
};
use tokio::sync::Notify;

pub use self::slot::Known;
use self::slot::{Observed, Slot};
use super::{names::Names, target::SecretMetadata};

#[derive(Default)]
struct Inner {
    slots: HashMap<Arc<ObjectKey>, Slot>,
    /// The Secret that each credential writes and the one that it reads.
    references: HashMap<Arc<ObjectKey>, [Arc<ObjectKey>; 2]>,
    /// Which Secrets exist, also of those that no credential references.
    names: Names,
    /// The incarnation of the cluster that the versions belong to.
    incarnation: Incarnation,
}

/// The index of referenced Secrets.
#[derive(Default)]
pub struct SecretIndex {
    inner: Mutex<Inner>,
    older_read: Notify,
}

/// The version of a Secret that was known when a read of it began.
#[derive(Clone, Copy)]
pub struct KnownAtRead(u64);

impl SecretIndex {
    /// Records that `credential` writes and reads these Secrets of its namespace, in this order, and references no
    /// others. Returns the credentials that it may have blocked before.
    pub fn register(&self, credential: &Arc<ObjectKey>, secrets: [&str; 2]) -> Vec<Arc<ObjectKey>> {
        let mut inner = self.inner();
        let is_same = |before: &[Arc<ObjectKey>; 2]| before.iter().map(|key| key.name.as_str()).eq(secrets);
        if inner.references.get(credential).is_some_and(is_same) {
            return Vec::new();
        }
        let unblocked = inner.blocked_by(credential);
        inner.unregister(credential);
        let keys = secrets.map(|name| inner.key(credential, name));
        let [written, read] = &keys;
        inner.slots.entry(written.clone()).or_default().add_writer(credential);
        inner.slots.entry(read.clone()).or_default().add_reader(credential);
        inner.references.insert(credential.clone(), keys);
        unblocked
    }

    /// The credential that writes this Secret was created while this process leads: no other one wrote it a Secret.
    pub fn credential_was_created(&self, key: &ObjectKey) {
        if let Some(slot) = self.inner().slots.get_mut(key) {
            slot.is_of_new_credential = matches!(slot.known, Known::Unknown) && slot.version == 0;
        }
    }

    /// Whether there is no such Secret, as far as the watch shows, where only a new credential references it and nothing
    /// else was ever known of it. It is not recorded as absent, since only a read or an event proves that.
    #[must_use]
    pub fn is_presumed_absent(&self, key: &ObjectKey) -> bool {
        let inner = self.inner();
        inner.slots.get(key).is_some_and(Slot::may_be_presumed_absent) && inner.names.is_absent(key)
    }

    /// Whether a whole list and what came after it show no such Secret, where nothing else is known of it. A read or an
    /// event may still show one that was created just now.
    #[must_use]
    pub fn is_not_shown(&self, key: &ObjectKey) -> bool {
        let inner = self.inner();
        inner.slots.get(key).is_some_and(|slot| matches!(slot.known, Known::Unknown)) && inner.names.is_absent(key)
    }

    /// Records that `credential` was deleted. Returns the same as [`Self::register`].
    pub fn unregister(&self, credential: &ObjectKey) -> Vec<Arc<ObjectKey>> {
        let mut inner = self.inner();
        let unblocked = inner.blocked_by(credential);
        inner.unregister(credential);
        unblocked
    }

    /// The credentials that this one may block: all others that reference the Secret that it writes, and those that
    /// write the Secret that it reads.
    #[must_use]
    pub fn blocked_by(&self, credential: &ObjectKey) -> Vec<Arc<ObjectKey>> {
        self.inner().blocked_by(credential)
    }

    /// The known state of a Secret.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Known {
        self.inner().slots.get(key).map(|slot| slot.known.clone()).unwrap_or_default()
    }

    /// The credentials that write a Secret; usually one.
    #[must_use]
    pub fn writers(&self, key: &ObjectKey) -> Vec<Arc<ObjectKey>> {
        self.inner().slots.get(key).map(|slot| slot.writers().to_vec()).unwrap_or_default()
    }

    /// The credentials that read a Secret as their client Secret.
    #[must_use]
    pub fn readers(&self, key: &ObjectKey) -> Vec<Arc<ObjectKey>> {
        self.inner().slots.get(key).map(|slot| slot.readers().to_vec()).unwrap_or_default()
    }

    /// The watch shows that a Secret exists, at this resourceVersion. Returns whether a credential references it; if not, its
    /// metadata is not decoded.
    pub fn is_shown(&self, key: &ObjectKey, resource_version: Option<&str>) -> bool {
        let mut inner = self.inner();
        inner.names.exists(key);
        inner.names.is_shown(key, resource_version.and_then(revisions::parse).unwrap_or_default());
        inner.slots.contains_key(key)
    }

    /// The version that a Secret has at least, as far as a watch or a call has shown it: its own, or that of the latest Secret
    /// that the watch of this one has shown. `None` where nothing is known, or that it does not exist.
    #[must_use]
    pub fn version_at_least(&self, key: &ObjectKey) -> Option<u64> {
        let inner = self.inner();
        let slot = inner.slots.get(key)?;
        let version = match slot.known {
            Known::Present(_) => Some(slot.version),
            Known::Unknown if inner.names.is_absent(key) => None,
            // the watch showed it before a credential referenced it
            Known::Unknown => inner.names.latest(key).map(|latest| latest.max(slot.version)),
            Known::Absent => None,
        };
        version.filter(|version| *version > 0)
    }

    /// Records a Secret that the watch reported or the operator read or wrote. Returns the credentials to enqueue; none
    /// if this version or a newer one is known.
    pub fn observe(&self, key: &ObjectKey, secret_metadata: SecretMetadata) -> Vec<Arc<ObjectKey>> {
        let mut inner = self.inner();
        inner.names.exists(key);
        let Some(slot) = inner.slots.get_mut(key) else { return Vec::new() };
        match slot.observe(secret_metadata) {
            Observed::Older => Vec::new(),
            Observed::Same if !slot.is_from_read => Vec::new(),
            Observed::Same | Observed::New => {
                slot.is_from_read = false;
                slot.credentials.clone()
            }
        }
    }

    /// Records that the watch shows a Secret at a version that is known, as it does after a write of the operator: then its
    /// metadata need not be decoded. Returns the same as [`Self::observe`]; `None` where this version is not known.
    pub fn observe_known(
        &self,
        key: &ObjectKey,
        uid: Option<&str>,
        resource_version: Option<&str>,
    ) -> Option<Vec<Arc<ObjectKey>>> {
        let mut inner = self.inner();
        let slot = inner.slots.get_mut(key)?;
        let Known::Present(known) = &slot.known else { return None };
        if known.uid() != uid? || known.resource_version() != resource_version? {
            return None;
        }
        slot.listed = true;
        let is_from_read = std::mem::take(&mut slot.is_from_read);
        Some(if is_from_read { slot.credentials.clone() } else { Vec::new() })
    }

    /// A read of a Secret begins.
    #[must_use]
    pub fn read_begins(&self, key: &ObjectKey) -> KnownAtRead {
        KnownAtRead(self.inner().slots.get(key).map_or(0, |slot| slot.version))
    }

    /// Records a Secret that one credential read. The API server never answers with an older version than was known when the
    /// read began, unless the cluster was restored. The watch will show it to the others.
    pub fn observe_read(&self, key: &ObjectKey, secret_metadata: SecretMetadata, known: KnownAtRead) {
        if revisions::parse(secret_metadata.resource_version()).is_some_and(|version| version < known.0) {
            if let Some(slot) = self.inner().slots.get_mut(key) {
                slot.forget_version();
            }
            self.older_read.notify_one();
        }
        let mut inner = self.inner();
        inner.names.exists(key);
        let Some(slot) = inner.slots.get_mut(key) else { return };
        if slot.observe(secret_metadata) == Observed::New {
            slot.is_from_read = true;
        }
    }

    /// Waits for a read that shows that the cluster was restored.
    pub async fn older_read(&self) {
        self.older_read.notified().await;
    }

    /// Records a Secret of a list. Where it is older than what is known, that may be a write of the operator since the list
    /// began, or the cluster was restored: it is read before the next decision, at whatever version it has.
    pub fn observe_listed(&self, key: &ObjectKey, secret_metadata: SecretMetadata) -> Vec<Arc<ObjectKey>> {
        let mut inner = self.inner();
        let Some(slot) = inner.slots.get_mut(key) else { return Vec::new() };
        if revisions::parse(secret_metadata.resource_version()).is_some_and(|version| version < slot.version) {
            slot.listed = true;
            slot.forget_version();
            return slot.credentials.clone();
        }
        drop(inner);
        self.observe(key, secret_metadata)
    }

    /// Records that a Secret does not exist, at this resourceVersion if a watch shows it, without one if it was read.
    /// Returns the same as [`Self::observe`].
    pub fn observe_absence(&self, key: &ObjectKey, resource_version: Option<&str>) -> Vec<Arc<ObjectKey>> {
        let mut inner = self.inner();
        inner.names.is_gone(key);
        let Some(slot) = inner.slots.get_mut(key) else { return Vec::new() };
        let version = resource_version.and_then(revisions::parse);
        if version.is_some_and(|version| version < slot.version) {
            return Vec::new();
        }
        let is_known = matches!(slot.known, Known::Absent);
        if is_known && (version.is_none() || !slot.is_from_read) {
            return Vec::new();
        }
        slot.version = version.unwrap_or(slot.version);
        (slot.known, slot.is_from_read) = (Known::Absent, version.is_none());
        slot.credentials.clone()
    }

    /// Invalidates the known state of a Secret, so that it is read before the next decision.
    pub fn invalidate(&self, key: &ObjectKey) {
        if let Some(slot) = self.inner().slots.get_mut(key) {
            (slot.known, slot.is_of_new_credential) = (Known::Unknown, false);
        }
    }

    /// A list of a namespace, or of all, starts.
    pub fn listing_began(&self, namespace: Option<&str>) {
        let mut inner = self.inner();
        inner.names.listing_began(namespace);
        for (_, slot) in inner.slots.iter_mut().filter(|(key, _)| is_within(key, namespace)) {
            slot.listed = false;
        }
    }

    /// A list ended: Secrets that it did not contain are invalidated. They may exist, since the list does not contain a
    /// Secret that the operator created after the list started. Returns the credentials to enqueue: those of such Secrets,
    /// those of a Secret whose absence only one of them knows, and those that read one of which nothing was known.
    pub fn listing_ended(&self, namespace: Option<&str>) -> Vec<Arc<ObjectKey>> {
        let mut invalidated = Vec::new();
        let mut inner = self.inner();
        inner.names.listing_ended(namespace);
        for (_, slot) in inner.slots.iter_mut().filter(|(key, _)| is_within(key, namespace)) {
            match slot.known {
                _ if slot.listed => {}
                Known::Present(_) => {
                    slot.forget_version();
                    invalidated.extend(slot.credentials.iter().cloned());
                }
                Known::Absent if slot.is_from_read => {
                    slot.is_from_read = false;
                    invalidated.extend(slot.credentials.iter().cloned());
                }
                Known::Absent => {}
                Known::Unknown => invalidated.extend(slot.readers().iter().cloned()),
            }
        }
        invalidated
    }

    /// Where this is a later incarnation of the cluster, every Secret is read before the next decision, and has a version
    /// that cannot be compared with the known one. What was recorded in this incarnation stays. Returns whether it is a
    /// later one.
    pub fn begin_incarnation(&self, incarnation: Incarnation) -> bool {
        let mut inner = self.inner();
        let is_later = incarnation > inner.incarnation;
        if is_later {
            inner.incarnation = incarnation;
            inner.names.forget();
            inner.slots.values_mut().for_each(Slot::forget_version);
        }
        is_later
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // every change is complete before anything can panic
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn blocked_by(&self, credential: &ObjectKey) -> Vec<Arc<ObjectKey>> {
        let Some([written, read]) = self.references.get(credential) else { return Vec::new() };
        let all = self.slots.get(written).into_iter().flat_map(|slot| &slot.credentials);
        let writers = self.slots.get(read).into_iter().flat_map(Slot::writers);
        all.chain(writers).filter(|other| ***other != *credential).cloned().collect()
    }

    fn unregister(&mut self, credential: &ObjectKey) {
        for key in self.references.remove(credential).into_iter().flatten() {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.remove(credential);
                if slot.credentials.is_empty() {
                    self.slots.remove(&key);
                }
            }
        }
    }

    /// The key of a Secret in the credential's namespace. It reuses an existing key, which is usually that of the
    /// credential, since both have the same name.
    fn key(&self, credential: &Arc<ObjectKey>, name: &str) -> Arc<ObjectKey> {
        if credential.name == name {
            return credential.clone();
        }
        let key = ObjectKey::new(&credential.namespace, name);
        self.slots.get_key_value(&key).map_or_else(|| Arc::new(key), |(key, _)| key.clone())
    }
}

fn is_within(key: &ObjectKey, namespace: Option<&str>) -> bool {
    namespace.is_none_or(|namespace| key.namespace == namespace)
}

#[cfg(test)]
mod tests;
