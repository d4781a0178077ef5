//! What is done with the Secret while the token is good: changes of others are reverted.

use itwin_api::{conditions::Reason, secret_keys};
use itwin_core::{
    backoff, desired_secret,
    messages::{self, AfterWrite, Contention},
    observed::ObservedState,
    rivals::{self, Difference},
    template,
    withheld::Withheld,
};

use super::{
    action_error::ActionError,
    context::Context,
    fetched::FetchedTarget,
    reconciler::{Attempted, Reconciler},
};
use crate::{
    act::secret_writer::{self, Existing, Written},
    cluster::CallError,
    observe::{index::Known, target::SecretMetadata},
};

impl Reconciler<'_> {
    /// Reverts what differs in a Secret whose token is good, without a token request. A revert that fails is reported
    /// and tried again later; it holds up neither a renewal nor anything else.
    pub(super) async fn revert(&mut self, observed: &ObservedState, known: &Known) -> Result<(), ActionError> {
        let Known::Present(secret_metadata) = known else { return Err(ActionError::Outdated) };
        let secret = self.references.target.to_string();
        // while a template that the API server refuses waits for its next try, the rest is reverted
        if observed.history.revert_not_before.is_none() {
            let error = match self.patch(observed, secret_metadata).await {
                Ok(None) => {
                    self.retry_state.reverts_mut().all_reverted();
                    self.reverted(observed, known);
                    return Ok(());
                }
                Ok(Some(error)) => error,
                Err(ActionError::Failed(failure)) => {
                    // where the Secret is immutable, the rest of the template was accepted
                    let is_immutable = failure.reason == Reason::SecretImmutable;
                    let withheld = if is_immutable { Withheld::Nothing } else { observed.history.withheld };
                    self.withhold(failure, withheld);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let withheld = match observed.history.withheld {
                // which part is refused shows when a token is written
                Withheld::Nothing => {
                    Withheld::Nothing.after(error.why(), self.template_parts(known)).unwrap_or_default()
                }
                withheld => withheld,
            };
            let failure = messages::secret_write_failed(&secret, &error, error.why(), AfterWrite::TokenGood);
            self.withhold(failure, withheld);
            if withheld == Withheld::Nothing || !self.lacks_own_metadata(observed, secret_metadata) {
                return Ok(());
            }
        }
        self.follow_news();
        self.revert_own_metadata(observed, known).await.map(drop)
    }

    /// Reverts what differs of the metadata that does not come from the template. Returns whether the API server accepted
    /// that.
    pub(super) async fn revert_own_metadata(
        &mut self,
        observed: &ObservedState,
        known: &Known,
    ) -> Result<bool, ActionError> {
        let Known::Present(secret_metadata) = known else { return Err(ActionError::Outdated) };
        let Context { cluster, .. } = self.context;
        match secret_writer::patch_own_metadata(cluster, self.references.credential, secret_metadata).await {
            Ok(written) => {
                self.patched(observed, written, false);
                self.reverted(observed, known);
                Ok(true)
            }
            Err(error) => {
                let error = outdated(error)?;
                let secret = self.references.target.to_string();
                let failure = messages::secret_write_failed(&secret, &error, error.why(), AfterWrite::TokenGood);
                // not only the template is refused: all of it waits
                self.withhold(failure, Withheld::Nothing);
                Ok(false)
            }
        }
    }

    fn difference(&self, observed: &ObservedState, secret_metadata: &SecretMetadata) -> Difference {
        let credential = self.references.credential;
        let (labels, annotations) = (desired_secret::labels(credential), desired_secret::annotations(credential));
        Difference {
            data: observed.has_other_data(),
            owner_references: observed.lacks_owner(),
            keys: secret_metadata.missing(&labels, &annotations),
        }
    }

    fn lacks_own_metadata(&self, observed: &ObservedState, secret_metadata: &SecretMetadata) -> bool {
        let credential = self.references.credential;
        let (labels, annotations) =
            (desired_secret::own_labels(credential), desired_secret::own_annotations(credential));
        observed.lacks_owner() || !secret_metadata.carries(&labels, &annotations)
    }

    /// Writes all that differs. Returns the error of the API server, if it refused that.
    async fn patch(
        &mut self,
        observed: &ObservedState,
        secret_metadata: &SecretMetadata,
    ) -> Result<Option<CallError>, ActionError> {
        let Context { cluster, .. } = self.context;
        let credential = self.references.credential;
        let is_current =
            template::is_current(secret_metadata.template.as_deref(), credential.spec.secret_template.as_ref());
        let is_tampered = self.fetched.target.as_ref().is_some_and(|read| read.is_token_intact && !read.is_ours);
        let writes_data = !is_current || is_tampered;
        let existing = Existing { secret_metadata, present: None, is_new_token: false, withheld: Withheld::Nothing };
        let patched = if !writes_data {
            secret_writer::patch_metadata(cluster, credential, existing).await
        } else {
            self.read_target().await?;
            // what was tampered with, or changed meanwhile, is decided on again
            let is_expected =
                |read: &mut FetchedTarget| read.is_token_intact && read.version == secret_metadata.version;
            let read = self.fetched.target.take_if(is_expected).ok_or(ActionError::Outdated)?;
            if read.immutable {
                return self.patch_immutable(observed, existing).await;
            }
            let existing = Existing { present: Some(&read.data), ..existing };
            match &read.content {
                Some(content) => {
                    let data = desired_secret::data(credential, content)?;
                    secret_writer::update(cluster, credential, existing, content, &data).await
                }
                None => {
                    let data = desired_secret::rerendered(credential, &read.data)?;
                    secret_writer::rerender(cluster, credential, existing, &data, &read.annotations).await
                }
            }
        };
        match patched {
            Ok(written) => {
                self.patched(observed, written, writes_data);
                Ok(None)
            }
            Err(error) => {
                if error.may_have_written() {
                    self.retry_state.target_uncertain();
                }
                outdated(error).map(Some)
            }
        }
    }

    /// Writes what may change of an immutable Secret. That its data may not is a failure.
    async fn patch_immutable(
        &mut self,
        observed: &ObservedState,
        existing: Existing<'_>,
    ) -> Result<Option<CallError>, ActionError> {
        let credential = self.references.credential;
        let (labels, mut annotations) = (desired_secret::labels(credential), desired_secret::annotations(credential));
        annotations.remove(secret_keys::TEMPLATE);
        let Existing { secret_metadata, .. } = existing;
        let is_current = !observed.lacks_owner()
            && secret_metadata.carries(&labels, &annotations)
            && secret_metadata.leftovers(&labels, &annotations).is_empty();
        if !is_current {
            match secret_writer::patch_metadata_only(&self.context.cluster, credential, existing).await {
                Ok(written) => self.patched(observed, written, false),
                Err(error) => return outdated(error).map(Some),
            }
        }
        Err(messages::secret_immutable(&self.references.target.to_string()).into())
    }

    /// Notes what the Secret is after a patch.
    fn patched(&mut self, observed: &ObservedState, written: Written, writes_data: bool) {
        let Written { secret_metadata, type_, token, is_what_we_wrote } = written;
        self.retry_state.target_type_observed(&secret_metadata.version, type_.as_deref());
        let held = self.retry_state.last_held().map(|held| &held.token_metadata);
        let is_as_held = held.is_none_or(|held| secret_metadata.token_metadata.as_ref() == Some(held));
        // what admission made of it is read, unless it is what was sent; so is data that was not verified before
        if !(is_what_we_wrote && is_as_held) {
            let recorded = secret_metadata.token_metadata.as_ref();
            self.retry_state.target_written_otherwise(token.as_ref(), recorded, observed.is_verified());
        } else if writes_data || observed.is_verified() {
            self.retry_state.target_verified(secret_metadata.version.clone());
        }
        self.context.index.observe(&self.references.target, secret_metadata);
        self.fetched.target = None;
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
                let difference = self.difference(observed, secret_metadata);
                rivals::rival(&secret_metadata.field_owners, &difference)
                    .map_or(Contention::Hidden, Contention::Manager)
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

/// An error that says nothing of what was written ends the step; any other is that of the API server.
fn outdated(error: CallError) -> Result<CallError, ActionError> {
    match error {
        CallError::Conflict | CallError::NotFound => Err(ActionError::Changed),
        CallError::NotLeading => Err(CallError::NotLeading.into()),
        error => Ok(error),
    }
}
