//! Everything that a decision may depend on, as plain data.

mod history;
mod target;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

pub use self::{
    history::{History, Reads},
    target::{Drift, Form, Held, Integrity, Target},
};
use crate::{
    failure::Failure, object::ObjectVersion, policy::Policy, restart::Restart, retry_key::RetryKey,
    token::TokenMetadata,
};

/// What is known about one credential and its surroundings.
#[derive(Clone, Debug)]
pub struct ObservedState {
    /// UID of the credential: the seed of its jitter.
    pub uid: String,
    /// What the spec asks for.
    pub desired: Desired,
    /// The spec says to leave everything as it is.
    pub suspend: bool,
    /// A renewal that a user asked for through the annotation and did not get yet.
    pub renewal_request: Option<RenewalRequest>,
    /// The authority that the spec names.
    pub authority: Authority,
    /// The client Secret.
    pub client: Client,
    /// The Secret to write.
    pub target: Target,
    /// Earlier attempts.
    pub history: History,
    /// What an attempt depends on.
    pub retry_key: RetryKey,
    /// A token request may be sent now: the authority's queue admitted it.
    pub is_admitted: bool,
    /// A token that was issued and is not written yet: while it fits, none needs to be requested.
    pub unwritten: Option<Unwritten>,
    /// What is to be done about workloads that are restarted for the token.
    pub restart: Restart,
}

/// A token that was issued and is not written yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwritten {
    /// What it was issued for.
    pub token_metadata: TokenMetadata,
    /// Whether it was issued to the client as it is; `None` unless this version of the client Secret was read.
    pub is_of_client: Option<bool>,
    /// Whether the authority still allows it, as it is configured now.
    pub is_checked: bool,
}

/// A renewal that a user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalRequest {
    /// No attempt was made for it yet: it is made regardless of the backoff, once.
    pub fresh: bool,
    /// Not before this instant: a user, or a program that changes the annotation in a loop, gets one request in a while.
    pub not_before: Option<DateTime<Utc>>,
}

/// What the spec asks for.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Digest of what is requested.
    pub request: String,
    /// The name of the authority.
    pub authority: String,
    /// Digest of the name of the client Secret and of the keys that are read of it.
    pub client_reference: String,
    /// The Secret to write, `namespace/name`, for messages.
    pub secret: String,
    /// Why the templates are invalid, if they are.
    pub template_failure: Option<Failure>,
    /// When to renew.
    pub policy: Policy,
}

/// The authority that the spec names.
#[derive(Clone, Debug)]
pub enum Authority {
    /// Not reconciled yet, as right after a start.
    Pending,
    /// Whether it exists is not known, for this reason.
    Unlisted(Failure),
    /// It cannot be asked, for this reason.
    Unavailable(Failure),
    /// It allows this, and cannot be asked: its endpoints and keys are not known yet.
    Unanswered {
        /// Its issuer identifier, as it is configured.
        issuer: String,
        /// Why the last try to fetch them failed; `None` as long as none was made.
        failure: Option<Failure>,
    },
    /// It must not be asked for this, though what it once issued stays good.
    Forbids(Failure),
    /// It can be asked.
    Ready {
        /// Its issuer identifier.
        issuer: String,
    },
}

/// The client Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// Its data has not been read; its version, if a watch showed it.
    Unread {
        /// Its version.
        version: Option<ObjectVersion>,
    },
    /// A watch says that there is none. Each attempt reads for itself, since an absence that is over would be believed
    /// indefinitely.
    Missing,
    /// This version was read before, and held what the token in the Secret was requested with.
    Verified {
        /// Its version.
        version: ObjectVersion,
    },
    /// It is missing, or its content is of no use.
    Unusable(Failure),
    /// It can be used.
    Usable {
        /// Its version.
        version: ObjectVersion,
        /// Whether the held token was asked for with the same content; `None` where no token is held.
        same_as_held: Option<bool>,
    },
}

impl Desired {
    /// Whether a token was requested for this, of the authority as far as it is known.
    #[must_use]
    pub fn is_answered_by(&self, token_metadata: &TokenMetadata, authority: &Authority) -> bool {
        let other_issuer = authority.issuer().is_some_and(|issuer| *issuer != *token_metadata.issuer);
        let is_same = |recorded: &Option<Arc<str>>, desired: &str| recorded.as_deref().is_none_or(|is| is == desired);
        *token_metadata.request == *self.request
            && !other_issuer
            && is_same(&token_metadata.authority, &self.authority)
            && is_same(&token_metadata.client_reference, &self.client_reference)
    }
}

impl Authority {
    /// The issuer, if the authority can be asked.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        match self {
            Self::Ready { issuer } => Some(issuer),
            _ => None,
        }
    }
}

impl Client {
    /// The version of the client Secret, if it is known and may be of use.
    #[must_use]
    pub fn version(&self) -> Option<&ObjectVersion> {
        match self {
            Self::Unread { version } => version.as_ref(),
            Self::Verified { version } | Self::Usable { version, .. } => Some(version),
            Self::Missing | Self::Unusable(_) => None,
        }
    }
}

impl ObservedState {
    /// The token that the Secret holds for the current spec, expired or not.
    #[must_use]
    pub fn held_for_spec(&self) -> Option<&TokenMetadata> {
        self.held().filter(|&token_metadata| self.desired.is_answered_by(token_metadata, &self.authority))
    }

    /// The token that the Secret holds for the current spec and for the client as it is: another one must not expire
    /// earlier. Where the client changed, its tokens may live for a shorter time.
    #[must_use]
    pub fn held_of_client(&self, now: DateTime<Utc>) -> Option<&TokenMetadata> {
        let comparable = self.held_for_spec().filter(|held| !held.is_of_another_clock(now));
        comparable.filter(|token_metadata| match &self.client {
            Client::Usable { same_as_held: Some(same), .. } => *same,
            // its content is the same, whatever was changed besides
            Client::Verified { .. } => true,
            client => client.version().is_none_or(|version| *version == token_metadata.client_version),
        })
    }

    /// Whether a user asked for a renewal for which no attempt was made yet: it waits for no backoff.
    #[must_use]
    pub fn is_asked_for(&self, now: DateTime<Utc>) -> bool {
        self.renewal_request.is_some_and(|request| request.fresh && request.is_due(now))
    }

    /// Whether a token is held that a new one is compared with, and was not read.
    #[must_use]
    pub fn is_held_unread(&self, now: DateTime<Utc>) -> bool {
        let is_unread = matches!(&self.target, Target::Ours(held) if !held.form.is_read());
        is_unread && self.held_of_client(now).is_some()
    }

    /// Whether the token in the Secret is known to be the one that the operator wrote.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        matches!(&self.target, Target::Ours(Held { data: Integrity::Verified, .. }))
    }

    /// Whether the Secret is known to hold a token that is valid and for the current spec.
    #[must_use]
    pub fn holds_good(&self, now: DateTime<Utc>) -> bool {
        self.is_verified() && self.held_for_spec().is_some_and(|token_metadata| token_metadata.expires_at > now)
    }

    /// Whether something of the Secret differs from what it should be.
    #[must_use]
    pub fn has_drifted(&self) -> bool {
        matches!(&self.target, Target::Ours(held) if held.drift != Drift::None)
    }

    /// Whether its owner reference is not as it should be.
    #[must_use]
    pub fn lacks_owner(&self) -> bool {
        matches!(&self.target, Target::Ours(held) if held.drift == Drift::Ownership)
    }

    /// Whether its data, or what describes the token in it, is not as it should be.
    #[must_use]
    pub fn has_other_data(&self) -> bool {
        let differs = |held: &Held| {
            held.data == Integrity::Tampered || held.drift == Drift::Data || held.token_metadata.is_none()
        };
        matches!(&self.target, Target::Ours(held) if differs(held))
    }

    /// When the token in the Secret, for whatever spec, expires or has expired; `None` where there is none.
    #[must_use]
    pub fn held_until(&self) -> Option<DateTime<Utc>> {
        self.held().map(|token_metadata| token_metadata.expires_at)
    }

    /// The token that the Secret holds, or held when it was read last, for whatever spec.
    #[must_use]
    pub fn held(&self) -> Option<&TokenMetadata> {
        match &self.target {
            Target::Ours(Held { token_metadata, data, .. }) if *data != Integrity::Tampered => token_metadata.as_ref(),
            Target::Unread { last } => last.as_ref(),
            _ => None,
        }
    }

    /// Whether the Secret holds a token, but one for another spec or client.
    #[must_use]
    pub fn holds_another(&self) -> bool {
        let is_of_another_client = matches!(self.client, Client::Usable { same_as_held: Some(false), .. });
        self.held().is_some() && (is_of_another_client || self.held_for_spec().is_none())
    }

    /// How long the token in the Secret, for whatever spec, is still valid; zero where there is none.
    #[must_use]
    pub fn left(&self, now: DateTime<Utc>) -> TimeDelta {
        self.held_until().map_or(TimeDelta::zero(), |until| (until - now).max(TimeDelta::zero()))
    }
}

impl RenewalRequest {
    /// Whether the renewal may be made now.
    #[must_use]
    pub fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.not_before.is_none_or(|until| until <= now)
    }
}
