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
    let mut found = named(session, &targets.names).await?;
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
                "Secret {}/{name} does not exist: 'kubectl itcred check {}' says why no token was written",
                key.namespace, key.name
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
mod tests {
    use std::cell::Cell;

    use itwin_api::secret_keys;
    use serde_json::json;

    use super::*;
    use crate::{
        fake::{self, Answer},
        view::tests::credential,
    };

    /// What is said of a Secret that `older` wrote, if the server answers this about `older`.
    async fn said(answer: impl Fn() -> Answer + Send + Sync + 'static) -> String {
        let secret = json!({"metadata": {
            "name": "shared", "namespace": "team-a", "uid": "uid-secret", "resourceVersion": "1",
            "annotations": {secret_keys::OWNER_UID: "uid-older", secret_keys::OWNER: "team-a/older"},
            "ownerReferences": [{"apiVersion": "credentials.itwin.dev/v1alpha1", "kind": "ITwinServiceCredential",
                                 "name": "older", "uid": "uid-older", "controller": true}],
        }});
        let session = fake::session(move |asked| {
            if asked.path.ends_with("/secrets/shared") {
                fake::object(&secret)
            } else if asked.path.ends_with("/itwinservicecredentials/older") {
                answer()
            } else {
                fake::failure(500, "InternalError")
            }
        });
        let younger = credential("younger", &json!({"spec": {"secretName": "shared"}}));
        token_secret(&session, &younger).await.expect_err("it is that of another one").to_string()
    }

    #[tokio::test]
    async fn calls_are_made_together_within_a_bound_and_answered_in_order() {
        const COUNT: usize = 3 * AT_ONCE;
        let (open, most) = (&Cell::new(0_usize), &Cell::new(0_usize));
        let call = |number: usize| async move {
            open.set(open.get() + 1);
            most.set(open.get().max(most.get()));
            // the later ones end first
            for _ in number..COUNT {
                tokio::task::yield_now().await;
            }
            open.set(open.get() - 1);
            number
        };
        let answers: Vec<usize> = each(0..COUNT, call).collect().await;
        assert_eq!(answers, (0..COUNT).collect::<Vec<_>>());
        assert_eq!((open.get(), most.get()), (0, AT_ONCE));
    }

    #[tokio::test]
    async fn credentials_that_are_named_twice_are_read_once_in_the_order_of_their_names() {
        let session = fake::session(|asked| {
            let name = asked.path.rsplit('/').next().unwrap_or_default();
            fake::object(&serde_json::to_value(credential(name, &json!({}))).expect("JSON"))
        });
        let names = ["b", "a", "b", "c", "a"].map(str::to_owned);
        let found = named(&session, &names).await.expect("credentials");
        let found: Vec<String> = found.iter().map(|credential| key(credential).name).collect();
        assert_eq!(found, ["b", "a", "c"]);
    }

    #[tokio::test]
    async fn secret_of_a_credential_that_exists_is_not_to_be_deleted() {
        let older = |uid: &'static str| move || fake::object(&json!({"metadata": {"name": "older", "uid": uid}}));
        let exists = said(older("uid-older")).await;
        assert!(exists.contains("belongs to ITwinServiceCredential older, which exists"), "{exists}");
        for code in [(403, "Forbidden"), (500, "InternalError")] {
            let unknown = said(move || fake::failure(code.0, code.1)).await;
            assert!(unknown.contains("ITwinServiceCredential older") && !unknown.contains("delete"), "{unknown}");
        }
        for gone in [said(|| fake::failure(404, "NotFound")).await, said(older("another")).await] {
            assert!(gone.contains("does not exist in this namespace: delete the Secret"), "{gone}");
        }
    }
}
