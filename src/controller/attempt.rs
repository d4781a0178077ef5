//! One attempt for one credential: the token request, and the write of its token.

use std::{collections::BTreeMap, sync::Arc};

use chrono::TimeDelta;
use itwin_core::{
    action::IssueReason,
    failure::Failure,
    messages, messages_oauth,
    observed::ObservedState,
    request_error::RequestError,
    requests::Outcome,
    token::{Content, Description, IssuedToken, TokenMetadata},
    validate::ValidationError,
};
use itwin_oauth::token::ClientCredentials;

use super::{
    action_error::ActionError,
    fetched::FetchedClient,
    namespace_labels,
    reconciler::{AWAIT_AUTHORITY, Reconciler},
    registry::Currency,
    token_write::Written,
};
use crate::{
    act::token_request::{self, Order},
    cluster::CallError,
    oauth::authority::Authority,
    observe::index::Known,
};

impl Reconciler<'_> {
    /// Requests a token and writes it over the Secret `known`, on which `observed` rests.
    pub(super) async fn request_and_write(
        &mut self,
        issue_reason: IssueReason,
        observed: &ObservedState,
        known: &Known,
    ) -> Result<Written, ActionError> {
        self.check_read(known)?;
        self.retry_state.drop_expired(self.context.clock.now());
        let content = self.ask(observed).await?;
        // one that was at hand is not what is wanted now, but may be again as long as there is no other one
        self.retry_state.drop_unwritten();
        if self.context.authorities.restricts_namespaces_since(&self.references.credential.spec, &content) {
            // whether this one is allowed is found out before the token that is at hand is written
            self.keep(content);
            return Err(ActionError::Outdated);
        }
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
        if let Some(authority) = self.context.authorities.get(&self.references.credential.spec.authority_ref.name) {
            // an administrator may have withdrawn it since; labels that cannot be read keep no token from the Secret, unless
            // which namespaces are allowed was edited since
            let permitted = self.permitted_labels(&authority).await;
            let (spec, kept) = (&self.references.credential.spec, self.retry_state.unwritten());
            if let Some(failure) = permitted.err().filter(|_| self.context.authorities.needs_labels(spec, kept)) {
                return Err(failure.into());
            }
        }
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
    pub(super) fn check_current(&self) -> Result<(), ActionError> {
        match self.currency() {
            Currency::Current => Ok(()),
            Currency::Changed => Err(ActionError::Superseded),
            Currency::Gone => Err(ActionError::Gone),
        }
    }

    async fn ask(&mut self, observed: &ObservedState) -> Result<Box<Content>, ActionError> {
        let credential = self.references.credential;
        let name = &credential.spec.authority_ref.name;
        let (Some(authority), Some(_)) = (self.context.authorities.get(name), observed.authority.issuer()) else {
            // it went away since the decision
            return Err(ActionError::NotYet(AWAIT_AUTHORITY));
        };
        // what may not be asked for takes no turn from those who wait
        let namespace_labels = self.permitted_labels(&authority).await?;
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
            // others take their turn while this one waits for a worker: it may be the only probe of an open circuit
            drop(slot);
            self.worker = Some(self.context.workers.take(&self.references.key.namespace).await);
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
        if let Some(is_news) = self.context.authorities.note_fetched(&authority) {
            self.context.namespaces.enqueue_authority(name);
            if is_news {
                self.context.namespaces.enqueue_users_of(name);
            }
        }
        let version = read.version.clone();
        let mut longer_at = None;
        let result = match issued {
            Ok(issued) => {
                let content = Box::new(self.content(issued, (client, read), observed, &authority));
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
                if error.may_have_moved() && self.context.authorities.ask_early(&authority) {
                    self.context.namespaces.enqueue_authority(name);
                }
                let failure = messages_oauth::request_failed(&error, &token_request::names(&authority, &order));
                slot.end(error.outcome(&failure), version, None);
                Err(failure.into())
            }
        };
        if let Some((until, now)) = longer_at {
            self.retry_state.renewal_waits(until, observed.held(), now);
        }
        self.worker = Some(self.context.workers.take(&self.references.key.namespace).await);
        result
    }

    /// An issued token with what the Secret will record about it.
    fn content(
        &self,
        issued: IssuedToken,
        (client, read): (&ClientCredentials, &FetchedClient),
        observed: &ObservedState,
        authority: &Authority,
    ) -> Content {
        let counted = self.context.kept_tokens.count(&self.references.key.namespace, issued.token.size());
        Content {
            counted: Some(counted),
            client_fingerprint: read.material.fingerprint(&issued.token).into(),
            token_metadata: TokenMetadata {
                request: observed.desired.request.as_str().into(),
                issuer: authority.config.issuer.as_str().into(),
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
            checked_with: Some(authority.config.token_rules.clone()),
        }
    }

    /// The labels of the namespace, if the authority allows it; none where it allows all.
    async fn permitted_labels(&mut self, authority: &Authority) -> Result<BTreeMap<String, String>, Failure> {
        if !authority.config.restricts_namespaces() {
            return Ok(BTreeMap::new());
        }
        let (name, namespace) = (&self.references.credential.spec.authority_ref.name, &self.references.key.namespace);
        let began = self.context.clock.monotonic();
        let read = namespace_labels::read(&self.context.cluster, namespace).await;
        let read = read.map_err(|error| messages::namespace_read_failed(namespace, name, &error, error.why()));
        let permitted = read.and_then(|labels| {
            let permits = authority.config.permits_namespace(name, namespace, &labels);
            // nor is a token written that is at hand
            permits.inspect_err(|_| self.retry_state.drop_unwritten()).map(|()| labels)
        });
        if permitted.is_err() {
            self.failed_for_labels(authority, began);
        }
        permitted
    }
}
