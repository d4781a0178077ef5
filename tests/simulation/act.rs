//! What a look reads, asks and writes, as `controller::observation` and `attempt` do it.

use std::{collections::BTreeMap, rc::Rc};

use chrono::TimeDelta;
use itwin_api::{conditions::Reason, secret_keys};
use itwin_core::{
    backoff,
    failure::RequestFailure,
    messages_oauth,
    observed::{Client, Held, ObservedState, Target, TokenMetadata},
    requests::{Outcome, breaker::Change},
    schedule,
    validate::{self, Expected},
};
use itwin_credential_operator::{
    act::secret_writer::{self, Content},
    cluster::CallError,
    controller::{
        fetched::{FetchedClient, FetchedSecrets, FetchedTarget},
        observation,
    },
    observe::{
        client_secret::ClientMaterial,
        index::Known,
        target::{self, SecretMetadata},
    },
};
use itwin_oauth::sensitive::Sensitive;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::ResourceExt;

use crate::{
    reconcile::{AWAIT_AUTHORITY, Halt, Reconcile},
    world::{Patch, text},
};

const SKEW: TimeDelta = TimeDelta::seconds(60);

/// How asking for a token and writing it ended.
pub enum IssueResult {
    Written,
    Again,
    NotAdmitted,
    NotYet(TimeDelta),
    Failed(RequestFailure),
}

impl Reconcile<'_> {
    pub fn before_call(&mut self) -> Result<(), Halt> {
        self.faults.before_call(self.world, self.process)
    }

    pub fn read_metadata(&mut self, target: bool) -> Result<(), Halt> {
        self.before_call()?;
        let (key, secret) = if target {
            (&self.references.target, &self.world.target)
        } else {
            (&self.references.client, &self.world.client)
        };
        match secret {
            Some(secret) => drop(self.process.index.observe(key, SecretMetadata::new(&secret.metadata))),
            None => drop(self.process.index.observe_absence(key, None)),
        }
        Ok(())
    }

    pub fn read_target(&mut self) -> Result<(), Halt> {
        self.before_call()?;
        let Some(secret) = self.world.target.clone() else {
            self.process.index.observe_absence(&self.references.target, None);
            self.fetched.target = None;
            return Ok(());
        };
        let secret_metadata = SecretMetadata::new(&secret.metadata);
        let version = secret_metadata.version.clone();
        self.process.index.observe(&self.references.target, secret_metadata);
        let annotation = |key: &str| secret.annotations().get(key).cloned();
        let token = secret.data.as_ref().filter(|data| data.contains_key(secret_keys::ACCESS_TOKEN));
        let token = token.map(|_| Sensitive::new(text(&secret, secret_keys::ACCESS_TOKEN)));
        let read = FetchedTarget {
            version,
            is_ours: target::is_what_we_wrote(&secret),
            has_extra_keys: false,
            data: secret.data.clone().unwrap_or_default(),
            type_: secret.type_.clone().unwrap_or_default(),
            immutable: false,
            client_fingerprint: annotation(secret_keys::CLIENT).zip(token),
            annotations: secret.annotations().clone(),
        };
        if read.is_ours {
            self.retry_state.verified_target = Some(read.version.clone());
        }
        self.fetched.target = Some(read);
        Ok(())
    }

    pub fn read_client(&mut self, observed: &ObservedState) -> Result<(), Halt> {
        let may_differ = observed.held_for_spec().is_some_and(|held| match &observed.client {
            Client::Unread { version: Some(version) } => *version != held.client_version,
            _ => false,
        });
        if may_differ && self.fetched.target.is_none() {
            self.read_target()?;
        }
        self.before_call()?;
        let key = &self.references.client;
        let Some(secret) = self.world.client.clone() else {
            self.process.index.observe_absence(key, None);
            self.fetched.client = None;
            self.fetched.client_is_missing = true;
            return Ok(());
        };
        self.fetched.client_is_missing = false;
        let secret_metadata = SecretMetadata::new(&secret.metadata);
        let version = secret_metadata.version.clone();
        self.process.index.observe(key, secret_metadata);
        let spec = &self.references.credential.spec;
        let material = ClientMaterial::new((*secret).clone(), &spec.client_credentials_ref, key.to_string());
        self.client_content = text(&secret, "client_secret");
        let content = material.credentials(Default::default(), spec.grant_type);
        let held = self.fetched.target.as_ref().and_then(|held| held.client_fingerprint.as_ref());
        let same_as_held = held.map(|(fingerprint, token)| *fingerprint == material.fingerprint(token));
        if same_as_held == Some(true) {
            self.retry_state.verified_client = Some(version.clone());
        }
        self.fetched.client = Some(FetchedClient { version, content, material, same_as_held });
        Ok(())
    }

    pub fn issue(&mut self, observed: &ObservedState, known: &Known) -> Result<IssueResult, Halt> {
        // Secrets that are immutable or of another type are left out here: tests/apiserver has them
        if matches!(&observed.target, Target::Ours(Held { token_metadata: None, .. })) && self.fetched.target.is_none()
        {
            self.read_target()?;
        }
        if self.rules.guarded && self.read_another(known) {
            return Ok(IssueResult::Again);
        }
        let content = match self.take_unwritten(observed) {
            Some(content) => content,
            None => match self.ask(observed)? {
                Ok(content) => Box::new(content),
                Err(ended) => return Ok(ended),
            },
        };
        self.write(observed, known, content)
    }

    fn read_another(&self, known: &Known) -> bool {
        let Known::Present(secret_metadata) = known else { return false };
        self.fetched.target.as_ref().is_some_and(|read| read.version != secret_metadata.version)
    }

    fn take_unwritten(&mut self, observed: &ObservedState) -> Option<Box<Content>> {
        let content = self.retry_state.unwritten.take()?;
        let client = match (&self.fetched.client, self.process.index.get(&self.references.client)) {
            (Some(read), _) => Some(read.version.clone()),
            (None, Known::Present(secret_metadata)) => Some(secret_metadata.version.clone()),
            (None, _) => None,
        };
        let now = self.world.clock();
        let no_worse = observed.held_for_spec().is_none_or(|held| held.expires_at <= content.issued.expires_at);
        let fits = no_worse
            && content.request == observed.desired.request
            && Some(content.issuer.as_str()) == observation::issuer(&observed.authority)
            && Some(&content.client_version) == client.as_ref()
            && schedule::renew_at(&token_metadata_of(&content), &observed.desired.policy, &observed.uid) > now;
        fits.then_some(content)
    }

    fn too_soon(&self, observed: &ObservedState) -> Option<TimeDelta> {
        let since = self.world.clock() - self.retry_state.asked_at?;
        let too_soon =
            !observed.is_asked_for(self.world.clock()) && since >= TimeDelta::zero() && since < backoff::FLOOR;
        too_soon.then(|| backoff::FLOOR - since)
    }

    fn ask(&mut self, observed: &ObservedState) -> Result<Result<Content, IssueResult>, Halt> {
        let Some(issuer) = observation::issuer(&observed.authority) else {
            return Ok(Err(IssueResult::NotYet(AWAIT_AUTHORITY)));
        };
        if self.fetched.client.is_none() {
            return Ok(Err(IssueResult::NotAdmitted));
        }
        let Some(read) = self.fetched.client.as_ref().filter(|read| read.content.is_ok()) else {
            return Ok(Err(IssueResult::NotYet(AWAIT_AUTHORITY)));
        };
        if let Some(wait) = self.too_soon(observed) {
            return Ok(Err(IssueResult::NotYet(wait)));
        }
        if !std::mem::take(&mut self.admitted) {
            if !observed.has_unwritten {
                self.judge.blame("(8) a token is requested out of turn");
            }
            return Ok(Err(IssueResult::NotAdmitted));
        }
        self.judge.paused = None;
        self.faults.killed()?;
        let (sent, asked_at) = (self.world.now, self.world.clock());
        let client = self.client_content.clone();
        self.retry_state.asked_at = Some(asked_at);
        if observed.is_asked_for(asked_at) {
            self.retry_state.requested_at = Some(asked_at);
        }
        self.judge.asked(self.world, self.process, self.references.credential, &client);
        let answer = self.world.authority.answer(self.world.tokens.len(), sent, asked_at);
        if answer.is_ok() {
            let mut token =
                self.world.authority.token(&observed.desired.request, &client, sent, self.world.clock_error);
            token.issuer = issuer.to_owned();
            self.world.tokens.push(token);
        }
        self.world.now += self.world.authority.takes();
        self.faults.interference(self.world, self.process);
        let outcome = match &answer {
            Ok(_) => Outcome::Succeeded,
            Err(failure) => Outcome::Failed {
                failure: failure.failure.clone(),
                server_wait: failure.retry_after,
                is_outage: matches!(failure.failure.reason, Reason::ServerError | Reason::Timeout),
            },
        };
        let now = self.process.time(self.world);
        let (change, _) = self.process.queue.settle(&(), Some(&read.version), &outcome, now);
        if change == Change::Closed {
            self.process.revision += 1;
            self.process.enqueued = true;
        }
        self.faults.killed()?;
        let (response, claims) = match answer {
            Ok(answer) => answer,
            Err(failure) => return Ok(Err(IssueResult::Failed(failure))),
        };
        let held = (self.rules.validated_against)(observed.held_for_spec());
        let scopes = &self.references.credential.spec.scopes;
        let expected = Expected { scopes, held, skew: SKEW, now: self.world.clock() };
        Ok(match validate::validate(response, claims.as_ref(), expected) {
            Err(error) => Err(IssueResult::Failed(messages_oauth::verdict::not_valid(&error, "ims").into())),
            Ok(issued) => Ok(Content {
                client_fingerprint: read.material.fingerprint(&issued.token),
                issued,
                issuer: issuer.to_owned(),
                request: observed.desired.request.clone(),
                client_id: "id".to_owned(),
                client_version: read.version.clone(),
                client_reference: observation::client_reference(&self.references),
            }),
        })
    }

    fn write(&mut self, observed: &ObservedState, known: &Known, content: Box<Content>) -> Result<IssueResult, Halt> {
        let reported = self.process.known_target();
        let known = if self.rules.guarded { known } else { &reported };
        if matches!(known, Known::Unknown) {
            return Ok(self.keep_unwritten(content));
        }
        match self.send(known, &content) {
            Ok(secret_metadata) => {
                self.retry_state.verified_target = Some(secret_metadata.version.clone());
                self.process.index.observe(&self.references.target, secret_metadata);
                self.written();
                Ok(IssueResult::Written)
            }
            Err(Halt::Error(CallError::Conflict | CallError::AlreadyExists | CallError::NotFound)) => {
                Ok(self.keep_unwritten(content))
            }
            Err(Halt::Error(_)) => {
                self.retry_state.unwritten = Some(content);
                self.process.index.invalidate(&self.references.target);
                Ok(IssueResult::Failed(RequestFailure::new(Reason::SecretWriteFailed, observed.uid.clone())))
            }
            Err(Halt::Killed) => Err(Halt::Killed),
        }
    }

    fn send(&mut self, known: &Known, content: &Content) -> Result<SecretMetadata, Halt> {
        self.before_call()?;
        let before = self.world.target.clone();
        let credential = self.references.credential;
        let data = secret_writer::data(credential, content).expect("no templates");
        let annotations = secret_writer::all_annotations(credential, content, &data);
        let written = match known {
            Known::Present(secret_metadata) => {
                let keys = self
                    .fetched
                    .target
                    .as_ref()
                    .map(|read| read.data.keys().cloned().collect::<Vec<_>>())
                    .unwrap_or_default();
                let stale = keys.into_iter().filter(|key| !data.contains_key(key)).collect();
                let patch = Patch { data: Some(data), stale, ..self.patch(secret_metadata, annotations) };
                self.world.patch(patch)
            }
            _ => self.world.create(Secret {
                metadata: ObjectMeta {
                    name: Some(credential.target_name().to_owned()),
                    labels: Some(secret_writer::labels(credential)),
                    annotations: Some(annotations),
                    owner_references: secret_writer::owner(credential).map(|owner| vec![owner]),
                    ..ObjectMeta::default()
                },
                data: Some(data),
                type_: Some("Opaque".to_owned()),
                ..Secret::default()
            }),
        };
        self.committed((before, false), written)
    }

    fn patch(&self, secret_metadata: &SecretMetadata, annotations: BTreeMap<String, String>) -> Patch {
        Patch {
            uid: secret_metadata.uid().to_owned(),
            resource_version: secret_metadata.resource_version().to_owned(),
            labels: secret_writer::labels(self.references.credential),
            annotations,
            owner: secret_writer::owner(self.references.credential),
            data: None,
            stale: Vec::new(),
        }
    }

    fn committed(
        &mut self,
        (before, is_patch): (Option<Rc<Secret>>, bool),
        written: Result<SecretMetadata, CallError>,
    ) -> Result<SecretMetadata, Halt> {
        let secret_metadata = written.map_err(Halt::Error)?;
        self.judge.wrote(self.world, self.process, self.references.credential, (before.as_deref(), is_patch));
        self.faults.after_commit(self.world)?;
        Ok(secret_metadata)
    }

    fn keep_unwritten(&mut self, content: Box<Content>) -> IssueResult {
        self.retry_state.unwritten = Some(content);
        IssueResult::Again
    }

    fn written(&mut self) {
        self.retry_state.verified_client = None;
        self.retry_state.unfulfilled_request = None;
        if let Some(request) = self.references.renew_annotation() {
            self.retry_state.attempts.renew_request = Some(request.clone());
            self.judge.served(self.process.number, &self.references.uid, request);
        }
        self.fetched = FetchedSecrets::default();
        self.nothing_is_wrong();
    }

    pub fn patch_metadata(&mut self, known: &Known) -> Result<(), Halt> {
        let Known::Present(secret_metadata) = known else { return Ok(()) };
        let patch = self.patch(secret_metadata, secret_writer::annotations(self.references.credential));
        self.before_call()?;
        let before = self.world.target.clone();
        let written = self.world.patch(patch);
        match self.committed((before, true), written) {
            Ok(repaired) => {
                self.retry_state.verified_target = Some(repaired.version.clone());
                self.process.index.observe(&self.references.target, repaired);
                Ok(())
            }
            Err(Halt::Error(CallError::Conflict | CallError::NotFound)) => {
                self.forget_target();
                Ok(())
            }
            Err(halt) => Err(halt),
        }
    }
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
