//! One credential with the names of what it references.

use itwin_api::{credential::ITwinServiceCredential, digest, secret_keys};
use itwin_core::{object::ObjectKey, requests::Requester};
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
}

/// Digest of the client Secret's name with the keys that are read of it, as the token Secret records it.
#[must_use]
pub fn client_reference_digest(references: &References<'_>) -> String {
    digest::sha256_hex([client_reference(references).as_str()])
}

/// The client of a credential, as the queue knows it.
#[must_use]
pub fn requester(references: &References<'_>) -> Requester {
    Requester { namespace: intern(&references.client.namespace), secret: intern(&client_reference(references)) }
}

/// The client Secret with the keys that are read of it: one Secret can hold several clients.
#[must_use]
pub fn client_reference(references: &References<'_>) -> String {
    let keys = &references.credential.spec.client_credentials_ref;
    let names = [&keys.client_id_key, &keys.client_secret_key, &keys.private_key_key, &keys.username_key];
    let names = names.into_iter().chain([&keys.password_key]).map(String::as_str);
    // named only where they differ from the default, so that the reference is that of earlier versions
    let defaults = [(&keys.key_id_key, "key_id"), (&keys.certificate_key, "certificate")];
    let renamed =
        defaults.iter().filter(|(key, default)| key != default).map(|(key, default)| format!(",{default}={key}"));
    // neither a name nor a key holds a slash, a comma or an equals sign
    let names = names.collect::<Vec<_>>().join(",");
    format!("{}/{names}{}", references.client.name, renamed.collect::<String>())
}
