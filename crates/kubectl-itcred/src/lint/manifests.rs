//! Objects from manifests: YAML or JSON, several in one file, lists of them.

use itwin_api::credential::ITwinServiceCredential;
use serde_json::Value;
use serde_saphyr::{
    Error, ExternalMessageSource, Options,
    granit_parser::{ErrorKind, ScanError},
};

use super::{Input, Workload, WorkloadRef};
use crate::{
    plain::without_values,
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

/// Adds the objects of a file, and counts all that it holds; `name` is for messages.
pub fn add(input: &mut Input, name: &str, text: &str, namespace: Option<&str>) -> usize {
    let documents: Vec<Value> = match serde_saphyr::from_multiple_with_options(text, options()) {
        Ok(documents) => documents,
        Err(error) => {
            // not what the parser says: it quotes the file, which may hold a Secret
            let at = |location: serde_saphyr::Location| format!(" in line {}", location.line());
            let at = error.location().map_or_else(String::new, at);
            input.undecoded += 1;
            input.unread.push(if is_limit(&error) {
                format!("{name} has too many objects, or objects that are nested too deeply{at}: split the file")
            } else {
                format!("{name} is no valid YAML{at}: correct it, or render templates first")
            });
            return 0;
        }
    };
    documents.into_iter().map(|document| add_object(input, name, document, namespace)).sum()
}

/// How a file is parsed. A file of [`FILE_MAX`] bytes holds fewer objects and values than this, unless they are smaller
/// than any of a manifest. The limits of depth and of expanded aliases are the parser's own.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: FILE_MAX / 32,
            max_nodes: FILE_MAX / 4,
            max_events: FILE_MAX,
            // an anchor for many aliases is fine, as what they expand to has a limit
            enforce_alias_anchor_ratio: false,
        },
        with_snippet: false,
    }
}

/// Whether a limit of the parser ended it, and no mistake in the file.
fn is_limit(error: &Error) -> bool {
    match error.without_snippet() {
        Error::AliasError { error, .. } => is_limit(error),
        Error::Budget { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => true,
        Error::ExternalMessage { source, .. } => {
            let of_parser = |error: &ScanError| matches!(error.kind(), ErrorKind::RecursionLimitExceeded);
            matches!(&**source, ExternalMessageSource::Parser(error) if of_parser(error))
        }
        _ => false,
    }
}

/// Adds an object, or those of a list, and counts them. What has no kind is no object.
fn add_object(input: &mut Input, name: &str, mut object: Value, namespace: Option<&str>) -> usize {
    if let Value::Array(items) = object {
        return items.into_iter().map(|item| add_object(input, name, item, namespace)).sum();
    }
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if kind.ends_with("List") && object["items"].is_array() {
        return add_object(input, name, object["items"].take(), namespace);
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
            Err(error) => {
                input.undecoded += 1;
                input.unread.push(format!("a credential of {name}: {}", without_values(&error)));
            }
        }
    } else if pod_spec_of(&kind).is_some() {
        match workload(&kind, object) {
            Ok(workload) => input.workloads.push(workload),
            Err(error) => {
                input.undecoded += 1;
                input.unread.push(format!("{kind} of {name}: {error}"));
            }
        }
    }
    usize::from(!kind.is_empty())
}

/// A workload from its object.
///
/// # Errors
/// The parser's message, without values.
pub fn workload(kind: &str, mut object: Value) -> Result<Workload, String> {
    let template = object.pointer_mut("/spec/workloadRef").map(Value::take).filter(|_| kind == "Rollout");
    let template: Option<WorkloadRef> =
        serde_json::from_value(template.unwrap_or_default()).map_err(|error| without_values(&error))?;
    let spec = pod_spec_of(kind).and_then(|at| object.pointer_mut(at)).map(Value::take).unwrap_or_default();
    let spec: Option<PodSpec> = serde_json::from_value(spec).map_err(|error| without_values(&error))?;
    let metadata: Option<Metadata> =
        serde_json::from_value(object["metadata"].take()).map_err(|error| without_values(&error))?;
    let (metadata, spec) = (metadata.unwrap_or_default(), spec.unwrap_or_default());
    Ok(Workload { kind: kind.to_owned(), metadata, spec, template })
}
