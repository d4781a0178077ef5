//! What a look reads, asks and writes, as `controller::gather` and `attempt` do it.

use std::{collections::BTreeMap, rc::Rc};

use chrono::TimeDelta;
use itwin_credential_operator::{
    act::secret_writer::{self, Content},
    api::{conditions::Reason, secret_keys},
    cluster::CallError,
    controller::{
        gather,
        reading::{ReadClient, ReadTarget, Reading},
    },
    decide::{
        backoff,
        facts::{Client, Facts, Held, Stamp, Target},
        grant,
        requests::{Outcome, breaker::Change},
        schedule,
    },
    oauth::failure::Failure,
    observe::{
        client_secret::ClientMaterial,
        index::Known,
        target::{self, Seen},
    },
    sensitive::Sensitive,
};
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::ResourceExt;

use crate::{
    look::{AWAIT_AUTHORITY, Halt, Look},
    world::{Patch, text},
};

const SKEW: TimeDelta = TimeDelta::seconds(60);

/// How asking for a token and writing it ended.
pub enum Minted {
    Written,
    Again,
    NotAdmitted,
    NotYet(TimeDelta),
    Failed(Failure),
}

impl Look<'_> {
    pub fn before_call(&mut self) -> Result<(), Halt> {
        self.faults.before_call(self.world, self.process)
    }

    pub fn read_metadata(&mut self, target: bool) -> Result<(), Halt> {
        self.before_call()?;
        let (key, secret) = if target {
            (&self.subject.target, &self.world.target)
        } else {
            (&self.subject.client, &self.world.client)
        };
        match secret {
            Some(secret) => drop(self.process.index.saw(key, Seen::new(&secret.metadata))),
            None => drop(self.process.index.saw_none(key, None)),
        }
        Ok(())
    }

    pub fn read_target(&mut self) -> Result<(), Halt> {
        self.before_call()?;
        let Some(secret) = self.world.target.clone() else {
            self.process.index.saw_none(&self.subject.target, None);
            self.reading.target = None;
            return Ok(());
        };
        let seen = Seen::new(&secret.metadata);
        let version = seen.version.clone();
        self.process.index.saw(&self.subject.target, seen);
        let annotation = |key: &str| secret.annotations().get(key).cloned();
        let token = secret.data.as_ref().filter(|data| data.contains_key(secret_keys::ACCESS_TOKEN));
        let token = token.map(|_| Sensitive::new(text(&secret, secret_keys::ACCESS_TOKEN)));
        let read = ReadTarget {
            version,
            is_ours: target::is_what_we_wrote(&secret),
            has_foreign_keys: false,
            data: secret.data.clone().unwrap_or_default(),
            type_: secret.type_.clone().unwrap_or_default(),
            immutable: false,
            client_fingerprint: annotation(secret_keys::CLIENT).zip(token),
            annotations: secret.annotations().clone(),
        };
        if read.is_ours {
            self.memory.proven_target = Some(read.version.clone());
        }
        self.reading.target = Some(read);
        Ok(())
    }

    pub fn read_client(&mut self, facts: &Facts) -> Result<(), Halt> {
        let may_differ = facts.held_for_spec().is_some_and(|held| match &facts.client {
            Client::Unread { version: Some(version) } => *version != held.client_version,
            _ => false,
        });
        if may_differ && self.reading.target.is_none() {
            self.read_target()?;
        }
        self.before_call()?;
        let key = &self.subject.client;
        let Some(secret) = self.world.client.clone() else {
            self.process.index.saw_none(key, None);
            self.reading.client = None;
            self.reading.client_is_missing = true;
            return Ok(());
        };
        self.reading.client_is_missing = false;
        let seen = Seen::new(&secret.metadata);
        let version = seen.version.clone();
        self.process.index.saw(key, seen);
        let spec = &self.subject.credential.spec;
        let material = ClientMaterial::new((*secret).clone(), &spec.client_credentials_ref, key.to_string());
        self.client_content = text(&secret, "client_secret");
        let content = material.credentials(Default::default(), spec.grant_type);
        let held = self.reading.target.as_ref().and_then(|held| held.client_fingerprint.as_ref());
        let same_as_held = held.map(|(fingerprint, token)| *fingerprint == material.fingerprint(token));
        if same_as_held == Some(true) {
            self.memory.proven_client = Some(version.clone());
        }
        self.reading.client = Some(ReadClient { version, content, material, same_as_held });
        Ok(())
    }

    pub fn mint(&mut self, facts: &Facts, known: &Known) -> Result<Minted, Halt> {
        // Secrets that are immutable or of another type are left out here: tests/apiserver has them
        if matches!(&facts.target, Target::Ours(Held { stamp: None, .. })) && self.reading.target.is_none() {
            self.read_target()?;
        }
        if self.rules.guarded && self.read_another(known) {
            return Ok(Minted::Again);
        }
        let content = match self.take_unwritten(facts) {
            Some(content) => content,
            None => match self.ask(facts)? {
                Ok(content) => Box::new(content),
                Err(ended) => return Ok(ended),
            },
        };
        self.write(facts, known, content)
    }

    fn read_another(&self, known: &Known) -> bool {
        let Known::Present(seen) = known else { return false };
        self.reading.target.as_ref().is_some_and(|read| read.version != seen.version)
    }

    fn take_unwritten(&mut self, facts: &Facts) -> Option<Box<Content>> {
        let content = self.memory.unwritten.take()?;
        let client = match (&self.reading.client, self.process.index.get(&self.subject.client)) {
            (Some(read), _) => Some(read.version.clone()),
            (None, Known::Present(seen)) => Some(seen.version.clone()),
            (None, _) => None,
        };
        let now = self.world.clock();
        let no_worse = facts.held_for_spec().is_none_or(|held| held.expires_at <= content.grant.expires_at);
        let fits = no_worse
            && content.request == facts.desired.request
            && Some(content.issuer.as_str()) == gather::issuer(&facts.authority)
            && Some(&content.client_version) == client.as_ref()
            && schedule::renew_at(&stamp_of(&content), &facts.desired.policy, &facts.uid) > now;
        fits.then_some(content)
    }

    fn too_soon(&self, facts: &Facts) -> Option<TimeDelta> {
        let since = self.world.clock() - self.memory.asked_at?;
        let too_soon = !facts.is_asked_for(self.world.clock()) && since >= TimeDelta::zero() && since < backoff::FLOOR;
        too_soon.then(|| backoff::FLOOR - since)
    }

    fn ask(&mut self, facts: &Facts) -> Result<Result<Content, Minted>, Halt> {
        let Some(issuer) = gather::issuer(&facts.authority) else { return Ok(Err(Minted::NotYet(AWAIT_AUTHORITY))) };
        if self.reading.client.is_none() {
            return Ok(Err(Minted::NotAdmitted));
        }
        let Some(read) = self.reading.client.as_ref().filter(|read| read.content.is_ok()) else {
            return Ok(Err(Minted::NotYet(AWAIT_AUTHORITY)));
        };
        if let Some(wait) = self.too_soon(facts) {
            return Ok(Err(Minted::NotYet(wait)));
        }
        if !std::mem::take(&mut self.admitted) {
            if !facts.has_unwritten {
                self.judge.blame("(8) a token is requested out of turn");
            }
            return Ok(Err(Minted::NotAdmitted));
        }
        self.judge.paused = None;
        self.faults.killed()?;
        let (sent, asked_at) = (self.world.now, self.world.clock());
        let client = self.client_content.clone();
        self.memory.asked_at = Some(asked_at);
        if facts.is_asked_for(asked_at) {
            self.memory.requested_at = Some(asked_at);
        }
        self.judge.asked(self.world, self.process, self.subject.credential, &client);
        let answer = self.world.authority.answer(self.world.tokens.len(), sent, asked_at);
        if answer.is_ok() {
            let mut token = self.world.authority.token(&facts.desired.request, &client, sent, self.world.clock_error);
            token.issuer = issuer.to_owned();
            self.world.tokens.push(token);
        }
        self.world.now += self.world.authority.takes();
        self.faults.interference(self.world, self.process);
        let outcome = match &answer {
            Ok(_) => Outcome::Succeeded,
            Err(failure) => Outcome::Failed {
                refusal: failure.refusal.clone(),
                server_wait: failure.retry_after,
                is_outage: matches!(failure.refusal.reason, Reason::ServerError | Reason::Timeout),
            },
        };
        let now = self.process.time(self.world);
        let (change, _) = self.process.queue.settle(&(), Some(&read.version), &outcome, now);
        if change == Change::Closed {
            self.process.epoch += 1;
            self.process.woken = true;
        }
        self.faults.killed()?;
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => return Ok(Err(Minted::Failed(failure))),
        };
        let held = (self.rules.weighed_against)(facts.held_for_spec());
        let scopes = &self.subject.credential.spec.scopes;
        Ok(match grant::weigh("ims", answer, scopes, held, SKEW, self.world.clock()) {
            Err(refusal) => Err(Minted::Failed(refusal.into())),
            Ok(grant) => Ok(Content {
                client_fingerprint: read.material.fingerprint(&grant.token),
                grant,
                issuer: issuer.to_owned(),
                request: facts.desired.request.clone(),
                client_id: "id".to_owned(),
                client_version: read.version.clone(),
                client_reference: gather::client_reference(&self.subject),
            }),
        })
    }

    fn write(&mut self, facts: &Facts, known: &Known, content: Box<Content>) -> Result<Minted, Halt> {
        let told = self.process.known_target();
        let known = if self.rules.guarded { known } else { &told };
        if matches!(known, Known::Unknown) {
            return Ok(self.keep_unwritten(content));
        }
        match self.send(known, &content) {
            Ok(seen) => {
                self.memory.proven_target = Some(seen.version.clone());
                self.process.index.saw(&self.subject.target, seen);
                self.written();
                Ok(Minted::Written)
            }
            Err(Halt::Error(CallError::Conflict | CallError::AlreadyExists | CallError::NotFound)) => {
                Ok(self.keep_unwritten(content))
            }
            Err(Halt::Error(_)) => {
                self.memory.unwritten = Some(content);
                self.process.index.doubt(&self.subject.target);
                Ok(Minted::Failed(Failure::new(Reason::SecretWriteFailed, facts.uid.clone())))
            }
            Err(Halt::Killed) => Err(Halt::Killed),
        }
    }

    fn send(&mut self, known: &Known, content: &Content) -> Result<Seen, Halt> {
        self.before_call()?;
        let before = self.world.target.clone();
        let credential = self.subject.credential;
        let data = secret_writer::data(credential, content).expect("no templates");
        let annotations = secret_writer::all_annotations(credential, content, &data);
        let written = match known {
            Known::Present(seen) => {
                let keys = self
                    .reading
                    .target
                    .as_ref()
                    .map(|read| read.data.keys().cloned().collect::<Vec<_>>())
                    .unwrap_or_default();
                let stale = keys.into_iter().filter(|key| !data.contains_key(key)).collect();
                let patch = Patch { data: Some(data), stale, ..self.patch(seen, annotations) };
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

    fn patch(&self, seen: &Seen, annotations: BTreeMap<String, String>) -> Patch {
        Patch {
            uid: seen.uid().to_owned(),
            resource_version: seen.resource_version().to_owned(),
            labels: secret_writer::labels(self.subject.credential),
            annotations,
            owner: secret_writer::owner(self.subject.credential),
            data: None,
            stale: Vec::new(),
        }
    }

    fn committed(
        &mut self,
        (before, is_repair): (Option<Rc<Secret>>, bool),
        written: Result<Seen, CallError>,
    ) -> Result<Seen, Halt> {
        let seen = written.map_err(Halt::Error)?;
        self.judge.wrote(self.world, self.process, self.subject.credential, (before.as_deref(), is_repair));
        self.faults.after_commit(self.world)?;
        Ok(seen)
    }

    fn keep_unwritten(&mut self, content: Box<Content>) -> Minted {
        self.memory.unwritten = Some(content);
        Minted::Again
    }

    fn written(&mut self) {
        self.memory.proven_client = None;
        self.memory.unfulfilled_request = None;
        if let Some(request) = self.subject.renew_annotation() {
            self.memory.attempts.renew_request = Some(request.clone());
            self.judge.served(self.process.number, &self.subject.uid, request);
        }
        self.reading = Reading::default();
        self.nothing_is_wrong();
    }

    pub fn repair(&mut self, known: &Known) -> Result<(), Halt> {
        let Known::Present(seen) = known else { return Ok(()) };
        let patch = self.patch(seen, secret_writer::annotations(self.subject.credential));
        self.before_call()?;
        let before = self.world.target.clone();
        let written = self.world.patch(patch);
        match self.committed((before, true), written) {
            Ok(repaired) => {
                self.memory.proven_target = Some(repaired.version.clone());
                self.process.index.saw(&self.subject.target, repaired);
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

fn stamp_of(content: &Content) -> Stamp {
    Stamp {
        request: content.request.as_str().into(),
        issuer: content.issuer.as_str().into(),
        client_version: content.client_version.clone(),
        issued_at: content.grant.issued_at,
        expires_at: content.grant.expires_at,
    }
}
