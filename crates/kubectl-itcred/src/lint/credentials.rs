//! What is wrong with credentials and their Secrets, given the workloads.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use itwin_api::{conditions::Reason, credential::ITwinServiceCredential};
use itwin_core::policy::Policy;

use super::{Finding, Input, Known, Weight, Workload, name_of, namespace_of};
use crate::{span::span, workloads::Use};

/// How long a kubelet takes to update a volume: its sync period of a minute, and as long for its cache.
pub(super) const KUBELET_DELAY: TimeDelta = TimeDelta::minutes(2);

pub(super) fn findings(input: &Input, workloads: &[&Workload], known: &Known<'_>) -> Vec<Finding> {
    let used: BTreeSet<(String, String)> = workloads
        .iter()
        .flat_map(|workload| {
            let namespace = workload.namespace().to_owned();
            workload.spec.uses().into_iter().map(move |used: Use| (namespace.clone(), used.secret))
        })
        .collect();
    let mut findings: Vec<Finding> = Vec::new();
    for credential in &input.credentials {
        findings.extend(unused(credential, &used, input));
        findings.extend(minimum_validity(credential));
        findings.extend(shared(credential, known));
        findings.extend(targets(credential, workloads, input));
    }
    findings.extend(orphans(input, known));
    findings
}

fn finding(credential: &ITwinServiceCredential, weight: Weight, rule: &'static str, message: String) -> Finding {
    Finding {
        weight,
        rule,
        namespace: namespace_of(credential).to_owned(),
        object: format!("ITwinServiceCredential/{}", name_of(credential)),
        message,
    }
}

/// No workload uses the Secret.
fn unused(credential: &ITwinServiceCredential, used: &BTreeSet<(String, String)>, input: &Input) -> Option<Finding> {
    let secret = credential.target_name();
    // what was not read may use it; programs may read it from the API server
    if !input.unread.is_empty() || used.contains(&(namespace_of(credential).to_owned(), secret.to_owned())) {
        return None;
    }
    let message = format!(
        "no workload uses Secret {secret}: mount it, or delete the credential if nothing reads the Secret from the API \
         server either"
    );
    Some(finding(credential, Weight::Note, "unused", message))
}

/// A workload that counts on `minimumValidity` reads a file that is older than that.
fn minimum_validity(credential: &ITwinServiceCredential) -> Option<Finding> {
    let minimum = Policy::new(&credential.spec).minimum_validity.filter(|minimum| *minimum < KUBELET_DELAY)?;
    let message = format!(
        "minimumValidity of {} is shorter than the time until a pod sees a new token in its volume, up to {}: set \
         spec.minimumValidity to at least {}",
        span(minimum),
        span(KUBELET_DELAY),
        span(KUBELET_DELAY)
    );
    Some(finding(credential, Weight::Warning, "minimumValidity", message))
}

/// Two credentials write one Secret: the older keeps it.
fn shared(credential: &ITwinServiceCredential, known: &Known<'_>) -> Option<Finding> {
    let writers = known.by_secret.get(&(namespace_of(credential), credential.target_name()))?;
    let others: Vec<&str> =
        writers.iter().map(|other| name_of(other)).filter(|name| *name != name_of(credential)).collect();
    if others.is_empty() {
        return None;
    }
    let message = format!(
        "Secret {} is written for {} too, and only the oldest keeps it: give each a spec.secretName of its own",
        credential.target_name(),
        others.join(", ")
    );
    Some(finding(credential, Weight::Warning, "sharedSecret", message))
}

/// Workloads that are restarted for nothing.
fn targets(credential: &ITwinServiceCredential, workloads: &[&Workload], input: &Input) -> Vec<Finding> {
    let mut findings = Vec::new();
    for target in &credential.spec.rollout_restart_targets {
        let kind = target.kind.as_str();
        let found = workloads.iter().find(|workload| workload.is(namespace_of(credential), kind, &target.name));
        let secret = credential.target_name();
        match found {
            Some(workload) if may_use(workload, secret, workloads) => {}
            Some(_) => findings.push(finding(
                credential,
                Weight::Warning,
                "restartTarget",
                format!(
                    "spec.rolloutRestartTargets names {kind}/{}, which does not use Secret {secret} and is restarted \
                     for each token: remove it, or have it use the Secret",
                    target.name
                ),
            )),
            None if !input.unread.is_empty() => {}
            None => findings.push(finding(
                credential,
                if input.is_partial { Weight::Note } else { Weight::Warning },
                "restartTarget",
                format!("spec.rolloutRestartTargets names {kind}/{}, which does not exist: remove it", target.name),
            )),
        }
    }
    findings
}

/// Whether the pods of a workload use a Secret, or are those of a workload that was not read.
fn may_use(workload: &Workload, secret: &str, workloads: &[&Workload]) -> bool {
    let uses = |workload: &Workload| workload.spec.uses().iter().any(|used| used.secret == secret);
    let template = workloads.iter().find(|other| workload.has_template_of(other));
    uses(workload) || (workload.template.is_some() && template.is_none_or(|template| uses(template)))
}

/// Secrets with a token that no credential renews.
fn orphans(input: &Input, known: &Known<'_>) -> Vec<Finding> {
    // one that could not be decoded may be of any Secret
    if input.undecoded > 0 {
        return Vec::new();
    }
    input
        .token_secrets
        .iter()
        .filter(|secret| known.writer(&secret.namespace, &secret.name).is_none())
        .map(|secret| Finding {
            weight: Weight::Warning,
            rule: "noCredential",
            namespace: secret.namespace.clone(),
            object: format!("Secret/{}", secret.name),
            message: format!(
                "no ITwinServiceCredential writes it, so that its token expires ({}): delete it, or create the \
                 credential again",
                Reason::TokenExpired.as_str()
            ),
        })
        .collect()
}
