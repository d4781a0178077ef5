//! What earlier attempts, reads and reverts leave for the next decision.

use chrono::{DateTime, Utc};

use crate::{action::Fetch, withheld::Withheld};

/// Earlier attempts.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// No attempt before this instant, as long as nothing relevant changed.
    pub not_before: Option<DateTime<Utc>>,
    /// When a token was requested last.
    pub requested_at: Option<DateTime<Utc>>,
    /// No read of this kind before this instant, since the last ones failed.
    pub reads: Reads<DateTime<Utc>>,
    /// No revert before this instant.
    pub revert_not_before: Option<DateTime<Utc>>,
    /// No token is requested for another spec or client than that of the one that is held before this instant, since
    /// many were.
    pub change_not_before: Option<DateTime<Utc>>,
    /// A Secret that others keep deleting or tampering with is not restored before this instant.
    pub restore_not_before: Option<DateTime<Utc>>,
    /// No renewal before this instant: the last one gave no token that would be better.
    pub renew_not_before: Option<DateTime<Utc>>,
    /// What of the template is withheld from the Secret, since the API server refuses it.
    pub withheld: Withheld,
    /// The last revert was refused since the Secret is immutable: its data waits.
    pub is_refused_as_immutable: bool,
    /// Nothing is remembered that the token in the Secret could be recognized by, as after a start.
    pub is_token_unknown: bool,
    /// The spec names another name or key since the client Secret was read, so that its expiry is not known.
    pub is_client_expiry_unread: bool,
    /// The data was trusted at the start for who wrote it, and is to be read once now.
    pub is_check_due: bool,
    /// The last read of the data failed.
    pub has_data_read_failed: bool,
    /// The API server lately said that there is no such credential, though watches still show it.
    pub is_gone: bool,
    /// A list lately showed it.
    pub is_known_absent: bool,
    /// The last attempt failed because the client Secret is missing or of no use.
    pub has_failed_for_client: bool,
}

/// Something for each kind of read.
#[derive(Clone, Debug)]
pub struct Reads<T> {
    /// Of the metadata of the Secret to write.
    pub target: Option<T>,
    /// Of its data.
    pub target_data: Option<T>,
    /// Of the client Secret.
    pub client: Option<T>,
}

impl<T> Default for Reads<T> {
    fn default() -> Self {
        Self { target: None, target_data: None, client: None }
    }
}

impl<T> Reads<T> {
    /// What belongs to reads of one kind.
    #[must_use]
    pub fn of(&self, what: Fetch) -> &Option<T> {
        match what {
            Fetch::Target => &self.target,
            Fetch::TargetData => &self.target_data,
            Fetch::Client => &self.client,
        }
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, what: Fetch) -> &mut Option<T> {
        match what {
            Fetch::Target => &mut self.target,
            Fetch::TargetData => &mut self.target_data,
            Fetch::Client => &mut self.client,
        }
    }

    /// All that there are.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.target, &self.target_data, &self.client].into_iter().flatten()
    }
}
