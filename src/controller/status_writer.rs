//! Writes a status, and the metrics of a credential that follow it.

use std::{borrow::Cow, time::Duration};

use chrono::{DateTime, Utc};
use itwin_api::{
    MANAGER,
    conditions::READY,
    credential::{CredentialStatus, ITwinServiceCredential},
    time,
};
use itwin_core::{object::ObjectKey, observed::ObservedState, revisions, status};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Resource,
    api::{ListParams, Patch, PatchParams, PostParams},
    core::{Request, request::Error},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use super::context::Context;
use crate::{
    cluster::{CallError, Cluster, DEADLINE, Step},
    metrics::CredentialGauges,
};

/// Deadline of a call that finds out a version: the status itself is still to be written within that of all calls.
const FIND_DEADLINE: Duration = Duration::from_secs(2);

/// A request, or why it could not be made.
type RequestToSend = Result<http::Request<Vec<u8>>, Error>;

/// The values of the metrics of a credential; `failures` are those of its attempts, of which it gets no more where it
/// `is_going`.
pub(super) fn gauges(
    observed: &ObservedState,
    status: &CredentialStatus,
    next_attempt: Option<DateTime<Utc>>,
    failures: u32,
    is_going: bool,
) -> CredentialGauges {
    let seconds = |at: DateTime<Utc>| at.timestamp() as f64;
    // the status shows only some of the attempts that were not made
    let shown = u32::try_from(status.consecutive_failures).unwrap_or_default();
    CredentialGauges {
        expires_at: observed.held_for_spec().map(|token_metadata| seconds(token_metadata.expires_at)),
        renew_at: next_attempt.map(seconds),
        client_expires_at: status.client_secret_expires_at.as_deref().and_then(time::from_rfc3339).map(seconds),
        ready: status::holds(&status.conditions, READY),
        suspended: observed.suspend,
        // nothing is attempted while it is suspended, nor while finalizers hold it: an alert would never end
        failures: if observed.suspend || is_going { 0 } else { shown.max(failures) },
    }
}

/// The conditions of others where the object was changed since it had this resourceVersion, with the one that guards
/// them: a call may hang for long, and the list is written as a whole.
pub(super) fn others_since(
    context: &Context,
    key: &ObjectKey,
    uid: &str,
    resource_version: Option<&str>,
) -> Option<(Vec<Condition>, Option<String>)> {
    let object = context.namespaces.changed_since(key, uid, numeric(resource_version))?;
    let conditions = object.status.map(|status| status.conditions).unwrap_or_default();
    let others = conditions.into_iter().filter(|condition| !status::is_ours(condition)).collect();
    Some((others, object.metadata.resource_version))
}

/// A status to write.
pub(super) struct StatusWrite<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) uid: &'a str,
    pub(super) status: &'a CredentialStatus,
    /// The resourceVersion that the object has as far as is known.
    pub(super) resource_version: Option<String>,
}

/// Writes a status. Returns the resourceVersion that the object then has.
///
/// It is replaced at the version that is known, which costs the API server less than a patch. Where the object has
/// changed since, it is replaced at the version that the object has now, so that no watch is needed for it. Where it
/// changed once more, it is patched at whatever version: no one who edits it all the time may hold up a status. Nor may
/// a list that fails: where the version cannot be found out, the status is patched too.
/// Where it is refused, it is patched as well: the role may be that of an earlier release, or a mutating webhook, which
/// sees only what is sent, may need the rest of the object.
///
/// # Errors
/// [`CallError::NotFound`] also where the object of this name is another one. [`CallError::Conflict`] also where it is that
/// of a restored cluster, or has conditions of others that may have changed. The next reconcile then knows more.
pub(super) async fn write_status(cluster: &Cluster, write: StatusWrite<'_>) -> Result<u64, CallError> {
    let deadline = Instant::now() + DEADLINE;
    match replace_status(cluster, deadline, &write).await? {
        Some(version) => Ok(version),
        None => send(cluster, deadline, Step::PatchCredentialStatus, patch(&write), write.uid).await,
    }
}

/// Replaces the status. Returns the resourceVersion that the object then has; `None` where the status is to be patched.
async fn replace_status(
    cluster: &Cluster,
    deadline: Instant,
    write: &StatusWrite<'_>,
) -> Result<Option<u64>, CallError> {
    let known = match &write.resource_version {
        Some(version) => Some(version.clone()),
        None => current_version(cluster, deadline, write).await?,
    };
    let Some(known) = known else { return Ok(None) };
    let mut result = replace(cluster, deadline, write, &known).await;
    if matches!(result, Err(CallError::Conflict)) {
        let Some(current) = current_version(cluster, deadline, write).await? else { return Ok(None) };
        result = replace(cluster, deadline, write, &current).await;
        if matches!(result, Err(CallError::Conflict)) {
            // what changed may be a condition of others, of which the status says nothing
            current_version(cluster, deadline, write).await?;
            return Ok(None);
        }
    }
    match result {
        Err(CallError::Forbidden(_) | CallError::Rejected(..)) => Ok(None),
        result => result.map(Some),
    }
}

async fn replace(
    cluster: &Cluster,
    deadline: Instant,
    write: &StatusWrite<'_>,
    version: &str,
) -> Result<u64, CallError> {
    send(cluster, deadline, Step::ReplaceCredentialStatus, replacement(write, version), write.uid).await
}

/// The version that the object has now, if the status may be written to it; `None` where that cannot be found out, and
/// the UID alone guards the status. The role has no `get` for credentials; a list by name costs the API server the same.
async fn current_version(
    cluster: &Cluster,
    deadline: Instant,
    write: &StatusWrite<'_>,
) -> Result<Option<String>, CallError> {
    let StatusWrite { key, uid, status, .. } = write;
    if has_conditions_of_others(status) {
        return Err(CallError::Conflict);
    }
    match find(cluster, deadline.min(Instant::now() + FIND_DEADLINE), key).await {
        Ok(found) if !found.has(uid) => Err(CallError::NotFound),
        Ok(found) => found.version_for(uid, status).map(Some).ok_or(CallError::Conflict),
        Err(error) => {
            let result = error.label();
            tracing::warn!(credential = %key, result, "its version could not be found out, and its status is patched");
            Ok(None)
        }
    }
}

/// Whether there is no credential of this name and UID, as a list shows. A write that finds none proves nothing.
pub(super) async fn is_absent(cluster: &Cluster, key: &ObjectKey, uid: &str) -> bool {
    find(cluster, Instant::now() + FIND_DEADLINE, key).await.is_ok_and(|found| !found.has(uid))
}

async fn find(cluster: &Cluster, deadline: Instant, key: &ObjectKey) -> Result<Found, CallError> {
    let params = ListParams::default().fields(&format!("metadata.name={}", key.name)).limit(1);
    let request = Request::new(url(&key.namespace)).list(&params);
    let list = async {
        let request = request.map_err(kube::Error::BuildRequest)?;
        cluster.client.request::<Found>(request).await
    };
    cluster.call_until(deadline, Step::FindCredential, list).await
}

/// A list is replaced as a whole: the conditions of others must be those that were observed.
fn has_conditions_of_others(status: &CredentialStatus) -> bool {
    status.conditions.iter().any(|condition| !status::is_ours(condition))
}

/// Replaces the status. The API server takes everything else from the object that it has.
fn replacement(write: &StatusWrite<'_>, version: &str) -> RequestToSend {
    let ObjectKey { namespace, name } = write.key;
    let object = Replacement {
        api_version: ITwinServiceCredential::api_version(&()),
        kind: ITwinServiceCredential::kind(&()),
        metadata: Identity { namespace, name, uid: write.uid, resource_version: version },
        status: write.status,
    };
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let body = serde_json::to_vec(&object).map_err(Error::SerializeBody)?;
    Request::new(url(namespace)).replace_subresource("status", name, &params, body)
}

/// Patches the status.
fn patch(write: &StatusWrite<'_>) -> RequestToSend {
    let StatusWrite { key, uid, status, resource_version } = write;
    let guard = resource_version.as_ref().filter(|_| has_conditions_of_others(status));
    // null takes a field away
    let mut patch = json!({
        "metadata": {"uid": uid},
        "status": {
            "observedGeneration": status.observed_generation,
            "conditions": status.conditions,
            "secretName": status.secret_name,
            "issuer": status.issuer,
            "clientId": status.client_id,
            "scopes": status.scopes,
            "scope": status.scope,
            "issuedAt": status.issued_at,
            "expiresAt": status.expires_at,
            "renewAt": status.renew_at,
            "usableUntil": status.usable_until,
            "consecutiveFailures": status.consecutive_failures,
            "lastFailure": status.last_failure,
            "lastRenewRequest": status.last_renew_request,
            "clientSecretExpiresAt": status.client_secret_expires_at,
        },
    });
    if let Some(version) = guard {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    Request::new(url(&key.namespace)).patch_subresource("status", &key.name, &params, &Patch::Merge(&patch))
}

fn url(namespace: &str) -> String {
    ITwinServiceCredential::url_path(&(), Some(namespace))
}

/// Not even "not found" or a conflict is taken for the end of the credential: the status is written again later, which finds
/// out whether it is gone.
async fn send(
    cluster: &Cluster,
    deadline: Instant,
    step: Step,
    request: RequestToSend,
    uid: &str,
) -> Result<u64, CallError> {
    let is_written = |Answer { metadata: Version { uid: written, resource_version, .. } }: &Answer| {
        written.as_deref() == Some(uid) && resource_version.as_deref().is_some_and(|version| !version.is_empty())
    };
    let answer = cluster.call_for_metadata_until(deadline, step, request, is_written).await?;
    Ok(numeric(answer.metadata.resource_version.as_deref()))
}

/// The resourceVersion as a number, which it is (KEP-5504).
pub(super) fn numeric(resource_version: Option<&str>) -> u64 {
    resource_version.and_then(revisions::parse).unwrap_or_default()
}

/// A credential with its new status.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Replacement<'a> {
    api_version: Cow<'a, str>,
    kind: Cow<'a, str>,
    metadata: Identity<'a>,
    status: &'a CredentialStatus,
}

/// Which credential it is, at which version.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
    resource_version: &'a str,
}

/// What is read of the answer to a write.
#[derive(Deserialize)]
struct Answer {
    metadata: Version,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    resource_version: Option<String>,
    uid: Option<String>,
    generation: Option<i64>,
}

/// The object of one name, if there is one.
#[derive(Deserialize)]
struct Found {
    items: Vec<FoundObject>,
}

/// What is read of an object that was found.
#[derive(Deserialize)]
struct FoundObject {
    metadata: Version,
    status: Option<FoundStatus>,
}

#[derive(Deserialize)]
struct FoundStatus {
    conditions: Option<Vec<FoundCondition>>,
}

#[derive(Deserialize)]
struct FoundCondition {
    #[serde(rename = "type")]
    kind: String,
}

impl Found {
    /// Whether the object with this UID is among them.
    fn has(&self, uid: &str) -> bool {
        self.items.iter().any(|object| object.metadata.uid.as_deref() == Some(uid))
    }

    /// The version of the object with this UID, if a status without conditions of others may be written to it.
    fn version_for(self, uid: &str, status: &CredentialStatus) -> Option<String> {
        let object = self.items.into_iter().find(|object| object.metadata.uid.as_deref() == Some(uid))?;
        // a generation that went back is that of a restored cluster
        let is_known = object.metadata.generation >= status.observed_generation;
        let conditions = object.status.and_then(|status| status.conditions).unwrap_or_default();
        // the list would be written without them
        let has_none_of_others = conditions.iter().all(|condition| status::is_our_type(&condition.kind));
        object.metadata.resource_version.filter(|_| is_known && has_none_of_others)
    }
}

#[cfg(test)]
mod tests;
