//! Restarting workloads that read the token once, as `kubectl rollout restart` does: an annotation on the pod template.
//!
//! The annotation's value is when the token was issued. So the same restart asked for twice is one, and an operator
//! that was killed between the Secret and the workload finds out from the workload what is left to do.

use chrono::{DateTime, Utc};
use itwin_api::{
    MANAGER,
    credential::{RolloutRestartTarget, WorkloadKind},
    secret_keys, time,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject},
};
use serde_json::json;

use crate::cluster::{CallError, Cluster, Step};

/// Restarts one workload for the token of this instant, unless that was done. Returns whether it had to.
///
/// # Errors
/// Those of the two calls.
pub async fn restart(
    cluster: &Cluster,
    namespace: &str,
    target: &RolloutRestartTarget,
    issued_at: DateTime<Utc>,
) -> Result<bool, CallError> {
    let resource = resource(target.kind);
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), namespace, &resource);
    let wanted = time::to_rfc3339(issued_at);
    let workload = cluster.call(Step::GetWorkload(target.kind), api.get(&target.name)).await?;
    // pods that are younger than the token have read it
    let created = workload.metadata.creation_timestamp.as_ref();
    if created.is_some_and(|created| created.0.as_second() > issued_at.timestamp()) {
        return Ok(false);
    }
    if workload.data["spec"]["template"]["metadata"]["annotations"][secret_keys::RESTARTED_FOR] == json!(wanted) {
        return Ok(false);
    }
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {secret_keys::RESTARTED_FOR: wanted}}}}});
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(&patch);
    cluster.call(Step::PatchWorkload(target.kind), api.patch_metadata(&target.name, &params, &patch)).await?;
    Ok(true)
}

fn resource(kind: WorkloadKind) -> ApiResource {
    match kind {
        WorkloadKind::Deployment => ApiResource::erase::<Deployment>(&()),
        WorkloadKind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
        WorkloadKind::DaemonSet => ApiResource::erase::<DaemonSet>(&()),
    }
}

/// `Deployment name`, for messages.
#[must_use]
pub fn name(target: &RolloutRestartTarget) -> String {
    format!("{} {}", resource(target.kind).kind, target.name)
}
