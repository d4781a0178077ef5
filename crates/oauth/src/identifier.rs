//! The identifiers of a client and of its key, which are public, unless no one knows that the text is one.
//!
//! Users name the key of a Secret that an identifier is read from, and may name the key of a password. An identifier is
//! shown only if the name of the key says what it is. All others are handled as secrets.

use crate::sensitive::Sensitive;

/// An identifier that is sent to an authorization server.
#[derive(Clone)]
pub enum Identifier {
    /// It may be shown.
    Public(String),
    /// It may be a secret.
    Secret(Sensitive),
}

impl Identifier {
    /// The text, for the token request alone.
    #[must_use]
    pub fn sent(&self) -> &str {
        match self {
            Self::Public(text) => text,
            Self::Secret(text) => text.expose(),
        }
    }

    /// The text, if it may be shown.
    #[must_use]
    pub fn shown(&self) -> Option<&str> {
        match self {
            Self::Public(text) => Some(text),
            Self::Secret(_) => None,
        }
    }
}
