//! "Never someone else's" (contract sections 3 and 8): whose a Secret is when the operator writes it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use itwin_api::secret_keys::{ADOPT, OWNER_UID};
use serde_json::Value;

/// The names of client Secrets begin with this; no token is ever written into one.
const CLIENT_SECRET: &str = "client-";

struct Owner {
    namespace: String,
    secret: String,
    is_deleted: bool,
}

/// Every credential that there ever was, by UID.
#[derive(Clone, Default)]
pub struct Owners(Arc<Mutex<BTreeMap<String, Owner>>>);

impl Owners {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Owner>> {
        self.0.lock().expect("no panic")
    }

    /// A credential was created.
    pub fn created(&self, credential: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (metadata, named) = (&credential["metadata"], &credential["spec"]["secretName"]);
        let secret = text(if named.is_null() { &metadata["name"] } else { named });
        let owner = Owner { namespace: text(&metadata["namespace"]), secret, is_deleted: false };
        self.all().insert(text(&metadata["uid"]), owner);
    }

    /// A credential was deleted.
    pub fn deleted(&self, uid: &Value) {
        if let Some(owner) = self.all().get_mut(uid.as_str().unwrap_or_default()) {
            owner.is_deleted = true;
        }
    }

    /// No one knows which credentials there are: the cluster was restored to an older state.
    pub fn forget_deletions(&self) {
        self.all().values_mut().for_each(|owner| owner.is_deleted = true);
    }

    /// Why the operator must not have made this write of a Secret.
    pub fn objection(&self, new: &Value, old: Option<&Value>) -> Option<String> {
        let name = new["metadata"]["name"].as_str().unwrap_or_default();
        if name.starts_with(CLIENT_SECRET) {
            return Some(format!("client Secret {name} was written"));
        }
        let old = old.filter(|old| old["metadata"]["annotations"][ADOPT].is_null())?;
        let namespace = old["metadata"]["namespace"].as_str().unwrap_or_default();
        let before = proofs(old);
        let all = self.all();
        let owners = before.iter().filter_map(|uid| all.get(uid));
        let mut owners = owners.filter(|owner| owner.namespace == namespace && owner.secret == name).peekable();
        if owners.peek().is_none() {
            return Some(format!("Secret {namespace}/{name} is of no credential of its namespace, and was written"));
        }
        let is_kept = proofs(new).iter().any(|uid| before.contains(uid));
        let is_taken = !is_kept && owners.any(|owner| !owner.is_deleted);
        is_taken.then(|| format!("Secret {namespace}/{name} was taken from the credential that owns it"))
    }
}

/// The UIDs of those who own a Secret, as it says.
fn proofs(secret: &Value) -> Vec<String> {
    let metadata = &secret["metadata"];
    let references = metadata["ownerReferences"].as_array().into_iter().flatten().map(|owner| &owner["uid"]);
    let annotation = &metadata["annotations"][OWNER_UID];
    references.chain([annotation]).filter_map(|uid| uid.as_str().map(str::to_owned)).collect()
}
