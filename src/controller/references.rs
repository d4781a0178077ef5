//! One credential with the names of what it references.

use itwin_api::{credential::ITwinServiceCredential, secret_keys};
use itwin_core::{fingerprint, object::ObjectKey, requests::Requester, revisions};
use kube::ResourceExt;

use crate::observe::intern::intern;

/// One credential with the names of what it references.
pub struct References<'a> {
    /// The credential.
    pub credential: &'a ITwinServiceCredential,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Its UID.
    pub uid: String,
    /// The Secret to write.
    pub target: ObjectKey,
    /// The client Secret.
    pub client: ObjectKey,
}

impl<'a> References<'a> {
    /// Names what a credential references.
    #[must_use]
    pub fn new(credential: &'a ITwinServiceCredential) -> Self {
        let namespace = credential.namespace().unwrap_or_default();
        Self {
            key: ObjectKey::new(&namespace, credential.name_any()),
            uid: credential.uid().unwrap_or_default(),
            target: ObjectKey::new(&namespace, credential.target_name()),
            client: ObjectKey::new(&namespace, &credential.spec.client_credentials_ref.name),
            credential,
        }
    }

    /// The value of the renew annotation.
    #[must_use]
    pub fn renew_annotation(&self) -> Option<&String> {
        self.credential.annotations().get(secret_keys::RENEW)
    }

    /// The resourceVersion at which watches show it, as a number.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.credential.metadata.resource_version.as_deref().and_then(revisions::parse).unwrap_or_default()
    }

    /// The first finalizers that hold the credential, if it is being deleted.
    #[must_use]
    pub fn deletion(&self) -> Option<&'a [String]> {
        let metadata = &self.credential.metadata;
        metadata.deletion_timestamp.as_ref().map(|_| metadata.finalizers.as_deref().unwrap_or_default())
    }
}

/// The client of a credential, as the queue knows it.
#[must_use]
pub fn requester(references: &References<'_>) -> Requester {
    let keys = &references.credential.spec.client_credentials_ref;
    Requester {
        namespace: intern(&references.client.namespace),
        secret: intern(&fingerprint::client_reference_text(keys)),
    }
}
