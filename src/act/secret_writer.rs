//! The Secret: created by POST, updated by a patch that is guarded by UID and resourceVersion, never forced, never
//! deleted.
//!
//! The patch is a JSON merge patch: labels and annotations of others stay, and so does everything that we do not
//! name. Server-side apply without force would be refused exactly when a hand edit is to be reverted, and with force it
//! would be guarded by nothing.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use itwin_api::{MANAGER, credential::ITwinServiceCredential, secret_keys, time};
use itwin_core::desired_secret::{self, Content, Data, all_annotations, annotations, data_patch, labels, owner};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    core::{ObjectMeta, Request},
};
use serde_json::{Value, json};

use crate::{
    cluster::{CallError, Cluster, Step},
    observe::{metadata::PartialSecret, target::SecretMetadata},
};

/// The Secret that is to be updated.
pub struct Existing<'a> {
    /// What is known of it.
    pub secret_metadata: &'a SecretMetadata,
    /// Its data, where it was read; else only our keys are there.
    pub present: Option<&'a Data>,
    /// Another token is written than it holds, for which no workload was restarted yet.
    pub is_new_token: bool,
}

/// Creates the Secret.
///
/// # Errors
/// [`CallError::AlreadyExists`] where another writer was faster, and the others.
pub async fn create(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    content: &Content,
    data: Data,
) -> Result<SecretMetadata, CallError> {
    let mut secret = Secret {
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
    let written = cluster.call_for_metadata::<PartialSecret>(Step::CreateSecret, request).await;
    let data = secret.data.take();
    let written = written.map_err(|error| error.without(data.as_ref()))?;
    Ok(SecretMetadata::new(&written.read()))
}

/// Writes a token into the Secret.
///
/// # Errors
/// [`CallError::Conflict`] where it changed since it was observed, and the others.
pub async fn update(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    existing: Existing<'_>,
    content: &Content,
    data: &Data,
) -> Result<SecretMetadata, CallError> {
    let mut patch = metadata_patch(credential, existing.secret_metadata, all_annotations(credential, content, data));
    if existing.is_new_token {
        patch["metadata"]["annotations"][secret_keys::RESTARTED_FOR] = Value::Null;
    }
    patch["data"] = data_patch(existing.present.into_iter().flat_map(BTreeMap::keys), data);
    apply(cluster, credential, &patch, Some(data)).await
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
    apply(cluster, credential, &metadata_patch(credential, secret_metadata, annotations(credential)), None).await
}

/// Writes `data` over `held`, the same token with the keys of the templates rendered again, and does what
/// [`patch_metadata`] does. The annotations of the Secret say what is `reported` of the token.
///
/// # Errors
/// As [`update`].
pub async fn rerender(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    secret_metadata: &SecretMetadata,
    (held, data): (&Data, &Data),
    reported: &BTreeMap<String, String>,
) -> Result<SecretMetadata, CallError> {
    let mut annotations = annotations(credential);
    annotations.insert(secret_keys::CONTENT.to_owned(), desired_secret::digest(data, reported));
    let mut patch = metadata_patch(credential, secret_metadata, annotations);
    patch["data"] = data_patch(held.keys(), data);
    apply(cluster, credential, &patch, Some(data)).await
}

/// Records that all workloads were restarted for the token that was issued at this instant.
///
/// # Errors
/// As [`update`].
pub async fn record_restarts(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    secret_metadata: &SecretMetadata,
    issued_at: DateTime<Utc>,
) -> Result<SecretMetadata, CallError> {
    let patch = json!({
        "metadata": {
            "uid": secret_metadata.uid(),
            "resourceVersion": secret_metadata.resource_version(),
            "annotations": {secret_keys::RESTARTED_FOR: time::to_rfc3339(issued_at)},
        },
    });
    apply(cluster, credential, &patch, None).await
}

/// Applies a patch; `data` is what the Secret then holds, where it is known.
async fn apply(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    patch: &Value,
    data: Option<&Data>,
) -> Result<SecretMetadata, CallError> {
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let api = api(cluster, credential);
    let patch = Patch::Merge(patch);
    let written = cluster.call(Step::PatchSecret, api.patch(credential.target_name(), &params, &patch)).await;
    Ok(SecretMetadata::new(&written.map_err(|error| error.without(data))?.read()))
}

/// The metadata of a patch: it fails with a conflict unless the Secret is still the one, and as, that was observed.
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

fn api(cluster: &Cluster, credential: &ITwinServiceCredential) -> Api<PartialSecret> {
    Api::namespaced(cluster.client.clone(), credential.metadata.namespace.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use itwin_api::credential::CredentialSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use kube::Resource;

    use super::*;

    #[test]
    fn owner_reference_is_the_one_that_kube_would_write() {
        let spec: CredentialSpec =
            serde_json::from_value(json!({"clientCredentialsRef": {"name": "client"}})).expect("a spec");
        let mut credential = ITwinServiceCredential::new("agent", spec);
        credential.metadata.uid = Some("uid".to_owned());
        let expected =
            credential.controller_owner_ref(&()).map(|owner| OwnerReference { block_owner_deletion: None, ..owner });
        assert!(expected.is_some());
        assert_eq!(owner(&credential), expected);
    }
}
