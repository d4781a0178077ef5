//! The watched namespaces, and how an object in one of them is enqueued.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use chrono::{DateTime, Utc};
use itwin_api::{authority::ITwinAuthority, credential::ITwinServiceCredential};
use itwin_core::{contenders::Contender, object::ObjectKey, retry_state::Unwatched};
use kube::{ResourceExt, runtime::reflector::Store};
use tokio::sync::{mpsc::UnboundedSender, watch};

use super::registry::{Currency, Registry};

/// The work queue of the objects of one kind: that of their loop, once there is one.
pub struct WorkQueue<T> {
    /// A standby has no loop, and nothing may pile up in its queue.
    leading: AtomicBool,
    /// Unbounded, but joined by the loop behind it: what waits there is at most one entry for each object.
    queue: UnboundedSender<T>,
}

/// One watched namespace, or all of them.
pub struct WatchedNamespace {
    /// The namespace; `None` means all.
    pub namespace: Option<String>,
    /// Its credentials.
    pub credentials: Registry,
    /// How they are enqueued.
    pub work_queue: WorkQueue<Arc<ObjectKey>>,
    /// How the watch of its Secrets fails, if it does.
    pub unwatched: watch::Sender<Option<Arc<Unwatched>>>,
}

/// All of them, and the authorities.
pub struct WatchedNamespaces {
    /// The namespaces.
    pub all: Vec<WatchedNamespace>,
    /// The authorities, which have no namespace.
    pub authorities: Store<ITwinAuthority>,
    /// Their first list has ended. What the store has for that resumes only one of several that wait.
    pub authorities_listed: watch::Sender<bool>,
    /// How they are enqueued, by name.
    pub authority_queue: WorkQueue<String>,
}

impl<T> WorkQueue<T> {
    /// Nothing is enqueued yet.
    pub fn new(queue: UnboundedSender<T>) -> Self {
        Self { leading: AtomicBool::new(false), queue }
    }

    /// Has an object reconciled soon.
    pub fn enqueue(&self, object: T) {
        if self.leading.load(Ordering::Acquire) {
            // the receiver is gone only while the process ends
            let _ = self.queue.send(object);
        }
    }
}

impl WatchedNamespaces {
    /// Has a credential reconciled soon. Returns whether it is there.
    pub fn enqueue(&self, key: &ObjectKey) -> bool {
        let found = self.of(key).find_map(|watched| Some((watched, watched.credentials.key(key)?)));
        if let Some((watched, key)) = &found {
            watched.work_queue.enqueue(key.clone());
        }
        found.is_some()
    }

    /// The credential of this name, if it is there.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<ITwinServiceCredential> {
        self.of(key).find_map(|watched| watched.credentials.get(key))
    }

    /// The credential of this name and UID, if it was changed since it had this resourceVersion.
    #[must_use]
    pub fn changed_since(&self, key: &ObjectKey, uid: &str, version: u64) -> Option<ITwinServiceCredential> {
        self.of(key).find_map(|watched| watched.credentials.changed_since(key, uid, version))
    }

    /// Whether the credential of this name still has this UID and generation, and is not being deleted.
    #[must_use]
    pub fn currency(&self, key: &ObjectKey, uid: &str, generation: Option<i64>) -> Currency {
        self.of(key).next().map_or(Currency::Gone, |watched| watched.credentials.currency(key, uid, generation))
    }

    /// Whether time has changed `Ready` of this credential since its status was reported.
    #[must_use]
    pub fn is_overdue(&self, key: &ObjectKey, now: DateTime<Utc>) -> bool {
        self.of(key).any(|watched| watched.credentials.is_overdue(key, now))
    }

    /// How the watch of the Secrets of this credential fails, if it does.
    #[must_use]
    pub fn unwatched(&self, key: &ObjectKey) -> Option<Arc<Unwatched>> {
        self.of(key).find_map(|watched| watched.unwatched.borrow().clone())
    }

    /// What the credential of this name contends with where others name the same Secret.
    #[must_use]
    pub fn contender(&self, key: &ObjectKey) -> Option<Contender> {
        self.of(key).find_map(|watched| watched.credentials.contender(key))
    }

    /// The credential, in whatever watched namespace, that has this UID now.
    #[must_use]
    pub fn with_uid(&self, uid: &str) -> Option<Arc<ObjectKey>> {
        self.all.iter().find_map(|watched| watched.credentials.with_uid(uid))
    }

    /// The watched namespaces that this credential belongs to: one, since each is watched once.
    pub fn of(&self, key: &ObjectKey) -> impl Iterator<Item = &WatchedNamespace> {
        self.all.iter().filter(|watched| watched.holds(key))
    }

    /// Has every credential reconciled that names this authority.
    pub fn enqueue_users_of(&self, authority: &str) {
        for watched in &self.all {
            watched.enqueue(watched.credentials.users_of(authority));
        }
    }

    /// Has every credential of this namespace reconciled whose last attempt failed since an authority does not allow it.
    pub fn enqueue_not_allowed(&self, namespace: &str) {
        for watched in self.all.iter().filter(|watched| watched.watches(namespace)) {
            watched.enqueue(watched.credentials.not_allowed(namespace));
        }
    }

    /// Has every credential reconciled whose authority is none of these.
    pub fn enqueue_users_of_none_of(&self, is_known: impl Fn(&str) -> bool) {
        for watched in &self.all {
            watched.enqueue(watched.credentials.users_of_none_of(&is_known));
        }
    }

    /// Has an authority reconciled.
    pub fn enqueue_authority(&self, name: &str) {
        self.authority_queue.enqueue(name.to_owned());
    }

    /// Has every authority reconciled.
    pub fn enqueue_authorities(&self) {
        // the store has an order of its own in each process
        let mut names: Vec<String> = self.authorities.state().iter().map(|authority| authority.name_any()).collect();
        names.sort();
        names.into_iter().for_each(|name| self.authority_queue.enqueue(name));
    }

    /// Waits until every first list is complete.
    pub async fn listed(&self) {
        for watched in &self.all {
            watched.credentials.ready().await;
        }
        self.authorities_listed().await;
    }

    /// Waits until the authorities are listed.
    pub async fn authorities_listed(&self) {
        // the sender lives as long as this
        let _ = self.authorities_listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// Has every authority and every credential reconciled.
    pub fn enqueue_everything(&self) {
        self.enqueue_authorities();
        self.all.iter().for_each(WatchedNamespace::enqueue_all);
    }

    /// From now on this process acts for authorities: all are reconciled, and then those that are enqueued.
    pub fn begin_with_authorities(&self) {
        self.authority_queue.leading.store(true, Ordering::Release);
        self.enqueue_authorities();
    }
}

impl WatchedNamespace {
    /// From now on this process acts for the credentials: all are reconciled, and then those that are enqueued. They are
    /// listed, so that none is taken for missing.
    pub fn begin(&self) {
        self.work_queue.leading.store(true, Ordering::Release);
        self.enqueue_all();
    }

    /// What a watch of Secrets that fails showed is read again from now on, not all of it immediately: no one read it before.
    pub fn read_from(&self, now: DateTime<Utc>) {
        self.unwatched.send_if_modified(|unwatched| {
            let Some(unwatched) = unwatched else { return false };
            Arc::make_mut(unwatched).read_from = now;
            true
        });
    }

    /// Whether this credential is one of them, if it exists.
    #[must_use]
    pub fn holds(&self, key: &ObjectKey) -> bool {
        self.watches(&key.namespace)
    }

    fn watches(&self, namespace: &str) -> bool {
        self.namespace.as_ref().is_none_or(|own| *own == *namespace)
    }

    /// Has every credential reconciled.
    pub fn enqueue_all(&self) {
        self.enqueue(self.credentials.keys());
    }

    fn enqueue(&self, keys: Vec<Arc<ObjectKey>>) {
        keys.into_iter().for_each(|key| self.work_queue.enqueue(key));
    }
}
