//! One attempt for one credential: what makes it vain, asking for a token, writing it, and noting how it ended.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use itwin_api::{conditions::Reason, failure::Failure, time};
use itwin_core::{
    action::IssueReason,
    backoff,
    failure::{ExchangeStage, RequestFailure},
    observed::{Held, ObservedState, Target, TokenMetadata},
    requests::Outcome,
    schedule, template,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;

use super::{
    fetched::FetchedSecrets,
    observation,
    reconcile::{AWAIT_AUTHORITY, Attempted, Context, Reconciler},
};
use crate::{
    act::{
        secret_writer::{self, Content, Existing},
        token_request::{self, Order},
    },
    cluster::{CallError, Step},
    observe::index::Known,
};

/// How asking for a token and writing it ended.
pub(super) enum IssueResult {
    Written {
        /// It had been written before, and somebody changed or deleted it.
        is_restored: bool,
    },
    /// It is no longer this credential's turn, or a token that was at hand does not fit.
    NotAdmitted,
    /// Somebody changed the Secret meanwhile: look again.
    Again,
    /// It must wait for so long.
    NotYet(TimeDelta),
    Failed(RequestFailure),
}

impl Reconciler<'_> {
    /// Asks for a token and writes it over the Secret `known`, on which `observed` rest.
    pub(super) async fn issue(
        &mut self,
        issue_reason: IssueReason,
        observed: &ObservedState,
        known: &Known,
    ) -> Result<IssueResult, CallError> {
        if let Some(failure) = self.unwritable(observed).await? {
            return Ok(IssueResult::Failed(failure.into()));
        }
        if self.read_another(known) {
            return Ok(IssueResult::Again);
        }
        let content = match self.take_unwritten(observed) {
            Some(content) => content,
            None => match self.ask(observed).await? {
                Ok(content) => content,
                Err(ended) => return Ok(ended),
            },
        };
        self.write(issue_reason, observed, known, content).await
    }

    /// Whether the Secret that was read is not the one that was decided on: whose it is must be decided anew.
    fn read_another(&self, known: &Known) -> bool {
        let Known::Present(secret_metadata) = known else { return false };
        self.fetched.target.as_ref().is_some_and(|read| read.version != secret_metadata.version)
    }

    /// What makes a Secret of ours, or one that was offered to us, unfit to be written. Asked before a token is.
    async fn unwritable(&mut self, observed: &ObservedState) -> Result<Option<Failure>, CallError> {
        if let Err(failure) = template::check(self.references.credential.spec.secret_template.as_ref()) {
            return Ok(Some(failure));
        }
        let Target::Ours(Held { token_metadata, .. }) = &observed.target else { return Ok(None) };
        if self.fetched.target.is_none() && (token_metadata.is_none() || self.is_unusual()) {
            self.read_target().await?;
        }
        let Some(read) = &self.fetched.target else { return Ok(None) };
        let target = &self.references.target;
        if read.immutable {
            return Ok(Some(immutable(&target.to_string())));
        }
        if read.type_ != "Opaque" {
            let message = format!(
                "Secret {target} is of type {}, and only Opaque Secrets are written: delete it, or name another in a new credential",
                read.type_
            );
            return Ok(Some(Failure::new(Reason::SecretTypeMismatch, message)));
        }
        Ok(None)
    }

    /// Whether the Secret, though ours, may not take a patch of the keys that we know: somebody made it immutable, or it
    /// has keys of another template, which must be known to be taken away.
    fn is_unusual(&self) -> bool {
        let template = self.references.credential.spec.secret_template.as_ref();
        match self.context.index.get(&self.references.target) {
            Known::Present(secret_metadata) => {
                secret_metadata.may_be_immutable || !template::is_current(secret_metadata.template.as_deref(), template)
            }
            Known::Unknown | Known::Absent => false,
        }
    }

    /// A token that was issued before and could not be written, if it is still what is wanted.
    fn take_unwritten(&mut self, observed: &ObservedState) -> Option<Box<Content>> {
        let content = self.retry_state.unwritten.take()?;
        // one that was issued to an equal request of another credential comes before the client is read
        let client = match (&self.fetched.client, self.context.index.get(&self.references.client)) {
            (Some(read), _) => Some(read.version.clone()),
            (None, Known::Present(secret_metadata)) => Some(secret_metadata.version.clone()),
            (None, _) => None,
        };
        let no_worse = observed.held_for_spec().is_none_or(|held| held.expires_at <= content.issued.expires_at);
        let fits = no_worse
            && content.request == observed.desired.request
            && Some(content.issuer.as_str()) == observation::issuer(&observed.authority)
            && Some(&content.client_version) == client.as_ref()
            && content.client_reference == observation::client_reference(&self.references)
            && schedule::renew_at(&token_metadata_of(&content), &observed.desired.policy, &observed.uid)
                > self.context.clock.now();
        fits.then_some(content)
    }

    async fn ask(&mut self, observed: &ObservedState) -> Result<Result<Box<Content>, IssueResult>, CallError> {
        let credential = self.references.credential;
        let name = &credential.spec.authority_ref.name;
        let (Some(authority), Some(issuer)) =
            (self.context.authorities.get(name), observation::issuer(&observed.authority))
        else {
            // it went away since the decision
            return Ok(Err(IssueResult::NotYet(AWAIT_AUTHORITY)));
        };
        if let Some(wait) = self.too_soon(observed) {
            return Ok(Err(IssueResult::NotYet(wait)));
        }
        if self.fetched.client.is_none() {
            // a token was at hand, and did not fit
            return Ok(Err(IssueResult::NotAdmitted));
        }
        let namespace_labels =
            if authority.config.restricts_namespaces() { self.namespace_labels().await? } else { Default::default() };
        let Some(slot) = self.slot.take() else { return Ok(Err(IssueResult::NotAdmitted)) };
        let usable = self.fetched.client.as_ref().and_then(|read| Some((read.content.as_ref().ok()?, read)));
        let Some((client, read)) = usable else {
            return Ok(Err(IssueResult::NotYet(AWAIT_AUTHORITY)));
        };
        // a server that takes its time takes no worker away from other authorities
        self.worker = None;
        slot.paced().await;
        if !self.context.cluster.mandate.holds() {
            return Err(CallError::NotLeading);
        }
        self.retry_state.asked_at = Some(self.context.clock.now());
        if observed.is_asked_for(self.context.clock.now()) {
            self.retry_state.requested_at = self.retry_state.asked_at;
        }
        let order = Order {
            credential,
            namespace_labels: &namespace_labels,
            client,
            client_secret: &self.references.client.to_string(),
            held: observed.held_for_spec(),
        };
        let issued = token_request::request_token(&authority, &order).await.map(|issued| Content {
            client_fingerprint: read.material.fingerprint(&issued.token),
            issued,
            issuer: issuer.to_owned(),
            request: observed.desired.request.clone(),
            client_id: client.id.clone(),
            client_version: read.version.clone(),
            client_reference: observation::client_reference(&self.references),
        });
        let version = read.version.clone();
        match issued {
            Ok(content) => {
                let content = Box::new(content);
                slot.end(Outcome::Succeeded, version, Some(content.clone()));
                self.worker = self.context.worker().await;
                Ok(Ok(content))
            }
            Err(failure) => {
                slot.end(outcome(&failure), version, None);
                self.worker = self.context.worker().await;
                Ok(Err(IssueResult::Failed(failure)))
            }
        }
    }

    /// How long to wait so that at most one token a second is asked for, whatever changes how often: somebody may edit
    /// the Secret as fast as it is mended. What a user asks for by hand is not held up.
    fn too_soon(&self, observed: &ObservedState) -> Option<TimeDelta> {
        let since = self.context.clock.now() - self.retry_state.asked_at?;
        // less than nothing where the clock was set back
        let too_soon =
            !observed.is_asked_for(self.context.clock.now()) && since >= TimeDelta::zero() && since < backoff::FLOOR;
        too_soon.then(|| backoff::FLOOR - since)
    }

    async fn namespace_labels(&self) -> Result<BTreeMap<String, String>, CallError> {
        let api: Api<Namespace> = Api::all(self.context.cluster.client.clone());
        let request = api.get_metadata(&self.references.key.namespace);
        let namespace = self.context.cluster.call(Step::GetNamespace, request).await?;
        Ok(namespace.metadata.labels.unwrap_or_default())
    }

    async fn write(
        &mut self,
        issue_reason: IssueReason,
        observed: &ObservedState,
        known: &Known,
        content: Box<Content>,
    ) -> Result<IssueResult, CallError> {
        let Context { cluster, index, .. } = self.context;
        let (credential, target) = (self.references.credential, &self.references.target);
        let data = match secret_writer::data(credential, &content) {
            Ok(data) => data,
            Err(failure) => {
                // the token is good, and is written once the template is
                self.retry_state.unwritten = Some(content);
                return Ok(IssueResult::Failed(failure.into()));
            }
        };
        let written = match known {
            Known::Unknown => return Ok(self.keep_unwritten(content)),
            Known::Absent => secret_writer::create(cluster, credential, &content, data).await,
            Known::Present(secret_metadata) => {
                let present = self.fetched.target.as_ref().map(|read| &read.data);
                secret_writer::update(cluster, credential, Existing { secret_metadata, present }, &content, &data).await
            }
        };
        let name = target.to_string();
        match written {
            Ok(secret_metadata) => {
                let was_there = self.retry_state.verified_target.is_some();
                let is_restored =
                    issue_reason == IssueReason::Tampered || (issue_reason == IssueReason::Missing && was_there);
                self.retry_state.verified_target = Some(secret_metadata.version.clone());
                index.observe(target, secret_metadata);
                self.written(issue_reason, observed, &content);
                Ok(IssueResult::Written { is_restored })
            }
            Err(CallError::Conflict | CallError::AlreadyExists | CallError::NotFound) => {
                Ok(self.keep_unwritten(content))
            }
            Err(error @ CallError::NotLeading) => {
                self.retry_state.unwritten = Some(content);
                Err(error)
            }
            Err(CallError::Invalid(why)) if why.contains("immutable") => {
                Ok(IssueResult::Failed(immutable(&name).into()))
            }
            Err(error) => {
                self.retry_state.unwritten = Some(content);
                // whether it was written before the answer was lost, only the Secret can tell
                index.invalidate(target);
                Ok(IssueResult::Failed(RequestFailure::new(
                    Reason::SecretWriteFailed,
                    format!(
                        "Secret {name} could not be written ({error}): check quotas and the permissions of the operator's service account; the token is kept and written later"
                    ),
                )))
            }
        }
    }

    fn keep_unwritten(&mut self, content: Box<Content>) -> IssueResult {
        self.retry_state.unwritten = Some(content);
        IssueResult::Again
    }

    /// Notes a token that was written.
    fn written(&mut self, issue_reason: IssueReason, observed: &ObservedState, content: &Content) {
        let now = self.context.clock.now();
        if let Target::Ours(Held { token_metadata: Some(old), .. }) = &observed.target {
            let left = old.expires_at - now;
            self.context.metrics.replaced_with_left(left.as_seconds_f64());
            if issue_reason == IssueReason::Due {
                let due = schedule::renew_at(old, &observed.desired.policy, &observed.uid);
                self.context.metrics.renewed_late((now - due).as_seconds_f64());
            }
        }
        self.retry_state.verified_client = None;
        self.retry_state.unfulfilled_request = None;
        if let Some(request) = self.references.renew_annotation() {
            self.retry_state.attempts.renew_request = Some(request.clone());
        }
        self.fetched = FetchedSecrets::default();
        self.nothing_is_wrong();
        tracing::info!(
            credential = %self.references.key,
            secret = self.references.target.name,
            issue_reason = ?issue_reason,
            expires_at = %time::to_rfc3339(content.issued.expires_at),
            "token written"
        );
    }

    pub(super) fn nothing_is_wrong(&mut self) {
        self.retry_state.attempts.failures = 0;
        self.retry_state.attempts.last_failure = None;
        self.retry_state.not_before = None;
        self.retry_state.inputs = None;
    }

    /// Notes an attempt that failed.
    pub(super) fn failed(&mut self, observed: &ObservedState, inputs: u32, failure: RequestFailure) {
        let now = self.context.clock.now();
        let RequestFailure { failure, retry_after, .. } = failure;
        self.retry_state.attempts.failures = self.retry_state.attempts.failures.saturating_add(1);
        let wait = backoff::delay(
            self.retry_state.attempts.failures,
            observed.left(now),
            failure.reason,
            retry_after,
            &observed.uid,
        );
        self.retry_state.not_before = Some(now + wait);
        self.retry_state.failed_by_others = false;
        self.retry_state.inputs = Some(inputs);
        if observed.is_asked_for(now) {
            self.retry_state.unfulfilled_request = self.references.renew_annotation().cloned();
            self.retry_state.attempts.renew_request.clone_from(&self.retry_state.unfulfilled_request);
        }
        tracing::warn!(
            credential = %self.references.key,
            reason = failure.reason.as_str(),
            failures = self.retry_state.attempts.failures,
            retry_in_ms = wait.num_milliseconds(),
            "no token: {}",
            failure.message
        );
        self.retry_state.attempts.last_failure = Some((now, failure.clone()));
        self.outcome = Some(Attempted::Failed(failure));
    }
}

/// A failed exchange as the queue counts it.
fn outcome(failure: &RequestFailure) -> Outcome {
    match failure.stage {
        ExchangeStage::NotSent => Outcome::NotSent,
        stage => Outcome::Failed {
            failure: failure.failure.clone(),
            server_wait: failure.server_wait,
            is_outage: stage == ExchangeStage::Outage,
        },
    }
}

fn immutable(secret: &str) -> Failure {
    Failure::new(
        Reason::SecretImmutable,
        format!(
            "Secret {secret} is immutable, so that no token can be written into it: delete it, it is made again at once"
        ),
    )
}

fn token_metadata_of(content: &Content) -> TokenMetadata {
    TokenMetadata {
        request: content.request.as_str().into(),
        issuer: content.issuer.as_str().into(),
        client_version: content.client_version.clone(),
        issued_at: content.issued.issued_at,
        expires_at: content.issued.expires_at,
    }
}
