//! The credentials of one watched namespace as the watch showed them last, each with its retry state.

mod packed;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use itwin_api::{conditions::Reason, credential::ITwinServiceCredential, time};
use itwin_core::{
    contenders::Contender,
    object::ObjectKey,
    retry_state::RetryState,
    revisions::{self, Incarnation},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use tokio::sync::watch;

use self::packed::{pack, unpack};
use crate::observe::intern::intern;

/// One credential.
struct Kept {
    uid: Box<str>,
    /// Its resourceVersion as a number.
    version: u64,
    /// Generation of its spec.
    generation: Option<i64>,
    /// Unix time of its creation, which the API server counts in seconds. Here, since others ask for it that name the
    /// same Secret, and those may be many.
    created_at: Option<i64>,
    /// It is being deleted, and writes and reads no more.
    is_going: bool,
    /// Name of the authority that it names.
    authority: Arc<str>,
    /// Metadata, spec and status as JSON, packed.
    packed: Box<[u8]>,
    retry_state: Option<Box<RetryState>>,
    /// Seen in the listing that is under way.
    listed: bool,
}

/// Whether a credential is still as it was when it was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Currency {
    /// It is.
    Current,
    /// Its spec was changed since.
    Changed,
    /// It is gone or being deleted; there may be another one of its name.
    Gone,
}

/// The credentials of one watched namespace.
pub struct Registry {
    all: Mutex<HashMap<Arc<ObjectKey>, Kept>>,
    /// The incarnation of the cluster that was listed last.
    incarnation: Mutex<Incarnation>,
    is_listed: watch::Sender<bool>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { all: Mutex::default(), incarnation: Mutex::default(), is_listed: watch::Sender::new(false) }
    }
}

impl Registry {
    /// Keeps a credential in place of what was known of it. Returns its key, and the one before it under its name if
    /// that was another, which is gone then.
    pub fn keep(&self, credential: ITwinServiceCredential) -> (Arc<ObjectKey>, Option<ITwinServiceCredential>) {
        let key = ObjectKey::new(credential.namespace().unwrap_or_default(), credential.name_any());
        let uid = credential.uid().unwrap_or_default();
        let (packed, authority) = (pack(&credential), intern(&credential.spec.authority_ref.name));
        let metadata = &credential.metadata;
        let (is_going, generation) = (metadata.deletion_timestamp.is_some(), metadata.generation);
        let version = version(metadata);
        let created_at = metadata.creation_timestamp.as_ref().and_then(time::from_kubernetes).map(|at| at.timestamp());
        let mut all = self.all();
        let key = all.get_key_value(&key).map_or_else(|| Arc::new(key), |(key, _)| key.clone());
        if let Some(kept) = all.get_mut(&key)
            && *kept.uid == *uid
        {
            (kept.packed, kept.authority, kept.is_going, kept.listed) = (packed, authority, is_going, true);
            (kept.version, kept.generation) = (version, generation);
            return (key, None);
        }
        let new = Kept {
            uid: uid.into(),
            version,
            generation,
            created_at,
            is_going,
            authority,
            packed,
            retry_state: None,
            listed: true,
        };
        let before = all.insert(key.clone(), new);
        (key, before.and_then(|before| unpack(&before.packed)))
    }

    /// Whether a newer version of this credential is kept. A list never shows an older one than the watch before it,
    /// unless the cluster was restored.
    #[must_use]
    pub fn is_newer_than(&self, credential: &ITwinServiceCredential) -> bool {
        let key = ObjectKey::new(credential.namespace().unwrap_or_default(), credential.name_any());
        let (uid, version) = (credential.uid().unwrap_or_default(), version(&credential.metadata));
        self.all().get(&key).is_some_and(|kept| *kept.uid == *uid && kept.version > version)
    }

    /// Forgets a credential that is gone, and what was remembered of it.
    pub fn forget(&self, key: &ObjectKey) {
        self.all().remove(key);
    }

    /// The credential of this name, if it is there.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<ITwinServiceCredential> {
        // read from a copy, so that no one waits for it
        let text = self.all().get(key)?.packed.clone();
        unpack(&text)
    }

    /// The credential of this name and UID, if it was changed since it had this resourceVersion.
    #[must_use]
    pub fn changed_since(&self, key: &ObjectKey, uid: &str, version: u64) -> Option<ITwinServiceCredential> {
        let is_later = |kept: &&Kept| *kept.uid == *uid && kept.version > version;
        let text = self.all().get(key).filter(is_later)?.packed.clone();
        unpack(&text)
    }

    /// Whether time has changed `Ready` of this credential since its status was reported.
    #[must_use]
    pub fn is_overdue(&self, key: &ObjectKey, now: DateTime<Utc>) -> bool {
        let all = self.all();
        let state = all.get(key).and_then(|kept| kept.retry_state.as_ref());
        state.and_then(|state| state.ready_changes_at()).is_some_and(|at| at <= now)
    }

    /// Whether the credential of this name still has this UID and generation, and is not being deleted.
    #[must_use]
    pub fn currency(&self, key: &ObjectKey, uid: &str, generation: Option<i64>) -> Currency {
        let all = self.all();
        match all.get(key).filter(|kept| *kept.uid == *uid && !kept.is_going) {
            None => Currency::Gone,
            Some(kept) if kept.generation != generation => Currency::Changed,
            Some(_) => Currency::Current,
        }
    }

    /// What a credential contends with where others name the same Secret; none where it is being deleted.
    #[must_use]
    pub fn contender(&self, key: &ObjectKey) -> Option<Contender> {
        let all = self.all();
        let kept = all.get(key).filter(|kept| !kept.is_going)?;
        Some(Contender {
            created_at: kept.created_at.and_then(|seconds| DateTime::from_timestamp(seconds, 0)),
            uid: kept.uid.to_string(),
            name: key.name.clone(),
        })
    }

    /// The credential that has this UID now. All are gone through: it is asked only about Secrets of other owners.
    #[must_use]
    pub fn with_uid(&self, uid: &str) -> Option<Arc<ObjectKey>> {
        self.all().iter().find(|(_, kept)| *kept.uid == *uid).map(|(key, _)| key.clone())
    }

    /// All keys.
    #[must_use]
    pub fn keys(&self) -> Vec<Arc<ObjectKey>> {
        self.all().keys().cloned().collect()
    }

    /// The keys of those that name this authority.
    #[must_use]
    pub fn users_of(&self, authority: &str) -> Vec<Arc<ObjectKey>> {
        let all = self.all();
        all.iter().filter(|(_, kept)| *kept.authority == *authority).map(|(key, _)| key.clone()).collect()
    }

    /// The keys of those whose authority is none of these.
    #[must_use]
    pub fn users_of_none_of(&self, is_known: impl Fn(&str) -> bool) -> Vec<Arc<ObjectKey>> {
        let all = self.all();
        all.iter().filter(|(_, kept)| !is_known(&kept.authority)).map(|(key, _)| key.clone()).collect()
    }

    /// The keys of those in this namespace whose last attempt failed since an authority does not allow the namespace, and
    /// of those that are being reconciled: that attempt may fail for the same reason.
    #[must_use]
    pub fn not_allowed(&self, namespace: &str) -> Vec<Arc<ObjectKey>> {
        let is_not_allowed = |state: &RetryState| {
            state.last_failure().is_some_and(|failure| failure.reason == Reason::NamespaceNotAllowed)
        };
        let is_wanted = |kept: &Kept| kept.retry_state.as_ref().is_none_or(|state| is_not_allowed(state));
        let all = self.all();
        let of_namespace = all.iter().filter(|(key, _)| key.namespace == namespace);
        of_namespace.filter(|(_, kept)| is_wanted(kept)).map(|(key, _)| key.clone()).collect()
    }

    /// The key as it is kept here, of which there is one for all.
    #[must_use]
    pub fn key(&self, key: &ObjectKey) -> Option<Arc<ObjectKey>> {
        self.all().get_key_value(key).map(|(key, _)| key.clone())
    }

    /// Takes out what is remembered of a credential while it is worked on, which never happens twice at a time; a panic
    /// loses it, and the next reconciliation starts without it.
    #[must_use]
    pub fn take_retry_state(&self, key: &ObjectKey, uid: &str) -> Option<Box<RetryState>> {
        self.all().get_mut(key).filter(|kept| *kept.uid == *uid)?.retry_state.take()
    }

    /// The incarnation of the cluster that was listed last.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        *self.incarnation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the retry state again, unless the credential is gone by now, or the cluster was restored since the state was
    /// taken in `incarnation`.
    pub fn put_retry_state(&self, key: &ObjectKey, uid: &str, retry_state: Box<RetryState>, incarnation: Incarnation) {
        if self.incarnation() != incarnation {
            return;
        }
        if let Some(kept) = self.all().get_mut(key).filter(|kept| *kept.uid == *uid) {
            kept.retry_state = Some(retry_state);
        }
    }

    /// A listing begins.
    pub fn listing_began(&self) {
        self.all().values_mut().for_each(|kept| kept.listed = false);
    }

    /// A listing ended: what it did not hold is gone, and returned. With the first one in another `incarnation`, all that is
    /// remembered is forgotten: it rests on resourceVersions and generations that are given out a second time.
    pub fn listing_ended(&self, incarnation: Incarnation) -> Vec<ITwinServiceCredential> {
        let before =
            std::mem::replace(&mut *self.incarnation.lock().unwrap_or_else(PoisonError::into_inner), incarnation);
        if before != incarnation {
            self.all().values_mut().for_each(|kept| kept.retry_state = None);
        }
        let gone = self.all().extract_if(|_, kept| !kept.listed).filter_map(|(_, kept)| unpack(&kept.packed)).collect();
        self.is_listed.send_replace(true);
        gone
    }

    /// Waits for the end of the first listing.
    pub async fn ready(&self) {
        // the sender lives as long as we do
        let _ = self.is_listed.subscribe().wait_for(|listed| *listed).await;
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Arc<ObjectKey>, Kept>> {
        // every change is complete before anything can panic
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(revisions::parse).unwrap_or_default()
}

#[cfg(test)]
mod tests;
