//! A credential that is being deleted, and that finalizers of other programs hold.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::credential::DeletionPolicy;
use itwin_core::{
    action::{Action, Fetch},
    decide,
    observed::{Held, Integrity, ObservedState, Target},
};

use super::{RequeueAfter, action_error::ActionError, reconciler::Reconciler, report::RESYNC_UNWATCHED};
use crate::{cluster::CallError, observe::index::Known};

/// Steps of one reconcile to have the Secret outlive its credential: two reads and a patch, and the same after a conflict.
const RELEASE_STEPS: usize = 6;

impl Reconciler<'_> {
    /// Reports a credential that is being deleted, and that finalizers hold. No token is requested for it, and no Secret
    /// is created: with foreground deletion, garbage collection may delete the Secret first, and must find no other one.
    /// But workloads may read the Secret meanwhile, so that `Ready` follows the Secret, the spec and the time, and whether
    /// the Secret outlives the credential is still the user's choice. Without a worker, nothing is read or written.
    pub(super) async fn report_deletion(&mut self, only_reports: bool) -> Result<RequeueAfter, CallError> {
        self.retry_state.follow_deleted(self.references.credential, self.context.clock.now());
        self.retry_state.drop_unwritten();
        // it still waits for a worker, which may have to read the Secret
        let wait = if only_reports {
            Some(TimeDelta::zero())
        } else {
            let until_read = self.follow_target().await;
            until_read.into_iter().chain(self.release_target().await?).min()
        };
        self.report(None, wait).await
    }

    /// Takes the owner reference off the Secret, where it is to outlive the credential: the policy may say so only now. With
    /// foreground deletion the Secret may be gone by then, and stays gone. Returns the wait before the next read, if the
    /// last one failed.
    async fn release_target(&mut self) -> Result<Option<TimeDelta>, CallError> {
        if self.references.credential.spec.deletion_policy != DeletionPolicy::Retain {
            self.nothing_to_read();
            return Ok(None);
        }
        for _ in 0..RELEASE_STEPS {
            let (known, observed) = self.observe_and_remember();
            match decide::release(&observed) {
                Some(Action::Fetch(what)) => self.fetch(what, &observed).await,
                Some(Action::AwaitBackoff { until }) => return Ok(Some(until - self.context.clock.now())),
                Some(_) => match self.revert_own_metadata(&observed, &known).await {
                    Ok(true) => self.retry_state.reverts_mut().all_reverted(),
                    Ok(false) => {}
                    Err(ActionError::Call(error)) => return Err(error),
                    Err(_) => self.forget_target(),
                },
                None => {
                    self.nothing_to_read();
                    break;
                }
            }
        }
        Ok(None)
    }

    /// No data is read any more, so that no read that failed is made again, unless only another one shows what the Secret
    /// holds.
    fn nothing_to_read(&mut self) {
        let observed = self.observe();
        let is_suspect = matches!(&observed.target, Target::Ours(Held { data: Integrity::Suspect, .. }));
        let is_undescribed = self.is_undescribed(&observed);
        self.retry_state.nothing_to_read(is_suspect, is_undescribed);
    }

    /// Finds out whether the Secret still holds the token. Returns the wait before the next read, if the last one
    /// failed.
    async fn follow_target(&mut self) -> Option<TimeDelta> {
        let now = self.context.clock.now();
        // before it is forgotten for the read
        self.observe_and_remember();
        let waits = self.retry_state.reads_not_before(now).target.is_some();
        if !waits && self.is_target_due(now) {
            self.context.index.invalidate(&self.references.target);
            let observed = self.observe();
            self.fetch(Fetch::Target, &observed).await;
            // what failed to be read and works again is no longer reported
            let (known, _) = self.observe_and_remember();
            if !matches!(known, Known::Unknown) {
                // the client Secret is of no matter any more
                let renew_annotation = self.references.renew_annotation().map(String::as_str);
                self.retry_state.metadata_read(renew_annotation, self.context.clock.now());
            }
        }
        self.read_undescribed().await;
        // no attempt will end what an earlier process could not read, or not watch; data that others wrote is not read as
        // long as the Secret describes its token
        let is_unread = matches!(
            self.observe().target,
            Target::Presumed
                | Target::Unread { .. }
                | Target::Ours(Held { data: Integrity::Suspect | Integrity::Untrusted, .. })
        );
        if !is_unread {
            self.retry_state.none_attempted();
        }
        let (now, observed) = (self.context.clock.now(), self.observe());
        let waits = &observed.history.reads;
        let until_data = waits.target_data.filter(|_| self.is_undescribed(&observed));
        waits.target.into_iter().chain(until_data).min().map(|until| until - now)
    }

    /// Reads a Secret in which nothing describes the token any more, once, unless the last read failed and the next one
    /// waits: nothing else shows whether it still holds the token, and nothing will restore what describes it.
    async fn read_undescribed(&mut self) {
        let observed = self.observe();
        if observed.history.reads.target_data.is_some() || !self.is_undescribed(&observed) {
            return;
        }
        self.fetch(Fetch::TargetData, &observed).await;
        if let Some(read) = self.fetched.target.as_ref().filter(|read| read.is_token_intact) {
            self.retry_state.prove(read.version.clone());
        }
    }

    /// Whether nothing in the Secret describes the token that is remembered, and no read of this version has shown whether
    /// it holds that one.
    fn is_undescribed(&self, observed: &ObservedState) -> bool {
        let is_unread = |held: &Held| held.token_metadata.is_some() && held.data.is_unread();
        let is_described = match self.context.index.get(&self.references.target) {
            Known::Present(secret_metadata) => secret_metadata.token_metadata.is_some(),
            Known::Unknown | Known::Absent => true,
        };
        !is_described && matches!(&observed.target, Target::Ours(held) if is_unread(held))
    }

    /// Whether the Secret is to be read: nothing is known of it, as after a list that does not hold it, or no watch shows
    /// it and the last read is too old.
    fn is_target_due(&self, now: DateTime<Utc>) -> bool {
        let renew_annotation = self.references.renew_annotation().map(String::as_str);
        let is_shown = self.is_watched()
            || self.shown_until(now).is_some()
            || self.retry_state.has_metadata(renew_annotation, RESYNC_UNWATCHED, now);
        !is_shown || matches!(self.context.index.get(&self.references.target), Known::Unknown)
    }
}
