//! `renew`: requests new tokens now, waits, and says what happened.

mod read;

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use futures::StreamExt;
use itwin_api::credential::ITwinServiceCredential;
use itwin_core::object::ObjectKey;
use serde_json::Value;

use self::read::{Read, read};
use super::common::{self, Chosen};
use crate::{
    args::Targets,
    deletion, hint,
    output::{self, Form, Structured},
    problem::{Outcome, Problem},
    renewal::{Ended, Renewal, RenewalList, RenewalResult, Request},
    session::{Session, path},
    span::{relative, span},
};

/// The time between two reads of the status.
const INTERVAL: Duration = Duration::from_millis(500);

/// Renews the credentials that were chosen.
///
/// # Errors
/// Why they could not be read.
pub async fn run(session: &Session, targets: &Targets, timeout: Duration, form: Form) -> Result<Outcome, Problem> {
    let Chosen { credentials, undecoded } = common::targets(session, targets).await?;
    let (mut items, mut keys) = (Vec::new(), Vec::new());
    for credential in &credentials {
        let key = common::key(credential);
        match unrequested(credential) {
            Some((result, why)) => {
                output::line(form, &format!("{key}: {why}"));
                items.push(Renewal::without_request(&key, result, why));
            }
            None => keys.push(key),
        }
    }
    let is_any_unrequested = !items.is_empty();
    let Requested { asked, mut failed } = request(session, &keys).await;
    failed.extend(undecoded.into_iter().map(|one| (one.key, one.problem)));
    for (key, problem) in &failed {
        output::progress(&format!("error: {problem}"));
        items.push(Renewal::without_request(key, RenewalResult::NotRequested, problem.to_string()));
    }
    let ended = wait(session, asked, timeout, form).await;
    if form.is_structured() {
        let renewal = |(key, ended): (&ObjectKey, &Ended)| {
            Renewal::new(key, ended, described(key, ended, session.now(), timeout))
        };
        items.extend(ended.iter().map(renewal));
        items.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        RenewalList { items }.print(form)?;
    }
    let is_each_known = failed.is_empty() && !ended.values().any(|ended| matches!(ended, Ended::Unread(_)));
    let is_failed = |ended: &Ended| !matches!(ended, Ended::Issued(_) | Ended::Unread(_));
    Ok(Outcome::checked(is_any_unrequested || ended.values().any(is_failed), is_each_known))
}

/// Why no token is requested for a credential, with or without a request; `None` where one is.
fn unrequested(credential: &ITwinServiceCredential) -> Option<(RenewalResult, String)> {
    let deleting = deletion::why(credential).map(|why| (RenewalResult::Deleting, why));
    let resume = || hint::command("resume", &common::key(credential));
    let suspended = || format!("suspended, so that no token is requested; {} ends that", resume());
    deleting.or_else(|| credential.spec.suspend.then(|| (RenewalResult::Suspended, suspended())))
}

/// The renewals that were asked for, and why others could not be.
pub struct Requested {
    /// The requests that the API server accepted.
    pub asked: BTreeMap<ObjectKey, Request>,
    /// Why the annotation of others could not be set.
    pub failed: Vec<(ObjectKey, Problem)>,
}

/// Requests a renewal of each credential.
pub async fn request(session: &Session, keys: &[ObjectKey]) -> Requested {
    let answers: Vec<_> = common::each(keys, |key| request_one(session, key)).collect().await;
    let mut requested = Requested { asked: BTreeMap::new(), failed: Vec::new() };
    for (key, answer) in keys.iter().zip(answers) {
        match answer {
            Ok(request) => {
                requested.asked.insert(key.clone(), request);
            }
            Err(problem) => requested.failed.push((key.clone(), problem)),
        }
    }
    requested
}

async fn request_one(session: &Session, key: &ObjectKey) -> Result<Request, Problem> {
    let request = Request::new(session.now());
    let patched = session.patch::<Value>(&path::credential(&key.namespace, &key.name), &request.patch()).await;
    let patched = patched.map_err(|error| Problem::new(format!("ITwinServiceCredential {key}: {error}")))?;
    Ok(request.of(&patched))
}

/// Waits until each renewal has ended, which is printed, or the time is over.
pub async fn wait(
    session: &Session,
    requests: BTreeMap<ObjectKey, Request>,
    timeout: Duration,
    form: Form,
) -> BTreeMap<ObjectKey, Ended> {
    if !requests.is_empty() {
        output::progress(&format!("renewal requested for {}; waiting for the operator ...", counted(requests.len())));
    }
    let print = |key: &ObjectKey, end: &Ended| {
        output::line(form, &format!("{key}: {}", described(key, end, session.now(), timeout)));
    };
    let open = requests.into_iter().map(|(key, request)| (key, (request, Ended::Late)));
    let (mut open, mut ended): (BTreeMap<_, _>, BTreeMap<_, _>) = (open.collect(), BTreeMap::new());
    let deadline = session.clock.monotonic() + timeout;
    loop {
        let keys: Vec<ObjectKey> = open.keys().cloned().collect();
        for (key, read) in read(session, &keys).await {
            let Some((request, so_far)) = open.get_mut(&key) else { continue };
            if let Some(end) = end(request, so_far, read) {
                print(&key, &end);
                open.remove(&key);
                ended.insert(key, end);
            }
        }
        if open.is_empty() || session.clock.monotonic() >= deadline {
            break;
        }
        tokio::time::sleep(INTERVAL).await;
    }
    for (key, (_, so_far)) in open {
        print(&key, &so_far);
        ended.insert(key, so_far);
    }
    ended
}

/// How a renewal ended, given a read; otherwise `so_far` is what to report if no other read follows.
fn end(request: &Request, so_far: &mut Ended, read: Read) -> Option<Ended> {
    match read {
        Ok(Some(credential)) => {
            let ended = request.ended(&credential);
            *so_far = request.late(&credential);
            // a finalizer may hold it, and the operator requests no token for it any more
            ended.or_else(|| credential.metadata.deletion_timestamp.is_some().then_some(Ended::Gone))
        }
        Ok(None) => Some(Ended::Gone),
        // it may be read again before the end
        Err(problem) => {
            let unread = Ended::Unread(problem.to_string());
            if *so_far != unread {
                output::progress(&problem.to_string());
            }
            *so_far = unread;
            None
        }
    }
}

fn counted(number: usize) -> String {
    if number == 1 { "1 credential".to_owned() } else { format!("{number} credentials") }
}

/// How a renewal ended, in words that follow the name.
fn described(key: &ObjectKey, ended: &Ended, now: DateTime<Utc>, timeout: Duration) -> String {
    let expires = |until: &Option<DateTime<Utc>>| {
        until.map_or_else(String::new, |until| format!(", it expires {}", relative(until, now)))
    };
    let command = |command: &str| hint::command(command, key);
    match ended {
        Ended::Issued(until) => format!("new token{}", expires(until)),
        Ended::Same(until) => {
            format!("the server returned the same token{}: it issues no other while that one is valid", expires(until))
        }
        Ended::Failed { reason, message, usable_until } => {
            let kept = usable_until.filter(|until| *until > now).map_or_else(String::new, |until| {
                format!("; the token that is there can be used for calls that begin within {}", span(until - now))
            });
            format!("{reason}: {message}{kept}")
        }
        Ended::Replaced => format!(
            "someone requested another renewal, or removed the annotation, before this one ended: {} says how the \
             credential is",
            command("status")
        ),
        Ended::Gone => "the credential was deleted before the renewal ended".to_owned(),
        Ended::Late => format!(
            "the operator has not ended the attempt within {timeout:?}: its request may wait in the queue of the \
             authority, or no operator works; {} says which",
            command("check")
        ),
        Ended::Unread(why) => {
            format!("how the renewal ended is not known ({why}): {} says how the credential is", command("status"))
        }
    }
}

#[cfg(test)]
mod tests;
