//! What is true: the objects in the API server, the authority, the tokens that it issued, and the time.
//!
//! Every change goes into a log; an operator sees it when its watch comes to it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    rc::Rc,
};

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{
    MANAGER,
    credential::{CredentialStatus, ITwinServiceCredential},
    secret_keys,
};
use itwin_core::{fingerprint, object::ObjectKey};
use itwin_credential_operator::{cluster::CallError, observe::target::SecretMetadata};
use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta, OwnerReference},
};
use kube::ResourceExt;

use crate::authority::{Authority, Token};

pub const NAMESPACE: &str = "team-a";
/// Name of the credential and of the Secret that it writes.
pub const NAME: &str = "agent";
pub const CLIENT: &str = "agent-client";

/// A change of a Secret, as a watch tells it.
pub struct SecretChange {
    pub key: ObjectKey,
    pub version: u64,
    /// `None` where it was deleted.
    pub secret_metadata: Option<SecretMetadata>,
}

/// An update of the Secret by the operator: a merge patch with a guard.
pub struct Patch {
    pub uid: String,
    pub resource_version: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub owner: Option<OwnerReference>,
    /// `None` leaves the data alone.
    pub data: Option<BTreeMap<String, ByteString>>,
    /// Keys that are taken out of the data.
    pub stale: Vec<String>,
}

/// What is true.
pub struct World {
    pub now: DateTime<Utc>,
    /// How far the operator's clock is ahead.
    pub clock_error: TimeDelta,
    pub credential: Rc<ITwinServiceCredential>,
    pub target: Option<Rc<Secret>>,
    pub client: Option<Rc<Secret>>,
    pub authority: Authority,
    pub tokens: Vec<Token>,
    /// UIDs of Secrets that belong to somebody else.
    pub foreign: HashSet<String>,
    /// Every state that the Secret ever had, by version.
    pub past: HashMap<String, Rc<Secret>>,
    pub secrets: Vec<SecretChange>,
    pub credentials: Vec<Rc<ITwinServiceCredential>>,
    pub authorities: Vec<Authority>,
    version: u64,
    uids: u64,
}

pub fn key(name: &str) -> ObjectKey {
    ObjectKey::new(NAMESPACE, name)
}

impl World {
    /// A credential that was just created, with a client Secret and an authority that answers.
    pub fn new(authority: Authority) -> Self {
        let spec = serde_json::json!({"clientCredentialsRef": {"name": CLIENT}, "scopes": ["a"]});
        let mut credential = ITwinServiceCredential::new(NAME, serde_json::from_value(spec).unwrap());
        credential.metadata.namespace = Some(NAMESPACE.into());
        credential.metadata.generation = Some(1);
        let mut world = Self {
            now: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            clock_error: TimeDelta::zero(),
            credential: Rc::new(credential),
            target: None,
            client: None,
            authorities: vec![authority.clone()],
            authority,
            tokens: Vec::new(),
            foreign: HashSet::new(),
            past: HashMap::new(),
            secrets: Vec::new(),
            credentials: Vec::new(),
            version: 0,
            uids: 0,
        };
        let uid = world.new_uid();
        world.edit_credential(|credential| credential.metadata.uid = Some(uid));
        world.set_client(Some("0"));
        world
    }

    /// What the operator's clock shows.
    pub fn clock(&self) -> DateTime<Utc> {
        self.now + self.clock_error
    }

    pub fn uid(&self) -> String {
        self.credential.uid().unwrap_or_default()
    }

    pub fn new_uid(&mut self) -> String {
        self.uids += 1;
        format!("uid-{}", self.uids)
    }

    fn new_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// Changes the credential, its spec without a new generation.
    pub fn edit_credential(&mut self, edit: impl FnOnce(&mut ITwinServiceCredential)) {
        let version = self.new_version().to_string();
        let credential = Rc::make_mut(&mut self.credential);
        edit(credential);
        credential.metadata.resource_version = Some(version);
        self.credentials.push(self.credential.clone());
    }

    /// Changes the spec.
    pub fn edit_spec(&mut self, edit: impl FnOnce(&mut ITwinServiceCredential)) {
        self.edit_credential(|credential| {
            edit(credential);
            credential.metadata.generation = credential.metadata.generation.map(|generation| generation + 1);
        });
    }

    /// The operator writes the status; returns the new version.
    pub fn write_status(&mut self, uid: &str, status: &CredentialStatus) -> Result<u64, CallError> {
        if self.uid() != uid {
            return Err(CallError::Conflict);
        }
        self.edit_credential(|credential| credential.status = Some(status.clone()));
        Ok(self.version)
    }

    pub fn edit_authority(&mut self, edit: impl FnOnce(&mut Authority)) {
        edit(&mut self.authority);
        self.authority.revision += 1;
        self.authorities.push(self.authority.clone());
    }

    /// Writes the client Secret with this content; `Some("")` makes it unusable, `None` deletes it.
    pub fn set_client(&mut self, content: Option<&str>) {
        let Some(content) = content else {
            if self.client.take().is_some() {
                self.secret_gone(CLIENT);
            }
            return;
        };
        let uid = self.client.as_ref().and_then(|client| client.metadata.uid.clone());
        let uid = uid.unwrap_or_else(|| self.new_uid());
        let mut secret = new_secret(CLIENT, &uid);
        secret.data = Some(text_data([("client_id", "id"), ("client_secret", content)]));
        self.client = Some(self.secret_changed(secret));
    }

    /// Writes the client Secret anew with the same content.
    pub fn touch_client(&mut self) {
        if let Some(client) = self.client.clone() {
            self.client = Some(self.secret_changed((*client).clone()));
        }
    }

    pub fn client_content(&self) -> Option<String> {
        self.client.as_ref().map(|client| text(client, "client_secret"))
    }

    /// Puts a Secret of somebody else, or of nobody, in the place of the one to write.
    pub fn replace_target(&mut self, foreign: bool, controller: Option<OwnerReference>) {
        self.delete_target();
        let uid = self.new_uid();
        if foreign {
            self.foreign.insert(uid.clone());
        }
        let mut secret = new_secret(NAME, &uid);
        // as the operator wrote it for a credential of this name
        secret.metadata.annotations = controller.as_ref().map(|controller| {
            let owner = format!("{NAMESPACE}/{NAME}");
            [(secret_keys::OWNER_UID, controller.uid.clone()), (secret_keys::OWNER, owner)]
                .map(|(key, value)| (key.to_owned(), value))
                .into()
        });
        secret.metadata.owner_references = controller.map(|controller| vec![controller]);
        secret.data = Some(text_data([("password", "theirs")]));
        secret.metadata.managed_fields = Some(vec![writer("somebody", ["password".to_owned()])]);
        self.set_target(secret);
    }

    pub fn delete_target(&mut self) {
        if self.target.take().is_some() {
            self.secret_gone(NAME);
        }
    }

    pub fn edit_target(&mut self, edit: impl FnOnce(&mut Secret)) {
        if let Some(target) = self.target.clone() {
            let mut secret = (*target).clone();
            edit(&mut secret);
            self.set_target(secret);
        }
    }

    /// Somebody writes garbage over the token, as `kubectl edit` does.
    pub fn damage_target(&mut self) {
        self.edit_target(|secret| {
            let data = secret.data.get_or_insert_default();
            data.insert(secret_keys::ACCESS_TOKEN.to_owned(), ByteString(b"garbage".to_vec()));
            let entry = writer("kubectl-edit", [secret_keys::ACCESS_TOKEN.to_owned()]);
            secret.metadata.managed_fields.get_or_insert_default().push(entry);
        });
    }

    pub fn is_foreign(&self) -> bool {
        self.target.as_ref().is_some_and(|target| self.foreign.contains(target.metadata.uid.as_deref().unwrap()))
    }

    /// The operator creates the Secret.
    pub fn create(&mut self, mut secret: Secret) -> Result<SecretMetadata, CallError> {
        if self.target.is_some() {
            return Err(CallError::AlreadyExists);
        }
        secret.metadata.uid = Some(self.new_uid());
        own_the_data(&mut secret);
        Ok(self.set_target(secret))
    }

    /// The operator updates the Secret.
    pub fn patch(&mut self, patch: Patch) -> Result<SecretMetadata, CallError> {
        let Some(target) = self.target.clone() else { return Err(CallError::NotFound) };
        let mut secret = (*target).clone();
        let metadata = &mut secret.metadata;
        let guard = (Some(patch.uid), Some(patch.resource_version));
        if guard != (metadata.uid.clone(), metadata.resource_version.clone()) {
            return Err(CallError::Conflict);
        }
        metadata.labels.get_or_insert_default().extend(patch.labels);
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.extend(patch.annotations);
        annotations.remove(secret_keys::ADOPT);
        metadata.owner_references = patch.owner.map(|owner| vec![owner]);
        if let Some(written) = patch.data {
            let data = secret.data.get_or_insert_default();
            data.retain(|key, _| !patch.stale.contains(key));
            data.extend(written);
            own_the_data(&mut secret);
        }
        Ok(self.set_target(secret))
    }

    fn set_target(&mut self, secret: Secret) -> SecretMetadata {
        let secret = self.secret_changed(secret);
        let secret_metadata = SecretMetadata::new(&secret.metadata);
        self.past.insert(secret_metadata.version.to_string(), secret.clone());
        self.target = Some(secret);
        secret_metadata
    }

    fn secret_changed(&mut self, mut secret: Secret) -> Rc<Secret> {
        let version = self.new_version();
        secret.metadata.resource_version = Some(version.to_string());
        let secret_metadata = Some(SecretMetadata::new(&secret.metadata));
        self.secrets.push(SecretChange { key: key(&secret.name_any()), version, secret_metadata });
        Rc::new(secret)
    }

    fn secret_gone(&mut self, name: &str) {
        let version = self.new_version();
        self.secrets.push(SecretChange { key: key(name), version, secret_metadata: None });
    }

    /// The token that a Secret holds untouched, if it is one that the authority issued.
    pub fn token_in<'a>(&'a self, secret: &Secret) -> Option<&'a Token> {
        let number: usize = text(secret, secret_keys::ACCESS_TOKEN).strip_prefix("token-")?.parse().ok()?;
        let token = self.tokens.get(number)?;
        let bearer = format!("Bearer token-{number}");
        let keys_are_ours = secret.data.as_ref()?.len() == secret_keys::DATA_KEYS.len();
        (keys_are_ours && text(secret, secret_keys::AUTHORIZATION) == bearer).then_some(token)
    }

    /// The token in the Secret, if it is valid and what the spec of now asks for.
    pub fn valid_token(&self) -> Option<&Token> {
        self.valid_in(self.target.as_deref().filter(|_| !self.is_foreign())?)
    }

    /// The same for any Secret.
    pub fn valid_in<'a>(&'a self, secret: &Secret) -> Option<&'a Token> {
        let token = self.token_in(secret)?;
        let wanted = token.request == fingerprint::request(&self.credential.spec)
            && token.issuer == self.authority.issuer
            && token.is_good;
        (wanted && token.expires_at > self.now).then_some(token)
    }
}

fn new_secret(name: &str, uid: &str) -> Secret {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectMeta::default()
    };
    Secret { metadata, type_: Some("Opaque".to_owned()), ..Secret::default() }
}

fn text_data<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, ByteString> {
    pairs.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec()))).into()
}

/// A value of a Secret as text; empty where there is none.
pub fn text(secret: &Secret, key: &str) -> String {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value.and_then(|value| String::from_utf8(value.0.clone()).ok()).unwrap_or_default()
}

/// An entry of `managedFields`: this manager wrote these keys of the data.
fn writer(manager: &str, keys: impl IntoIterator<Item = String>) -> ManagedFieldsEntry {
    let keys: serde_json::Map<_, _> =
        keys.into_iter().map(|key| (format!("f:{key}"), serde_json::Value::Object(serde_json::Map::new()))).collect();
    ManagedFieldsEntry {
        manager: Some(manager.to_owned()),
        fields_v1: Some(FieldsV1(serde_json::json!({"f:data": keys}))),
        ..ManagedFieldsEntry::default()
    }
}

/// All of the data was just written by the operator.
fn own_the_data(secret: &mut Secret) {
    let keys: Vec<String> = secret.data.iter().flatten().map(|(key, _)| key.clone()).collect();
    let (ours, theirs): (Vec<_>, Vec<_>) =
        keys.into_iter().partition(|key| secret_keys::DATA_KEYS.contains(&key.as_str()));
    let mut fields = vec![writer(MANAGER, ours)];
    if !theirs.is_empty() {
        fields.push(writer("somebody", theirs));
    }
    secret.metadata.managed_fields = Some(fields);
}
