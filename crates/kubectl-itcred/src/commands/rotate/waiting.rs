//! The last step of a rotation: the wait for tokens that were requested with the new value.

use std::time::Duration;

use itwin_core::object::ObjectKey;
use itwin_oauth::sensitive::Sensitive;
use k8s_openapi::api::core::v1::Secret;

use super::{Plan, common, renew};
use crate::{
    hint,
    output::{self, Form},
    rotation::{self, Progress, Rotated, RotationResult},
    session::{Session, path},
    span::relative,
};

/// The time between two reads.
const INTERVAL: Duration = Duration::from_millis(500);

/// An operator that watches Secrets begins an attempt within seconds of the write. One that does not would begin it
/// minutes later: it is asked to, and not sooner, since it performs one renewal on request in this time.
const UNNOTICED: Duration = Duration::from_secs(10);

/// A credential that has no token with the new value yet.
struct Open {
    key: ObjectKey,
    /// The time of the last failure before the new value was written.
    failed_before: Option<String>,
    /// The last failure since then, with its reason.
    failure: Option<(String, String)>,
    /// The last line that was printed about it.
    said: String,
    /// Whether a renewal was requested since the new value was written.
    is_requested: bool,
}

impl Plan {
    /// Waits until each credential has a token that was requested with the new value, or the time is over.
    pub(super) async fn wait(
        &self,
        session: &Session,
        value: &Sensitive,
        version: String,
        timeout: Duration,
        form: Form,
    ) -> Vec<Rotated> {
        let mut versions = vec![version];
        let began = session.clock.monotonic();
        let deadline = began + timeout;
        let mut open = Vec::new();
        for key in self.keys() {
            open.push(self.before(session, key).await);
        }
        let mut done = Vec::new();
        loop {
            versions.extend(self.version_now(session, value).await);
            versions.dedup();
            let mut left = Vec::new();
            for mut waiting in open {
                match waiting.now(session, &versions).await {
                    Some(rotated) => {
                        output::line(form, &format!("{}/{}: {}", rotated.namespace, rotated.name, rotated.message));
                        done.push(rotated);
                    }
                    None => {
                        waiting.request(session, session.clock.monotonic().duration_since(began)).await;
                        left.push(waiting);
                    }
                }
            }
            open = left;
            if open.is_empty() || session.clock.monotonic() >= deadline {
                break;
            }
            tokio::time::sleep(INTERVAL).await;
        }
        for waiting in open {
            let late = waiting.late(timeout);
            output::line(form, &format!("{}/{}: {}", late.namespace, late.name, late.message));
            done.push(late);
        }
        done
    }

    /// A credential as it is before an attempt with the new value has ended.
    async fn before(&self, session: &Session, key: ObjectKey) -> Open {
        // the one that was read before is nearly as good
        let known = self.credentials.iter().find(|credential| common::key(credential) == key);
        let now = common::credential_in(session, &key.namespace, &key.name).await.ok();
        let status = now.or_else(|| known.cloned()).and_then(|credential| credential.status);
        let failed_before = status.and_then(|status| status.last_failure).map(|failure| failure.time);
        Open { key, failed_before, failure: None, said: String::new(), is_requested: false }
    }
}

impl Open {
    /// How it ended; `None` while it has not.
    async fn now(&mut self, session: &Session, versions: &[String]) -> Option<Rotated> {
        let key = &self.key;
        let credential = match common::credential_in(session, &key.namespace, &key.name).await {
            Ok(credential) => credential,
            // it may be read again before the end
            Err(error) => {
                self.say(error.to_string());
                return None;
            }
        };
        let path = path::secret(&key.namespace, credential.target_name());
        let token: Option<Secret> = session.get_if_any(&path).await.ok().flatten();
        match rotation::progress(&credential, token.as_ref(), versions, self.failed_before.as_deref()) {
            Progress::Done(at) => {
                let until = at.map_or_else(String::new, |at| format!(", it expires {}", relative(at, session.now())));
                let message = format!("new token with the new secret{until}");
                Some(Rotated { expires_at: at, ..self.rotated(RotationResult::Issued, message) })
            }
            Progress::Waiting => None,
            Progress::Failed { reason, message } => {
                self.say(format!("{reason}: {message}"));
                self.failure = Some((reason, message));
                None
            }
        }
    }

    /// Requests a renewal, once, if no attempt has ended this long after the new value was written.
    async fn request(&mut self, session: &Session, waited: Duration) {
        if self.is_requested || self.failure.is_some() || waited < UNNOTICED {
            return;
        }
        self.is_requested = true;
        output::progress(&format!("{}: no attempt has ended within {waited:.0?}; a renewal is requested", self.key));
        let requested = renew::request(session, std::slice::from_ref(&self.key)).await;
        if let Some((_, problem)) = requested.failed.into_iter().next() {
            self.say(problem.to_string());
        }
    }

    /// Prints what keeps it open, unless that is what was printed last.
    fn say(&mut self, what: String) {
        if self.said != what {
            output::progress(&format!("{}: {what}", self.key));
            self.said = what;
        }
    }

    /// What to report if the time is over.
    fn late(&self, timeout: Duration) -> Rotated {
        let why = if self.said.is_empty() { "the operator has not ended the attempt yet" } else { "see above" };
        let message = format!(
            "no token with the new secret within {timeout:?}: {why}. The operator goes on; {} says what is wrong, and {} \
             writes another secret",
            hint::command("check", &self.key),
            hint::command("rotate", &self.key)
        );
        match &self.failure {
            Some((reason, failure)) => Rotated {
                reason: Some(reason.clone()),
                failure: Some(failure.clone()),
                ..self.rotated(RotationResult::Failed, message)
            },
            None => self.rotated(RotationResult::Late, message),
        }
    }

    fn rotated(&self, result: RotationResult, message: String) -> Rotated {
        let (namespace, name) = (self.key.namespace.clone(), self.key.name.clone());
        Rotated { namespace, name, result, reason: None, failure: None, message, expires_at: None }
    }
}

#[cfg(test)]
mod tests;
