//! The other credentials, as far as the decision about one depends on them: those that name the same Secrets, and whether
//! the owner of a Secret exists.

use itwin_core::{contenders::Contender, object::ObjectKey, ownership::Named};

use super::namespaces::WatchedNamespaces;
use crate::observe::{index::SecretIndex, intern::intern};

/// What is asked about the other credentials.
pub trait Others {
    /// The credentials that write this Secret, the asking one among them.
    fn writers(&self, secret: &ObjectKey) -> Vec<Contender>;
    /// The credentials that read this Secret as their client Secret.
    fn readers(&self, secret: &ObjectKey) -> Vec<Contender>;
    /// The credential that has this UID now.
    fn living(&self, uid: &str) -> Option<Named>;
}

/// The credentials that the watches brought.
pub struct Registered<'a> {
    /// Who names which Secret.
    pub index: &'a SecretIndex,
    /// The credentials.
    pub namespaces: &'a WatchedNamespaces,
}

impl Others for Registered<'_> {
    fn writers(&self, secret: &ObjectKey) -> Vec<Contender> {
        self.index.writers(secret).iter().filter_map(|key| self.namespaces.contender(key)).collect()
    }

    fn readers(&self, secret: &ObjectKey) -> Vec<Contender> {
        self.index.readers(secret).iter().filter_map(|key| self.namespaces.contender(key)).collect()
    }

    fn living(&self, uid: &str) -> Option<Named> {
        let key = self.namespaces.with_uid(uid)?;
        Some(Named { namespace: intern(&key.namespace), name: key.name.as_str().into() })
    }
}
