//! The namespaces we act in, and how an object in one of them is woken.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use kube::{ResourceExt, runtime::reflector::Store};
use tokio::sync::mpsc::UnboundedSender;

use super::registry::Registry;
use crate::{
    api::{authority::ITwinAuthority, credential::ITwinServiceCredential},
    decide::contenders::Claim,
    observe::index::Key,
};

/// How objects of one kind are woken: put into the queue of their loop, once there is one.
pub struct Wakes<T> {
    /// A replica that stands by has no loop, and nothing may pile up in its queue.
    acting: AtomicBool,
    /// Unbounded, but joined by the scheduler behind it: what waits there is at most one entry for each object.
    queue: UnboundedSender<T>,
}

/// One watched namespace, or all of them.
pub struct Scope {
    /// The namespace; `None` means all.
    pub namespace: Option<String>,
    /// Its credentials.
    pub credentials: Registry,
    /// How they are woken.
    pub wakes: Wakes<Arc<Key>>,
}

/// All of them, and the authorities.
pub struct Scopes {
    /// The namespaces.
    pub all: Vec<Scope>,
    /// The authorities, which have no namespace.
    pub authorities: Store<ITwinAuthority>,
    /// How they are woken, by name.
    pub authority_wakes: Wakes<String>,
}

impl<T> Wakes<T> {
    /// Nobody is woken yet.
    pub fn new(queue: UnboundedSender<T>) -> Self {
        Self { acting: AtomicBool::new(false), queue }
    }

    /// Has an object looked at soon.
    pub fn wake(&self, object: T) {
        if self.acting.load(Ordering::Acquire) {
            // the receiver is gone only while the process ends
            let _ = self.queue.send(object);
        }
    }
}

impl Scopes {
    /// Has a credential looked at soon. Returns whether it is there.
    pub fn wake(&self, key: &Key) -> bool {
        let found = self.of(key).find_map(|scope| Some((scope, scope.credentials.key(key)?)));
        if let Some((scope, key)) = &found {
            scope.wakes.wake(key.clone());
        }
        found.is_some()
    }

    /// The credential of this name, if it is there.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<ITwinServiceCredential> {
        self.of(key).find_map(|scope| scope.credentials.get(key))
    }

    /// What the credential of this name brings forward where others name the same Secret.
    #[must_use]
    pub fn claim(&self, key: &Key) -> Option<Claim> {
        self.of(key).find_map(|scope| scope.credentials.claim(key))
    }

    /// The credential, in whatever watched namespace, that has this UID now.
    #[must_use]
    pub fn with_uid(&self, uid: &str) -> Option<Arc<Key>> {
        self.all.iter().find_map(|scope| scope.credentials.with_uid(uid))
    }

    /// The scopes that this namespace belongs to: one, as they are told apart when the process starts.
    pub fn of(&self, key: &Key) -> impl Iterator<Item = &Scope> {
        self.all.iter().filter(|scope| scope.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace))
    }

    /// Has every credential looked at that names this authority.
    pub fn wake_users_of(&self, authority: &str) {
        for scope in &self.all {
            scope.wake(scope.credentials.users_of(authority));
        }
    }

    /// Has every authority looked at.
    pub fn wake_authorities(&self) {
        for authority in self.authorities.state() {
            self.authority_wakes.wake(authority.name_any());
        }
    }

    /// Whether every listing is complete, so that nothing is taken for missing.
    pub async fn ready(&self) {
        for scope in &self.all {
            scope.credentials.ready().await;
        }
        // an error says that the watch has ended, and with it the process
        let _ = self.authorities.wait_until_ready().await;
    }

    /// From now on this process acts: everything is looked at, and then what is woken.
    pub fn begin(&self) {
        self.authority_wakes.acting.store(true, Ordering::Release);
        self.wake_authorities();
        for scope in &self.all {
            scope.wakes.acting.store(true, Ordering::Release);
            scope.wake_all();
        }
    }
}

impl Scope {
    /// Has every credential looked at.
    pub fn wake_all(&self) {
        self.wake(self.credentials.keys());
    }

    fn wake(&self, keys: Vec<Arc<Key>>) {
        keys.into_iter().for_each(|key| self.wakes.wake(key));
    }
}
