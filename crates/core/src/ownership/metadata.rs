//! What a Secret says of its owner, and who wants to write it.

use std::sync::Arc;

/// Namespace and name of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// The ownership metadata of an existing Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnershipMetadata {
    /// The owner reference with `controller: true`.
    pub controller: Option<Controller>,
    /// The UIDs of further owner references to credentials. Garbage collection waits for those too.
    pub references: Box<[Arc<str>]>,
    /// The annotation with the owner's UID.
    pub owner_uid: Option<Arc<str>>,
    /// The annotation with the owner's namespace and name; `None` if its value is invalid.
    pub owner: Option<Named>,
    /// The annotation by which a user offers the Secret to a credential.
    pub adopt: Option<Arc<str>>,
}

/// An owner reference with `controller: true`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Kind, with the API group: `credentials.itwin.dev/ITwinServiceCredential`.
    pub kind: Arc<str>,
    /// Name of the owner.
    pub name: Arc<str>,
    /// UID of the owner.
    pub uid: Arc<str>,
}

impl Controller {
    /// Whether the reference is the one that a credential of this name and UID sets: garbage collection goes by all of it.
    #[must_use]
    pub fn is_credential(&self, name: &str, uid: &str) -> bool {
        *self.kind == *OUR_KIND && *self.name == *name && *self.uid == *uid
    }
}

/// The value of [`Controller::kind`] in the operator's owner references.
pub const OUR_KIND: &str = "credentials.itwin.dev/ITwinServiceCredential";

/// The credential that wants to write a Secret.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// Its namespace, which is also that of the Secret.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
}

impl OwnershipMetadata {
    /// The UID of the owning credential: that of the controller, or that of the annotation if there is no controller.
    #[must_use]
    pub fn owner_uid(&self) -> Option<&str> {
        self.controller.as_ref().map(|controller| &controller.uid).or(self.owner_uid.as_ref()).map(|uid| &**uid)
    }

    /// Whether any owner reference is to the credential with this UID.
    #[must_use]
    pub fn is_referenced_by(&self, uid: &str) -> bool {
        self.controller.iter().map(|controller| &controller.uid).chain(&self.references).any(|owner| **owner == *uid)
    }
}

impl Writer<'_> {
    pub(super) fn is_named_by(&self, owner: Option<&Named>) -> bool {
        owner.is_some_and(|owner| *owner.namespace == *self.namespace && *owner.name == *self.name)
    }
}
