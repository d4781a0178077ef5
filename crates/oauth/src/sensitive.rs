//! The one type that may hold a secret value.
//!
//! It has no `Debug`, `Display`, `Serialize` or `Deref`, so that a secret cannot reach a log line, an event or a
//! status by accident: code that needs the text must write `expose`, and a search for that word finds every place.
//! The memory is overwritten when the last clone of a value is dropped; clones share it, since a long token may be wanted
//! for thousands of credentials at the same time.

use std::sync::Arc;

use zeroize::Zeroizing;

/// A secret value: a client secret, a private key, a password or an access token.
#[derive(Clone, PartialEq, Eq)]
pub struct Sensitive(Arc<Zeroizing<String>>);

impl Sensitive {
    /// Takes ownership of the text; the caller must keep no other copy of it.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Arc::new(Zeroizing::new(text)))
    }

    /// The memory that the text takes, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// The text itself, for the token request, the signature check or the Secret that is written.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}
