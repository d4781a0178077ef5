//! What is read of Secrets during one reconcile.

use std::collections::BTreeMap;

use itwin_api::{authority::ClientAuthentication, secret_keys};
use itwin_core::{
    desired_secret::{self, Content},
    failure::Failure,
    last_held::LastHeld,
    object::{ObjectKey, ObjectVersion},
};
use itwin_oauth::{sensitive::Sensitive, token::ClientCredentials};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Resource, api::GetParams, core::Request};

use super::references::References;
use crate::{
    cluster::{CallError, Cluster, Step},
    observe::{
        client_secret::ClientMaterial,
        index::SecretIndex,
        metadata::{PartialSecret, WholeSecret},
        target::{self, SecretMetadata},
    },
};

/// What was read during one reconcile.
#[derive(Default)]
pub struct FetchedSecrets {
    /// The client Secret.
    pub client: Option<FetchedClient>,
    /// The client Secret was to be read, and there is none.
    pub client_is_missing: bool,
    /// The Secret to write.
    pub target: Option<FetchedTarget>,
}

/// The client Secret as it was read.
pub struct FetchedClient {
    /// Its version.
    pub version: ObjectVersion,
    /// What a request needs of its content, or why it is of no use.
    pub content: Result<ClientCredentials, Failure>,
    /// All of its content.
    pub material: ClientMaterial,
    /// Whether the token in the Secret was requested with the same content.
    pub same_as_held: Option<bool>,
}

/// The Secret to write as it was read.
pub struct FetchedTarget {
    /// Its version.
    pub version: ObjectVersion,
    /// Its data is what we wrote.
    pub is_ours: bool,
    /// Its token at least is the one that we wrote, whatever else was changed.
    pub is_token_intact: bool,
    /// All that we are to write again for that token, where it is remembered.
    pub remembered: Option<Box<Content>>,
    /// What is to be remembered of it.
    pub held: Option<LastHeld>,
    /// Its data; where it is what we wrote, with the values of the keys that every Secret has, and with no others.
    pub data: desired_secret::Data,
    /// The operator's own annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its type.
    pub type_: String,
    /// It cannot be changed.
    pub immutable: bool,
    /// The client's fingerprint that stands in it, and the token that is its key.
    pub client_fingerprint: Option<(String, Sensitive)>,
}

impl FetchedTarget {
    /// Whether its token was requested with these client's credentials; `None` if it does not record with which.
    #[must_use]
    pub fn is_of(&self, client: &ClientMaterial) -> Option<bool> {
        self.client_fingerprint.as_ref().map(|(fingerprint, token)| *fingerprint == client.fingerprint(token))
    }
}

/// Reads the metadata of a Secret into the index.
///
/// # Errors
/// Those of the call, a missing Secret apart.
pub async fn read_metadata(cluster: &Cluster, index: &SecretIndex, key: &ObjectKey) -> Result<(), CallError> {
    let api: Api<PartialSecret> = Api::namespaced(cluster.client.clone(), &key.namespace);
    let known = index.read_begins(key);
    match cluster.call(Step::GetSecretMetadata, api.get(&key.name)).await {
        Ok(secret) => index.observe_read(key, SecretMetadata::new(&secret.read()), known),
        Err(CallError::NotFound) => drop(index.observe_absence(key, None)),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Reads a Secret with its data.
pub(super) async fn read_whole(cluster: &Cluster, step: Step, key: &ObjectKey) -> Result<Secret, CallError> {
    let url = Secret::url_path(&(), Some(&key.namespace));
    let read = async {
        let request = Request::new(url).get(&key.name, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
        cluster.client.request::<WholeSecret>(request).await
    };
    cluster.call(step, read).await.map(WholeSecret::read)
}

/// Reads the Secret to write, with its data.
///
/// # Errors
/// Those of the call, a missing Secret apart.
pub async fn read_target(
    cluster: &Cluster,
    index: &SecretIndex,
    references: &References<'_>,
    last: Option<&LastHeld>,
) -> Result<Option<FetchedTarget>, CallError> {
    let known = index.read_begins(&references.target);
    let mut secret = match read_whole(cluster, Step::GetTarget, &references.target).await {
        Ok(secret) => secret,
        Err(CallError::NotFound) => {
            index.observe_absence(&references.target, None);
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let secret_metadata = SecretMetadata::new(&secret.metadata);
    let version = secret_metadata.version.clone();
    let is_ours = target::is_what_we_wrote(&secret);
    let token = target::token(&secret);
    let held = target::last_held(&secret_metadata, &secret, token.as_ref()).filter(|_| is_ours);
    index.observe_read(&references.target, secret_metadata, known);
    let template = references.credential.spec.secret_template.as_ref();
    let remembered = token.zip(last.filter(|_| !is_ours)).and_then(|(token, last)| last.content(&token));
    let is_token_intact = is_ours || remembered.is_some() || target::is_ours_except_for_extra_keys(&secret, template);
    let mut annotations = secret.metadata.annotations.take().unwrap_or_default();
    annotations.retain(|key, _| secret_keys::OUR_OWN.contains(&key.as_str()));
    let fingerprint = annotations.get(secret_keys::CLIENT).cloned();
    let mut data = secret.data.take().unwrap_or_default();
    let text = |key: &str| data.get(key).and_then(|value| String::from_utf8(value.0.clone()).ok());
    let client_fingerprint = fingerprint.zip(text(secret_keys::ACCESS_TOKEN).map(Sensitive::new));
    // while a token is requested it is enough to know of the others that they are there
    for (_, value) in
        data.iter_mut().filter(|(key, _)| !is_token_intact || !secret_keys::DATA_KEYS.contains(&key.as_str()))
    {
        *value = ByteString::default();
    }
    Ok(Some(FetchedTarget {
        version,
        is_ours,
        is_token_intact,
        remembered: remembered.map(Box::new),
        held,
        data,
        annotations,
        type_: secret.type_.unwrap_or_default(),
        immutable: secret.immutable == Some(true),
        client_fingerprint,
    }))
}

/// Reads the client Secret for the authority's `method`, and compares it with what the held token was requested with.
///
/// # Errors
/// Those of the call, a missing Secret apart.
pub async fn read_client(
    cluster: &Cluster,
    index: &SecretIndex,
    references: &References<'_>,
    held: Option<&FetchedTarget>,
    method: ClientAuthentication,
) -> Result<Option<FetchedClient>, CallError> {
    let known = index.read_begins(&references.client);
    let secret = match read_whole(cluster, Step::GetClientSecret, &references.client).await {
        Ok(secret) => secret,
        Err(CallError::NotFound) => {
            index.observe_absence(&references.client, None);
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let secret_metadata = SecretMetadata::new(&secret.metadata);
    let version = secret_metadata.version.clone();
    index.observe_read(&references.client, secret_metadata, known);
    let spec = &references.credential.spec;
    let material = ClientMaterial::new(secret, &spec.client_credentials_ref, references.client.to_string());
    let content = material.credentials(method, spec.grant_type);
    let same_as_held = held.and_then(|held| held.is_of(&material));
    Ok(Some(FetchedClient { version, content, material, same_as_held }))
}
