//! What a failed attempt depended on: as long as that is the same, the next one waits for the end of the backoff.

use std::sync::Arc;

use crate::object::ObjectVersion;

/// How often an authority changed in a way that may make an attempt succeed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AuthorityRevision {
    /// Changes of its spec, endpoints or keys; zero where it is not there.
    pub revision: u32,
    /// How often its circuit closed again.
    pub recoveries: u32,
}

/// The client Secret, as far as an attempt depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientKey {
    /// Nothing is known of it.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// It has this version, and was not read or is of no use.
    Version(ObjectVersion),
    /// It was read and holds the client's credentials with this digest: that it is labelled is no reason for an attempt.
    Content(Arc<str>),
    /// It must not be read, for this reason.
    NotAllowed(String),
}

/// The Secret to write, as far as an attempt depends on it. That it was read since is no reason for another attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum TargetKey {
    /// There is none, or it was not read.
    #[default]
    Absent,
    /// It may be written.
    Writable,
    /// It must not be written, for this reason.
    NotOwned(String),
}

/// What an attempt for one spec depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RetryKey {
    /// The authority.
    pub authority: AuthorityRevision,
    /// The client Secret.
    pub client: ClientKey,
    /// The Secret to write.
    pub target: TargetKey,
}
