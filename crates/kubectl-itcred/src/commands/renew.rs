//! `renew`: requests new tokens now, waits, and says what happened.

use std::{collections::BTreeMap, time::Duration};

use itwin_api::credential::ITwinServiceCredential;
use itwin_core::object::ObjectKey;

use super::common;
use crate::{
    args::Targets,
    output,
    problem::{Outcome, Problem},
    renewal::{self, Ended},
    session::{Session, path},
    span::relative,
};

/// The time between two reads of the status.
const INTERVAL: Duration = Duration::from_millis(500);
/// From so many credentials on, they are read as a list.
const MANY: usize = 4;

/// Renews the credentials that were chosen.
///
/// # Errors
/// Why they could not be read or patched.
pub async fn run(session: &Session, targets: &Targets, timeout: Duration) -> Result<Outcome, Problem> {
    let credentials = common::targets(session, targets).await?;
    let (suspended, active): (Vec<_>, Vec<_>) = credentials.into_iter().partition(|credential| credential.spec.suspend);
    for credential in &suspended {
        let key = common::key(credential);
        output::print(&format!("{key}: suspended, so that no token is requested; 'kubectl itcred resume' ends that\n"));
    }
    let keys: Vec<ObjectKey> = active.iter().map(common::key).collect();
    let ended = renew(session, &keys, timeout).await?;
    let is_each_renewed = ended.values().all(|ended| matches!(ended, Some(Ended::Issued(_))));
    Ok(Outcome::found(!suspended.is_empty() || !is_each_renewed))
}

/// Requests a renewal of each credential and waits until each has ended, which is printed. `None` is for those that
/// have not within the time.
///
/// # Errors
/// Why the annotation could not be set.
pub async fn renew(
    session: &Session,
    keys: &[ObjectKey],
    timeout: Duration,
) -> Result<BTreeMap<ObjectKey, Option<Ended>>, Problem> {
    let value = renewal::value(session.now());
    for key in keys {
        let path = path::credential(&key.namespace, &key.name);
        let _: serde_json::Value = session
            .patch(&path, &renewal::patch(&value))
            .await
            .map_err(|error| Problem::new(format!("ITwinServiceCredential {key}: {error}")))?;
    }
    if !keys.is_empty() {
        output::progress(&format!("renewal requested for {}; waiting for the operator ...", counted(keys.len())));
    }
    let mut ended: BTreeMap<ObjectKey, Option<Ended>> = keys.iter().map(|key| (key.clone(), None)).collect();
    let deadline = session.clock.monotonic() + timeout;
    loop {
        let open: Vec<ObjectKey> =
            ended.iter().filter(|(_, ended)| ended.is_none()).map(|(key, _)| key.clone()).collect();
        for credential in read(session, &open).await? {
            let key = common::key(&credential);
            if let (Some(end), Some(slot)) = (renewal::ended(&credential, &value), ended.get_mut(&key)) {
                output::print(&format!("{}\n", described(session, &key, &end)));
                *slot = Some(end);
            }
        }
        let is_over = ended.values().all(Option::is_some);
        if is_over || session.clock.monotonic() >= deadline {
            break;
        }
        tokio::time::sleep(INTERVAL).await;
    }
    for (key, _) in ended.iter().filter(|(_, ended)| ended.is_none()) {
        output::print(&format!(
            "{key}: the operator has not ended the attempt within {timeout:?}: its request may wait in the queue of \
             the authority, or no operator works; 'kubectl itcred check {} -n {}' says which\n",
            key.name, key.namespace
        ));
    }
    Ok(ended)
}

fn counted(number: usize) -> String {
    if number == 1 { "1 credential".to_owned() } else { format!("{number} credentials") }
}

/// The credentials that still exist.
async fn read(session: &Session, keys: &[ObjectKey]) -> Result<Vec<ITwinServiceCredential>, Problem> {
    let mut found = Vec::new();
    let mut by_namespace: BTreeMap<&str, Vec<&ObjectKey>> = BTreeMap::new();
    for key in keys {
        by_namespace.entry(&key.namespace).or_default().push(key);
    }
    for (namespace, keys) in by_namespace {
        if keys.len() >= MANY {
            let (all, _) = common::credentials(session, Some(namespace), None).await?;
            found.extend(all.into_iter().filter(|credential| keys.contains(&&common::key(credential))));
        } else {
            for key in keys {
                found.push(common::credential_in(session, namespace, &key.name).await?);
            }
        }
    }
    Ok(found)
}

fn described(session: &Session, key: &ObjectKey, ended: &Ended) -> String {
    let now = session.now();
    crate::plain::plain(&match ended {
        Ended::Issued(Some(until)) => format!("{key}: new token, it expires {}", relative(*until, now)),
        Ended::Issued(None) => format!("{key}: new token"),
        Ended::Failed { reason, message, usable_until } => {
            let kept = match usable_until.filter(|until| *until > now) {
                Some(until) => {
                    format!("; the token that is there can be used for calls that begin {}", within(until, now))
                }
                None => String::new(),
            };
            format!("{key}: {reason}: {message}{kept}")
        }
    })
}

fn within(until: chrono::DateTime<chrono::Utc>, now: chrono::DateTime<chrono::Utc>) -> String {
    format!("within {}", crate::span::span(until - now))
}
