//! The Secret to write, as far as it was observed.

use std::sync::Arc;

use crate::{failure::Failure, token::TokenMetadata};

/// The Secret to write.
#[derive(Clone, Debug)]
pub enum Target {
    /// Not read yet, or not since it may have changed.
    Unread {
        /// The token that it held when it was read last, as far as is known.
        last: Option<TokenMetadata>,
    },
    /// Not read yet, of a credential that nothing was ever reported of: most likely there is none. It is read once
    /// a request was admitted, so that what waits costs no call.
    Presumed,
    /// There is none.
    Absent,
    /// There is one that we must not write.
    NotOwned(Failure),
    /// There is one that the credential may take over: it was offered, or its owner is gone. No token in it counts.
    Adoptable(Form),
    /// There is one that we may write.
    Ours(Held),
}

/// A Secret that we may write.
#[derive(Clone, Debug)]
pub struct Held {
    /// What its annotations say about the token in it.
    pub token_metadata: Option<TokenMetadata>,
    /// Whether its data is what we wrote.
    pub data: Integrity,
    /// What else differs from what it should be.
    pub drift: Drift,
    /// Whether it can take a token.
    pub form: Form,
}

/// Whether a Secret can take a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// It was not read, and nothing says that it cannot.
    Presumed,
    /// It must be read to find out.
    Unread,
    /// This process never observed of which type it is: it must be read before anything of it is written.
    TypeUnknown,
    /// It was read and can.
    Writable,
    /// It was read and is immutable.
    Immutable,
    /// It is of this type, as a read or the answer to a write showed. Nothing of it is written.
    OtherType(Arc<str>),
}

impl Form {
    /// Whether the whole Secret was read, or need not be.
    #[must_use]
    pub fn is_read(&self) -> bool {
        !matches!(self, Self::Presumed | Self::Unread | Self::TypeUnknown)
    }
}

/// Whether a Secret's data is what we wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// No one else wrote it.
    Verified,
    /// It may have been changed since it was read last: read it.
    Unverified,
    /// Another field manager wrote some of it, or may have: read it.
    Suspect,
    /// Whether it was ever what we wrote is not known: a write made something else of it, or was the first one and not
    /// answered. Read it, and count on nothing before.
    Untrusted,
    /// It differs from what we wrote.
    Tampered,
}

impl Integrity {
    /// Whether a read must show what it is.
    #[must_use]
    pub fn is_unread(self) -> bool {
        matches!(self, Self::Unverified | Self::Suspect | Self::Untrusted)
    }
}

/// What of a Secret with a good token differs from what it should be, and is reverted without a token request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    /// Nothing.
    None,
    /// The owner reference, and so whether the Secret outlives the credential; other parts may differ too.
    Ownership,
    /// Labels or annotations.
    Metadata,
    /// Keys of the data, which must be read for that.
    Data,
}
