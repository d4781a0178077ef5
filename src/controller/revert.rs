//! What is done with the Secret while the token is good: changes of others are reverted.

use itwin_api::failure::Failure;
use itwin_core::{
    messages::{self, Contention},
    observed::ObservedState,
    template,
};

use super::{context::Context, reconciler::Reconciler};
use crate::{act::secret_writer, cluster::CallError, observe::index::Known};

impl Reconciler<'_> {
    /// Patches what is wrong with a Secret whose token is good, without a token request. Returns whether it did.
    pub(super) async fn patch_metadata(&mut self, known: &Known) -> Result<Result<bool, Failure>, CallError> {
        let Context { cluster, index, .. } = self.context;
        let credential = self.references.credential;
        let Known::Present(secret_metadata) = known else { return Ok(Ok(false)) };
        let is_current =
            template::is_current(secret_metadata.template.as_deref(), credential.spec.secret_template.as_ref());
        let has_extra_keys = self.fetched.target.as_ref().is_some_and(|read| read.has_extra_keys);
        let patched = if is_current && !has_extra_keys {
            secret_writer::patch_metadata(cluster, credential, secret_metadata).await.map(Ok)
        } else {
            self.read_target().await?;
            match self.fetched.target.take() {
                Some(read) if (read.is_ours || read.has_extra_keys) && read.version == secret_metadata.version => {
                    secret_writer::rerender(cluster, credential, secret_metadata, read.data, &read.annotations).await
                }
                // it changed meanwhile: decide again
                _ => return Ok(Ok(false)),
            }
        };
        match patched {
            Ok(Ok(patched)) => {
                self.retry_state.target_verified(patched.version.clone());
                index.observe(&self.references.target, patched);
                self.fetched.target = None;
                Ok(Ok(true))
            }
            Ok(Err(failure)) => Ok(Err(failure)),
            Err(CallError::Conflict | CallError::NotFound) => {
                self.forget_target();
                Ok(Ok(false))
            }
            Err(error) => Err(error),
        }
    }

    /// Notes that a change of the Secret, as it was `known`, was reverted. Where changes go on, that is reported as a
    /// failure, and the next revert waits for the backoff; a token that is good stays so.
    pub(super) fn reverted(&mut self, observed: &ObservedState, known: &Known) {
        let now = self.context.clock.now();
        let generation = self.references.credential.metadata.generation.unwrap_or_default();
        let excess = self.retry_state.reverted(generation, now);
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
        // what was written well in between does not begin the backoff from the start
        let wait = self.failed_after(excess - 1, observed, failure.into(), false);
        self.retry_state.revert_backs_off(wait);
    }
}
