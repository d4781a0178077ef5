//! What several commands read.

use itwin_api::credential::ITwinServiceCredential;
use itwin_core::{
    object::ObjectKey,
    ownership::{Owner, Writer, owner},
};
use itwin_credential_operator::observe::target::SecretMetadata;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use crate::{
    args::Targets,
    plain::plain,
    problem::Problem,
    session::{CallFailed, Session, checked, path},
};

/// Why credentials could not be read.
pub fn failed_to_read(what: &str, error: &CallFailed) -> Problem {
    if error.is_not_served() {
        return Problem::new(
            "the cluster has no ITwinServiceCredentials: install the operator's CRDs, or choose another --context",
        );
    }
    Problem::new(format!("{what}: {error}"))
}

/// The credential with this name.
///
/// # Errors
/// Also if there is none.
pub async fn credential(session: &Session, name: &str) -> Result<ITwinServiceCredential, Problem> {
    credential_in(session, &session.namespace, name).await
}

/// The same in a namespace.
///
/// # Errors
/// As [`credential`].
pub async fn credential_in(session: &Session, namespace: &str, name: &str) -> Result<ITwinServiceCredential, Problem> {
    let value: Value = session.get(&path::credential(checked(namespace)?, checked(name)?)).await.map_err(|error| {
        if error.is_not_found() {
            return Problem::new(format!(
                "there is no ITwinServiceCredential {name} in namespace {namespace}: choose another with --namespace, \
                 or list them with 'kubectl itcred status -A'"
            ));
        }
        failed_to_read(&format!("ITwinServiceCredential {namespace}/{name}"), &error)
    })?;
    decoded(value)
}

/// A credential that the schema of another version may have accepted.
///
/// # Errors
/// Which credential, and what of it.
pub fn decoded(value: Value) -> Result<ITwinServiceCredential, Problem> {
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
    let name = format!("{}/{}", text("namespace"), text("name"));
    serde_json::from_value(value).map_err(|error| {
        Problem::new(format!(
            "ITwinServiceCredential {name} could not be decoded ({}): apply it again with the CRDs of this version",
            plain(&error.to_string())
        ))
    })
}

/// The credentials of a namespace, or of all, and those that could not be decoded.
///
/// # Errors
/// Why they could not be read.
pub async fn credentials(
    session: &Session,
    namespace: Option<&str>,
    selector: Option<&str>,
) -> Result<(Vec<ITwinServiceCredential>, Vec<Problem>), Problem> {
    let query: Vec<(&str, &str)> = selector.map(|selector| ("labelSelector", selector)).into_iter().collect();
    let values: Vec<Value> = session
        .list(&path::credentials(namespace), &query)
        .await
        .map_err(|error| failed_to_read("ITwinServiceCredentials", &error))?;
    let (mut found, mut invalid) = (Vec::new(), Vec::new());
    for value in values {
        match decoded(value) {
            Ok(credential) => found.push(credential),
            Err(problem) => invalid.push(problem),
        }
    }
    Ok((found, invalid))
}

/// Namespace and name of a credential.
#[must_use]
pub fn key(credential: &ITwinServiceCredential) -> ObjectKey {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    ObjectKey::new(text(&credential.metadata.namespace), text(&credential.metadata.name))
}

/// The credentials that were chosen by name, by labels, or all.
///
/// # Errors
/// Also if there is none, or one that could not be decoded.
pub async fn targets(session: &Session, targets: &Targets) -> Result<Vec<ITwinServiceCredential>, Problem> {
    let mut found = Vec::new();
    for name in &targets.names {
        found.push(credential(session, name).await?);
    }
    if targets.names.is_empty() {
        let namespace = (!targets.all_namespaces).then_some(session.namespace.as_str());
        let (all, invalid) = credentials(session, namespace, targets.selector.as_deref()).await?;
        if let Some(problem) = invalid.into_iter().next() {
            return Err(problem);
        }
        found = all;
    }
    if found.is_empty() {
        return Err(Problem::new("no ITwinServiceCredential is chosen: 'kubectl itcred status -A' lists them"));
    }
    Ok(found)
}

/// The Secret with the token of a credential, if it belongs to it.
///
/// # Errors
/// Why there is none that could be read.
pub async fn token_secret(session: &Session, credential: &ITwinServiceCredential) -> Result<Secret, Problem> {
    let key = key(credential);
    let name = credential.target_name();
    let secret: Secret = session.get(&path::secret(&key.namespace, name)).await.map_err(|error| {
        if error.is_not_found() {
            return Problem::new(format!(
                "Secret {}/{name} does not exist: 'kubectl itcred check {}' says why no token was written",
                key.namespace, key.name
            ));
        }
        Problem::new(format!("Secret {}/{name}: {error}", key.namespace))
    })?;
    let metadata = SecretMetadata::new(&secret.metadata);
    let uid = credential.metadata.uid.as_deref().unwrap_or_default();
    let writer = Writer { namespace: &key.namespace, name: &key.name, uid };
    match owner(&metadata.ownership, &format!("{}/{name}", key.namespace), &writer, &|_| None) {
        Owner::Us => Ok(secret),
        Owner::Adoptable => Err(Problem::new(format!(
            "Secret {}/{name} is not adopted by ITwinServiceCredential {} yet: no token was written",
            key.namespace, key.name
        ))),
        Owner::Other(failure) => Err(Problem::new(failure.message)),
    }
}
