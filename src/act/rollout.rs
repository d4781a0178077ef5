//! Restarting workloads that read the token once.
//!
//! A workload of `apps/v1` is restarted as `kubectl rollout restart` does it: by an annotation of its pod template. Each
//! credential has its own, and its value is when the token was issued. So the same restart that is asked for twice is
//! one, and an operator that was killed between the Secret and the workload learns from the workload what is left to do.
//! Argo Rollouts restart pods that are older than `spec.restartAt`, without a new revision.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use itwin_api::{
    MANAGER,
    credential::{RolloutRestartTarget, WorkloadKind},
    secret_keys, time,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use kube::{
    Api, Resource,
    api::{GetParams, Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta, Request},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::{CallError, Cluster, DEADLINE, Step, identified};

/// The number of credentials whose annotations a pod template has. Further ones, the oldest, are removed: they may be of
/// credentials that are gone.
const MARKS_MAX: usize = 32;

/// The token that workloads are restarted for.
pub struct Cause<'a> {
    /// Namespace of the credential and the workloads.
    pub namespace: &'a str,
    /// UID of the credential.
    pub uid: &'a str,
    /// When the token was issued.
    pub issued_at: DateTime<Utc>,
    /// When it was written for the first time, or issued if that is not known.
    pub written_at: DateTime<Utc>,
    /// The time.
    pub now: DateTime<Utc>,
}

/// The parts of a workload that decide.
#[derive(Debug, Default, Deserialize)]
struct Workload {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    template: Template,
    restart_at: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Template {
    #[serde(default)]
    metadata: TemplateMetadata,
}

#[derive(Debug, Default, Deserialize)]
struct TemplateMetadata {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// Restarts one workload, unless that was done. `was_missing` says that it did not exist once the token was written.
/// Returns whether it had to.
///
/// # Errors
/// Those of the two calls.
pub async fn restart(
    cluster: &Cluster,
    target: &RolloutRestartTarget,
    was_missing: bool,
    cause: &Cause<'_>,
) -> Result<bool, CallError> {
    let resource = resource(target.kind);
    let url = DynamicObject::url_path(&resource, Some(cause.namespace));
    let read = async {
        let request = Request::new(url).get(&target.name, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
        let answer = cluster.client.request::<Workload>(request).await?;
        identified(answer, |workload| &workload.metadata, Some(cause.namespace), &target.name)
    };
    // together, so that what failed is reported in time also where both take long
    let deadline = Instant::now() + DEADLINE;
    let workload = cluster.call_until(deadline, Step::GetWorkload(target.kind), read).await?;
    if is_younger(&workload, was_missing, cause) {
        return Ok(false);
    }
    let Some(patch) = patch(target.kind, &workload, cause) else { return Ok(false) };
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), cause.namespace, &resource);
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(&patch);
    let write = async {
        let answer = api.patch_metadata(&target.name, &params, &patch).await?;
        identified(answer, |workload| &workload.metadata, Some(cause.namespace), &target.name)
    };
    cluster.call_until(deadline, Step::PatchWorkload(target.kind), write).await?;
    Ok(true)
}

/// Whether the pods of a workload can have read no token but this one. Its time of creation alone does not show it: it is
/// of the API server's clock, and a workload may be created between the request of a token and its write.
fn is_younger(workload: &Workload, was_missing: bool, cause: &Cause<'_>) -> bool {
    let created = workload.metadata.creation_timestamp.as_ref().and_then(time::from_kubernetes);
    was_missing && created.is_some_and(|created| created >= cause.issued_at)
}

/// The patch that restarts a workload; `None` if it was restarted for this token.
fn patch(kind: WorkloadKind, workload: &Workload, cause: &Cause<'_>) -> Option<Value> {
    if kind == WorkloadKind::Rollout {
        let restarted_at = workload.spec.restart_at.as_deref().and_then(time::from_rfc3339);
        let written_at = time::whole_seconds(cause.written_at);
        // a clock may have been set back since the write
        let restart_at = time::to_rfc3339(cause.now.max(written_at));
        return restarted_at.is_none_or(|at| at < written_at).then(|| json!({"spec": {"restartAt": restart_at}}));
    }
    let none = BTreeMap::new();
    let annotations = workload.spec.template.metadata.annotations.as_ref().unwrap_or(&none);
    let (key, issued_at) = (secret_keys::restarted_for(cause.uid), time::to_rfc3339(cause.issued_at));
    if annotations.get(&key) == Some(&issued_at) || was_restarted_by_earlier_version(annotations, cause) {
        return None;
    }
    let mut marks = oldest_marks(annotations, &key);
    marks.insert(&key, json!(issued_at));
    Some(json!({"spec": {"template": {"metadata": {"annotations": marks}}}}))
}

/// Earlier versions had one annotation for all credentials: one that is newer than the token covers it.
fn was_restarted_by_earlier_version(annotations: &BTreeMap<String, String>, cause: &Cause<'_>) -> bool {
    let restarted_for = annotations.get(secret_keys::RESTARTED_FOR_ANY).and_then(|value| time::from_rfc3339(value));
    restarted_for.is_some_and(|at| at >= cause.issued_at)
}

/// The annotations of other credentials that are too many, each with the value that removes it.
fn oldest_marks<'a>(annotations: &'a BTreeMap<String, String>, ours: &str) -> BTreeMap<&'a str, Value> {
    let is_mark = |key: &str| key.strip_prefix(secret_keys::RESTARTED_FOR).is_some_and(|rest| rest.starts_with('.'));
    let marks = annotations.iter().filter(|(key, _)| is_mark(key) && *key != ours);
    let mut marks: Vec<(&str, &str)> = marks.map(|(key, value)| (value.as_str(), key.as_str())).collect();
    // RFC 3339 in UTC sorts as text
    marks.sort_unstable();
    let excess = marks.len().saturating_sub(MARKS_MAX - 1);
    marks.into_iter().take(excess).map(|(_, key)| (key, Value::Null)).collect()
}

fn resource(kind: WorkloadKind) -> ApiResource {
    match kind {
        WorkloadKind::Deployment => ApiResource::erase::<Deployment>(&()),
        WorkloadKind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
        WorkloadKind::DaemonSet => ApiResource::erase::<DaemonSet>(&()),
        WorkloadKind::Rollout => {
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Rollout"), "rollouts")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    fn cause(now: i64) -> Cause<'static> {
        Cause { namespace: "team", uid: "uid", issued_at: at(0), written_at: at(2), now: at(now) }
    }

    fn workload(value: Value) -> Workload {
        serde_json::from_value(value).expect("a workload")
    }

    fn annotated(annotations: &Value) -> Workload {
        workload(json!({"spec": {"template": {"metadata": {"annotations": annotations}}}}))
    }

    #[test]
    fn workload_is_restarted_once_for_each_credential_and_token() {
        let patch = |annotations: &Value| patch(WorkloadKind::Deployment, &annotated(annotations), &cause(12));
        let ours = secret_keys::restarted_for("uid");
        let wanted = json!({"spec": {"template": {"metadata": {"annotations": {&ours: time::to_rfc3339(at(0))}}}}});
        assert_eq!(patch(&json!({&ours: time::to_rfc3339(at(0))})), None);
        for others in [
            json!({}),
            json!(null),
            json!({&ours: time::to_rfc3339(at(-3600))}),
            json!({secret_keys::restarted_for("another"): time::to_rfc3339(at(0))}),
            json!({secret_keys::RESTARTED_FOR_ANY: time::to_rfc3339(at(-1))}),
        ] {
            assert_eq!(patch(&others), Some(wanted.clone()), "{others}");
        }
        // an upgrade restarts nothing
        assert_eq!(patch(&json!({secret_keys::RESTARTED_FOR_ANY: time::to_rfc3339(at(0))})), None);
    }

    #[test]
    fn oldest_annotations_of_other_credentials_are_removed() {
        let marks = |count: usize| {
            let mark = |number: usize| {
                (secret_keys::restarted_for(&number.to_string()), json!(time::to_rfc3339(at(-(number as i64)))))
            };
            (0..count).map(mark).collect::<serde_json::Map<_, _>>()
        };
        let removed = |count: usize| {
            let patch =
                patch(WorkloadKind::StatefulSet, &annotated(&marks(count).into()), &cause(12)).expect("a patch");
            let annotations = patch["spec"]["template"]["metadata"]["annotations"].as_object().cloned();
            let mut annotations = annotations.expect("annotations");
            annotations.retain(|_, value| value.is_null());
            annotations.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(removed(MARKS_MAX - 1), [""; 0]);
        assert_eq!(removed(MARKS_MAX), [secret_keys::restarted_for(&(MARKS_MAX - 1).to_string())]);
    }

    #[test]
    fn argo_rollout_is_restarted_unless_it_was_since_the_write() {
        let patch = |restart_at: Value, now| {
            patch(WorkloadKind::Rollout, &workload(json!({"spec": {"restartAt": restart_at}})), &cause(now))
        };
        let to = |second: i64| Some(json!({"spec": {"restartAt": time::to_rfc3339(at(second))}}));
        assert_eq!(patch(json!(null), 12), to(12));
        assert_eq!(patch(json!(time::to_rfc3339(at(1))), 12), to(12), "before the write, and so with the token before");
        assert_eq!(patch(json!(time::to_rfc3339(at(2))), 12), None);
        assert_eq!(patch(json!(null), -3600), to(2), "the clock was set back");
        // a token that is written again, whose first write is not known
        let again = Cause { written_at: at(0), ..cause(60) };
        let restarted = |second| workload(json!({"spec": {"restartAt": time::to_rfc3339(at(second))}}));
        assert_eq!(super::patch(WorkloadKind::Rollout, &restarted(12), &again), None);
        assert_eq!(super::patch(WorkloadKind::Rollout, &restarted(-1), &again), to(60));
    }

    #[test]
    fn only_a_workload_that_was_missing_once_the_token_was_written_is_younger() {
        let created = |second| workload(json!({"metadata": {"creationTimestamp": time::to_rfc3339(at(second))}}));
        assert!(is_younger(&created(20), true, &cause(60)));
        assert!(!is_younger(&created(20), false, &cause(60)), "whose clock said so?");
        assert!(!is_younger(&created(-1), true, &cause(60)));
        assert!(!is_younger(&Workload::default(), true, &cause(60)));
    }
}
