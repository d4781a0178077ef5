//! `suspend` and `resume`.

use std::pin::pin;

use futures::StreamExt;
use itwin_api::credential::ITwinServiceCredential;
use itwin_core::object::ObjectKey;
use serde::Serialize;
use serde_json::{Value, json};

use super::common::{self, Chosen, Undecoded};
use crate::{
    args::Targets,
    output::{self, Form, Structured},
    problem::{Outcome, Problem},
    session::{Session, path},
};

/// What `suspend` and `resume` show.
#[derive(Clone, Debug, Serialize)]
pub struct SuspensionList {
    /// The credentials that were chosen.
    pub items: Vec<Suspension>,
}

impl Structured for SuspensionList {
    const KIND: &'static str = "SuspensionList";
}

/// Whether a credential is suspended now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suspension {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `spec.suspend`; with an error, as it was before.
    pub suspended: bool,
    /// Whether this command changed it.
    pub changed: bool,
    /// Why it could not be changed.
    pub error: Option<String>,
}

/// Sets `spec.suspend` of the credentials that were chosen. One that may not be patched does not keep the others from it.
///
/// # Errors
/// Why they could not be read.
pub async fn run(session: &Session, targets: &Targets, suspend: bool, form: Form) -> Result<Outcome, Problem> {
    let Chosen { credentials, undecoded } = common::targets(session, targets).await?;
    let mut items = Vec::new();
    let mut done = pin!(common::each(&credentials, |credential| set(session, credential, suspend)));
    while let Some(item) = done.next().await {
        match &item.error {
            None => output::line(form, &item.line()),
            Some(error) => output::progress(&format!("error: {error}")),
        }
        items.push(item);
    }
    for one in undecoded {
        output::progress(&format!("error: {}", one.problem));
        items.push(Suspension::unchanged(one));
    }
    let is_complete = items.iter().all(|item| item.error.is_none());
    if form.is_structured() {
        SuspensionList { items }.print(form)?;
    }
    Ok(Outcome::checked(false, is_complete))
}

impl Suspension {
    /// Of a credential that could not be decoded: the command leaves it alone.
    fn unchanged(one: Undecoded) -> Self {
        let ObjectKey { namespace, name } = one.key;
        let error = Some(one.problem.to_string());
        Self { namespace, name, suspended: one.is_suspended, changed: false, error }
    }

    fn line(&self) -> String {
        let done = if self.suspended { "suspended" } else { "resumed" };
        let already = if self.changed { "" } else { " already" };
        format!("{}/{}: {done}{already}", self.namespace, self.name)
    }
}

/// Sets it for one credential.
async fn set(session: &Session, credential: &ITwinServiceCredential, suspend: bool) -> Suspension {
    let (key, suspended) = (common::key(credential), credential.spec.suspend);
    let (namespace, name) = (key.namespace.clone(), key.name.clone());
    let before = Suspension { namespace, name, suspended, changed: false, error: None };
    if suspended == suspend {
        return before;
    }
    let patch = json!({"spec": {"suspend": suspend}});
    match session.patch::<Value>(&path::credential(&key.namespace, &key.name), &patch).await {
        Ok(_) => Suspension { suspended: suspend, changed: true, ..before },
        Err(error) => Suspension { error: Some(format!("ITwinServiceCredential {key}: {error}")), ..before },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fake,
        view::tests::{broken, credential},
    };

    #[tokio::test]
    async fn credential_that_may_not_be_patched_does_not_keep_others_from_being_suspended() {
        let patched = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = patched.clone();
        let session = fake::session(move |asked| {
            let is_forbidden = asked.path.contains("/forbidden");
            let name = if is_forbidden { "forbidden" } else { "agent" };
            if asked.method == "PATCH" {
                seen.lock().expect("no panic").push((name, asked.body["spec"]["suspend"].clone()));
                if is_forbidden {
                    return fake::failure(403, "Forbidden");
                }
            }
            fake::object(&serde_json::to_value(credential(name, &json!({}))).expect("JSON"))
        });
        let targets = Targets { names: vec!["forbidden".to_owned(), "agent".to_owned()], ..Targets::default() };
        assert_eq!(run(&session, &targets, true, Form::Table).await, Ok(Outcome::Incomplete));
        let mut patched = patched.lock().expect("no panic").clone();
        patched.sort_by_key(|(name, _)| *name);
        assert_eq!(patched, [("agent", json!(true)), ("forbidden", json!(true))]);
        assert_eq!(run(&session, &targets, false, Form::Json).await, Ok(Outcome::Fine), "they are not suspended");
    }

    #[tokio::test]
    async fn credential_that_cannot_be_decoded_does_not_keep_others_from_being_suspended() {
        let of_all = || Targets { all: true, ..Targets::default() };
        for targets in [
            of_all(),
            Targets { selector: Some("team=a".to_owned()), ..Targets::default() },
            Targets { all_namespaces: true, ..of_all() },
        ] {
            let patched = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
            let seen = patched.clone();
            let session = fake::session(move |asked| {
                let agent = serde_json::to_value(credential("agent", &json!({}))).expect("JSON");
                if asked.method == "PATCH" {
                    seen.lock().expect("no panic").push(asked.path.clone());
                    return fake::object(&agent);
                }
                fake::object(&json!({"metadata": {}, "items": [broken(), agent]}))
            });
            assert_eq!(run(&session, &targets, true, Form::Json).await, Ok(Outcome::Incomplete), "{targets:?}");
            let patched = patched.lock().expect("no panic").clone();
            assert!(patched.len() == 1 && patched[0].contains("/agent"), "{patched:?}");
            let chosen = common::targets(&session, &targets).await.expect("credentials");
            let items: Vec<Suspension> = chosen.undecoded.into_iter().map(Suspension::unchanged).collect();
            assert_eq!(items.len(), 1);
            assert_eq!((items[0].name.as_str(), items[0].suspended, items[0].changed), ("broken", true, false));
            assert!(items[0].error.as_deref().is_some_and(|error| error.contains("team-a/broken")), "{items:?}");
        }
    }
}
