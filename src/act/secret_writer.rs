//! The Secret: created by POST, updated by a patch that is guarded by UID and resourceVersion, never forced, never
//! deleted.
//!
//! The patch is a strategic merge patch: labels, annotations and owner references of others stay, and so does everything
//! that is not named. Server-side apply without force would be refused exactly when a manual edit is to be reverted, and
//! with force it would be guarded by nothing.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use itwin_api::{MANAGER, credential::ITwinServiceCredential, secret_keys, time};
use itwin_core::{
    desired_secret::{self, Data, all_annotations, annotations, data_patch, labels, owner},
    restart, secret_patch,
    secret_state::SECRET_TYPE,
    token::Content,
    withheld::Withheld,
};
use itwin_oauth::sensitive::Sensitive;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    core::{ObjectMeta, Request},
};
use serde_json::{Value, json};

use crate::{
    cluster::{CallError, Cluster, Step, identified},
    observe::{
        metadata::{PartialSecret, WholeSecret},
        target::{self, SecretMetadata},
    },
};

/// The Secret that is to be updated.
#[derive(Clone, Copy)]
pub struct Existing<'a> {
    /// What is known of it.
    pub secret_metadata: &'a SecretMetadata,
    /// Its data, where it was read; else only our keys are there.
    pub present: Option<&'a Data>,
    /// Another token is written than it holds, for which no workload was restarted yet.
    pub is_new_token: bool,
    /// What of the template is withheld. The template of the credential is without it.
    pub withheld: Withheld,
}

impl<'a> Existing<'a> {
    fn metadata_patch(&self, credential: &ITwinServiceCredential, annotations: BTreeMap<String, String>) -> Value {
        let leftovers = self.secret_metadata.leftovers(&labels(credential), &annotations);
        secret_patch::metadata(credential, &observed(self.secret_metadata), annotations, leftovers, self.withheld)
    }

    fn data_patch(&self, data: &Data) -> Value {
        // what is withheld stays as it is, removals included
        let present = self.present.filter(|_| !self.withheld.has_data());
        data_patch(present.into_iter().flat_map(BTreeMap::keys), data)
    }
}

fn observed(secret_metadata: &SecretMetadata) -> secret_patch::Existing<'_> {
    secret_patch::Existing {
        uid: secret_metadata.uid(),
        resource_version: secret_metadata.resource_version(),
        ownership: &secret_metadata.ownership,
    }
}

/// The Secret as the API server has it after a write.
pub struct Written {
    /// Its metadata.
    pub secret_metadata: SecretMetadata,
    /// Its type, which admission may have changed in the write that created it.
    pub type_: Option<String>,
    /// Its token, if it has one that the operator would write.
    pub token: Option<Sensitive>,
    /// Its data is what the operator wrote. Admission may change it in the write itself, which no field manager shows.
    pub is_what_we_wrote: bool,
}

impl Written {
    /// What the answer to a write says; `data` is what was sent, where data was.
    fn new(answer: WholeSecret, data: Option<&Data>) -> Self {
        let secret = answer.read();
        let is_as_sent = data.is_none_or(|data| {
            let holds = |(key, value): (&String, _)| secret.data.as_ref().and_then(|data| data.get(key)) == Some(value);
            data.iter().all(holds)
        });
        Self {
            secret_metadata: SecretMetadata::new(&secret.metadata),
            token: target::token(&secret),
            is_what_we_wrote: is_as_sent && target::is_what_we_wrote(&secret),
            type_: secret.type_,
        }
    }
}

/// Creates the Secret.
///
/// # Errors
/// [`CallError::AlreadyExists`] where another writer was faster, and the others.
pub async fn create(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    content: &Content,
    data: &Data,
) -> Result<Written, CallError> {
    let mut annotations = all_annotations(credential, content, data);
    let restarts = restart_record(credential, content).into_iter();
    annotations.extend(restarts.filter_map(|(key, value)| Some((key.to_owned(), value?))));
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(credential.target_name().to_owned()),
            labels: Some(labels(credential)),
            annotations: Some(annotations),
            owner_references: owner(credential).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(data.clone()),
        type_: Some(SECRET_TYPE.to_owned()),
        ..Secret::default()
    };
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let body = serde_json::to_vec(&secret).map_err(kube::core::request::Error::SerializeBody);
    let request = body.and_then(|body| Request::new(api(cluster, credential).resource_url()).create(&params, body));
    send(cluster, credential, Step::CreateSecret, request, Some(data)).await
}

/// What a new token's Secret records of restarts: the workloads that are left, or that none is.
fn restart_record(credential: &ITwinServiceCredential, content: &Content) -> [(&'static str, Option<String>); 2] {
    let targets = restart::listed(&credential.spec);
    let restarted_for = targets.is_none().then(|| time::to_rfc3339(content.token_metadata.issued_at));
    [(secret_keys::RESTARTED_FOR, restarted_for), (secret_keys::RESTART_TARGETS, targets)]
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
) -> Result<Written, CallError> {
    let mut patch = existing.metadata_patch(credential, all_annotations(credential, content, data));
    if existing.is_new_token {
        for (key, value) in restart_record(credential, content) {
            patch["metadata"]["annotations"][key] = json!(value);
        }
    } else if existing.secret_metadata.are_workloads_restarted() {
        // the time of issue of the same token may be corrected, since a clock was ahead: workloads still have the token
        patch["metadata"]["annotations"][secret_keys::RESTARTED_FOR] =
            json!(time::to_rfc3339(content.token_metadata.issued_at));
    }
    patch["data"] = existing.data_patch(data);
    apply(cluster, credential, &patch, Some(data)).await
}

/// Writes the labels, annotations and owner reference that the Secret must carry, and leaves its data alone.
///
/// # Errors
/// As [`update`].
pub async fn patch_metadata(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    existing: Existing<'_>,
) -> Result<Written, CallError> {
    apply(cluster, credential, &existing.metadata_patch(credential, annotations(credential)), None).await
}

/// The same for a Secret whose data cannot be changed: the digest of the templates stays that of the keys which are there.
///
/// # Errors
/// As [`update`].
pub async fn patch_metadata_only(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    existing: Existing<'_>,
) -> Result<Written, CallError> {
    let mut patch = existing.metadata_patch(credential, annotations(credential));
    if let Some(annotations) = patch["metadata"]["annotations"].as_object_mut() {
        annotations.remove(secret_keys::TEMPLATE);
    }
    apply(cluster, credential, &patch, None).await
}

/// Writes those of them that do not come from the template.
///
/// # Errors
/// As [`update`].
pub async fn patch_own_metadata(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    secret_metadata: &SecretMetadata,
) -> Result<Written, CallError> {
    let patch = secret_patch::own_metadata(credential, &observed(secret_metadata));
    apply(cluster, credential, &patch, None).await
}

/// Writes `data` over what the Secret holds, the same token with the keys of the templates rendered again, and does what
/// [`patch_metadata`] does. The annotations of the Secret say what is `reported` of the token.
///
/// # Errors
/// As [`update`].
pub async fn rerender(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    existing: Existing<'_>,
    data: &Data,
    reported: &BTreeMap<String, String>,
) -> Result<Written, CallError> {
    let mut annotations = annotations(credential);
    annotations.insert(secret_keys::CONTENT.to_owned(), desired_secret::digest(data, reported));
    let mut patch = existing.metadata_patch(credential, annotations);
    patch["data"] = existing.data_patch(data);
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
) -> Result<Written, CallError> {
    record(cluster, credential, secret_metadata, secret_keys::RESTARTED_FOR, &time::to_rfc3339(issued_at)).await
}

/// Records which workloads are left, where the others were restarted.
///
/// # Errors
/// As [`update`].
pub async fn record_left(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    secret_metadata: &SecretMetadata,
    left: &str,
) -> Result<Written, CallError> {
    record(cluster, credential, secret_metadata, secret_keys::RESTART_TARGETS, left).await
}

async fn record(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    secret_metadata: &SecretMetadata,
    key: &str,
    value: &str,
) -> Result<Written, CallError> {
    let patch = json!({
        "metadata": {
            "uid": secret_metadata.uid(),
            "resourceVersion": secret_metadata.resource_version(),
            "annotations": {key: value},
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
) -> Result<Written, CallError> {
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let url = Request::new(api(cluster, credential).resource_url());
    let request = url.patch(credential.target_name(), &params, &Patch::Strategic(patch));
    send(cluster, credential, Step::PatchSecret, request, data).await
}

async fn send(
    cluster: &Cluster,
    credential: &ITwinServiceCredential,
    step: Step,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    data: Option<&Data>,
) -> Result<Written, CallError> {
    let (namespace, name) = (credential.metadata.namespace.as_deref(), credential.target_name());
    let send = async {
        let answer = cluster.client.request::<WholeSecret>(request.map_err(kube::Error::BuildRequest)?).await?;
        identified(answer, WholeSecret::identity, namespace, name)
    };
    Ok(Written::new(cluster.call(step, send).await?, data))
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
