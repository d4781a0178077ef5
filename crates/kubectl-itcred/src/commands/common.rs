//! What several commands read.

use std::collections::BTreeSet;

use futures::stream::{self, Stream, StreamExt};
use itwin_api::credential::ITwinServiceCredential;
use itwin_core::{
    object::ObjectKey,
    ownership::{Named, Owner, Writer},
};
use itwin_credential_operator::observe::target::SecretMetadata;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    args::Targets,
    check::Seen,
    hint,
    owner::{self, Wanted},
    plain::without_values,
    problem::Problem,
    session::{CallFailed, Session, checked, path},
};

/// The most calls to the API server at the same time. More would wait there, and take the share of the user's other
/// programs.
const AT_ONCE: usize = 8;

/// Makes a call for each of several objects, some at the same time; the answers come in the order of the objects.
pub fn each<T, F: Future>(
    objects: impl IntoIterator<Item = T>,
    call: impl FnMut(T) -> F,
) -> impl Stream<Item = F::Output> {
    stream::iter(objects).map(call).buffered(AT_ONCE)
}

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

/// The credentials with these names, each once: of two requests for a renewal, the later one replaces the first.
///
/// # Errors
/// As [`credential`], of the first that has one.
pub async fn named(session: &Session, names: &[String]) -> Result<Vec<ITwinServiceCredential>, Problem> {
    let mut known = BTreeSet::new();
    let once: Vec<&String> = names.iter().filter(|name| known.insert(*name)).collect();
    let read: Vec<_> = each(once, |name| credential(session, name)).collect().await;
    read.into_iter().collect()
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
            without_values(&error)
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
    let Chosen { credentials, undecoded } = listed(session, namespace, selector).await?;
    Ok((credentials, undecoded.into_iter().map(|one| one.problem).collect()))
}

/// A credential that could not be decoded.
pub struct Undecoded {
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Its `spec.suspend`, as far as that can be read.
    pub is_suspended: bool,
    /// What of it could not be decoded.
    pub problem: Problem,
}

/// The credentials that a command is about.
pub struct Chosen {
    /// Those that it can serve.
    pub credentials: Vec<ITwinServiceCredential>,
    /// Those that it can only report.
    pub undecoded: Vec<Undecoded>,
}

async fn listed(session: &Session, namespace: Option<&str>, selector: Option<&str>) -> Result<Chosen, Problem> {
    let query: Vec<(&str, &str)> = selector.map(|selector| ("labelSelector", selector)).into_iter().collect();
    let values: Vec<Value> = session
        .list(&path::credentials(namespace), &query)
        .await
        .map_err(|error| failed_to_read("ITwinServiceCredentials", &error))?;
    let (mut credentials, mut undecoded) = (Vec::new(), Vec::new());
    for value in values {
        let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = ObjectKey::new(text("namespace"), text("name"));
        let is_suspended = value["spec"]["suspend"].as_bool().unwrap_or_default();
        match decoded(value) {
            Ok(credential) => credentials.push(credential),
            Err(problem) => undecoded.push(Undecoded { key, is_suspended, problem }),
        }
    }
    Ok(Chosen { credentials, undecoded })
}

/// Namespace and name of a credential.
#[must_use]
pub fn key(credential: &ITwinServiceCredential) -> ObjectKey {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    ObjectKey::new(text(&credential.metadata.namespace), text(&credential.metadata.name))
}

/// The credentials that were chosen by name, by labels, or all. One that could not be decoded does not keep a command
/// from serving the others, unless the user named it.
///
/// # Errors
/// Also if there is none, or if one that was named could not be decoded.
pub async fn targets(session: &Session, targets: &Targets) -> Result<Chosen, Problem> {
    let chosen = if targets.names.is_empty() {
        let namespace = (!targets.all_namespaces).then_some(session.namespace.as_str());
        listed(session, namespace, targets.selector.as_deref()).await?
    } else {
        Chosen { credentials: named(session, &targets.names).await?, undecoded: Vec::new() }
    };
    if chosen.credentials.is_empty() && chosen.undecoded.is_empty() {
        return Err(Problem::new("no ITwinServiceCredential is chosen: 'kubectl itcred status -A' lists them"));
    }
    Ok(chosen)
}

/// The name and UID of a credential, also of one that could not be decoded.
#[derive(Deserialize)]
struct Identified {
    metadata: Identity,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Identity {
    name: String,
    uid: String,
}

/// The other credential that a Secret belongs to, if it does.
pub async fn other_owner(session: &Session, secret: &SecretMetadata, ours: &Writer<'_>) -> Seen<Option<Named>> {
    let namespace = ours.namespace;
    let (uid, read) = match owner::wanted(&secret.ownership, ours) {
        Wanted::Nothing => return Seen::Known(None),
        Wanted::Name(name, uid) => {
            let read = session.get_if_any::<Identified>(&path::credential(namespace, name)).await;
            (uid, read.map(|found| found.into_iter().collect::<Vec<_>>()))
        }
        Wanted::Uid(uid) => (uid, session.list_metadata(&path::credentials(Some(namespace)), &[]).await),
    };
    match read {
        Ok(found) => {
            let found = found.into_iter().map(|found| found.metadata).find(|found| found.uid == uid);
            Seen::Known(found.map(|found| Named { namespace: namespace.into(), name: found.name.into() }))
        }
        Err(error) => Seen::Unknown(error.to_string()),
    }
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
                "Secret {}/{name} does not exist: {} says why no token was written",
                key.namespace,
                hint::command("check", &key)
            ));
        }
        Problem::new(format!("Secret {}/{name}: {error}", key.namespace))
    })?;
    let metadata = SecretMetadata::new(&secret.metadata);
    let uid = credential.metadata.uid.as_deref().unwrap_or_default();
    let writer = Writer { namespace: &key.namespace, name: &key.name, uid };
    let other = other_owner(session, &metadata, &writer).await;
    match owner::of(&metadata.ownership, &format!("{}/{name}", key.namespace), &writer, &other) {
        Owner::Us => Ok(secret),
        Owner::Adoptable => Err(Problem::new(format!(
            "Secret {}/{name} is not adopted by ITwinServiceCredential {} yet: no token was written",
            key.namespace, key.name
        ))),
        Owner::Other(failure) => Err(Problem::new(failure.message)),
    }
}

#[cfg(test)]
mod tests;
