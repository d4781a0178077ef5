//! One attempt for one credential: what makes it vain, asking for a token, writing it, and noting how it ended.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;

use super::{
    gather,
    reading::Reading,
    reconcile::{AWAIT_AUTHORITY, Attempted, Context, Visit},
};
use crate::{
    act::{
        mint::{self, Order},
        secret_writer::{self, Content, Existing},
        template,
    },
    api::conditions::Reason,
    clock,
    cluster::{CallError, Step},
    decide::{
        backoff,
        facts::{Facts, Held, Refusal, Stamp, Target},
        plan::Need,
        requests::Outcome,
        schedule,
    },
    oauth::failure::{Failure, Stage},
    observe::index::Known,
};

/// How asking for a token and writing it ended.
pub(super) enum Minted {
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
    Failed(Failure),
}

impl Visit<'_> {
    /// Asks for a token and writes it over the Secret `known`, on which `facts` rest.
    pub(super) async fn mint(&mut self, need: Need, facts: &Facts, known: &Known) -> Result<Minted, CallError> {
        if let Some(refusal) = self.unwritable(facts).await? {
            return Ok(Minted::Failed(refusal.into()));
        }
        if self.read_another(known) {
            return Ok(Minted::Again);
        }
        let content = match self.take_unwritten(facts) {
            Some(content) => content,
            None => match self.ask(facts).await? {
                Ok(content) => content,
                Err(ended) => return Ok(ended),
            },
        };
        self.write(need, facts, known, content).await
    }

    /// Whether the Secret that was read is not the one that was decided on: whose it is must be decided anew.
    fn read_another(&self, known: &Known) -> bool {
        let Known::Present(seen) = known else { return false };
        self.reading.target.as_ref().is_some_and(|read| read.version != seen.version)
    }

    /// What makes a Secret of ours, or one that was offered to us, unfit to be written. Asked before a token is.
    async fn unwritable(&mut self, facts: &Facts) -> Result<Option<Refusal>, CallError> {
        if let Err(refusal) = template::check(self.subject.credential.spec.secret_template.as_ref()) {
            return Ok(Some(refusal));
        }
        let Target::Ours(Held { stamp, .. }) = &facts.target else { return Ok(None) };
        if self.reading.target.is_none() && (stamp.is_none() || self.is_unusual()) {
            self.read_target().await?;
        }
        let Some(read) = &self.reading.target else { return Ok(None) };
        let target = &self.subject.target;
        if read.immutable {
            return Ok(Some(immutable(&target.to_string())));
        }
        if read.type_ != "Opaque" {
            let message = format!(
                "Secret {target} is of type {}, and only Opaque Secrets are written: delete it, or name another in a new credential",
                read.type_
            );
            return Ok(Some(Refusal::new(Reason::SecretTypeMismatch, message)));
        }
        Ok(None)
    }

    /// Whether the Secret, though ours, may not take a patch of the keys that we know: somebody made it immutable, or it
    /// has keys of another template, which must be known to be taken away.
    fn is_unusual(&self) -> bool {
        let template = self.subject.credential.spec.secret_template.as_ref();
        match self.context.index.get(&self.subject.target) {
            Known::Present(seen) => seen.may_be_immutable || !template::is_current(seen.template.as_deref(), template),
            Known::Unknown | Known::Absent => false,
        }
    }

    /// A token that was issued before and could not be written, if it is still what is wanted.
    fn take_unwritten(&mut self, facts: &Facts) -> Option<Box<Content>> {
        let content = self.memory.unwritten.take()?;
        // one that was issued to an equal request of another credential comes before the client is read
        let client = match (&self.reading.client, self.context.index.get(&self.subject.client)) {
            (Some(read), _) => Some(read.version.clone()),
            (None, Known::Present(seen)) => Some(seen.version.clone()),
            (None, _) => None,
        };
        let no_worse = facts.held_for_spec().is_none_or(|held| held.expires_at <= content.grant.expires_at);
        let fits = no_worse
            && content.request == facts.desired.request
            && Some(content.issuer.as_str()) == gather::issuer(&facts.authority)
            && Some(&content.client_version) == client.as_ref()
            && content.client_reference == gather::client_reference(&self.subject)
            && schedule::renew_at(&stamp_of(&content), &facts.desired.policy, &facts.uid) > clock::now();
        fits.then_some(content)
    }

    async fn ask(&mut self, facts: &Facts) -> Result<Result<Box<Content>, Minted>, CallError> {
        let credential = self.subject.credential;
        let name = &credential.spec.authority_ref.name;
        let (Some(authority), Some(issuer)) = (self.context.authorities.get(name), gather::issuer(&facts.authority))
        else {
            // it went away since the decision
            return Ok(Err(Minted::NotYet(AWAIT_AUTHORITY)));
        };
        if let Some(wait) = self.too_soon(facts) {
            return Ok(Err(Minted::NotYet(wait)));
        }
        if self.reading.client.is_none() {
            // a token was at hand, and did not fit
            return Ok(Err(Minted::NotAdmitted));
        }
        let namespace_labels =
            if authority.config.restricts_namespaces() { self.namespace_labels().await? } else { Default::default() };
        let Some(slot) = self.slot.take() else { return Ok(Err(Minted::NotAdmitted)) };
        let usable = self.reading.client.as_ref().and_then(|read| Some((read.content.as_ref().ok()?, read)));
        let Some((client, read)) = usable else {
            return Ok(Err(Minted::NotYet(AWAIT_AUTHORITY)));
        };
        // a server that takes its time takes no worker away from other authorities
        self.worker = None;
        slot.paced().await;
        if !self.context.cluster.fence.holds() {
            return Err(CallError::NotLeading);
        }
        self.memory.asked_at = Some(clock::now());
        if facts.is_asked_for(clock::now()) {
            self.memory.requested_at = self.memory.asked_at;
        }
        let order = Order {
            credential,
            namespace_labels: &namespace_labels,
            client,
            client_secret: &self.subject.client.to_string(),
            held: facts.held_for_spec(),
        };
        let issued = mint::mint(&authority, &order).await.map(|grant| Content {
            client_fingerprint: read.material.fingerprint(&grant.token),
            grant,
            issuer: issuer.to_owned(),
            request: facts.desired.request.clone(),
            client_id: client.id.clone(),
            client_version: read.version.clone(),
            client_reference: gather::client_reference(&self.subject),
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
                Ok(Err(Minted::Failed(failure)))
            }
        }
    }

    /// How long to wait so that at most one token a second is asked for, whatever changes how often: somebody may edit
    /// the Secret as fast as it is mended. What a user asks for by hand is not held up.
    fn too_soon(&self, facts: &Facts) -> Option<TimeDelta> {
        let since = clock::now() - self.memory.asked_at?;
        // less than nothing where the clock was set back
        let too_soon = !facts.is_asked_for(clock::now()) && since >= TimeDelta::zero() && since < backoff::FLOOR;
        too_soon.then(|| backoff::FLOOR - since)
    }

    async fn namespace_labels(&self) -> Result<BTreeMap<String, String>, CallError> {
        let api: Api<Namespace> = Api::all(self.context.cluster.client.clone());
        let request = api.get_metadata(&self.subject.key.namespace);
        let namespace = self.context.cluster.call(Step::GetNamespace, request).await?;
        Ok(namespace.metadata.labels.unwrap_or_default())
    }

    async fn write(
        &mut self,
        need: Need,
        facts: &Facts,
        known: &Known,
        content: Box<Content>,
    ) -> Result<Minted, CallError> {
        let Context { cluster, index, .. } = self.context;
        let (credential, target) = (self.subject.credential, &self.subject.target);
        let data = match secret_writer::data(credential, &content) {
            Ok(data) => data,
            Err(refusal) => {
                // the token is good, and is written once the template is
                self.memory.unwritten = Some(content);
                return Ok(Minted::Failed(refusal.into()));
            }
        };
        let written = match known {
            Known::Unknown => return Ok(self.keep_unwritten(content)),
            Known::Absent => secret_writer::create(cluster, credential, &content, data).await,
            Known::Present(seen) => {
                let present = self.reading.target.as_ref().map(|read| &read.data);
                secret_writer::update(cluster, credential, Existing { seen, present }, &content, &data).await
            }
        };
        let name = target.to_string();
        match written {
            Ok(seen) => {
                let was_there = self.memory.proven_target.is_some();
                let is_restored = need == Need::Damaged || (need == Need::Missing && was_there);
                self.memory.proven_target = Some(seen.version.clone());
                index.saw(target, seen);
                self.written(need, facts, &content);
                Ok(Minted::Written { is_restored })
            }
            Err(CallError::Conflict | CallError::AlreadyExists | CallError::NotFound) => {
                Ok(self.keep_unwritten(content))
            }
            Err(error @ CallError::NotLeading) => {
                self.memory.unwritten = Some(content);
                Err(error)
            }
            Err(CallError::Invalid(why)) if why.contains("immutable") => Ok(Minted::Failed(immutable(&name).into())),
            Err(error) => {
                self.memory.unwritten = Some(content);
                // whether it was written before the answer was lost, only the Secret can tell
                index.doubt(target);
                Ok(Minted::Failed(Failure::new(
                    Reason::SecretWriteFailed,
                    format!(
                        "Secret {name} could not be written ({error}): check quotas and the permissions of the operator's service account; the token is kept and written later"
                    ),
                )))
            }
        }
    }

    fn keep_unwritten(&mut self, content: Box<Content>) -> Minted {
        self.memory.unwritten = Some(content);
        Minted::Again
    }

    /// Notes a token that was written.
    fn written(&mut self, need: Need, facts: &Facts, content: &Content) {
        let now = clock::now();
        if let Target::Ours(Held { stamp: Some(old), .. }) = &facts.target {
            let left = old.expires_at - now;
            self.context.metrics.replaced_with_left(left.as_seconds_f64());
            if need == Need::Due {
                let due = schedule::renew_at(old, &facts.desired.policy, &facts.uid);
                self.context.metrics.renewed_late((now - due).as_seconds_f64());
            }
        }
        self.memory.proven_client = None;
        self.memory.unfulfilled_request = None;
        if let Some(request) = self.subject.renew_annotation() {
            self.memory.attempts.renew_request = Some(request.clone());
        }
        self.reading = Reading::default();
        self.nothing_is_wrong();
        tracing::info!(
            credential = %self.subject.key,
            secret = self.subject.target.name,
            need = ?need,
            expires_at = %clock::to_rfc3339(content.grant.expires_at),
            "token written"
        );
    }

    pub(super) fn nothing_is_wrong(&mut self) {
        self.memory.attempts.failures = 0;
        self.memory.attempts.last_failure = None;
        self.memory.not_before = None;
        self.memory.inputs = None;
    }

    /// Notes an attempt that failed.
    pub(super) fn failed(&mut self, facts: &Facts, inputs: u32, failure: Failure) {
        let now = clock::now();
        let Failure { refusal, retry_after, .. } = failure;
        self.memory.attempts.failures = self.memory.attempts.failures.saturating_add(1);
        let wait =
            backoff::delay(self.memory.attempts.failures, facts.left(now), refusal.reason, retry_after, &facts.uid);
        self.memory.not_before = Some(now + wait);
        self.memory.failed_by_others = false;
        self.memory.inputs = Some(inputs);
        if facts.is_asked_for(now) {
            self.memory.unfulfilled_request = self.subject.renew_annotation().cloned();
            self.memory.attempts.renew_request.clone_from(&self.memory.unfulfilled_request);
        }
        tracing::warn!(
            credential = %self.subject.key,
            reason = refusal.reason.as_str(),
            failures = self.memory.attempts.failures,
            retry_in_ms = wait.num_milliseconds(),
            "no token: {}",
            refusal.message
        );
        self.memory.attempts.last_failure = Some((now, refusal.clone()));
        self.outcome = Some(Attempted::Failed(refusal));
    }
}

/// A failed exchange as the queue counts it.
fn outcome(failure: &Failure) -> Outcome {
    match failure.stage {
        Stage::NotSent => Outcome::NotSent,
        stage => Outcome::Failed {
            refusal: failure.refusal.clone(),
            server_wait: failure.server_wait,
            is_outage: stage == Stage::Outage,
        },
    }
}

fn immutable(secret: &str) -> Refusal {
    Refusal::new(
        Reason::SecretImmutable,
        format!(
            "Secret {secret} is immutable, so that no token can be written into it: delete it, it is made again at once"
        ),
    )
}

fn stamp_of(content: &Content) -> Stamp {
    Stamp {
        request: content.request.as_str().into(),
        issuer: content.issuer.as_str().into(),
        client_version: content.client_version.clone(),
        issued_at: content.grant.issued_at,
        expires_at: content.grant.expires_at,
    }
}
