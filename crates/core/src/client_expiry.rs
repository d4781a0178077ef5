//! When the client's credentials expire, as the client Secret says, and when a status says so.

use chrono::{DateTime, TimeDelta, Utc};

use crate::messages_lifetime;

/// When the client's credentials expire, as the client Secret says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expires {
    /// Then.
    At(DateTime<Utc>),
    /// What it says is no time.
    Invalid,
}

/// When the client's credentials expire.
#[derive(Clone, Copy, Debug)]
pub struct ClientExpiry<'a> {
    /// The client Secret, `namespace/name`.
    pub secret: &'a str,
    /// The key that says so.
    pub key: &'a str,
    /// When.
    pub expires: Expires,
}

/// A status reports that the client's credentials expire from this long before they do.
const CLIENT_EXPIRY_NOTICE: TimeDelta = TimeDelta::days(14);

impl ClientExpiry<'_> {
    /// When, where it is a time.
    #[must_use]
    pub fn at(&self) -> Option<DateTime<Utc>> {
        match self.expires {
            Expires::At(at) => Some(at),
            Expires::Invalid => None,
        }
    }

    /// A sentence about it, from two weeks before. That it cannot be read keeps no one from a token: it is only said.
    #[must_use]
    pub fn notice(&self, now: DateTime<Utc>) -> Option<String> {
        let Some(at) = self.at() else { return Some(messages_lifetime::client_expiry_invalid(self.secret, self.key)) };
        match at - now {
            left if left <= TimeDelta::zero() => Some(messages_lifetime::client_expired(self.secret, at)),
            left if left <= CLIENT_EXPIRY_NOTICE => Some(messages_lifetime::client_expires(self.secret, at)),
            _ => None,
        }
    }

    /// The instant after which, by the clock alone, a status says something else about it.
    #[must_use]
    pub fn next_change(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let at = self.at()?;
        let begins = at.checked_sub_signed(CLIENT_EXPIRY_NOTICE);
        [begins, Some(at)].into_iter().flatten().filter(|at| *at > now).min()
    }
}
