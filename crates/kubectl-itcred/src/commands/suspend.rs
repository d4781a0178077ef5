//! `suspend` and `resume`.

use std::pin::pin;

use futures::StreamExt;
use itwin_api::credential::ITwinServiceCredential;
use serde_json::{Value, json};

use super::common;
use crate::{
    args::Targets,
    output,
    problem::{Outcome, Problem},
    session::{Session, path},
};

/// Sets `spec.suspend` of the credentials that were chosen. One that may not be patched does not keep the others from it.
///
/// # Errors
/// Why they could not be read.
pub async fn run(session: &Session, targets: &Targets, suspend: bool) -> Result<Outcome, Problem> {
    let credentials = common::targets(session, targets).await?;
    let mut is_complete = true;
    let mut done = pin!(common::each(&credentials, |credential| set(session, credential, suspend)));
    while let Some(done) = done.next().await {
        match done {
            Ok(line) => output::print(&line),
            Err(problem) => {
                is_complete = false;
                output::progress(&format!("error: {problem}"));
            }
        }
    }
    Ok(Outcome::checked(false, is_complete))
}

/// Sets it for one credential, and returns the line that says so.
async fn set(session: &Session, credential: &ITwinServiceCredential, suspend: bool) -> Result<String, Problem> {
    let key = common::key(credential);
    let done = if suspend { "suspended" } else { "resumed" };
    if credential.spec.suspend == suspend {
        return Ok(format!("{key}: {done} already\n"));
    }
    let patch = json!({"spec": {"suspend": suspend}});
    let patched = session.patch::<Value>(&path::credential(&key.namespace, &key.name), &patch).await;
    patched.map_err(|error| Problem::new(format!("ITwinServiceCredential {key}: {error}")))?;
    Ok(format!("{key}: {done}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fake, view::tests::credential};

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
        assert_eq!(run(&session, &targets, true).await, Ok(Outcome::Incomplete));
        let mut patched = patched.lock().expect("no panic").clone();
        patched.sort_by_key(|(name, _)| *name);
        assert_eq!(patched, [("agent", json!(true)), ("forbidden", json!(true))]);
        assert_eq!(run(&session, &targets, false).await, Ok(Outcome::Fine), "they are not suspended");
    }
}
