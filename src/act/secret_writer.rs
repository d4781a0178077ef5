//! The Secret: created by POST, updated by a patch that is guarded by UID and resourceVersion, never forced, never
//! deleted.
//!
//! The patch is a JSON merge patch: labels and annotations of others stay, and so does everything that we do not
//! name. Server-side apply without force would be refused exactly when a hand edit is to be undone, and with force it
//! would be guarded by nothing.

use std::{collections::BTreeMap, sync::Arc};

use itwin_api::{
    MANAGER,
    credential::{DeletionPolicy, ITwinServiceCredential},
    failure::Failure,
    secret_keys, time,
};
use itwin_core::{
    fingerprint,
    observed::TokenMetadata,
    template::{self, Templates},
    validate::IssuedToken,
};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::{ObjectMeta, Request},
};
use serde_json::{Value, json};

use crate::{
    cluster::{CallError, Cluster, Step},
    observe::{
        metadata::PartialSecret,
        target::{self, SecretMetadata},
    },
};

/// A token with all that the Secret tells about it.
#[derive(Clone)]
pub struct Content {
    /// The token.
    pub issued: IssuedToken,
    /// Issuer that it came from.
    pub issuer: String,
    /// Digest of what it was asked for.
    pub request: String,
    /// Client identifier.
    pub client_id: String,
    /// Digest of the client's credentials, keyed by the token.
    pub client_fingerprint: String,
    /// Version of the client Secret.
    pub client_version: Arc<str>,
    /// The client Secret and the keys that were read of it.
    pub client_reference: String,
}

impl Content {
    /// What the annotations of the Secret will say about the token.
    #[must_use]
    pub fn token_metadata(&self) -> TokenMetadata {
        TokenMetadata {
            request: self.request.as_str().into(),
            issuer: self.issuer.as_str().into(),
            client_version: self.client_version.clone(),
            issued_at: self.issued.issued_at,
            expires_at: self.issued.expires_at,
        }
    }
}

/// The Secret that is to be updated.
pub struct Existing<'a> {
    /// What is known of it.
    pub secret_metadata: &'a SecretMetadata,
    /// Its data, where it was read; else only our keys are there.
    pub present: Option<&'a Data>,
}

/// Labels that the Secret must carry.
#[must_use]
pub fn labels(credential: &ITwinServiceCredential) -> BTreeMap<String, String> {
    let name = credential.metadata.name.as_deref().unwrap_or_default();
    let mut labels = credential.spec.secret_template.clone().unwrap_or_default().labels;
    labels.insert(secret_keys::MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels.insert(secret_keys::CREDENTIAL.to_owned(), secret_keys::credential_label(name));
    labels
}

/// Annotations that the Secret must carry, those about the token apart.
#[must_use]
pub fn annotations(credential: &ITwinServiceCredential) -> BTreeMap<String, String> {
    let mut annotations = credential.spec.secret_template.clone().unwrap_or_default().annotations;
    let ObjectMeta { uid, namespace, name, .. } = credential.meta();
    annotations.insert(secret_keys::OWNER_UID.to_owned(), uid.clone().unwrap_or_default());
    let owner = format!("{}/{}", namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default());
    annotations.insert(secret_keys::OWNER.to_owned(), owner);
    if let Some(digest) = template::fingerprint(credential.spec.secret_template.as_ref()) {
        annotations.insert(secret_keys::TEMPLATE.to_owned(), digest);
    }
    annotations
}

/// The data of a Secret.
pub type Data = BTreeMap<String, ByteString>;

/// All that the Secret is to hold for this token.
///
/// # Errors
/// [`itwin_api::conditions::Reason::TemplateInvalid`]
pub fn data(credential: &ITwinServiceCredential, content: &Content) -> Result<Data, Failure> {
    with_templates(credential, token_data(content))
}

fn with_templates(credential: &ITwinServiceCredential, mut data: Data) -> Result<Data, Failure> {
    data.extend(Templates::new(credential.spec.secret_template.as_ref())?.render(&data));
    Ok(data)
}

/// Creates the Secret.
///
/// # Errors
/// [`CallError::AlreadyExists`] where somebody was faster, and the others.
pub async fn create(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    content: &Content,
    data: Data,
) -> Result<SecretMetadata, CallError> {
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(credential.target_name().to_owned()),
            labels: Some(labels(credential)),
            annotations: Some(all_annotations(credential, content, &data)),
            owner_references: owner(credential).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(data),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let body = serde_json::to_vec(&secret).map_err(kube::core::request::Error::SerializeBody);
    let request = body.and_then(|body| Request::new(api(cluster, credential).resource_url()).create(&params, body));
    let written: PartialSecret = cluster.call_for_metadata(Step::CreateSecret, request).await?;
    Ok(SecretMetadata::new(&written.read()))
}

/// Writes a token into the Secret.
///
/// # Errors
/// [`CallError::Conflict`] where it changed since it was seen, and the others.
pub async fn update(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    existing: Existing<'_>,
    content: &Content,
    data: &Data,
) -> Result<SecretMetadata, CallError> {
    let mut patch = metadata_patch(credential, existing.secret_metadata, all_annotations(credential, content, data));
    patch["data"] = data_patch(existing.present.into_iter().flat_map(BTreeMap::keys), data);
    apply(cluster, credential, &patch).await
}

/// Sets what is wanted and takes away what else is there.
fn data_patch<'a>(present: impl IntoIterator<Item = &'a String>, data: &'a Data) -> Value {
    let stale = present.into_iter().filter(|key| !data.contains_key(*key));
    let mut patched: BTreeMap<&str, Value> = stale.map(|key| (key.as_str(), Value::Null)).collect();
    patched.extend(data.iter().map(|(key, value)| (key.as_str(), json!(value))));
    json!(patched)
}

/// Writes the labels, annotations and owner reference that the Secret must carry, and leaves its data alone.
///
/// # Errors
/// As [`update`].
pub async fn patch_metadata(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    secret_metadata: &SecretMetadata,
) -> Result<SecretMetadata, CallError> {
    apply(cluster, credential, &metadata_patch(credential, secret_metadata, annotations(credential))).await
}

/// Renders the keys of the templates anew over the token that the Secret holds, `held`, of which its annotations
/// tell what is `reported`, and does what [`patch_metadata`] does.
///
/// # Errors
/// A template that cannot be rendered, in which case nothing was written; or as [`update`].
pub async fn rerender(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    secret_metadata: &SecretMetadata,
    held: Data,
    reported: &BTreeMap<String, String>,
) -> Result<Result<SecretMetadata, Failure>, CallError> {
    let token = secret_keys::DATA_KEYS.iter().filter_map(|key| held.get_key_value(*key));
    let token = token.map(|(key, value)| (key.clone(), value.clone())).collect();
    let data = match with_templates(credential, token) {
        Ok(data) => data,
        Err(failure) => return Ok(Err(failure)),
    };
    let mut annotations = annotations(credential);
    annotations.insert(secret_keys::CONTENT.to_owned(), target::content(&data, reported));
    let mut patch = metadata_patch(credential, secret_metadata, annotations);
    patch["data"] = data_patch(held.keys(), &data);
    apply(cluster, credential, &patch).await.map(Ok)
}

async fn apply(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    patch: &Value,
) -> Result<SecretMetadata, CallError> {
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let api = api(cluster, credential);
    let patch = Patch::Merge(patch);
    let written = cluster.call(Step::PatchSecret, api.patch(credential.target_name(), &params, &patch)).await?;
    Ok(SecretMetadata::new(&written.read()))
}

/// The metadata of a patch: it fails with a conflict unless the Secret is still the one, and as, that was seen.
fn metadata_patch(
    credential: &ITwinServiceCredential,
    secret_metadata: &SecretMetadata,
    annotations: BTreeMap<String, String>,
) -> Value {
    fn patch(wished: BTreeMap<String, String>, leftovers: Vec<&str>) -> BTreeMap<String, Value> {
        let leftovers = leftovers.into_iter().map(|key| (key.to_owned(), Value::Null));
        leftovers.chain(wished.into_iter().map(|(key, value)| (key, json!(value)))).collect()
    }
    let labels = labels(credential);
    let leftovers = secret_metadata.leftovers(&labels, &annotations);
    let (labels, mut annotations) = (patch(labels, leftovers.labels), patch(annotations, leftovers.annotations));
    // an offer that was taken is taken off: it must not be taken twice
    annotations.insert(secret_keys::ADOPT.to_owned(), Value::Null);
    annotations.entry(secret_keys::TEMPLATE.to_owned()).or_insert(Value::Null);
    let mut patch = json!({
        "metadata": {
            "uid": secret_metadata.uid(),
            "resourceVersion": secret_metadata.resource_version(),
            "labels": labels,
            "annotations": annotations,
        },
    });
    let owner = owner(credential);
    let wished = owner.as_ref().map(|owner| &owner.uid);
    // a list is replaced as a whole: where the owner is right, the references of others stay
    if wished.map(String::as_str) != secret_metadata.ownership.controller.as_ref().map(|controller| &*controller.uid) {
        patch["metadata"]["ownerReferences"] = json!(owner.map(|owner| vec![owner]));
    }
    patch
}

/// Annotations that the Secret must carry, those about the token in `data` included.
#[must_use]
pub fn all_annotations(
    credential: &ITwinServiceCredential,
    content: &Content,
    data: &Data,
) -> BTreeMap<String, String> {
    let mut annotations = annotations(credential);
    let token_metadata = [
        (secret_keys::REQUEST, content.request.clone()),
        (secret_keys::CLIENT, content.client_fingerprint.clone()),
        (secret_keys::CLIENT_VERSION, content.client_version.to_string()),
        (secret_keys::CLIENT_ID, content.client_id.clone()),
        (secret_keys::ISSUER_ANNOTATION, content.issuer.clone()),
        (secret_keys::GRANTED, content.issued.scopes.join(" ")),
        (secret_keys::ISSUED_AT, time::to_rfc3339(content.issued.issued_at)),
        (secret_keys::EXPIRES_AT_ANNOTATION, time::to_rfc3339(content.issued.expires_at)),
    ];
    annotations.extend(token_metadata.map(|(key, value)| (key.to_owned(), value)));
    if let Some(request) = credential.annotations().get(secret_keys::RENEW) {
        annotations.insert(secret_keys::RENEWED_FOR.to_owned(), fingerprint::renewal(request));
    }
    let digest = target::content(data, &annotations);
    annotations.insert(secret_keys::CONTENT.to_owned(), digest);
    annotations
}

/// The keys that every Secret has. No value ends in a newline: Node's header validation refuses one.
fn token_data(content: &Content) -> Data {
    let issued = &content.issued;
    let token = issued.token.expose();
    [
        (secret_keys::ACCESS_TOKEN, token.to_owned()),
        (secret_keys::AUTHORIZATION, format!("{} {token}", issued.token_type)),
        (secret_keys::TOKEN_TYPE, issued.token_type.clone()),
        (secret_keys::EXPIRES_AT, time::to_rfc3339(issued.expires_at)),
        (secret_keys::SCOPE, issued.scopes.join(" ")),
        (secret_keys::ISSUER, content.issuer.clone()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
    .collect()
}

/// The controller reference to the credential; none where the Secret is to outlive it.
#[must_use]
pub fn owner(credential: &ITwinServiceCredential) -> Option<OwnerReference> {
    match credential.spec.deletion_policy {
        DeletionPolicy::Retain => None,
        // blockOwnerDeletion would need a permission on the credential's finalizers, and serves nothing here
        DeletionPolicy::Delete => {
            credential.controller_owner_ref(&()).map(|owner| OwnerReference { block_owner_deletion: None, ..owner })
        }
    }
}

fn api(cluster: &Cluster, credential: &ITwinServiceCredential) -> Api<PartialSecret> {
    Api::namespaced(cluster.client.clone(), credential.metadata.namespace.as_deref().unwrap_or_default())
}
