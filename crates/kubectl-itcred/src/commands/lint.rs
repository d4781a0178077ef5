//! `lint`: reads workloads and credentials, from the cluster or from files.

mod files;

use std::path::PathBuf;

use itwin_api::{MANAGER, secret_keys};
use serde::Deserialize;
use serde_json::Value;

use super::common;
use crate::{
    lint::{self, Input, SecretName, Workload, manifests},
    output::{self, Form, Structured},
    problem::{Outcome, Problem},
    session::{CallFailed, Session, path},
    workloads::{Metadata, PodSpec},
};

/// Checks the files, or the cluster where there are none.
///
/// # Errors
/// Why credentials or files could not be read.
pub async fn run(
    session: impl Fn() -> Result<Session, Problem>,
    all_namespaces: bool,
    filenames: &[PathBuf],
    namespace: Option<&str>,
    form: Form,
) -> Result<Outcome, Problem> {
    let input = if filenames.is_empty() {
        of_cluster(&session()?, all_namespaces).await?
    } else {
        files::read(filenames, namespace)?
    };
    let report = lint::report(&input);
    match form {
        Form::Json | Form::Yaml => report.print(form)?,
        Form::Table | Form::Wide => output::print(&report.render(output::is_colored())),
    }
    Ok(outcome(&input, &report))
}

fn outcome(input: &Input, report: &lint::Report) -> Outcome {
    Outcome::checked(report.has_warnings(), input.unread.is_empty())
}

/// The kinds of workloads, by group and resource.
const KINDS: [(&str, &str, &str); 6] = [
    ("Deployment", "apis/apps/v1", "deployments"),
    ("StatefulSet", "apis/apps/v1", "statefulsets"),
    ("DaemonSet", "apis/apps/v1", "daemonsets"),
    ("Job", "apis/batch/v1", "jobs"),
    ("CronJob", "apis/batch/v1", "cronjobs"),
    ("Rollout", "apis/argoproj.io/v1alpha1", "rollouts"),
];

async fn of_cluster(session: &Session, all_namespaces: bool) -> Result<Input, Problem> {
    let namespace = (!all_namespaces).then_some(session.namespace.as_str());
    let label = format!("{}={MANAGER}", secret_keys::MANAGED_BY);
    let secrets_path = path::namespaced("api/v1", namespace, "secrets");
    let pods_path = path::namespaced("api/v1", namespace, "pods");
    let query = [("labelSelector", label.as_str())];
    let (credentials, secrets, pods) = tokio::join!(
        common::credentials(session, namespace, None),
        session.list_metadata::<Named>(&secrets_path, &query),
        session.list::<Pod>(&pods_path, &[]),
    );
    let (credentials, invalid) = credentials?;
    let mut input = Input { credentials, ..Input::default() };
    input.unread.extend(invalid.iter().map(ToString::to_string));
    input.undecoded = invalid.len();
    match secrets {
        Ok(secrets) => input.token_secrets = secrets.into_iter().map(secret_name).collect(),
        Err(error) => input.unread.push(format!("Secrets that no credential writes: {error}")),
    }
    for (kind, group, resource) in KINDS {
        let list = session.list::<Value>(&path::namespaced(group, namespace, resource), &[]).await;
        add_workloads(&mut input, kind, list);
    }
    match pods {
        Ok(pods) => input.workloads.extend(pods.into_iter().map(workload_of)),
        Err(error) => input.unread.push(format!("pods: {error}")),
    }
    Ok(input)
}

fn add_workloads(input: &mut Input, kind: &str, list: Result<Vec<Value>, CallFailed>) {
    match list {
        Ok(objects) => {
            for object in objects {
                match manifests::workload(kind, object) {
                    Ok(workload) => input.workloads.push(workload),
                    Err(error) => input.unread.push(format!("{kind}: {error}")),
                }
            }
        }
        // Argo Rollouts need not be installed; Kubernetes itself serves the other kinds
        Err(error) if kind == "Rollout" && error.is_not_served() => {}
        Err(error) => input.unread.push(format!("{kind}s: {error}")),
    }
}

#[derive(Deserialize)]
struct Named {
    metadata: Metadata,
}

fn secret_name(secret: Named) -> SecretName {
    let text = |text: Option<String>| text.unwrap_or_default();
    SecretName { namespace: text(secret.metadata.namespace), name: text(secret.metadata.name) }
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: PodSpec,
}

fn workload_of(pod: Pod) -> Workload {
    Workload { kind: "Pod".to_owned(), metadata: pod.metadata, spec: pod.spec, template: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake;

    #[tokio::test]
    async fn kinds_that_cannot_be_read_are_not_fine_and_kinds_that_are_not_installed_are() {
        for (part, answer, expected) in [
            ("/rollouts?", 404, Outcome::Fine),
            ("/pods?", 403, Outcome::Incomplete),
            ("/deployments?", 404, Outcome::Incomplete),
            ("/cronjobs?", 404, Outcome::Incomplete),
        ] {
            let session = fake::session(move |asked| match answer {
                404 if asked.path.contains(part) => (404, b"404 page not found".to_vec()),
                403 if asked.path.contains(part) => fake::failure(403, "Forbidden"),
                _ => fake::object(&json!({"metadata": {}, "items": []})),
            });
            let input = of_cluster(&session, false).await.expect("read");
            assert_eq!(outcome(&input, &lint::report(&input)), expected, "{part}: {:?}", input.unread);
        }
    }

    #[test]
    fn file_that_cannot_be_decoded_is_not_fine_and_no_finding() {
        let outcome_of = |text: &str| {
            let mut input = Input { is_partial: true, ..Input::default() };
            manifests::add(&mut input, "standard input", text, None);
            outcome(&input, &lint::report(&input))
        };
        let credential = "apiVersion: credentials.itwin.dev/v1alpha1\nkind: ITwinServiceCredential\n\
                          metadata: {name: a}\nspec: {clientCredentialsRef: {name: c}, minimumValidity: 1m}\n";
        assert_eq!(outcome_of("a: ["), Outcome::Incomplete);
        assert_eq!(outcome_of(&credential.replace("{name: c}", "5")), Outcome::Incomplete);
        assert_eq!(outcome_of(&format!("{credential}---\nkind: Pod\nspec: 5\n")), Outcome::Findings);
    }
}
