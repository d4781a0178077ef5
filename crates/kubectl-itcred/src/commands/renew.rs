//! `renew`: requests new tokens now, waits, and says what happened.

mod read;

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use futures::StreamExt;
use itwin_api::credential::ITwinServiceCredential;
use itwin_core::object::ObjectKey;
use serde_json::Value;

use self::read::{Read, read};
use super::common;
use crate::{
    args::Targets,
    deletion,
    output::{self, Form, Structured},
    problem::{Outcome, Problem},
    renewal::{Ended, Renewal, RenewalList, RenewalResult, Request},
    session::{Session, path},
    span::{relative, span},
};

/// The time between two reads of the status.
const INTERVAL: Duration = Duration::from_millis(500);
/// What is said of a credential that is suspended.
const SUSPENDED: &str = "suspended, so that no token is requested; 'kubectl itcred resume' ends that";

/// Renews the credentials that were chosen.
///
/// # Errors
/// Why they could not be read.
pub async fn run(session: &Session, targets: &Targets, timeout: Duration, form: Form) -> Result<Outcome, Problem> {
    let credentials = common::targets(session, targets).await?;
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
    let Requested { asked, failed } = request(session, &keys).await;
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
    deleting.or_else(|| credential.spec.suspend.then(|| (RenewalResult::Suspended, SUSPENDED.to_owned())))
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
    let command = |command: &str| format!("'kubectl itcred {command} {} -n {}'", key.name, key.namespace);
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
mod tests {
    use std::sync::Mutex;

    use itwin_api::secret_keys::RENEW;
    use serde_json::json;

    use super::*;
    use crate::{
        fake::{self, Answer},
        view::tests::{credential, deleted, merge, minutes},
    };

    fn object(name: &str, changes: &Value) -> Answer {
        fake::object(&serde_json::to_value(credential(name, changes)).expect("JSON"))
    }

    /// The operator has handled this value.
    fn handled(value: &str, changes: &Value) -> Answer {
        let mut all = json!({"metadata": {"annotations": {RENEW: value}}, "status": {"lastRenewRequest": value}});
        merge(&mut all, changes);
        object("agent", &all)
    }

    /// How a renewal of `agent` ended, if reads are answered by `read`, given the value of the request and the number
    /// of the read, from 1.
    async fn renewed(timeout: Duration, read: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Option<Ended> {
        let state = Mutex::new((String::new(), 0));
        let session = fake::session(move |asked| {
            let mut state = state.lock().expect("no panic");
            if asked.method == "PATCH" {
                state.0 = asked.body["metadata"]["annotations"][RENEW].as_str().unwrap_or_default().to_owned();
                return object("agent", &json!({}));
            }
            state.1 += 1;
            read(&state.0, state.1)
        });
        let key = ObjectKey::new("team-a", "agent");
        let requested = request(&session, std::slice::from_ref(&key)).await;
        assert!(requested.failed.is_empty(), "{:?}", requested.failed);
        wait(&session, requested.asked, timeout, Form::Table).await.remove(&key)
    }

    #[tokio::test]
    async fn reads_that_fail_do_not_end_the_wait() {
        let patience = Duration::from_secs(30);
        let issued = renewed(patience, |value, number| match number {
            1 => fake::failure(503, "ServiceUnavailable"),
            2 => fake::failure(500, "InternalError"),
            _ => handled(value, &json!({"status": {"issuedAt": minutes(0)}})),
        });
        assert!(matches!(issued.await, Some(Ended::Issued(Some(_)))));
        let unread = renewed(Duration::ZERO, |_, _| fake::failure(503, "ServiceUnavailable")).await;
        assert!(matches!(&unread, Some(Ended::Unread(why)) if why.contains("HTTP 503")), "{unread:?}");
    }

    #[tokio::test]
    async fn same_token_a_deleted_credential_and_another_request_are_results() {
        let patience = Duration::from_secs(30);
        let same = renewed(patience, |value, _| handled(value, &json!({}))).await;
        assert!(matches!(same, Some(Ended::Same(Some(_)))), "{same:?}");
        assert_eq!(renewed(patience, |_, _| fake::failure(404, "NotFound")).await, Some(Ended::Gone));
        assert_eq!(renewed(patience, |_, _| handled("other", &json!({}))).await, Some(Ended::Replaced));
        assert_eq!(renewed(Duration::ZERO, |_, _| object("agent", &json!({}))).await, Some(Ended::Replaced));
    }

    #[tokio::test]
    async fn credential_that_is_being_deleted_ends_immediately() {
        let patience = Duration::from_secs(30);
        // deleted while its renewal is awaited
        let asked = |value: &str| {
            let mut all = deleted();
            merge(&mut all, &json!({"metadata": {"annotations": {RENEW: value}}}));
            object("agent", &all)
        };
        assert_eq!(renewed(patience, move |value, _| asked(value)).await, Some(Ended::Gone));
        // and before: nothing is written
        let session = fake::session(|asked| match asked.method.as_str() {
            "GET" => object("agent", &deleted()),
            _ => fake::failure(500, "InternalError"),
        });
        let targets = Targets { names: vec!["agent".to_owned()], ..Targets::default() };
        assert_eq!(run(&session, &targets, patience, Form::Table).await, Ok(Outcome::Findings));
        let (result, why) = unrequested(&credential("agent", &deleted())).expect("a cause");
        assert_eq!(result, RenewalResult::Deleting);
        assert!(why.contains("example.com/hold"), "{why}");
    }

    #[tokio::test]
    async fn credential_that_may_not_be_patched_does_not_keep_others_from_being_reported() {
        let value = Mutex::new(String::new());
        let session = fake::session(move |asked| {
            let mut value = value.lock().expect("no panic");
            match (asked.method.as_str(), asked.path.contains("/forbidden")) {
                ("PATCH", true) => fake::failure(403, "Forbidden"),
                ("PATCH", false) => {
                    *value = asked.body["metadata"]["annotations"][RENEW].as_str().unwrap_or_default().to_owned();
                    object("agent", &json!({}))
                }
                (_, true) => object("forbidden", &json!({})),
                (_, false) => handled(&value, &json!({"status": {"issuedAt": minutes(0)}})),
            }
        });
        let keys = ["forbidden", "agent"].map(|name| ObjectKey::new("team-a", name));
        let requested = request(&session, &keys).await;
        assert!(
            requested.failed.len() == 1 && requested.failed[0].1.to_string().contains("team-a/forbidden: forbidden")
        );
        assert_eq!(requested.asked.keys().collect::<Vec<_>>(), [&keys[1]]);
        let run = |name: &str| Targets { names: vec![name.to_owned()], ..Targets::default() };
        let both = Targets { names: vec!["forbidden".to_owned(), "agent".to_owned()], ..Targets::default() };
        for (targets, expected) in
            [(both, Outcome::Incomplete), (run("forbidden"), Outcome::Incomplete), (run("agent"), Outcome::Fine)]
        {
            assert_eq!(
                super::run(&session, &targets, Duration::from_secs(30), Form::Json).await,
                Ok(expected),
                "{targets:?}"
            );
        }
    }
}
