//! What is concluded about the client Secret from what is known and was read of it.

use crate::{failure::Failure, object::ObjectVersion, observed::Client};

/// What a cache knows of a Secret.
#[derive(Clone, Copy, Debug)]
pub enum KnownVersion<'a> {
    /// Nothing.
    Unknown,
    /// There is none.
    Absent,
    /// It has this version.
    Present(&'a ObjectVersion),
}

/// A client Secret that was read.
#[derive(Clone, Copy, Debug)]
pub struct ReadClient<'a> {
    /// Its version.
    pub version: &'a ObjectVersion,
    /// Why its content is of no use, if it is of none.
    pub failure: Option<&'a Failure>,
    /// Whether the token in the Secret was requested with the same content; `None` where there is none to compare with.
    pub same_as_held: Option<bool>,
}

/// Everything that is known of a client Secret.
#[derive(Clone, Copy, Debug)]
pub struct ClientClues<'a> {
    /// What the cache knows.
    pub known: KnownVersion<'a>,
    /// What was read.
    pub read: Option<ReadClient<'a>>,
    /// It was to be read, and there is none.
    pub is_missing: bool,
    /// The version that was read before and held what the token in the Secret was requested with.
    pub verified: Option<&'a ObjectVersion>,
}

/// The state of a client Secret; `not_found` is the failure where there is none.
#[must_use]
pub fn client(clues: &ClientClues<'_>, not_found: impl FnOnce() -> Failure) -> Client {
    // one that was changed while a request was under way is read again before the next
    let is_current = |read: &ReadClient<'_>| match clues.known {
        KnownVersion::Present(version) => version == read.version,
        KnownVersion::Absent => false,
        KnownVersion::Unknown => true,
    };
    if let Some(read) = clues.read.filter(is_current) {
        return match read.failure {
            None => {
                // it was relabelled, perhaps, since the token was requested with this content
                let was_verified = (clues.verified == Some(read.version)).then_some(true);
                Client::Usable { version: read.version.clone(), same_as_held: read.same_as_held.or(was_verified) }
            }
            Some(failure) => Client::Unusable(failure.clone()),
        };
    }
    match clues.known {
        KnownVersion::Unknown => Client::Unread { version: None },
        KnownVersion::Absent if !clues.is_missing => Client::Missing,
        KnownVersion::Absent => Client::Unusable(not_found()),
        KnownVersion::Present(version) if clues.verified == Some(version) => {
            Client::Verified { version: version.clone() }
        }
        KnownVersion::Present(version) => Client::Unread { version: Some(version.clone()) },
    }
}

#[cfg(test)]
mod tests {
    use itwin_api::conditions::Reason;

    use super::*;

    fn state(clues: &ClientClues<'_>) -> Client {
        client(clues, || Failure::new(Reason::ClientCredentialsNotFound, "none"))
    }

    #[test]
    fn client_secret_is_what_the_cache_and_the_read_say_together() {
        let [old, new] = ["uid/1", "uid/2"].map(ObjectVersion::from);
        let useless = Failure::new(Reason::ClientCredentialsInvalid, "empty");
        let nothing = ClientClues { known: KnownVersion::Unknown, read: None, is_missing: false, verified: None };
        let present = ClientClues { known: KnownVersion::Present(&new), ..nothing };
        let absent = ClientClues { known: KnownVersion::Absent, ..nothing };
        let read = Some(ReadClient { version: &new, failure: None, same_as_held: Some(true) });
        let useless = Some(ReadClient { version: &new, failure: Some(&useless), same_as_held: None });
        let uncompared = Some(ReadClient { version: &new, failure: None, same_as_held: None });
        let stale = Some(ReadClient { version: &old, failure: None, same_as_held: None });
        let unread = Client::Unread { version: Some(new.clone()) };
        let usable = Client::Usable { version: new.clone(), same_as_held: Some(true) };
        let table = [
            (nothing, Client::Unread { version: None }),
            (ClientClues { read, ..nothing }, usable.clone()),
            (present, unread.clone()),
            (ClientClues { read, ..present }, usable.clone()),
            (ClientClues { read: uncompared, verified: Some(&new), ..present }, usable),
            (
                ClientClues { read: uncompared, verified: Some(&old), ..present },
                Client::Usable { version: new.clone(), same_as_held: None },
            ),
            (ClientClues { read: stale, ..present }, unread.clone()),
            (
                ClientClues { read: useless, ..present },
                Client::Unusable(Failure::new(Reason::ClientCredentialsInvalid, "empty")),
            ),
            (ClientClues { verified: Some(&new), ..present }, Client::Verified { version: new.clone() }),
            (ClientClues { verified: Some(&old), ..present }, unread),
            (absent, Client::Missing),
            (ClientClues { read, ..absent }, Client::Missing),
            (
                ClientClues { is_missing: true, ..absent },
                Client::Unusable(Failure::new(Reason::ClientCredentialsNotFound, "none")),
            ),
        ];
        for (number, (clues, expected)) in table.into_iter().enumerate() {
            assert_eq!(state(&clues), expected, "row {number}");
        }
    }
}
