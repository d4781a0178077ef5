//! One attempt for one credential: the token request, the write, and how it ended.

use std::{collections::BTreeMap, sync::Arc};

use chrono::TimeDelta;
use itwin_api::time;
use itwin_core::{
    action::IssueReason,
    backoff, desired_secret,
    failure::Failure,
    fingerprint,
    last_held::LastHeld,
    messages::{self, AfterWrite},
    messages_oauth,
    observed::{Held, ObservedState, Target},
    request_error::RequestError,
    requests::Outcome,
    schedule, template,
    token::{Content, Description, IssuedToken, TokenMetadata},
    validate::ValidationError,
    withheld::{Parts, Withheld},
};
use itwin_oauth::token::ClientCredentials;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;

use super::{
    action_error::ActionError,
    context::Context,
    fetched::{FetchedClient, FetchedSecrets},
    reconciler::{AWAIT_AUTHORITY, Attempted, Reconciler},
    registry::Currency,
};
use crate::{
    act::{
        secret_writer::{self, Existing},
        token_request::{self, Order},
    },
    cluster::{CallError, Step},
    observe::index::Known,
};

/// A token that was written.
pub(super) struct Written {
    /// It had been written before, and was changed or deleted since.
    pub(super) is_restored: bool,
}

impl Reconciler<'_> {
    /// Requests a token and writes it over the Secret `known`, on which `observed` rests.
    pub(super) async fn request_and_write(
        &mut self,
        issue_reason: IssueReason,
        observed: &ObservedState,
        known: &Known,
    ) -> Result<Written, ActionError> {
        // one that is at hand is not what is wanted
        self.retry_state.drop_unwritten();
        self.check_read(known)?;
        let content = self.ask(observed).await?;
        self.write(issue_reason, observed, known, content).await
    }

    /// Writes the token that was issued before over the Secret `known`.
    pub(super) async fn write_issued(
        &mut self,
        issue_reason: IssueReason,
        observed: &ObservedState,
        known: &Known,
    ) -> Result<Written, ActionError> {
        self.check_read(known)?;
        let content = self.retry_state.take_unwritten().ok_or(ActionError::Outdated)?;
        self.write(issue_reason, observed, known, content).await
    }

    /// Checks that the Secret that was read is the one that was decided on: else whose it is must be decided again.
    fn check_read(&self, known: &Known) -> Result<(), ActionError> {
        match (known, &self.fetched.target) {
            (Known::Present(secret_metadata), Some(read)) if read.version != secret_metadata.version => {
                Err(ActionError::Changed)
            }
            _ => Ok(()),
        }
    }

    /// Checks that the credential is still there and as it was: a call may have taken a minute.
    fn check_current(&self) -> Result<(), ActionError> {
        match self.currency() {
            Currency::Current => Ok(()),
            Currency::Changed => Err(ActionError::Superseded),
            Currency::Gone => Err(ActionError::Gone),
        }
    }

    async fn ask(&mut self, observed: &ObservedState) -> Result<Box<Content>, ActionError> {
        let credential = self.references.credential;
        let name = &credential.spec.authority_ref.name;
        let (Some(authority), Some(issuer)) = (self.context.authorities.get(name), observed.authority.issuer()) else {
            // it went away since the decision
            return Err(ActionError::NotYet(AWAIT_AUTHORITY));
        };
        let namespace_labels =
            if authority.config.restricts_namespaces() { self.namespace_labels().await? } else { Default::default() };
        // what may not be asked for takes no turn from those who wait
        authority
            .config
            .permits_namespace(name, &self.references.key.namespace, &namespace_labels)
            .map_err(ActionError::from)?;
        self.check_current()?;
        let mut slot = self.slot.take().ok_or(ActionError::Outdated)?;
        let usable = self.fetched.client.as_ref().and_then(|read| Some((read.content.as_ref().ok()?, read)));
        let (client, read) = usable.ok_or(ActionError::NotYet(AWAIT_AUTHORITY))?;
        // a server that takes its time takes no worker away from other authorities
        self.worker = None;
        slot.paced().await;
        self.check_current()?;
        let is_edited = !self.context.authorities.get(name).is_some_and(|now| Arc::ptr_eq(&now, &authority));
        let is_shown = self.fetched.target_is_presumed_absent && !self.is_target_not_shown();
        if is_edited || is_shown {
            // the authority was edited, or a Secret created, while this request waited for its turn
            self.fetched.target_is_presumed_absent = false;
            self.worker = self.context.worker().await;
            return Err(ActionError::Outdated);
        }
        if !self.context.cluster.fence.holds() {
            return Err(CallError::NotLeading.into());
        }
        let now = self.context.clock.now();
        self.retry_state.requested(observed, now);
        let order = Order {
            credential,
            namespace_labels: &namespace_labels,
            client,
            client_secret: &self.references.client.to_string(),
            held: observed.held_of_client(now),
            last_held: self.retry_state.last_held(),
        };
        let issued = token_request::request_token(&authority, &order).await;
        let version = read.version.clone();
        let mut longer_at = None;
        let result = match issued {
            Ok(issued) => {
                let content = Box::new(self.content(issued, (client, read), observed, issuer));
                slot.end(Outcome::Succeeded, version, Some(content.clone()));
                Ok(content)
            }
            Err(RequestError::Validation(ValidationError::SameToken { expires_at })) => {
                slot.end(Outcome::Succeeded, version, None);
                Err(ActionError::SameToken { expires_at })
            }
            Err(error) => {
                if let RequestError::Validation(ValidationError::ShorterThanCurrent { expires_at, current }) = &error {
                    // by then a token that lives as long outlives the current one
                    let now = self.context.clock.now();
                    longer_at = Some((now + (*current - *expires_at) + TimeDelta::seconds(1), now));
                }
                let failure = messages_oauth::request_failed(&error, &token_request::names(&authority, &order));
                slot.end(error.outcome(&failure), version, None);
                Err(failure.into())
            }
        };
        if let Some((until, now)) = longer_at {
            self.retry_state.renewal_waits(until, now);
        }
        self.worker = self.context.worker().await;
        result
    }

    /// An issued token with what the Secret will record about it.
    fn content(
        &self,
        issued: IssuedToken,
        (client, read): (&ClientCredentials, &FetchedClient),
        observed: &ObservedState,
        issuer: &str,
    ) -> Content {
        let counted = self.context.kept_tokens.count(&self.references.key.namespace, issued.token.size());
        Content {
            counted: Some(counted),
            client_fingerprint: read.material.fingerprint(&issued.token).into(),
            token_metadata: TokenMetadata {
                request: observed.desired.request.as_str().into(),
                issuer: issuer.into(),
                authority: Some(self.references.credential.spec.authority_ref.name.as_str().into()),
                client_reference: Some(observed.desired.client_reference.as_str().into()),
                client_version: read.version.clone(),
                issued_at: issued.issued_at,
                expires_at: issued.expires_at,
            },
            description: Description {
                client_id: client.id.shown().map(Arc::from),
                scopes: Some(issued.scopes.join(" ").into()),
            },
            token: issued.token,
            renewed_for: None,
        }
    }

    async fn namespace_labels(&self) -> Result<BTreeMap<String, String>, Failure> {
        let api: Api<Namespace> = Api::all(self.context.cluster.client.clone());
        let name = &self.references.key.namespace;
        let namespace = self.context.cluster.call(Step::GetNamespace, api.get_metadata(name)).await;
        let authority = &self.references.credential.spec.authority_ref.name;
        let namespace =
            namespace.map_err(|error| messages::namespace_read_failed(name, authority, &error, error.why()))?;
        Ok(namespace.metadata.labels.unwrap_or_default())
    }

    async fn write(
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
            Ok(secret_writer::Written { secret_metadata, is_what_we_wrote }) => {
                let was_there = self.retry_state.verified_target().is_some();
                let is_restored =
                    issue_reason == IssueReason::Tampered || (issue_reason == IssueReason::Missing && was_there);
                // what admission made of it is read, unless it is what was sent
                if is_what_we_wrote && secret_metadata.token_metadata.as_ref() == Some(&content.token_metadata) {
                    self.retry_state.target_verified(secret_metadata.version.clone());
                }
                index.observe(target, secret_metadata);
                self.retry_state.remember(LastHeld::written(&content));
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
    fn keep(&mut self, content: Box<Content>) -> AfterWrite {
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
