//! `rotate`: replaces a client secret in the order in which no token is lost.
//!
//! A registration that can only regenerate its secret ends the old one at once. So the tokens are renewed first, which
//! gives the most time; then the secret is regenerated, and the new one is written. Until a token was issued with it,
//! the old token stays.

mod waiting;

use std::time::Duration;

use chrono::{DateTime, Utc};
use itwin_api::{
    authority::{ClientAuthentication, ITwinAuthority},
    credential::ITwinServiceCredential,
    time,
};
use itwin_core::object::ObjectKey;
use itwin_credential_operator::observe::client_secret::ClientMaterial;
use itwin_oauth::sensitive::Sensitive;
use k8s_openapi::api::core::v1::Secret;

use super::{common, renew};
use crate::{
    deletion, hint,
    output::{self, Form, Structured},
    problem::{Outcome, Problem},
    renewal::Ended,
    rotation::{self, Rotation, RotationResult, overlap},
    secret_input::{self, Interruption},
    session::{CallFailed, Session, path},
    span::span,
};

/// Rotates the client secret of a credential.
///
/// # Errors
/// Why it cannot be done, and whether the new secret was written.
pub async fn run(
    session: &Session,
    name: &str,
    expires_at: Option<DateTime<Utc>>,
    timeout: Duration,
    form: Form,
) -> Result<Outcome, Problem> {
    let plan = Plan::new(session, name, expires_at).await?;
    plan.may_write(session).await?;
    output::progress(&format!("Step 1 of 4: renew {}, for the longest time until the old token ends.", plan.named()));
    let requested = renew::request(session, &plan.keys()).await;
    if let Some((_, problem)) = requested.failed.into_iter().next() {
        return Err(problem);
    }
    let renewed = renew::wait(session, requested.asked, timeout, form).await;
    if renewed.values().any(|ended| !matches!(ended, Ended::Issued(_))) {
        output::progress("Not every token is new. The tokens that are there stay, and the time below is theirs.");
    }
    for note in rotation::notes(&plan.secret, &plan.reference().clone(), expires_at) {
        output::progress(&format!("Note: {note}."));
    }
    let until = plan.usable_until(session).await?;
    output::progress(&format!(
        "Step 2 of 4: regenerate the secret at the app registration now. The tokens can be used {}.",
        until.map_or_else(|| "no more".to_owned(), |until| said(until, session.now()))
    ));
    let mut interruption = Interruption::new()?;
    let value = secret_input::read(&plan.key, &mut interruption).await?;
    output::progress(&format!("Step 3 of 4: write key {} of Secret {}.", plan.key, plan.secret_ref));
    let version = plan.write(session, &value, expires_at).await?;
    output::progress("Step 4 of 4: wait for a token with the new secret ...");
    let items = tokio::select! {
        biased;
        () = interruption.wait() => return Err(plan.interrupted()),
        items = plan.wait(session, &value, version, timeout, form) => items,
    };
    if let Some(until) = until {
        output::line(form, &format!("there was time until {}", time::to_rfc3339(until)));
    }
    let is_open = items.iter().any(|item| item.result != RotationResult::Issued);
    if form.is_structured() {
        let (secret, key) = (plan.secret_ref.clone(), plan.key.clone());
        Rotation { secret, key, usable_until: until, items }.print(form)?;
    }
    Ok(Outcome::found(is_open))
}

fn said(until: DateTime<Utc>, now: DateTime<Utc>) -> String {
    if until > now {
        format!("until {}, for {}", time::to_rfc3339(until), span(until - now))
    } else {
        format!("no more, since {}", time::to_rfc3339(until))
    }
}

/// What is rotated.
struct Plan {
    credentials: Vec<ITwinServiceCredential>,
    secret: Secret,
    secret_ref: String,
    /// The key that is replaced.
    key: String,
    method: ClientAuthentication,
}

impl Plan {
    async fn new(session: &Session, name: &str, expires_at: Option<DateTime<Utc>>) -> Result<Self, Problem> {
        let credential = common::credential(session, name).await?;
        let namespace = session.namespace.as_str();
        let reference = &credential.spec.client_credentials_ref;
        let secret_ref = format!("{namespace}/{}", reference.name);
        let authority = &credential.spec.authority_ref.name;
        let secret: Secret = session
            .get(&path::secret(namespace, &reference.name))
            .await
            .map_err(|error| Problem::new(format!("Secret {secret_ref}: {error}")))?;
        let method = match session.get::<ITwinAuthority>(&path::authority(authority)).await {
            Ok(authority) => authority.spec.client_authentication,
            // users of a namespace may not read authorities: the Secret shows what its client needs
            Err(error) if error.is_forbidden() => rotation::method_of(&secret, reference).ok_or_else(|| {
                Problem::new(format!(
                    "Secret {secret_ref} does not show which of the keys {} and {} its client uses, and ITwinAuthority \
                     {authority}, which says so, may not be read: ask for the permission to get it",
                    reference.client_secret_key, reference.private_key_key
                ))
            })?,
            Err(error) => return Err(Problem::new(format!("ITwinAuthority {authority}: {error}"))),
        };
        let key = rotation::key(reference, method).map(str::to_owned).ok_or_else(|| {
            Problem::new(format!(
                "clients of ITwinAuthority {authority} are public: there is no client secret to rotate"
            ))
        })?;
        if secret.immutable == Some(true) {
            return Err(Problem::new(format!(
                "Secret {secret_ref} is immutable: create another with the new secret, and name it in \
                 spec.clientCredentialsRef"
            )));
        }
        let users = users(session, &credential).await?;
        let expiry_of = expires_at.map(|_| reference);
        let conflict = overlap::of_secret(&users, &key);
        if let Some(why) = conflict.or_else(|| overlap::of_expiry(&users, expiry_of?)) {
            return Err(Problem::new(format!("Secret {secret_ref}: {why}")));
        }
        // others that read the same key lose their client too
        let reads_key = |user: &ITwinServiceCredential| {
            let read = &user.spec.client_credentials_ref;
            [&read.client_secret_key, &read.private_key_key].contains(&&key)
        };
        if let Some(why) = deletion::why(&credential) {
            return Err(Problem::new(format!("ITwinServiceCredential {}: {why}", common::key(&credential))));
        }
        // of another one that is being deleted there is no token to wait for
        let (deleting, credentials): (Vec<_>, Vec<_>) =
            users.into_iter().filter(reads_key).partition(|user| user.metadata.deletion_timestamp.is_some());
        for credential in deleting {
            output::progress(&format!(
                "Note: {} is being deleted, so that it gets no token with the new secret.",
                common::key(&credential)
            ));
        }
        if let Some(suspended) = credentials.iter().find(|credential| credential.spec.suspend) {
            return Err(Problem::new(format!(
                "ITwinServiceCredential {} is suspended, so that no token can be requested: {} ends that",
                common::key(suspended),
                hint::command("resume", &common::key(suspended))
            )));
        }
        Ok(Self { credentials, secret, secret_ref, key, method })
    }

    fn reference(&self) -> &itwin_api::credential::ClientCredentialsRef {
        // the credential that was named is the first
        &self.credentials[0].spec.client_credentials_ref
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.credentials.iter().map(common::key).collect()
    }

    fn named(&self) -> String {
        let names: Vec<String> = self.keys().iter().map(ToString::to_string).collect();
        names.join(", ")
    }

    /// What is said if the user ends the wait for a token.
    fn interrupted(&self) -> Problem {
        // the credential that was named is the first
        let check = hint::command("check", &common::key(&self.credentials[0]));
        Problem::new(format!(
            "interrupted: key {} of Secret {} has the new value, and the operator goes on; {check} says how the \
             credential is",
            self.key, self.secret_ref
        ))
    }

    /// Until when all tokens can be used; `None` where one is not there.
    async fn usable_until(&self, session: &Session) -> Result<Option<DateTime<Utc>>, Problem> {
        let mut first = None;
        for key in self.keys() {
            let credential = common::credential_in(session, &key.namespace, &key.name).await?;
            let until = credential.status.and_then(|status| status.usable_until);
            let Some(until) = until.as_deref().and_then(time::from_rfc3339) else { return Ok(None) };
            first = Some(first.map_or(until, |first: DateTime<Utc>| first.min(until)));
        }
        Ok(first)
    }

    /// Fails where the Secret cannot be written: before the old secret ends.
    async fn may_write(&self, session: &Session) -> Result<(), Problem> {
        let (namespace, name) = self.secret_ref.split_once('/').unwrap_or_default();
        let data = self.secret.data.as_ref();
        let Some(held) = data.and_then(|data| data.get(&self.key)) else { return Ok(()) };
        let Ok(held) = std::str::from_utf8(&held.0).map(|held| Sensitive::new(held.to_owned())) else { return Ok(()) };
        let version = self.secret.metadata.resource_version.as_deref();
        let patch = rotation::patch(self.reference(), &self.key, &held, None, version);
        session
            .try_patch(&path::secret(namespace, name), &patch)
            .await
            .map_err(|error| Problem::new(format!("Secret {} cannot be written: {error}", self.secret_ref)))
    }

    /// Writes the value and its expiry, if the client Secret is of use with them.
    async fn write(
        &self,
        session: &Session,
        value: &Sensitive,
        expires_at: Option<DateTime<Utc>>,
    ) -> Result<String, Problem> {
        let with_value = rotation::with_value(&self.secret, &self.key, value);
        let Some(patch) = rotation::unwritten(&self.secret, self.reference(), &self.key, value, expires_at) else {
            output::progress(&format!("Key {} has this value already: nothing is written.", self.key));
            return Ok(version_of(&self.secret));
        };
        let has_value = patch["data"].get(&self.key).is_none();
        if has_value {
            output::progress(&format!("Key {} has this value already: its expiry alone is written.", self.key));
        }
        for credential in &self.credentials {
            let spec = &credential.spec;
            let material =
                ClientMaterial::new(with_value.clone(), &spec.client_credentials_ref, self.secret_ref.clone());
            if let Err(failure) = material.credentials(self.method, spec.grant_type)
                && failure.message.contains(&format!("key {} ", self.key))
            {
                return Err(Problem::new(format!("nothing was written: {}", failure.message)));
            }
        }
        let (namespace, name) = self.secret_ref.split_once('/').unwrap_or_default();
        let written: Result<Secret, CallFailed> = session.patch(&path::secret(namespace, name), &patch).await;
        let error = match written {
            // a token that was requested before has this value too
            Ok(_) if has_value => return Ok(version_of(&self.secret)),
            Ok(written) => return Ok(version_of(&written)),
            Err(error) => error,
        };
        if !error.is_uncertain() {
            let advice = if error.is_conflict() { "; run this again with the same value" } else { "" };
            return Err(Problem::new(format!("Secret {} was not written: {error}{advice}", self.secret_ref)));
        }
        // the API server may have done it; the value does not show whether it wrote the expiry
        self.version_now(session, value).await.filter(|_| !has_value).ok_or_else(|| {
            Problem::new(format!(
                "whether Secret {} was written is not known ({error}): run this again with the same value",
                self.secret_ref
            ))
        })
    }

    /// The version of the client Secret, if it still holds the value: others may have changed its labels.
    async fn version_now(&self, session: &Session, value: &Sensitive) -> Option<String> {
        let (namespace, name) = self.secret_ref.split_once('/')?;
        let secret: Secret = session.get(&path::secret(namespace, name)).await.ok()?;
        let held = secret.data.as_ref()?.get(&self.key)?;
        (held.0 == value.expose().as_bytes()).then(|| version_of(&secret))
    }
}

/// The credentials of the namespace that use the same client Secret, this one first.
async fn users(session: &Session, credential: &ITwinServiceCredential) -> Result<Vec<ITwinServiceCredential>, Problem> {
    let (all, _) = common::credentials(session, Some(&session.namespace), None).await?;
    let secret = &credential.spec.client_credentials_ref.name;
    let others = all.into_iter().filter(|other| {
        other.metadata.uid != credential.metadata.uid && other.spec.client_credentials_ref.name == *secret
    });
    Ok([credential.clone()].into_iter().chain(others).collect())
}

fn version_of(secret: &Secret) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", text(&secret.metadata.uid), text(&secret.metadata.resource_version))
}

#[cfg(test)]
mod tests;
