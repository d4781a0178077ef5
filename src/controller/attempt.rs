//! One attempt for one credential: the token request, the write, and how it ended.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use itwin_api::time;
use itwin_core::{
    action::IssueReason,
    desired_secret::{self, Content},
    failure::{ExchangeStage, RequestFailure},
    messages,
    observed::{Held, ObservedState, Target},
    requests::Outcome,
    schedule,
    validate::IssuedToken,
};
use itwin_oauth::token::ClientCredentials;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;

use super::{
    context::Context,
    fetched::{FetchedClient, FetchedSecrets},
    reconciler::{AWAIT_AUTHORITY, Reconciler},
    references,
};
use crate::{
    act::{
        secret_writer::{self, Existing},
        token_request::{self, Order},
    },
    cluster::{CallError, Step},
    observe::index::Known,
};

/// How a token request and the write of the token ended.
pub(super) enum IssueResult {
    Written {
        /// It had been written before, and was changed or deleted since.
        is_restored: bool,
    },
    /// What the decision rested on is gone: the right to send, the client that was read, or the issued token.
    NotAdmitted,
    /// The Secret was changed meanwhile: read it again.
    Again,
    /// It must wait for so long.
    NotYet(TimeDelta),
    Failed(RequestFailure),
}

impl Reconciler<'_> {
    /// Requests a token and writes it over the Secret `known`, on which `observed` rests.
    pub(super) async fn request_and_write(
        &mut self,
        issue_reason: IssueReason,
        observed: &ObservedState,
        known: &Known,
    ) -> Result<IssueResult, CallError> {
        // one that is at hand is not what is wanted
        self.retry_state.drop_unwritten();
        if self.read_another(known) {
            return Ok(IssueResult::Again);
        }
        match self.ask(observed).await? {
            Ok(content) => self.write(issue_reason, observed, known, content).await,
            Err(ended) => Ok(ended),
        }
    }

    /// Writes the token that was issued before over the Secret `known`.
    pub(super) async fn write_issued(
        &mut self,
        issue_reason: IssueReason,
        observed: &ObservedState,
        known: &Known,
    ) -> Result<IssueResult, CallError> {
        if self.read_another(known) {
            return Ok(IssueResult::Again);
        }
        match self.retry_state.take_unwritten() {
            Some(content) => self.write(issue_reason, observed, known, content).await,
            None => Ok(IssueResult::NotAdmitted),
        }
    }

    /// Whether the Secret that was read is not the one that was decided on: whose it is must be decided again.
    fn read_another(&self, known: &Known) -> bool {
        let Known::Present(secret_metadata) = known else { return false };
        self.fetched.target.as_ref().is_some_and(|read| read.version != secret_metadata.version)
    }

    async fn ask(&mut self, observed: &ObservedState) -> Result<Result<Box<Content>, IssueResult>, CallError> {
        let credential = self.references.credential;
        let name = &credential.spec.authority_ref.name;
        let (Some(authority), Some(issuer)) = (self.context.authorities.get(name), observed.authority.issuer()) else {
            // it went away since the decision
            return Ok(Err(IssueResult::NotYet(AWAIT_AUTHORITY)));
        };
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
        if !self.context.cluster.fence.holds() {
            return Err(CallError::NotLeading);
        }
        let now = self.context.clock.now();
        self.retry_state.requested(observed.is_asked_for(now), now);
        let order = Order {
            credential,
            namespace_labels: &namespace_labels,
            client,
            client_secret: &self.references.client.to_string(),
            held: observed.held_for_spec(),
        };
        let issued = token_request::request_token(&authority, &order).await;
        let content = issued.map(|issued| Box::new(self.content(issued, (client, read), observed, issuer)));
        let version = read.version.clone();
        match &content {
            Ok(content) => slot.end(Outcome::Succeeded, version, Some(content.clone())),
            Err(failure) => slot.end(outcome(failure), version, None),
        }
        self.worker = self.context.worker().await;
        Ok(content.map_err(IssueResult::Failed))
    }

    /// An issued token with what the Secret will record about it.
    fn content(
        &self,
        issued: IssuedToken,
        (client, read): (&ClientCredentials, &FetchedClient),
        observed: &ObservedState,
        issuer: &str,
    ) -> Content {
        Content {
            client_fingerprint: read.material.fingerprint(&issued.token),
            issued,
            issuer: issuer.to_owned(),
            request: observed.desired.request.clone(),
            client_id: client.id.clone(),
            client_version: read.version.clone(),
            client_reference: references::client_reference(&self.references),
        }
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
        let data = match desired_secret::data(credential, &content) {
            Ok(data) => data,
            Err(failure) => {
                // the token is good, and is written once the template is
                self.retry_state.keep(content);
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
        match written {
            Ok(secret_metadata) => {
                let was_there = self.retry_state.verified_target().is_some();
                let is_restored =
                    issue_reason == IssueReason::Tampered || (issue_reason == IssueReason::Missing && was_there);
                self.retry_state.target_verified(secret_metadata.version.clone());
                index.observe(target, secret_metadata);
                self.written(issue_reason, observed, &content);
                Ok(IssueResult::Written { is_restored })
            }
            Err(error) => self.not_written(error, content),
        }
    }

    /// Keeps a token that could not be written, where a later write may succeed.
    fn not_written(&mut self, error: CallError, content: Box<Content>) -> Result<IssueResult, CallError> {
        let secret = self.references.target.to_string();
        match error {
            CallError::Conflict | CallError::AlreadyExists | CallError::NotFound => Ok(self.keep_unwritten(content)),
            CallError::NotLeading => {
                self.retry_state.keep(content);
                Err(CallError::NotLeading)
            }
            CallError::Invalid(why) if why.contains("immutable") => {
                Ok(IssueResult::Failed(messages::secret_immutable(&secret).into()))
            }
            error => {
                self.retry_state.keep(content);
                // whether it was written before the answer was lost, only the Secret shows
                self.context.index.invalidate(&self.references.target);
                Ok(IssueResult::Failed(messages::secret_write_failed(&secret, &error).into()))
            }
        }
    }

    fn keep_unwritten(&mut self, content: Box<Content>) -> IssueResult {
        self.retry_state.keep(content);
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
        self.retry_state.written(self.references.renew_annotation().map(String::as_str));
        self.restarts_follow(content.issued.issued_at);
        self.fetched = FetchedSecrets::default();
        tracing::info!(
            credential = %self.references.key,
            secret = self.references.target.name,
            issue_reason = ?issue_reason,
            expires_at = %time::to_rfc3339(content.issued.expires_at),
            "token written"
        );
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
