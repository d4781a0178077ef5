//! Whether the token that was kept was issued to the client as it is, which a read of the client Secret shows: it is read
//! once for that, and not before each attempt.

use std::sync::Arc;

use super::RetryState;
use crate::{object::ObjectVersion, token::Content};

/// What a read of the client Secret showed of a token that was kept. It is forgotten once the spec changes, which says
/// what keys are read.
pub(super) struct Compared {
    /// The version of the client Secret.
    version: ObjectVersion,
    /// Digest of the client's credentials that the token was issued for. The token is its key, so that it stands for both.
    client_fingerprint: Arc<str>,
    is_same: bool,
}

impl RetryState {
    /// The client Secret was read at this version. Notes whether the client in it is the one of the token that was kept.
    pub fn unwritten_compared(&mut self, version: &ObjectVersion, is_same: impl FnOnce(&Content) -> bool) {
        let compared = |kept: &Content| Compared {
            version: version.clone(),
            client_fingerprint: kept.client_fingerprint.clone(),
            is_same: is_same(kept),
        };
        self.compared = self.unwritten.as_deref().map(compared).map(Box::new);
    }

    /// Whether the token that was kept was issued to the client that this version of the client Secret holds; `None` if that
    /// was not found out.
    #[must_use]
    pub fn is_unwritten_of(&self, version: &ObjectVersion) -> Option<bool> {
        let fingerprint = &self.unwritten.as_ref()?.client_fingerprint;
        let compared = self.compared.as_ref()?;
        (compared.version == *version && compared.client_fingerprint == *fingerprint).then_some(compared.is_same)
    }
}
