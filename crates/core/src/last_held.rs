//! What a process remembers of the token that a Secret held when it was written or read last.
//!
//! It proves that the token in a Secret is still that one, whatever became of the annotations and of the other keys, so
//! that those are restored without a token request; and that a token which is issued again is the same.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use itwin_api::{credential::ITwinServiceCredential, secret_keys};
use itwin_oauth::sensitive::Sensitive;

use crate::{
    desired_secret, fingerprint,
    token::{Content, Description, TokenMetadata},
};

/// The token that the Secret held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastHeld {
    /// What was recorded about it.
    pub token_metadata: TokenMetadata,
    /// What else is needed to write the Secret again; `None` where only the metadata of the Secret was read.
    pub record: Option<Record>,
    /// What takes the place of the record there.
    pub sealed: Option<Box<Sealed>>,
}

/// What the annotations said of a token that was not read. Their digest covers the token too: it proves later that the
/// Secret still holds it, also once others have removed the annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// What the token was issued for.
    pub description: Description,
    /// Digest of the client's credentials, keyed by the token.
    pub client_fingerprint: Arc<str>,
    /// Digest of the renew annotation that it was requested for.
    pub renewed_for: Option<Arc<str>>,
    /// Digest of the data and of the annotations that describe it.
    pub digest: Arc<str>,
}

/// What else was recorded about a token, and what the token is recognized by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Digest of the token.
    token: Arc<str>,
    /// What it was issued for.
    pub description: Description,
    /// Digest of the client's credentials, keyed by the token.
    pub client_fingerprint: Arc<str>,
    /// Digest of the renew annotation that it was requested for.
    pub renewed_for: Option<Arc<str>>,
}

impl Record {
    /// What is recorded of this token.
    #[must_use]
    pub fn new(
        token: &Sensitive,
        description: Description,
        client_fingerprint: &str,
        renewed_for: Option<Arc<str>>,
    ) -> Self {
        let token = fingerprint::token(token).into();
        Self { token, description, client_fingerprint: client_fingerprint.into(), renewed_for }
    }

    /// Whether it is about this token.
    #[must_use]
    pub fn is_of(&self, token: &Sensitive) -> bool {
        *self.token == *fingerprint::token(token)
    }
}

impl LastHeld {
    /// What is remembered of a token that is written.
    #[must_use]
    pub fn written(content: &Content) -> Self {
        let Content { token, token_metadata, description, client_fingerprint, renewed_for, .. } = content;
        let record = Record::new(token, description.clone(), client_fingerprint, renewed_for.clone());
        Self { token_metadata: token_metadata.clone(), record: Some(record), sealed: None }
    }

    /// Whether it may prove that a Secret holds this token.
    #[must_use]
    pub fn is_proof(&self) -> bool {
        self.record.is_some() || self.sealed.is_some()
    }

    /// What the token was issued for; `None` where nothing but its times is remembered.
    #[must_use]
    pub fn description(&self) -> Option<&Description> {
        let recorded = self.record.as_ref().map(|record| &record.description);
        recorded.or_else(|| self.sealed.as_ref().map(|sealed| &sealed.description))
    }

    /// When this token expires, if it is the one; what is stated later of the same token does not count.
    #[must_use]
    pub fn expiry_of(&self, token: &Sensitive) -> Option<DateTime<Utc>> {
        self.record.as_ref().filter(|record| record.is_of(token)).map(|_| self.token_metadata.expires_at)
    }

    /// All that the Secret is to hold again for the token that it holds; `None` where that is not this one.
    #[must_use]
    pub fn content(&self, token: &Sensitive) -> Option<Content> {
        let record = self.record.as_ref().filter(|record| record.is_of(token))?;
        Some(Content {
            token: token.clone(),
            token_metadata: self.token_metadata.clone(),
            description: record.description.clone(),
            client_fingerprint: record.client_fingerprint.clone(),
            renewed_for: record.renewed_for.clone(),
            checked_with: None,
            counted: None,
        })
    }

    /// The same where the token was not read before: the digest of what was sealed proves that it is this one. `None` also
    /// where templates have changed since, which the digest covers.
    #[must_use]
    pub fn sealed_content(&self, token: &Sensitive, credential: &ITwinServiceCredential) -> Option<Content> {
        let sealed = self.sealed.as_ref()?;
        let content = Content {
            token: token.clone(),
            token_metadata: self.token_metadata.clone(),
            description: sealed.description.clone(),
            client_fingerprint: sealed.client_fingerprint.clone(),
            renewed_for: sealed.renewed_for.clone(),
            checked_with: None,
            counted: None,
        };
        let data = desired_secret::data(credential, &content).ok()?;
        let annotations = desired_secret::all_annotations(credential, &content, &data);
        let is_verified = annotations.get(secret_keys::CONTENT).is_some_and(|digest| **digest == *sealed.digest);
        is_verified.then_some(content)
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::samples::{content, templated};

    #[test]
    fn token_that_was_not_read_is_verified_by_the_digest_that_its_annotations_had() {
        let (template, content) = ("token {{ access_token }}", content());
        let written_for = templated(template);
        let data = desired_secret::data(&written_for, &content).expect("a valid template");
        let annotations = desired_secret::all_annotations(&written_for, &content, &data);
        let sealed = Sealed {
            description: content.description.clone(),
            client_fingerprint: content.client_fingerprint.clone(),
            renewed_for: content.renewed_for.clone(),
            digest: annotations[secret_keys::CONTENT].as_str().into(),
        };
        let token_metadata = content.token_metadata.clone();
        let held = LastHeld { token_metadata, record: None, sealed: Some(Box::new(sealed)) };
        let again = held.sealed_content(&content.token, &written_for).expect("the same token");
        assert_eq!(LastHeld::written(&again), LastHeld::written(&content));
        let another = Sensitive::new("another".to_owned());
        assert!(held.sealed_content(&another, &written_for).is_none());
        assert!(held.sealed_content(&content.token, &templated("another")).is_none(), "it was for another template");
        let mut longer = held.clone();
        longer.token_metadata.expires_at += chrono::TimeDelta::hours(1);
        assert!(longer.sealed_content(&content.token, &written_for).is_none());
        let unsealed = LastHeld { sealed: None, ..held };
        assert!(unsealed.sealed_content(&content.token, &written_for).is_none());
    }

    #[test]
    fn what_a_token_was_issued_for_is_remembered_whether_it_was_read_or_sealed() {
        let content = content();
        let held = LastHeld::written(&content);
        assert_eq!(held.description(), Some(&content.description));
        let sealed = Sealed {
            description: content.description.clone(),
            client_fingerprint: content.client_fingerprint.clone(),
            renewed_for: None,
            digest: "digest".into(),
        };
        let of_status = LastHeld { record: None, ..held };
        assert_eq!(of_status.description(), None, "a status may have been edited");
        let sealed = LastHeld { sealed: Some(Box::new(sealed)), ..of_status };
        assert_eq!(sealed.description(), Some(&content.description));
    }

    #[test]
    fn content_is_what_was_written_for_the_same_token_and_nothing_for_another() {
        let content = content();
        let held = LastHeld::written(&content);
        let again = held.content(&content.token).expect("the same token");
        assert_eq!(LastHeld::written(&again), held);
        assert_eq!(again.description, content.description);
        assert!(held.content(&Sensitive::new("another".to_owned())).is_none());
        assert!(LastHeld { record: None, ..held }.content(&content.token).is_none());
    }
}
