//! Token requests, the tokens that they gave, and the Secrets that hold them.

use std::borrow::Cow;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::conditions::Reason;

use super::RetryState;
use crate::{
    action::Fetch,
    backoff,
    client_expiry::Expires,
    conflict::Reverts,
    failure::Failure,
    last_held::{LastHeld, Sealed},
    object::ObjectVersion,
    observed::{Client, Drift, Held, Integrity, ObservedState, Reads, Target},
    renewal::RenewalClues,
    retry_key::ClientKey,
    secret_state::{SECRET_TYPE, shown_type},
    streak::Streak,
    token::{Content, TokenMetadata},
};

/// The longest wait after reads that failed: once the API server answers again, what is due is soon done.
const READ_CEILING: TimeDelta = TimeDelta::seconds(30);

/// Whether a client Secret that is missing or of no use is the reason.
pub(super) fn is_of_client(reason: Reason) -> bool {
    matches!(reason, Reason::ClientCredentialsNotFound | Reason::ClientCredentialsInvalid)
}

/// Token requests, and the tokens that they gave.
impl RetryState {
    /// When a token was requested last.
    #[must_use]
    pub fn requested_at(&self) -> Option<DateTime<Utc>> {
        self.requested_at
    }

    /// A token is requested for what was observed.
    pub fn requested(&mut self, observed: &ObservedState, now: DateTime<Utc>) {
        let follows_change = observed.holds_another() && !self.is_repeated(&observed.retry_key);
        self.requested_at = Some(now);
        self.edits.requested(follows_change, now);
        if observed.is_asked_for(now) {
            self.renewals.requested_at = Some(now);
        }
    }

    /// What was done for the renew annotation; `renewed_for` is what the Secret records of it.
    #[must_use]
    pub fn renewal_clues<'a>(&'a self, annotation: Option<&'a str>, renewed_for: Option<&'a str>) -> RenewalClues<'a> {
        RenewalClues {
            annotation,
            attempted: self.renewals.attempted.as_deref(),
            unfulfilled: self.renewals.unfulfilled.as_deref(),
            renewed_for,
            requested_at: self.renewals.requested_at,
        }
    }

    /// Whether a renewal that a user asked for was attempted and gave no token yet.
    #[must_use]
    pub fn has_unfulfilled_renewal(&self) -> bool {
        self.renewals.unfulfilled.is_some()
    }

    /// The token that was issued and is not written yet.
    #[must_use]
    pub fn unwritten(&self) -> Option<&Content> {
        self.unwritten.as_deref()
    }

    /// Keeps a token that could not be written yet.
    pub fn keep(&mut self, content: Box<Content>) {
        self.unwritten = Some(content);
    }

    /// Takes the token that was kept.
    #[must_use]
    pub fn take_unwritten(&mut self) -> Option<Box<Content>> {
        self.unwritten.take()
    }

    /// Drops the token that was kept, if it has expired.
    pub fn drop_expired(&mut self, now: DateTime<Utc>) {
        self.unwritten.take_if(|kept| kept.token_metadata.expires_at <= now);
    }

    /// Drops the token that was kept: it is not what is wanted.
    pub fn drop_unwritten(&mut self) {
        self.unwritten = None;
    }

    /// A token was written, which fulfils this value of the renew annotation.
    pub fn written(&mut self, renew_annotation: Option<&str>) {
        self.verified_client = None;
        self.better_token = None;
        self.reads = Reads::default();
        self.check_at = None;
        self.trust.read();
        self.was_suspended = false;
        self.fulfilled(renew_annotation);
        self.settled();
    }

    /// The credential is suspended.
    pub fn suspended(&mut self) {
        self.was_suspended = true;
    }

    /// Whether the next token is the first one after the credential was suspended: it was due while none was wanted.
    #[must_use]
    pub fn was_suspended(&self) -> bool {
        self.was_suspended
    }

    /// The Secret holds a token that is up to date: what was kept was written after all, or another one was.
    pub fn up_to_date(&mut self, renew_annotation: Option<&str>) {
        self.unwritten = None;
        self.was_suspended = false;
        self.fulfilled(renew_annotation);
    }

    fn fulfilled(&mut self, renew_annotation: Option<&str>) {
        self.renewals.unfulfilled = None;
        if let Some(value) = renew_annotation {
            self.renewals.attempted = Some(value.to_owned());
        }
    }
}

/// The Secrets.
impl RetryState {
    /// Whether this version of the Secret to write was found to hold what the operator wrote. `None` where no version was
    /// read or written: then who wrote the data says enough.
    #[must_use]
    pub fn is_target_verified(&self, version: &ObjectVersion) -> Option<bool> {
        let is_verified = self.verified_target.as_ref().map(|verified| verified == version);
        is_verified.or_else(|| self.trust.is_uncertain().then_some(false))
    }

    /// Whether this process found the Secret to write there, or wrote it. A write that failed shows neither.
    #[must_use]
    pub fn was_target_there(&self) -> bool {
        self.was_target_there
    }

    /// This version of the Secret to write holds what the operator wrote.
    pub fn target_verified(&mut self, version: ObjectVersion) {
        self.verified_target = Some(version);
        self.was_target_there = true;
        self.trust.regained();
        self.trust.certain();
    }

    /// The type of the Secret to write that has this version, if this process observed it.
    #[must_use]
    pub fn target_type(&self, version: &ObjectVersion) -> Option<&str> {
        let (observed, type_) = self.target_type.as_ref()?;
        (observed.uid() == version.uid()).then_some(&**type_)
    }

    /// A read of the Secret to write, or the answer to a write, shows that it has this type.
    pub fn target_type_observed(&mut self, version: &ObjectVersion, type_: Option<&str>) {
        let Some(type_) = type_.map(shown_type) else { return };
        let kept = if type_ == SECRET_TYPE { Cow::Borrowed(SECRET_TYPE) } else { Cow::Owned(type_.to_owned()) };
        self.target_type = Some((version.clone(), kept));
    }

    /// The version of the client Secret that was read and holds what the token was requested with.
    #[must_use]
    pub fn verified_client(&self) -> Option<&ObjectVersion> {
        self.verified_client.as_ref()
    }

    /// This version of the client Secret holds what the token was requested with.
    pub fn client_verified(&mut self, version: ObjectVersion) {
        self.verified_client = Some(version);
    }

    /// What an attempt depends on of the client Secret, which has this version.
    #[must_use]
    pub fn client_key(&self, version: &ObjectVersion) -> ClientKey {
        match &self.client_content {
            Some((read, digest)) if read == version => ClientKey::Content(digest.clone()),
            _ => ClientKey::Version(version.clone()),
        }
    }

    /// The client Secret was read at this version; `digest` is that of the client's credentials, where they can be used.
    pub fn client_read(&mut self, version: ObjectVersion, digest: Option<String>) {
        self.client_content = digest.map(|digest| (version, digest.into()));
    }

    /// When the client's credentials expire, as the client Secret said when it was read last.
    #[must_use]
    pub fn client_expires(&self) -> Option<Expires> {
        self.client_expiry.expires
    }

    /// Whether the spec names another name or key of the client Secret since that was read.
    #[must_use]
    pub fn is_client_expiry_unread(&self) -> bool {
        self.client_expiry.is_unread
    }

    /// The client Secret was read, and says that the client's credentials expire then, or does not say when.
    pub fn client_expiry_read(&mut self, expires: Option<Expires>) {
        self.client_expiry.expires = expires;
        self.client_expiry.is_unread = false;
    }

    /// When the data of the Secret is read once, since it was trusted at the start; `None` once it was read or written.
    #[must_use]
    pub fn check_at(&self) -> Option<DateTime<Utc>> {
        self.check_at
    }

    /// Whether the last read of the Secret's data failed.
    #[must_use]
    pub fn has_data_read_failed(&self) -> bool {
        self.reads.target_data.is_some()
    }

    /// Reverts of what others changed in the Secret.
    #[must_use]
    pub fn reverts(&self) -> &Reverts {
        &self.reverts
    }

    /// The same, to be changed.
    pub fn reverts_mut(&mut self) -> &mut Reverts {
        &mut self.reverts
    }

    /// Of the client Secret this version is known, if any is: where a read of another one failed, that says nothing. Nor
    /// does it where the Secret to write could not be compared with another one.
    pub fn client_known(&mut self, version: Option<&ObjectVersion>) {
        if version.is_some() && self.client_version.as_ref() != version {
            self.client_version = version.cloned();
            self.reads.client = None;
            self.reads.target_data.take_if(|streak| is_of_client(streak.failure.reason));
        }
    }

    /// A read ended. After one that failed the next one of its kind waits; `left` is the remaining validity of the token.
    pub fn read(&mut self, what: Fetch, result: Result<(), Failure>, left: TimeDelta, uid: &str, now: DateTime<Utc>) {
        if what == Fetch::TargetData && result.is_ok() {
            self.check_at = None;
            self.trust.read();
        }
        let streak = self.reads.of_mut(what);
        *streak = result.err().map(|failure| {
            let count = streak.as_ref().map_or(0, |streak| streak.count).saturating_add(1);
            let wait = backoff::delay(count, left, failure.reason, None, uid).min(READ_CEILING);
            Streak::after(count, failure, wait, now)
        });
    }

    /// Nothing is left to be read: what could not be read was learned otherwise, such as from a watch. A client Secret of
    /// which nothing is known was not.
    pub fn all_read(&mut self, observed: &ObservedState) {
        let is_unknown = matches!(observed.client, Client::Unread { version: None });
        self.reads = Reads { client: self.reads.client.take().filter(|_| is_unknown), ..Reads::default() };
    }

    /// No read of a kind before these instants.
    #[must_use]
    pub fn reads_not_before(&self, now: DateTime<Utc>) -> Reads<DateTime<Utc>> {
        let until = |what| self.reads.of(what).as_ref().and_then(|streak| streak.until(now));
        let target_data = until(Fetch::TargetData).or_else(|| self.trust.read_not_before(now));
        Reads { target: until(Fetch::Target), target_data, client: until(Fetch::Client) }
    }

    /// Why the last read of a kind failed, if the next one waits.
    #[must_use]
    pub fn read_that_waits(&self, what: Fetch, now: DateTime<Utc>) -> Option<&Failure> {
        self.reads.of(what).as_ref().filter(|streak| streak.until(now).is_some()).map(|streak| &streak.failure)
    }

    /// The token that the Secret held when it was written or read last, as far as is known.
    #[must_use]
    pub fn last_held(&self) -> Option<&LastHeld> {
        self.last_held.as_ref()
    }

    /// Remembers a token that was written, or read with all that the operator wrote.
    pub fn remember(&mut self, held: LastHeld) {
        self.last_held = Some(held);
        self.undescribed = None;
    }

    /// A read shows that this version of the Secret does not hold the token that is remembered. Others may write that one
    /// again, and it is recognized then, unless nothing is remembered of it but its times.
    pub fn disprove(&mut self, version: ObjectVersion) {
        self.last_held.take_if(|last| !last.is_proof());
        self.undescribed = Some((version, false));
        self.trust.lost();
    }

    /// A read shows that this version of the Secret holds the token that is remembered, which nothing in it describes and
    /// nothing is to describe again.
    pub fn prove(&mut self, version: ObjectVersion) {
        self.verified_target = Some(version.clone());
        self.undescribed = Some((version, true));
        self.trust.regained();
        self.trust.certain();
    }

    /// Whether this version of the Secret holds the token that is remembered; `None` if no read showed that.
    #[must_use]
    pub fn holds_remembered(&self, version: &ObjectVersion) -> Option<bool> {
        self.undescribed.as_ref().filter(|(read, _)| read == version).map(|(_, holds)| *holds)
    }

    /// Whether a read showed that this version of the Secret does not hold the token that is remembered.
    #[must_use]
    pub fn is_disproved(&self, version: &ObjectVersion) -> bool {
        self.holds_remembered(version) == Some(false)
    }

    /// Remembers what was observed of the Secret, at this version if it is there.
    pub fn remember_observed(&mut self, observed: &ObservedState, version: Option<&ObjectVersion>) {
        self.was_target_there |= version.is_some() && matches!(observed.target, Target::Ours(_));
        match &observed.target {
            // what was remembered may prove that the token in it is good
            Target::Unread { .. } | Target::Presumed => {}
            Target::Ours(held) if held.data.is_unread() => {}
            Target::Ours(Held { token_metadata: Some(token_metadata), data: Integrity::Verified, drift, form }) => {
                // nothing was found out about one of another spec, which may be that of the next spec
                if form.is_read() || self.vouches_for(Some(token_metadata)) {
                    // a version of before a write whose answer was lost says nothing of what that made of it
                    if form.is_read() || !self.trust.is_uncertain() {
                        self.trust.regained();
                    }
                    // damage to anything except the token is found only by a read
                    if *drift != Drift::Data {
                        self.verified_target = version.cloned();
                        if form.is_read() {
                            self.trust.certain();
                        }
                    }
                }
                if self.last_held.as_ref().is_none_or(|last| last.token_metadata != *token_metadata) {
                    let token_metadata = token_metadata.clone();
                    self.last_held = Some(LastHeld { token_metadata, record: None, sealed: None });
                }
            }
            Target::Ours(_) => {}
            Target::Absent | Target::NotOwned(_) | Target::Adoptable(_) => self.last_held = None,
        }
        // whatever else waits, what works again is no longer reported
        if !matches!(observed.target, Target::Unread { .. } | Target::Presumed) {
            self.reads.target = None;
        }
        if let Target::Ours(Held { data: Integrity::Verified, drift: Drift::None, .. }) = observed.target {
            self.reverts.all_reverted();
        }
    }

    /// Remembers what the annotations of a Secret say besides this token metadata, where its token was trusted and not read:
    /// once others have removed them, nothing else would prove that the token is good.
    pub fn remember_sealed(&mut self, of: Option<&TokenMetadata>, sealed: impl FnOnce() -> Option<Sealed>) {
        let Some(last) = &mut self.last_held else { return };
        if last.record.is_none() && last.sealed.is_none() && of == Some(&last.token_metadata) {
            last.sealed = sealed().map(Box::new);
        }
    }
}
