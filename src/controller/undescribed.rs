//! A Secret whose annotations do not describe its token as it was written, until the client Secret was read: both together
//! may verify the token.

use chrono::{DateTime, Utc};
use itwin_api::credential::ITwinServiceCredential;
use itwin_core::{
    lost_annotations::{self, Guess},
    object::ObjectVersion,
    token::Content,
};
use itwin_oauth::sensitive::Sensitive;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use crate::observe::{
    client_secret::ClientMaterial,
    target::{self, SecretMetadata},
};

/// What was read of such a Secret.
pub struct Undescribed {
    /// Its data and annotations.
    secret: Secret,
    token: Sensitive,
}

impl Undescribed {
    /// The Secret that holds this token, if annotations are missing that may be restored.
    #[must_use]
    pub fn new(secret: &Secret, token: &Sensitive) -> Option<Self> {
        let annotations = secret.metadata.annotations.as_ref()?;
        if !lost_annotations::may_be_restored(annotations) {
            return None;
        }
        let metadata = ObjectMeta { annotations: Some(annotations.clone()), ..ObjectMeta::default() };
        let secret = Secret { metadata, data: secret.data.clone(), ..Secret::default() };
        Some(Self { secret, token: token.clone() })
    }

    /// All that was written for the token; `None` where that is not verified by the client Secret as it was read, which has
    /// this version.
    #[must_use]
    pub fn content(
        mut self,
        credential: &ITwinServiceCredential,
        (client, client_version): (&ClientMaterial, &ObjectVersion),
        issued_at: Option<DateTime<Utc>>,
    ) -> Option<Content> {
        let annotations = self.secret.metadata.annotations.take()?;
        let client_fingerprint = client.fingerprint(&self.token);
        let guess = Guess {
            credential,
            client_fingerprint: &client_fingerprint,
            client_version,
            client_id: client.shown_id(),
            issued_at,
        };
        let restored = lost_annotations::restored(self.secret.data.as_ref()?, &annotations, &guess)?;
        self.secret.metadata.annotations = Some(restored);
        let secret_metadata = SecretMetadata::new(&self.secret.metadata);
        target::last_held(&secret_metadata, &self.secret, Some(&self.token))?.content(&self.token)
    }
}
