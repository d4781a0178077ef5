//! The namespaces we act in, and how an object in one of them is woken.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use kube::{
    Resource,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    api::{authority::ITwinAuthority, credential::ITwinServiceCredential},
    observe::index::Key,
};

/// How objects of one kind are woken: put into the queue of their loop, once there is one.
pub struct Wakes<K: Resource<DynamicType = ()> + 'static> {
    /// The objects.
    pub store: Store<K>,
    /// A replica that stands by has no loop, and nothing may pile up in its queue.
    acting: AtomicBool,
    /// Unbounded, but joined by the scheduler behind it: what waits there is at most one entry for each object.
    queue: UnboundedSender<ObjectRef<K>>,
}

/// One watched namespace, or all of them.
pub struct Scope {
    /// The namespace; `None` means all.
    pub namespace: Option<String>,
    /// Its credentials.
    pub credentials: Wakes<ITwinServiceCredential>,
}

/// All of them, and the authorities.
pub struct Scopes {
    /// The namespaces.
    pub all: Vec<Scope>,
    /// The authorities, which have no namespace.
    pub authorities: Wakes<ITwinAuthority>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Wakes<K> {
    /// Nobody is woken yet.
    pub fn new(store: Store<K>, queue: UnboundedSender<ObjectRef<K>>) -> Self {
        Self { store, acting: AtomicBool::new(false), queue }
    }

    /// Has an object looked at soon.
    pub fn wake(&self, object: ObjectRef<K>) {
        if self.acting.load(Ordering::Acquire) {
            // the receiver is gone only while the process ends
            let _ = self.queue.send(object);
        }
    }

    /// Has every object looked at for which `concerned` holds.
    pub fn wake_all(&self, concerned: impl Fn(&K) -> bool) {
        for object in self.store.state().iter().filter(|object| concerned(object)) {
            self.wake(ObjectRef::from_obj(&**object));
        }
    }

    fn begin(&self) {
        self.acting.store(true, Ordering::Release);
        self.wake_all(|_| true);
    }
}

impl Scopes {
    /// Has a credential looked at soon.
    pub fn wake(&self, key: &Key) {
        for scope in &self.all {
            if scope.covers(key) {
                scope.credentials.wake(ObjectRef::new(&key.name).within(&key.namespace));
            }
        }
    }

    /// The credential of this name, if it is there.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<ITwinServiceCredential>> {
        let mut scopes = self.all.iter().filter(|scope| scope.covers(key));
        scopes.find_map(|scope| scope.credentials.store.get(&ObjectRef::new(&key.name).within(&key.namespace)))
    }

    /// Has every credential looked at that names this authority.
    pub fn wake_users_of(&self, authority: &str) {
        for scope in &self.all {
            scope.credentials.wake_all(|credential| credential.spec.authority_ref.name == authority);
        }
    }

    /// Whether every listing is complete, so that nothing is taken for missing.
    pub async fn ready(&self) {
        // an error says that the watch has ended, and with it the process
        for scope in &self.all {
            let _ = scope.credentials.store.wait_until_ready().await;
        }
        let _ = self.authorities.store.wait_until_ready().await;
    }

    /// From now on this process acts: everything is looked at, and then what is woken.
    pub fn begin(&self) {
        self.authorities.begin();
        for scope in &self.all {
            scope.credentials.begin();
        }
    }
}

impl Scope {
    fn covers(&self, key: &Key) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
    }
}
