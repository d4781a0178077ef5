//! How workloads use the Secrets of credentials.

use std::collections::BTreeSet;

use itwin_api::{credential::ITwinServiceCredential, secret_keys};

use super::{Finding, Known, Weight, Workload, name_of};
use crate::workloads::{How, Use};

pub(super) fn findings(workloads: &[&Workload], known: &Known<'_>) -> Vec<Finding> {
    let borrowers: Vec<&Workload> = workloads.iter().copied().filter(|workload| workload.template.is_some()).collect();
    workloads.iter().flat_map(|workload| of_workload(workload, &borrowers, known)).collect()
}

/// What is wrong with a workload; `borrowers` make pods of other workloads.
fn of_workload(workload: &Workload, borrowers: &[&Workload], known: &Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for used in workload.spec.uses() {
        if let Some(credential) = known.writer(workload.namespace(), &used.secret) {
            findings.extend(stale(workload, borrowers, &used, credential));
            findings.extend(missing_keys(workload, &used, credential));
        } else if let Some(credential) = known.reader(workload.namespace(), &used.secret) {
            findings.push(client_secret(workload, &used, credential));
        }
    }
    findings
}

fn finding(workload: &Workload, weight: Weight, rule: &'static str, message: String) -> Finding {
    // pods of something that is not listed are reported under its name
    let object = match workload.metadata.controller() {
        Some((kind, name)) => format!("{kind}/{name}"),
        None => format!("{}/{}", workload.kind, workload.metadata.shown_name()),
    };
    Finding { weight, rule, namespace: workload.namespace().to_owned(), object, message }
}

/// What does not see a renewed token.
fn stale(
    workload: &Workload,
    borrowers: &[&Workload],
    used: &Use,
    credential: &ITwinServiceCredential,
) -> Option<Finding> {
    let (rule, what) = match &used.how {
        How::Env(variable) => ("env", format!("container {} reads it as variable {variable}", used.container)),
        How::EnvFrom => ("envFrom", format!("container {} reads it with envFrom", used.container)),
        How::SubPath(path) => ("subPath", format!("container {} mounts it with subPath at {path}", used.container)),
        How::Mounted(_) | How::Unmounted => return None,
    };
    let secret = &used.secret;
    let mut makers = borrowers.iter().filter(|borrower| borrower.has_template_of(workload));
    if is_restarted(workload, credential) || makers.any(|maker| is_restarted(maker, credential)) {
        return None;
    }
    if workload.is_batch() {
        let message = format!(
            "{what} (Secret {secret}): a run that takes longer than the token is valid keeps the first token; mount \
             the Secret as a volume without subPath, and read the file for each call"
        );
        return Some(finding(workload, Weight::Note, rule, message));
    }
    let message = format!(
        "{what} (Secret {secret}), which never changes in a running container: mount the Secret as a volume without \
         subPath and read the file for each call, or name the workload in spec.rolloutRestartTargets of \
         ITwinServiceCredential {}",
        name_of(credential)
    );
    Some(finding(workload, Weight::Warning, rule, message))
}

/// Whether the operator restarts a workload for each token.
fn is_restarted(workload: &Workload, credential: &ITwinServiceCredential) -> bool {
    let name = workload.metadata.name.as_deref();
    credential
        .spec
        .rollout_restart_targets
        .iter()
        .any(|target| target.kind.as_str() == workload.kind && Some(target.name.as_str()) == name)
}

/// Keys that a pod needs and the credential does not write: the pod does not start.
fn missing_keys(workload: &Workload, used: &Use, credential: &ITwinServiceCredential) -> Option<Finding> {
    let template = credential.spec.secret_template.as_ref();
    let rendered = |key: &str| template.is_some_and(|template| template.data.contains_key(key));
    let missing: BTreeSet<&str> = used
        .keys
        .iter()
        .map(String::as_str)
        .filter(|key| !secret_keys::DATA_KEYS.contains(key) && !rendered(key))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let message = format!(
        "it needs the key {} of Secret {}, which ITwinServiceCredential {} does not write, so that the pod does not \
         start: use access_token or authorization, or add the key to spec.secretTemplate.data",
        missing.into_iter().collect::<Vec<_>>().join(", "),
        used.secret,
        name_of(credential)
    );
    Some(finding(workload, Weight::Warning, "missingKey", message))
}

fn client_secret(workload: &Workload, used: &Use, credential: &ITwinServiceCredential) -> Finding {
    let message = format!(
        "it uses the client Secret {} of ITwinServiceCredential {}: a pod needs only the token; use Secret {} instead, \
         and remove this one from the pod",
        used.secret,
        name_of(credential),
        credential.target_name()
    );
    finding(workload, Weight::Warning, "clientSecret", message)
}
