//! The namespaces we act in, and how a credential in one of them is woken.

use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::mpsc::UnboundedSender;

use crate::{api::credential::ITwinServiceCredential, observe::index::Key};

/// One watched namespace, or all of them.
pub struct Scope {
    /// The namespace; `None` means all.
    pub namespace: Option<String>,
    /// Its credentials.
    pub store: Store<ITwinServiceCredential>,
    /// Where a credential is put that must be looked at. Unbounded, but joined by the scheduler behind it: what waits
    /// there is at most one entry for each credential.
    pub queue: UnboundedSender<ObjectRef<ITwinServiceCredential>>,
}

/// All of them.
pub struct Scopes(pub Vec<Scope>);

impl Scopes {
    /// Has a credential looked at soon.
    pub fn wake(&self, key: &Key) {
        for scope in &self.0 {
            if scope.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace) {
                scope.wake(ObjectRef::new(&key.name).within(&key.namespace));
            }
        }
    }

    /// Has every credential looked at that names this authority.
    pub fn wake_users_of(&self, authority: &str) {
        for scope in &self.0 {
            for credential in scope.store.state() {
                if credential.spec.authority_ref.name == authority {
                    scope.wake(ObjectRef::from_obj(&*credential));
                }
            }
        }
    }

    /// Whether every listing is complete, so that nothing is taken for missing.
    pub async fn ready(&self) {
        for scope in &self.0 {
            // an error says that the watch has ended, and with it the process
            let _ = scope.store.wait_until_ready().await;
        }
    }
}

impl Scope {
    /// Has a credential of this scope looked at soon.
    pub fn wake(&self, credential: ObjectRef<ITwinServiceCredential>) {
        // the receiver is gone only while the process ends
        let _ = self.queue.send(credential);
    }
}
