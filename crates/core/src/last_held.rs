//! What a process remembers of the token that a Secret held when it was written or read last.
//!
//! It proves that the token in a Secret is still that one, whatever became of the annotations and of the other keys, so
//! that those are restored without a token request; and that a token which is issued again is the same.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use itwin_oauth::sensitive::Sensitive;

use crate::{
    fingerprint,
    token::{Content, Description, TokenMetadata},
};

/// The token that the Secret held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastHeld {
    /// What was recorded about it.
    pub token_metadata: TokenMetadata,
    /// What else is needed to write the Secret again; `None` where only the metadata of the Secret was read.
    pub record: Option<Record>,
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
        Self { token_metadata: token_metadata.clone(), record: Some(record) }
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
            counted: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::content;

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
