//! What is done with the Secret while the token is good: changes of others are reverted.

use itwin_core::{
    backoff, desired_secret,
    messages::{self, Contention},
    observed::ObservedState,
    template,
};

use super::{
    action_error::ActionError,
    context::Context,
    fetched::FetchedTarget,
    reconcile::unreadable,
    reconciler::{Attempted, Reconciler},
};
use crate::{
    act::secret_writer::{self, Existing},
    cluster::CallError,
    observe::index::Known,
};

impl Reconciler<'_> {
    /// Puts back what differs in a Secret whose token is good, without a token request. A revert that fails is reported
    /// and tried again later; it holds up neither a renewal nor anything else.
    pub(super) async fn revert(&mut self, observed: &ObservedState, known: &Known) -> Result<(), ActionError> {
        match self.patch(observed, known).await {
            Ok(()) => {
                self.reverted(observed, known);
                Ok(())
            }
            Err(ActionError::Failed(failure)) => {
                let (uid, now) = (&self.references.uid, self.context.clock.now());
                let reverts = self.retry_state.reverts_mut();
                let wait =
                    backoff::delay(reverts.failures().saturating_add(1), observed.left(now), failure.reason, None, uid);
                tracing::warn!(credential = %self.references.key, retry_in_ms = wait.num_milliseconds(), "{}", failure.message);
                reverts.refused(failure.clone(), wait, now);
                self.outcome = Some(Attempted::Failed(failure));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn patch(&mut self, observed: &ObservedState, known: &Known) -> Result<(), ActionError> {
        let Context { cluster, index, .. } = self.context;
        let credential = self.references.credential;
        let Known::Present(secret_metadata) = known else { return Err(ActionError::Outdated) };
        let is_current =
            template::is_current(secret_metadata.template.as_deref(), credential.spec.secret_template.as_ref());
        let is_damaged = self.fetched.target.as_ref().is_some_and(|read| read.is_token_intact && !read.is_ours);
        let writes_data = !is_current || is_damaged;
        let patched = if !writes_data {
            secret_writer::patch_metadata(cluster, credential, secret_metadata).await
        } else {
            self.read_target().await.map_err(|error| unreadable(&self.references.target, &error))?;
            // what was tampered with, or changed meanwhile, is decided on again
            let is_expected =
                |read: &mut FetchedTarget| read.is_token_intact && read.version == secret_metadata.version;
            let read = self.fetched.target.take_if(is_expected).ok_or(ActionError::Outdated)?;
            match &read.remembered {
                Some(content) => {
                    let (data, present) = (desired_secret::data(credential, content)?, Some(&read.data));
                    let existing = Existing { secret_metadata, present, is_new_token: false };
                    secret_writer::update(cluster, credential, existing, content, &data).await
                }
                None => {
                    let data = desired_secret::rerendered(credential, &read.data)?;
                    let data = (&read.data, &data);
                    secret_writer::rerender(cluster, credential, secret_metadata, data, &read.annotations).await
                }
            }
        };
        match patched {
            Ok(patched) => {
                let held = self.retry_state.last_held().map(|held| &held.token_metadata);
                // what admission made of it is read, unless it is what was sent; so is data that was not verified before
                if (writes_data || observed.is_verified())
                    && held.is_none_or(|held| patched.token_metadata.as_ref() == Some(held))
                {
                    self.retry_state.target_verified(patched.version.clone());
                }
                index.observe(&self.references.target, patched);
                self.fetched.target = None;
                Ok(())
            }
            Err(CallError::Conflict | CallError::NotFound) => Err(ActionError::Changed),
            Err(CallError::NotLeading) => Err(CallError::NotLeading.into()),
            Err(error) => {
                let secret = self.references.target.to_string();
                Err(messages::secret_write_failed(&secret, &error, error.why(), false).into())
            }
        }
    }

    /// Notes that a change of the Secret, as it was `known`, was reverted. Where changes go on, that is reported as a
    /// failure, and the next revert waits for the backoff; a token that is good stays so.
    pub(super) fn reverted(&mut self, observed: &ObservedState, known: &Known) {
        let now = self.context.clock.now();
        let generation = self.references.credential.metadata.generation.unwrap_or_default();
        let excess = self.retry_state.reverts_mut().record(generation, now);
        if excess == 0 {
            return;
        }
        // once it was reverted nothing is left of who wrote it
        let by = match known {
            Known::Present(secret_metadata) => {
                secret_metadata.other_manager.as_deref().map_or(Contention::Hidden, Contention::Manager)
            }
            Known::Absent => Contention::Deleted,
            Known::Unknown => Contention::Hidden,
        };
        let failure = messages::secret_conflict(&self.references.target.to_string(), by);
        let wait = backoff::delay(excess, observed.left(now), failure.reason, None, &self.references.uid);
        tracing::warn!(credential = %self.references.key, retry_in_ms = wait.num_milliseconds(), "{}", failure.message);
        self.outcome = Some(Attempted::Failed(failure.clone()));
        self.retry_state.reverts_mut().in_conflict(excess, failure, wait, now);
    }
}
