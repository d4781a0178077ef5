//! Whether a token that was issued before, and is not written yet, is still the one that is wanted.
//!
//! It is as good as one that is held: it stays good while authorities cannot be listed, or its own does not answer, or
//! the client Secret is not there, until it expires. No other one is requested as long as it is better than what the
//! Secret holds, also if it is soon to be renewed itself: a request may fail, and then the one at hand is what keeps
//! workloads going.

use chrono::{DateTime, Utc};

use crate::{
    observed::{Authority, Client, ObservedState, Unwritten},
    schedule,
    token::TokenMetadata,
};

/// Whether it is; `None` if only a read of the client Secret shows that.
pub(super) fn fits(unwritten: &Unwritten, observed: &ObservedState, now: DateTime<Utc>) -> Option<bool> {
    let token_metadata = &unwritten.token_metadata;
    let is_wanted = *token_metadata.request == *observed.desired.request
        && token_metadata.client_reference.as_deref() == Some(&*observed.desired.client_reference)
        && is_of_authority(token_metadata, observed)
        // an administrator may have tightened what it is checked with
        && unwritten.is_checked
        && is_better(token_metadata, observed, now);
    if is_wanted { is_of_client(unwritten, observed) } else { Some(false) }
}

/// Whether the authority is the one that issued it. An issuer which is configured to be the same need not answer once more,
/// as after an edit of its certificates: the token was verified then, and `is_checked` says that it would have to pass no
/// other checks now.
fn is_of_authority(token_metadata: &TokenMetadata, observed: &ObservedState) -> bool {
    let is_same = match &observed.authority {
        Authority::Ready { issuer } | Authority::Unanswered { issuer, .. } => **issuer == *token_metadata.issuer,
        Authority::Unlisted(_) => true,
        // its issuer is not known, or nothing new is written for what an administrator forbids
        Authority::Pending | Authority::Unavailable(_) | Authority::Forbids(_) => false,
    };
    is_same && token_metadata.authority.as_deref() == Some(&*observed.desired.authority)
}

/// Whether it is valid, and better than what the Secret holds: it expires no earlier, and later if it is to be renewed
/// itself.
fn is_better(token_metadata: &TokenMetadata, observed: &ObservedState, now: DateTime<Utc>) -> bool {
    let is_due = schedule::renew_at(token_metadata, &observed.desired.policy, &observed.uid) <= now;
    let expires_at = token_metadata.expires_at;
    let outlives = |until: DateTime<Utc>| until < expires_at || (until == expires_at && !is_due);
    expires_at > now && observed.held_of_client(now).is_none_or(|held| outlives(held.expires_at))
}

/// Whether it was issued to the client as it is. With the same version of the client Secret no read is needed. One that is
/// gone or of no use is no change, as for a token that is held.
fn is_of_client(unwritten: &Unwritten, observed: &ObservedState) -> Option<bool> {
    let is_gone = matches!(observed.client, Client::Missing | Client::Unusable(_));
    let is_same_version = observed.client.version() == Some(&unwritten.token_metadata.client_version);
    if is_gone || is_same_version { Some(true) } else { unwritten.is_of_client }
}
