//! One credential: observe, decide, act, until there is nothing more to do now; then report, and say when to look
//! again.

use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use serde_json::json;

use super::{
    authorities::Authorities,
    gather::{self, Reading, Subject},
    memory::{Memories, Memory},
    scopes::Scopes,
};
use crate::{
    act::{
        mint::{self, Order},
        secret_writer::{self, Content, Existing},
    },
    api::{
        MANAGER,
        conditions::{READY, Reason},
        credential::{CredentialStatus, ITwinServiceCredential},
    },
    clock,
    cluster::{CallError, Cluster, Step},
    decide::{
        backoff,
        facts::{Facts, Held, Refusal, Stamp, Target},
        next,
        plan::{Inspect, Need, Plan},
        schedule,
    },
    metrics::{CredentialGauges, CredentialLabels, Metrics},
    oauth::{authority::NoToken, failure::Failure},
    observe::index::{Known, SecretIndex},
    report::{
        events::{self, Events, Outcome},
        status::{self, Description},
    },
};

/// Steps of one look at a credential: reading three Secrets, asking, writing, and twice again after conflicts.
const STEPS_MAX: usize = 12;
/// A credential is looked at at least this often, so that a clock that was set or a machine that slept is noticed.
const LOOK_AGAIN: TimeDelta = TimeDelta::minutes(10);
/// The same where Secrets are not watched: the contract promises to notice changes within 5 minutes.
const LOOK_AGAIN_UNWATCHED: TimeDelta = TimeDelta::seconds(290);
/// Wait for an authority that was not looked at yet; its first answer wakes the credential before that.
const AWAIT_AUTHORITY: TimeDelta = TimeDelta::seconds(5);
/// Never look again sooner than this: a bound on what any mistake in the schedule can cost.
const LOOK_AGAIN_FLOOR: TimeDelta = TimeDelta::milliseconds(10);
/// The longest wait after calls to the Kubernetes API that failed.
const API_RETRY_CEILING: TimeDelta = TimeDelta::seconds(30);

/// What every reconcile shares.
pub struct Context {
    /// The Kubernetes API.
    pub cluster: Cluster,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The authorities.
    pub authorities: Authorities,
    /// The Secrets that somebody cares for.
    pub index: SecretIndex,
    /// What is remembered of each credential.
    pub memories: Memories,
    /// The publisher of events.
    pub events: Events,
    /// The namespaces we act in.
    pub scopes: Scopes,
    /// A watch keeps the index up to date.
    pub watch_secrets: bool,
}

/// Looks at one credential. A panic is caught and counted: it neither stops the others nor hides.
///
/// # Errors
/// Never: what went wrong is in the action.
pub async fn reconcile(credential: Arc<ITwinServiceCredential>, context: Arc<Context>) -> Result<Action, Infallible> {
    let started = Instant::now();
    let (result, action) = match AssertUnwindSafe(look(&credential, &context)).catch_unwind().await {
        Ok(Ok(action)) => ("success", action),
        Ok(Err(action)) => ("api_error", action),
        Err(_) => {
            tracing::error!(
                namespace = credential.namespace(),
                credential = credential.name_any(),
                "reconcile panicked; please report this as a bug"
            );
            ("panic", requeue(API_RETRY_CEILING))
        }
    };
    context.metrics.reconciled(result, started.elapsed());
    Ok(action)
}

fn requeue(wait: TimeDelta) -> Action {
    Action::requeue(wait.max(LOOK_AGAIN_FLOOR).to_std().unwrap_or_default())
}

async fn look(credential: &ITwinServiceCredential, context: &Context) -> Result<Action, Action> {
    if credential.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let subject = Subject::new(credential);
    let memory = context.memories.take(&subject.uid);
    let memory = memory.unwrap_or_else(|| Memory::recall(credential, clock::now()));
    let mut visit = Visit { subject, context, memory, reading: Reading::default(), outcome: None };
    let action = match visit.run().await {
        Ok(action) => {
            visit.memory.api_failures = 0;
            Ok(action)
        }
        Err(error) => {
            visit.memory.api_failures += 1;
            let wait = backoff::delay(
                visit.memory.api_failures,
                TimeDelta::zero(),
                Reason::ServerError,
                None,
                &visit.subject.uid,
            );
            tracing::warn!(credential = %visit.subject.key, %error, "a call to the Kubernetes API failed");
            Err(requeue(wait.min(API_RETRY_CEILING)))
        }
    };
    if context.index.knows(&visit.subject.key) {
        context.memories.put(visit.subject.uid, visit.memory);
    }
    action
}

/// One look at one credential.
struct Visit<'a> {
    subject: Subject<'a>,
    context: &'a Context,
    memory: Memory,
    reading: Reading,
    /// How the attempt ended, if one was made.
    outcome: Option<Attempted>,
}

enum Attempted {
    Written(Need),
    Failed(Refusal),
}

/// How asking for a token and writing it ended.
enum Minted {
    Written,
    /// Somebody changed the Secret meanwhile: look again.
    Again,
    /// The rate limit asks to wait.
    NotYet(TimeDelta),
    Failed(Failure),
}

impl Visit<'_> {
    async fn run(&mut self) -> Result<Action, CallError> {
        if !self.context.watch_secrets {
            self.look_at_secrets().await?;
        }
        for _ in 0..STEPS_MAX {
            let (facts, inputs) = self.facts();
            match next::next(&facts, clock::now()) {
                Plan::Inspect(what) => {
                    if let Err(refusal) = self.inspect(what, &facts).await? {
                        self.failed(&facts, inputs, refusal.into());
                        return self.report(None, None).await;
                    }
                }
                Plan::Mint(need) => match self.mint(need, &facts).await? {
                    Minted::Written => self.outcome = Some(Attempted::Written(need)),
                    Minted::Again => self.forget_target(),
                    Minted::NotYet(wait) => return self.report(None, Some(wait)).await,
                    Minted::Failed(failure) => self.failed(&facts, inputs, failure),
                },
                Plan::Repair => self.repair().await?,
                Plan::Refuse(refusal) => self.failed(&facts, inputs, refusal.into()),
                Plan::Keep { renew_at } => {
                    if renew_at.is_some() && self.memory.unfulfilled_request.is_none() {
                        self.nothing_is_wrong();
                    }
                    return self.report(renew_at, None).await;
                }
                Plan::BackOff { until } => return self.report(Some(until), None).await,
                Plan::AwaitAuthority => return self.report(None, Some(AWAIT_AUTHORITY)).await,
            }
        }
        // somebody changes the Secret as fast as we look at it
        let (facts, inputs) = self.facts();
        let message = format!(
            "Secret {} is changed again and again by somebody else: look at its metadata.managedFields",
            self.subject.target
        );
        self.failed(&facts, inputs, Refusal::new(Reason::SecretConflict, message).into());
        self.report(self.memory.not_before, None).await
    }

    fn facts(&self) -> (Facts, u32) {
        gather::facts(&self.subject, &self.memory, &self.reading, &self.context.index, &self.context.authorities)
    }

    async fn look_at_secrets(&self) -> Result<(), CallError> {
        let Context { cluster, index, .. } = self.context;
        index.doubt(&self.subject.target);
        index.doubt(&self.subject.client);
        gather::read_metadata(cluster, index, &self.subject.target).await?;
        gather::read_metadata(cluster, index, &self.subject.client).await
    }

    fn forget_target(&mut self) {
        self.context.index.doubt(&self.subject.target);
        self.reading.target = None;
    }

    /// Reads what is missing. Being forbidden to read is told like any other refusal; other errors are the caller's.
    async fn inspect(&mut self, what: Inspect, facts: &Facts) -> Result<Result<(), Refusal>, CallError> {
        let Context { cluster, index, .. } = self.context;
        let (result, key, reason) = match what {
            Inspect::Target => {
                let result = gather::read_metadata(cluster, index, &self.subject.target).await;
                (result, &self.subject.target, Reason::SecretWriteFailed)
            }
            Inspect::TargetData => (self.read_target().await, &self.subject.target, Reason::SecretWriteFailed),
            Inspect::Client => (self.read_client(facts).await, &self.subject.client, Reason::ClientCredentialsNotFound),
        };
        match result {
            Err(CallError::Forbidden(why)) => Ok(Err(Refusal::new(
                reason,
                format!(
                    "Secret {key} may not be read ({why}): allow the operator's service account to get Secrets in this namespace"
                ),
            ))),
            other => other.map(Ok),
        }
    }

    async fn read_target(&mut self) -> Result<(), CallError> {
        let read = gather::read_target(&self.context.cluster, &self.context.index, &self.subject).await?;
        if let Some(read) = read.as_ref().filter(|read| read.is_ours) {
            self.memory.proven_target = Some(read.version.clone());
            self.memory.description = Some(read.description.clone());
        }
        self.reading.target = read;
        Ok(())
    }

    async fn read_client(&mut self, facts: &Facts) -> Result<(), CallError> {
        if facts.held_for_spec().is_some() && self.reading.target.is_none() {
            self.read_target().await?;
        }
        let Context { cluster, index, authorities, .. } = self.context;
        let authority = authorities.get(&self.subject.credential.spec.authority_ref.name);
        // without an authority nothing is asked, and the method means nothing
        let method = authority.map(|authority| authority.config.client_authentication).unwrap_or_default();
        let read = gather::read_client(cluster, index, &self.subject, self.reading.target.as_ref(), method).await?;
        if let Some(read) = read.as_ref().filter(|read| read.same_as_held == Some(true)) {
            self.memory.proven_client = Some(read.version.clone());
        }
        self.reading.client = read;
        Ok(())
    }

    /// Asks for a token and writes it.
    async fn mint(&mut self, need: Need, facts: &Facts) -> Result<Minted, CallError> {
        if let Some(refusal) = self.unwritable(facts).await? {
            return Ok(Minted::Failed(refusal.into()));
        }
        let content = match self.take_unwritten(facts) {
            Some(content) => content,
            None => match self.ask(facts).await? {
                Ok(content) => Box::new(content),
                Err(NoToken::NotYet(wait)) => return Ok(Minted::NotYet(wait)),
                Err(NoToken::Failed(failure)) => return Ok(Minted::Failed(failure)),
            },
        };
        self.write(need, facts, content).await
    }

    /// What makes a Secret of ours, or one that was offered to us, unfit to be written. Asked before a token is.
    async fn unwritable(&mut self, facts: &Facts) -> Result<Option<Refusal>, CallError> {
        let Target::Ours(Held { stamp, .. }) = &facts.target else { return Ok(None) };
        if stamp.is_none() && self.reading.target.is_none() {
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

    /// A token that was issued before and could not be written, if it is still what is wanted.
    fn take_unwritten(&mut self, facts: &Facts) -> Option<Box<Content>> {
        let content = self.memory.unwritten.take()?;
        let client = self.reading.client.as_ref().map(|client| client.version.as_str());
        let fits = content.request == facts.desired.request
            && Some(content.issuer.as_str()) == gather::issuer(&facts.authority)
            && Some(content.client_version.as_str()) == client
            && schedule::renew_at(&stamp_of(&content), &facts.desired.policy, &facts.uid) > clock::now();
        fits.then_some(content)
    }

    async fn ask(&self, facts: &Facts) -> Result<Result<Content, NoToken>, CallError> {
        let credential = self.subject.credential;
        let name = &credential.spec.authority_ref.name;
        let (Some(authority), Some(issuer)) = (self.context.authorities.get(name), gather::issuer(&facts.authority))
        else {
            // it went away since the decision
            return Ok(Err(NoToken::NotYet(AWAIT_AUTHORITY)));
        };
        let usable = self.reading.client.as_ref().and_then(|read| Some((read.content.as_ref().ok()?, read)));
        let Some((client, read)) = usable else {
            return Ok(Err(NoToken::NotYet(AWAIT_AUTHORITY)));
        };
        let namespace_labels =
            if authority.config.restricts_namespaces() { self.namespace_labels().await? } else { Default::default() };
        let client_secret = self.subject.client.to_string();
        let order = Order {
            credential,
            namespace_labels: &namespace_labels,
            client,
            client_secret: &client_secret,
            held: facts.held_for_spec(),
        };
        let minted = mint::mint(&authority, &order).await;
        if authority.take_news() {
            self.context.scopes.wake_users_of(name);
        }
        Ok(minted.map(|grant| Content {
            client_fingerprint: read.material.fingerprint(&grant.token),
            grant,
            issuer: issuer.to_owned(),
            request: facts.desired.request.clone(),
            client_id: client.id.clone(),
            client_version: read.version.clone(),
        }))
    }

    async fn namespace_labels(&self) -> Result<std::collections::BTreeMap<String, String>, CallError> {
        let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.context.cluster.client.clone());
        let request = api.get_metadata(&self.subject.key.namespace);
        let namespace = self.context.cluster.call(Step::GetNamespace, request).await?;
        Ok(namespace.metadata.labels.unwrap_or_default())
    }

    async fn write(&mut self, need: Need, facts: &Facts, content: Box<Content>) -> Result<Minted, CallError> {
        let Context { cluster, index, .. } = self.context;
        let (credential, target) = (self.subject.credential, &self.subject.target);
        let written = match index.get(target) {
            Known::Unknown => return Ok(self.keep_unwritten(content)),
            Known::Absent => secret_writer::create(cluster, credential, &content).await,
            Known::Present(seen) => {
                let keys = self.reading.target.as_ref().map(|read| read.keys.as_slice());
                secret_writer::update(cluster, credential, Existing { seen: &seen, keys }, &content).await
            }
        };
        let name = target.to_string();
        match written {
            Ok(seen) => {
                self.memory.proven_target = Some(seen.version.clone());
                index.saw(target, seen);
                self.written(need, facts, &content);
                Ok(Minted::Written)
            }
            Err(CallError::Conflict | CallError::AlreadyExists | CallError::NotFound) => {
                Ok(self.keep_unwritten(content))
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
        self.memory.description =
            Some(Description { client_id: Some(content.client_id.clone()), scopes: content.grant.scopes.clone() });
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

    fn nothing_is_wrong(&mut self) {
        self.memory.attempts.failures = 0;
        self.memory.attempts.last_failure = None;
        self.memory.not_before = None;
        self.memory.inputs = None;
    }

    /// Notes an attempt that failed.
    fn failed(&mut self, facts: &Facts, inputs: u32, failure: Failure) {
        let now = clock::now();
        let Failure { refusal, retry_after } = failure;
        self.memory.attempts.failures = self.memory.attempts.failures.saturating_add(1);
        let wait =
            backoff::delay(self.memory.attempts.failures, facts.left(now), refusal.reason, retry_after, &facts.uid);
        self.memory.not_before = Some(now + wait);
        self.memory.inputs = Some(inputs);
        if facts.renewal_request.is_some_and(|request| request.fresh) {
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

    async fn repair(&mut self) -> Result<(), CallError> {
        let Context { cluster, index, .. } = self.context;
        let Known::Present(seen) = index.get(&self.subject.target) else { return Ok(()) };
        match secret_writer::repair(cluster, self.subject.credential, &seen).await {
            Ok(repaired) => {
                self.memory.proven_target = Some(repaired.version.clone());
                index.saw(&self.subject.target, repaired);
                Ok(())
            }
            Err(CallError::Conflict | CallError::NotFound) => {
                self.forget_target();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Tells how the credential stands, and says when to look again: at the next attempt, after `wait`, or when time
    /// alone changes something.
    async fn report(
        &mut self,
        next_attempt: Option<DateTime<Utc>>,
        wait: Option<TimeDelta>,
    ) -> Result<Action, CallError> {
        let (facts, _) = self.facts();
        let next_attempt = next_attempt.or(self.memory.not_before.filter(|_| !facts.suspend));
        let previous = self.previous_status();
        let description = self.describe(&facts, &previous).await?;
        let now = clock::now();
        let status = status::status(&status::Inputs {
            facts: &facts,
            attempts: &self.memory.attempts,
            description: &description,
            secret: &self.subject.target.name,
            generation: self.subject.credential.metadata.generation,
            renew_at: next_attempt,
            previous: &previous,
            now,
        });
        self.gauge(&facts, &status, next_attempt);
        if status != previous {
            self.write_status(&status).await?;
        }
        let outcome = match &self.outcome {
            None => None,
            Some(Attempted::Written(need)) => Some(Outcome::Written(*need)),
            Some(Attempted::Failed(refusal)) => Some(Outcome::Failed(refusal)),
        };
        let transition = outcome.and_then(|outcome| events::transition(&previous, &outcome, &self.subject.target.name));
        if let Some(transition) = transition {
            self.context.events.publish(self.subject.credential, transition).await;
        }
        let again = if self.context.watch_secrets { LOOK_AGAIN } else { LOOK_AGAIN_UNWATCHED };
        let until_attempt = next_attempt.map(|at| at - now);
        let until_change = gather::next_change(&facts, now).map(|at| at - now);
        Ok(requeue([Some(again), wait, until_attempt, until_change].into_iter().flatten().min().unwrap_or(again)))
    }

    /// The newer of the status that the watch brought and the one that we wrote.
    fn previous_status(&self) -> CredentialStatus {
        let version = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        match &self.memory.written_status {
            Some((written_at, status)) if *written_at > version(self.subject.credential.resource_version()) => {
                status.clone()
            }
            _ => self.subject.credential.status.clone().unwrap_or_default(),
        }
    }

    /// What the token in the Secret was issued for: remembered, told by the status, or read.
    async fn describe(&mut self, facts: &Facts, previous: &CredentialStatus) -> Result<Description, CallError> {
        let Some(stamp) = facts.held_for_spec() else { return Ok(Description::default()) };
        if self.memory.description.is_none() {
            let told = previous.issued_at.as_deref() == Some(clock::to_rfc3339(stamp.issued_at).as_str());
            if told && previous.client_id.is_some() && !previous.scopes.is_empty() {
                self.memory.description =
                    Some(Description { client_id: previous.client_id.clone(), scopes: previous.scopes.clone() });
            } else {
                self.read_target().await?;
            }
        }
        Ok(self.memory.description.clone().unwrap_or_default())
    }

    async fn write_status(&mut self, status: &CredentialStatus) -> Result<(), CallError> {
        // null takes a field away
        let patch = json!({
            "metadata": {"uid": self.subject.uid},
            "status": {
                "observedGeneration": status.observed_generation,
                "conditions": status.conditions,
                "secretName": status.secret_name,
                "issuer": status.issuer,
                "clientId": status.client_id,
                "scopes": status.scopes,
                "issuedAt": status.issued_at,
                "expiresAt": status.expires_at,
                "renewAt": status.renew_at,
                "usableUntil": status.usable_until,
                "consecutiveFailures": status.consecutive_failures,
                "lastFailure": status.last_failure,
                "lastRenewRequest": status.last_renew_request,
            },
        });
        let api: Api<ITwinServiceCredential> =
            Api::namespaced(self.context.cluster.client.clone(), &self.subject.key.namespace);
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(&patch);
        let request = api.patch_status(&self.subject.key.name, &params, &patch);
        match self.context.cluster.call(Step::PatchCredentialStatus, request).await {
            Ok(object) => {
                let version = object.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default();
                self.memory.written_status = Some((version, status.clone()));
                Ok(())
            }
            // deleted meanwhile, perhaps created again under its name: the watch tells
            Err(CallError::NotFound | CallError::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn gauge(&mut self, facts: &Facts, status: &CredentialStatus, next_attempt: Option<DateTime<Utc>>) {
        let authority = &self.subject.credential.spec.authority_ref.name;
        let labels = |authority| CredentialLabels {
            namespace: &self.subject.key.namespace,
            name: &self.subject.key.name,
            authority,
        };
        if let Some(before) = self.memory.metrics_authority.as_ref().filter(|before| *before != authority) {
            self.context.metrics.forget_credential(labels(before));
        }
        let seconds = |at: DateTime<Utc>| at.timestamp() as f64;
        let gauges = CredentialGauges {
            expires_at: facts.held_for_spec().map(|stamp| seconds(stamp.expires_at)),
            renew_at: next_attempt.map(seconds),
            ready: status::holds(&status.conditions, READY),
            failures: self.memory.attempts.failures,
        };
        self.context.metrics.credential(labels(authority), gauges);
        self.memory.metrics_authority = Some(authority.clone());
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
        request: content.request.clone(),
        issuer: content.issuer.clone(),
        client_version: content.client_version.clone(),
        issued_at: content.grant.issued_at,
        expires_at: content.grant.expires_at,
    }
}
