//! The write of a token, and what becomes of a token that could not be written.

use itwin_api::time;
use itwin_core::{
    action::IssueReason,
    backoff, desired_secret,
    failure::Failure,
    fingerprint,
    last_held::LastHeld,
    messages::{self, AfterWrite},
    observed::{Held, ObservedState, Target},
    schedule, template,
    token::Content,
    withheld::{Parts, Withheld},
};

use super::{
    action_error::ActionError,
    context::Context,
    fetched::FetchedSecrets,
    reconciler::{Attempted, Reconciler},
};
use crate::{
    act::secret_writer::{self, Existing},
    cluster::CallError,
    observe::index::Known,
};

/// A token that was written.
pub(super) struct Written {
    /// It had been written before, and was changed or deleted since.
    pub(super) is_restored: bool,
}

impl Reconciler<'_> {
    /// Writes a token over the Secret `known`.
    pub(super) async fn write(
        &mut self,
        issue_reason: IssueReason,
        observed: &ObservedState,
        known: &Known,
        mut content: Box<Content>,
    ) -> Result<Written, ActionError> {
        if let Err(error) = self.check_current() {
            self.keep(content);
            return Err(error);
        }
        let authority = &self.references.credential.spec.authority_ref.name;
        let is_checked = self.context.authorities.is_checked(&self.references.credential.spec, &content);
        if is_checked != Some(true) {
            // an administrator edited the authority meanwhile: another one is requested, unless the edit is reverted
            if is_checked == Some(false) {
                let credential = &self.references.key;
                tracing::info!(%credential, authority, "token not written: the rules have changed");
            }
            self.keep(content);
            return Err(ActionError::Outdated);
        }
        let Context { cluster, index, .. } = self.context;
        content.renewed_for = self.references.renew_annotation().map(|value| fingerprint::renewal(value).into());
        let withheld = observed.history.withheld;
        let target = &self.references.target;
        let credential = withheld.applied(self.references.credential, |key| {
            self.fetched.target.as_ref().is_some_and(|read| read.data.contains_key(key))
        });
        let data = match desired_secret::data(&credential, &content) {
            Ok(data) => data,
            Err(failure) => {
                // the token is good, and is written once the template is
                self.keep(content);
                return Err(failure.into());
            }
        };
        // the same token with a later expiry is none that workloads have not seen
        let is_new_token = self.retry_state.last_held().is_none_or(|last| last.expiry_of(&content.token).is_none());
        let written = match known {
            Known::Unknown => return Err(self.keep_unwritten(content)),
            Known::Absent => secret_writer::create(cluster, &credential, &content, &data).await,
            Known::Present(secret_metadata) => {
                let present = self.fetched.target.as_ref().map(|read| &read.data);
                let existing = Existing { secret_metadata, present, is_new_token, withheld };
                secret_writer::update(cluster, &credential, existing, &content, &data).await
            }
        };
        match written {
            Ok(secret_writer::Written { secret_metadata, type_, token, is_what_we_wrote }) => {
                let was_there = self.retry_state.was_target_there();
                let is_restored =
                    issue_reason == IssueReason::Tampered || (issue_reason == IssueReason::Missing && was_there);
                self.retry_state.target_type_observed(&secret_metadata.version, type_.as_deref());
                self.retry_state.remember(LastHeld::written(&content));
                // what admission made of it is read, unless it is what was sent
                let recorded = secret_metadata.token_metadata.as_ref();
                if is_what_we_wrote && recorded == Some(&content.token_metadata) {
                    self.retry_state.target_verified(secret_metadata.version.clone());
                } else {
                    self.retry_state.target_written_otherwise(token.as_ref(), recorded, observed.is_verified());
                }
                index.observe(target, secret_metadata);
                self.written(issue_reason, observed, &content);
                if is_new_token || matches!(known, Known::Absent) {
                    self.restarts_follow(content.token_metadata.issued_at, is_new_token);
                }
                Ok(Written { is_restored })
            }
            Err(error) => Err(self.not_written(error, content, (observed, known))),
        }
    }

    /// Keeps a token that could not be written, where a later write may succeed: immediately where that withholds what the API
    /// server may have refused.
    fn not_written(
        &mut self,
        error: CallError,
        content: Box<Content>,
        (observed, known): (&ObservedState, &Known),
    ) -> ActionError {
        let secret = self.references.target.to_string();
        match error {
            // a create can miss nothing but the namespace
            CallError::NotFound if matches!(known, Known::Absent) => {
                self.keep(content);
                messages::secret_without_namespace(&secret).into()
            }
            CallError::Conflict | CallError::AlreadyExists | CallError::NotFound => self.keep_unwritten(content),
            CallError::NotLeading => {
                self.keep(content);
                CallError::NotLeading.into()
            }
            error => {
                let after = self.keep(content);
                if error.may_have_written() {
                    self.retry_state.token_uncertain(observed.holds_good(self.context.clock.now()));
                }
                // whether it was written before the answer was lost, and whether it is immutable, only the Secret shows
                self.forget_target();
                match observed.history.withheld.after(error.why(), self.template_parts(known)) {
                    Some(withheld) => {
                        let after = AfterWrite::WrittenWithout(withheld);
                        self.withhold(messages::secret_write_failed(&secret, &error, error.why(), after), withheld);
                        ActionError::Outdated
                    }
                    None => {
                        // what is refused is not, or not only, the template
                        self.retry_state.reverts_mut().all_reverted();
                        messages::secret_write_failed(&secret, &error, error.why(), after).into()
                    }
                }
            }
        }
    }

    /// What a write adds, changes or removes for the template.
    pub(super) fn template_parts(&self, known: &Known) -> Parts {
        let credential = self.references.credential;
        let template = credential.spec.secret_template.as_ref();
        let Known::Present(secret_metadata) = known else { return Parts::new(template, false, false) };
        let (labels, annotations) = (desired_secret::labels(credential), desired_secret::annotations(credential));
        let has_leftovers = !secret_metadata.leftovers(&labels, &annotations).is_empty();
        Parts::new(template, has_leftovers, !template::is_current(secret_metadata.template.as_deref(), template))
    }

    /// Notes that the API server refused a write with more of the template: that part is written later.
    pub(super) fn withhold(&mut self, failure: Failure, withheld: Withheld) {
        let (left, now) = (self.observe().left(self.context.clock.now()), self.context.clock.now());
        let reverts = self.retry_state.reverts_mut();
        let failures = reverts.failures().saturating_add(1);
        let wait = backoff::delay(failures, left, failure.reason, None, &self.references.uid);
        tracing::warn!(credential = %self.references.key, retry_in_ms = wait.num_milliseconds(), "{}", failure.message);
        reverts.refused(failure.clone(), wait, now);
        reverts.withhold(withheld);
        self.outcome = Some(Attempted::Failed(failure));
    }

    /// Keeps a token that is not written yet, where its namespace does not keep too many.
    pub(super) fn keep(&mut self, content: Box<Content>) -> AfterWrite {
        if self.context.kept_tokens.has_room(&self.references.key.namespace) {
            self.retry_state.keep(content);
            AfterWrite::TokenKept
        } else {
            AfterWrite::TokenDropped
        }
    }

    fn keep_unwritten(&mut self, content: Box<Content>) -> ActionError {
        self.keep(content);
        ActionError::Changed
    }

    /// Notes a token that was written.
    fn written(&mut self, issue_reason: IssueReason, observed: &ObservedState, content: &Content) {
        let now = self.context.clock.now();
        if let Target::Ours(Held { token_metadata: Some(old), .. }) = &observed.target
            && !self.retry_state.was_suspended()
        {
            let left = old.expires_at - now;
            self.context.metrics.replaced_with_left(left.as_seconds_f64());
            if issue_reason == IssueReason::Due {
                let due = schedule::renew_at(old, &observed.desired.policy, &observed.uid);
                self.context.metrics.renewed_late((now - due).as_seconds_f64());
            }
        }
        self.retry_state.written(self.references.renew_annotation().map(String::as_str));
        self.fetched = FetchedSecrets::default();
        tracing::info!(
            credential = %self.references.key,
            secret = self.references.target.name,
            issue_reason = ?issue_reason,
            expires_at = %time::to_rfc3339(content.token_metadata.expires_at),
            "token written"
        );
    }
}
