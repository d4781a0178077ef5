//! Trust in the Secret to write: whether it holds the token that was written, as long as no read has shown that.
//!
//! Managed fields show who wrote the data, and not what admission made of it in the same write. So they prove nothing once a
//! write was answered with something else than was sent, or was not answered; nor do they at a start, unless the status of
//! before says that the Secret held this token.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::credential::CredentialStatus;
use itwin_oauth::sensitive::Sensitive;

use super::{INHERITED_BACKOFF, RetryState};
use crate::{last_held::LastHeld, status, token::TokenMetadata};

/// In a conflict the first read waits for at most this fraction of what is left of the token: 1/6, as after a failure.
const LEFT_FRACTION: i32 = 6;

/// What is not certain about a version that was not read.
#[derive(Default)]
pub(super) struct Trust {
    /// A write may have made something else of the Secret: who wrote the data, as managed fields say, proves nothing.
    is_uncertain: bool,
    /// Whether the token is the one that was written is not known.
    is_token_untrusted: bool,
    /// What the status said at the start, until this process knows more.
    reported: Option<Reported>,
    /// The first read of the data waits until then.
    read_at: Option<DateTime<Utc>>,
}

/// What a status of an earlier process says of the token.
struct Reported {
    /// When the token was issued that the Secret held.
    issued_at: Option<DateTime<Utc>>,
    /// That token was good.
    is_ready: bool,
}

impl Trust {
    /// What a start takes over. What an earlier process could not read, or saw changed repeatedly, is uncertain; in a
    /// conflict, the first read waits, since a policy of the whole cluster may be the other writer.
    pub(super) fn recall(status: &CredentialStatus, is_uncertain: bool, read_at: Option<DateTime<Utc>>) -> Self {
        // of a credential without a status nothing was issued
        let reported = status
            .observed_generation
            .map(|_| Reported { issued_at: status::vouched_issue(status), is_ready: status::is_ready(status) });
        Self { is_uncertain, is_token_untrusted: false, reported, read_at }
    }

    /// Whether the data may have been changed by a write of the operator.
    pub(super) fn is_uncertain(&self) -> bool {
        self.is_uncertain
    }

    /// When the first read of the data may be made, if that is to come: a later time was noted before the clock was set back.
    pub(super) fn read_not_before(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.read_at.filter(|at| *at > now && *at - now <= INHERITED_BACKOFF)
    }

    /// The data was read, or is written again.
    pub(super) fn read(&mut self) {
        self.read_at = None;
    }

    /// The Secret holds the token that was written.
    pub(super) fn regained(&mut self) {
        (self.is_token_untrusted, self.reported) = (false, None);
    }

    /// What the operator made of the Secret is known: this version of it was read or written, and holds that.
    pub(super) fn certain(&mut self) {
        self.is_uncertain = false;
    }

    /// A read shows that the Secret does not hold it: what is written over that is not trusted either.
    pub(super) fn lost(&mut self) {
        (self.is_token_untrusted, self.reported) = (true, None);
    }
}

impl RetryState {
    /// Whether nothing speaks against the token of the Secret, if one counts: at a start, the status must say that the Secret
    /// held it.
    #[must_use]
    pub fn vouches_for(&self, token: Option<&TokenMetadata>) -> bool {
        let Some((reported, token)) = self.trust.reported.as_ref().zip(token) else { return true };
        reported.issued_at == Some(token.issued_at)
    }

    /// Whether the token of the Secret must not count before its data is read. At a start, one that was never
    /// reported to be good does not; another one does while it is being read.
    #[must_use]
    pub fn distrusts_token(&self, token: Option<&TokenMetadata>) -> bool {
        let was_ready = self.trust.reported.as_ref().is_some_and(|reported| reported.is_ready);
        self.trust.is_token_untrusted || !(was_ready || self.vouches_for(token))
    }

    /// The token that the Secret held when it was read last, where nothing more is known of the Secret: one that must not
    /// count before its data is read does not count while it cannot be read.
    #[must_use]
    pub fn held_unread(&self) -> Option<&TokenMetadata> {
        let last = self.last_held().map(|last| &last.token_metadata);
        last.filter(|&last| !self.distrusts_token(Some(last)))
    }

    /// The answer to a write was lost, so that what it made of the Secret to write is not known. Managed fields still show the
    /// operator as the writer, so that the data is read.
    pub fn target_uncertain(&mut self) {
        self.trust.is_uncertain = true;
    }

    /// The same where a token was written; `was_good` says whether a good one was there before.
    pub fn token_uncertain(&mut self, was_good: bool) {
        self.trust.is_uncertain = true;
        self.trust.is_token_untrusted |= !was_good;
    }

    /// A write made something else of the Secret to write than what was sent, as admission may. The answer has this `token`
    /// and records this of it; `was_verified` says whether the token in it was good before. Where that is not the one that
    /// was written, it does not count until a read shows more.
    pub fn target_written_otherwise(
        &mut self,
        token: Option<&Sensitive>,
        recorded: Option<&TokenMetadata>,
        was_verified: bool,
    ) {
        let held = self.last_held.as_ref().and_then(|last| Some((last.record.as_ref()?, &last.token_metadata)));
        let is_other = match held {
            Some((record, token_metadata)) => {
                let is_same = token.is_some_and(|token| record.is_of(token));
                !is_same || recorded.is_some_and(|recorded| recorded != token_metadata)
            }
            // it was trusted for who wrote it; what was not is as unknown as before
            None => was_verified,
        };
        self.was_target_there = true;
        self.trust.is_uncertain = true;
        if is_other {
            self.trust.lost();
        } else if held.is_some() {
            self.trust.regained();
        }
    }

    /// Nothing is read any more of a credential that is being deleted: reads that failed are no longer reported. Where
    /// others wrote the data (`is_suspect`), it stays reported that it could not be read, since no one knows what it is. Where
    /// nothing describes the token (`is_undescribed`), the data is read again, maybe together with the client Secret: these
    /// reads wait.
    pub fn nothing_to_read(&mut self, is_suspect: bool, is_undescribed: bool) {
        if !is_undescribed {
            self.reads.client = None;
        }
        if !(is_suspect || is_undescribed) {
            self.reads.target_data = None;
        }
    }
}

/// The wait before the first attempt after a start, and in a conflict before the first read. The UID spreads it.
pub(super) fn inherited_wait(uid: &str) -> TimeDelta {
    let spread = INHERITED_BACKOFF.num_milliseconds() as f64 * itwin_api::digest::unit_interval(["start", uid]);
    TimeDelta::milliseconds(spread as i64)
}

/// The same in a conflict, which holds up no renewal: it is short next to what is left of the token.
pub(super) fn within_what_is_left(wait: TimeDelta, last_held: Option<&LastHeld>, now: DateTime<Utc>) -> TimeDelta {
    last_held
        .map_or(wait, |held| wait.min((held.token_metadata.expires_at - now) / LEFT_FRACTION).max(TimeDelta::zero()))
}
