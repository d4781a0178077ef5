//! Objects from manifests: YAML or JSON, several in one file, lists of them.

use itwin_api::credential::ITwinServiceCredential;
use serde_json::Value;

use super::{Input, Workload};
use crate::{
    plain::plain,
    workloads::{Metadata, PodSpec},
};

/// The largest file that is read, in bytes: larger than any manifest that the API server takes.
pub const FILE_MAX: usize = 8 << 20;

/// Where the spec of the pods is, by kind; `None` for a kind without pods.
#[must_use]
pub fn pod_spec_of(kind: &str) -> Option<&'static str> {
    match kind {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" | "Rollout" => {
            Some("/spec/template/spec")
        }
        "CronJob" => Some("/spec/jobTemplate/spec/template/spec"),
        "Pod" => Some("/spec"),
        _ => None,
    }
}

/// Adds the objects of a file; `name` is for messages.
pub fn add(input: &mut Input, name: &str, text: &str, namespace: Option<&str>) {
    let documents: Vec<Value> = match serde_saphyr::from_multiple(text) {
        Ok(documents) => documents,
        Err(error) => {
            let error = plain(&error.to_string());
            input.unread.push(format!("{name} is no YAML ({}); render templates first", error.trim()));
            return;
        }
    };
    for document in documents {
        add_object(input, name, document, namespace);
    }
}

fn add_object(input: &mut Input, name: &str, mut object: Value, namespace: Option<&str>) {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if kind.ends_with("List") && object["items"].is_array() {
        if let Some(items) = object["items"].as_array_mut() {
            for item in std::mem::take(items) {
                add_object(input, name, item, namespace);
            }
        }
        return;
    }
    if object["metadata"].is_object()
        && object["metadata"]["namespace"].is_null()
        && let Some(namespace) = namespace
    {
        object["metadata"]["namespace"] = namespace.into();
    }
    let is_ours = object["apiVersion"].as_str().is_some_and(|version| version.starts_with("credentials.itwin.dev/"));
    if is_ours && kind == "ITwinServiceCredential" {
        match serde_json::from_value::<ITwinServiceCredential>(object) {
            Ok(credential) => input.credentials.push(credential),
            Err(error) => input.unread.push(format!("a credential of {name}: {}", plain(&error.to_string()))),
        }
    } else if pod_spec_of(&kind).is_some() {
        match workload(&kind, object) {
            Ok(workload) => input.workloads.push(workload),
            Err(error) => input.unread.push(format!("{kind} of {name}: {}", plain(&error))),
        }
    }
}

/// A workload from its object.
///
/// # Errors
/// The parser's message.
pub fn workload(kind: &str, mut object: Value) -> Result<Workload, String> {
    let spec = pod_spec_of(kind).and_then(|at| object.pointer_mut(at)).map(Value::take).unwrap_or_default();
    let spec: Option<PodSpec> = serde_json::from_value(spec).map_err(|error| error.to_string())?;
    let metadata: Option<Metadata> =
        serde_json::from_value(object["metadata"].take()).map_err(|error| error.to_string())?;
    let (metadata, spec) = (metadata.unwrap_or_default(), spec.unwrap_or_default());
    Ok(Workload { kind: kind.to_owned(), metadata, spec })
}
