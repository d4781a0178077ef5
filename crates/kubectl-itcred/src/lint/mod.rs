//! `lint`: workloads that read a token in a way that goes stale, and other mistakes around credentials.
//!
//! The rules work on objects, from a cluster or from files. A note is worth knowing; a warning ends the program with
//! exit code 1.

mod credentials;
pub mod manifests;
#[cfg(test)]
mod tests;
mod uses;

use std::collections::{BTreeMap, BTreeSet};

use itwin_api::credential::ITwinServiceCredential;
use serde::{Deserialize, Serialize};

use crate::{
    output::Structured,
    plain::plain,
    table::{Tone, WIDTH, wrap},
    workloads::{Metadata, PodSpec},
};

/// A workload: what makes pods, or a pod that nothing made.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Its kind.
    pub kind: String,
    /// Its metadata.
    pub metadata: Metadata,
    /// What its pods are.
    pub spec: PodSpec,
    /// The workload whose pods it makes, in place of pods of its own.
    pub template: Option<WorkloadRef>,
}

/// `spec.workloadRef` of an Argo Rollout: a workload of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct WorkloadRef {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl Workload {
    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Whether it is the one of this kind and name.
    fn is(&self, namespace: &str, kind: &str, name: &str) -> bool {
        self.namespace() == namespace && self.kind == kind && self.metadata.name.as_deref() == Some(name)
    }

    /// Whether it makes the pods of another workload.
    fn has_template_of(&self, other: &Workload) -> bool {
        self.template.as_ref().is_some_and(|of| other.is(self.namespace(), &of.kind, &of.name))
    }

    /// Whether its pods end by themselves.
    fn is_batch(&self) -> bool {
        matches!(self.kind.as_str(), "Job" | "CronJob")
    }
}

/// A Secret, without its data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecretName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Everything that is checked.
#[derive(Debug, Default)]
pub struct Input {
    /// The credentials.
    pub credentials: Vec<ITwinServiceCredential>,
    /// The workloads, and the pods.
    pub workloads: Vec<Workload>,
    /// The Secrets that an operator wrote.
    pub token_secrets: Vec<SecretName>,
    /// Whether these are files, of which there may be others elsewhere.
    pub is_partial: bool,
    /// What could not be read, and so was not checked.
    pub unread: Vec<String>,
    /// How many files and credentials could not be decoded: what they hold may be wrong.
    pub undecoded: usize,
}

/// The importance of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Weight {
    /// It goes wrong.
    Warning,
    /// Worth knowing.
    Note,
}

/// What a rule found. The order of the fields is that of findings: those of an object are together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Its importance.
    pub weight: Weight,
    /// The namespace of the object.
    pub namespace: String,
    /// The object, `Kind/name`.
    pub object: String,
    /// The rule.
    pub rule: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What `lint` found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The findings, warnings first.
    pub findings: Vec<Finding>,
    /// What could not be read, and so was not checked.
    pub unread: Vec<String>,
    /// How many credentials were checked.
    pub credentials: usize,
    /// How many workloads and pods.
    pub workloads: usize,
}

impl Structured for Report {
    const KIND: &'static str = "LintReport";
}

/// The credentials of each namespace, by their Secrets.
pub(crate) struct Known<'a> {
    by_secret: BTreeMap<(&'a str, &'a str), Vec<&'a ITwinServiceCredential>>,
    by_client: BTreeMap<(&'a str, &'a str), &'a ITwinServiceCredential>,
}

fn namespace_of(credential: &ITwinServiceCredential) -> &str {
    credential.metadata.namespace.as_deref().unwrap_or_default()
}

fn name_of(credential: &ITwinServiceCredential) -> &str {
    credential.metadata.name.as_deref().unwrap_or_default()
}

impl<'a> Known<'a> {
    fn new(credentials: &'a [ITwinServiceCredential]) -> Self {
        let (mut by_secret, mut by_client) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::new());
        for credential in credentials {
            let namespace = namespace_of(credential);
            by_secret.entry((namespace, credential.target_name())).or_default().push(credential);
            by_client.entry((namespace, credential.spec.client_credentials_ref.name.as_str())).or_insert(credential);
        }
        Self { by_secret, by_client }
    }

    /// The credential that writes a Secret.
    fn writer(&self, namespace: &str, secret: &str) -> Option<&'a ITwinServiceCredential> {
        self.by_secret.get(&(namespace, secret)).and_then(|found| found.first()).copied()
    }

    /// A credential that reads a Secret as its client Secret.
    fn reader(&self, namespace: &str, secret: &str) -> Option<&'a ITwinServiceCredential> {
        self.by_client.get(&(namespace, secret)).copied()
    }
}

/// Applies all rules.
#[must_use]
pub fn report(input: &Input) -> Report {
    let known = Known::new(&input.credentials);
    let workloads = made_by_none(&input.workloads);
    let mut findings = uses::findings(&workloads, &known);
    findings.extend(credentials::findings(input, &workloads, &known));
    findings.sort();
    findings.dedup();
    let unread = input.unread.iter().map(|text| plain(text)).collect();
    Report { findings, unread, credentials: input.credentials.len(), workloads: workloads.len() }
}

/// The workloads that no other of them made: a pod of a Deployment says what the Deployment says. Of pods that
/// something else made, one stands for all.
fn made_by_none(workloads: &[Workload]) -> Vec<&Workload> {
    let listed: BTreeSet<(&str, &str, &str)> = workloads
        .iter()
        .filter_map(|workload| Some((workload.namespace(), workload.kind.as_str(), workload.metadata.name.as_deref()?)))
        .collect();
    let mut seen = BTreeSet::new();
    let is_first = |workload: &&Workload| {
        let Some((kind, name)) = workload.metadata.controller() else { return true };
        let namespace = workload.namespace();
        // a ReplicaSet is named after its Deployment or Rollout, and the digest of its template
        let maker = name.rsplit_once('-').map_or(name, |(maker, _)| maker);
        let is_of = |kind: &str, name: &str| listed.contains(&(namespace, kind, name));
        let is_known =
            is_of(kind, name) || (kind == "ReplicaSet" && (is_of("Deployment", maker) || is_of("Rollout", maker)));
        !is_known && seen.insert((namespace.to_owned(), kind.to_owned(), name.to_owned()))
    };
    workloads.iter().filter(is_first).collect()
}

impl Report {
    /// Whether there is a warning.
    #[must_use]
    pub fn has_warnings(&self) -> bool {
        self.findings.iter().any(|finding| finding.weight == Weight::Warning)
    }

    /// The findings as text, by object.
    #[must_use]
    pub fn render(&self, is_colored: bool) -> String {
        let mut text = String::new();
        let mut last = None;
        for finding in &self.findings {
            let object = (finding.weight, &finding.namespace, &finding.object);
            let (mark, tone) = match finding.weight {
                Weight::Warning => ("warning", Tone::Warning),
                Weight::Note => ("note", Tone::Plain),
            };
            if last != Some(object) {
                let place =
                    if finding.namespace.is_empty() { String::new() } else { format!("{}/", finding.namespace) };
                text.push_str(&format!(
                    "{} {}\n",
                    tone.paint(mark, is_colored),
                    plain(&format!("{place}{}", finding.object))
                ));
                last = Some(object);
            }
            text.push_str(&wrap(&format!("  {}: ", finding.rule), &plain(&finding.message), WIDTH));
        }
        for unread in &self.unread {
            text.push_str(&wrap("not checked: ", unread, WIDTH));
        }
        let warnings = self.findings.iter().filter(|finding| finding.weight == Weight::Warning).count();
        text.push_str(&format!(
            "{} and {} checked: {}, {}.\n",
            counted(self.credentials, "credential"),
            counted(self.workloads, "workload"),
            counted(warnings, "warning"),
            counted(self.findings.len() - warnings, "note")
        ));
        text
    }
}

fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
