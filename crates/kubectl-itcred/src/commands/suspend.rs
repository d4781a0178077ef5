//! `suspend` and `resume`.

use serde_json::{Value, json};

use super::common;
use crate::{
    args::Targets,
    output,
    problem::{Outcome, Problem},
    session::{Session, path},
};

/// Sets `spec.suspend` of the credentials that were chosen.
///
/// # Errors
/// Why they could not be read or patched.
pub async fn run(session: &Session, targets: &Targets, suspend: bool) -> Result<Outcome, Problem> {
    let done = if suspend { "suspended" } else { "resumed" };
    for credential in common::targets(session, targets).await? {
        let key = common::key(&credential);
        if credential.spec.suspend == suspend {
            output::print(&format!("{key}: {done} already\n"));
            continue;
        }
        let patch = json!({"spec": {"suspend": suspend}});
        let _: Value = session
            .patch(&path::credential(&key.namespace, &key.name), &patch)
            .await
            .map_err(|error| Problem::new(format!("ITwinServiceCredential {key}: {error}")))?;
        output::print(&format!("{key}: {done}\n"));
    }
    Ok(Outcome::Fine)
}
