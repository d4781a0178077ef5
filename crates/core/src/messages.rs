//! Sentences that users read in conditions and events: what happened, to which object, and what to do.

use std::fmt::Display;

use itwin_api::{conditions::Reason, limits::RENEW_MAX, secret_keys};

use crate::{failure::Failure, quote::Quote, requests::Blocked};

/// The Secret to write cannot be changed.
#[must_use]
pub fn secret_immutable(secret: &str) -> Failure {
    Failure::new(
        Reason::SecretImmutable,
        format!(
            "Secret {secret} is immutable, so that no token can be written into it: delete it, it is made again at once"
        ),
    )
}

/// The Secret to write is of another type than the operator writes.
#[must_use]
pub fn secret_type_mismatch(secret: &str, type_: &str) -> Failure {
    let message = format!(
        "Secret {secret} is of type {type_}, and only Opaque Secrets are written: delete it, or name another in a new credential"
    );
    Failure::new(Reason::SecretTypeMismatch, message)
}

/// The Secret to write changes faster than it is reconciled.
#[must_use]
pub fn secret_changes_constantly(secret: &str) -> Failure {
    let message =
        format!("Secret {secret} is changed again and again by somebody else: look at its metadata.managedFields");
    Failure::new(Reason::SecretConflict, message)
}

/// Who changes the Secret to write, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contention<'a> {
    /// This field manager.
    Manager(&'a str),
    /// It is gone, and with it the record of who wrote it.
    Deleted,
    /// No other field manager wrote to it.
    Hidden,
}

/// The Secret to write is changed repeatedly.
#[must_use]
pub fn secret_conflict(secret: &str, by: Contention<'_>) -> Failure {
    let by = match by {
        Contention::Manager(manager) => format!("by field manager {manager}"),
        Contention::Deleted => "or deleted".to_owned(),
        Contention::Hidden => "by an admission policy, or under the operator's own field manager".to_owned(),
    };
    let message = format!(
        "Secret {secret} is changed repeatedly {by}: have its data, labels and annotations left alone (its \
         metadata.managedFields say who wrote which); it is reverted at growing intervals"
    );
    Failure::new(Reason::SecretConflict, message)
}

/// Why a call to the Kubernetes API failed, as far as it decides what a user can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure<'a> {
    /// 401 or 403.
    Forbidden(&'a Quote),
    /// The API server refused the request otherwise, or could not process it.
    Refused(&'a Quote),
    /// No answer, or none that could be read.
    NoAnswer,
}

/// A Secret could not be read; `error` says how the call failed.
#[must_use]
pub fn secret_unreadable(secret: &str, error: &dyn Display, why: CallFailure<'_>) -> Failure {
    let advice = match why {
        CallFailure::Forbidden(_) => "allow the operator's service account to get Secrets in this namespace",
        CallFailure::Refused(_) | CallFailure::NoAnswer => {
            "contact the administrator of the cluster, whose API server fails to read Secrets"
        }
    };
    Failure::new(Reason::SecretReadFailed, format!("Secret {secret} could not be read ({error}): {advice}"))
}

/// The labels of a namespace could not be read, and the authority restricts namespaces by them.
#[must_use]
pub fn namespace_unreadable(namespace: &str, authority: &str, error: &dyn Display) -> Failure {
    let message = format!(
        "the labels of namespace {namespace} could not be read ({error}), and ITwinAuthority {authority} allows \
         namespaces by their labels: allow the operator's service account to get namespaces"
    );
    Failure::new(Reason::NamespaceNotAllowed, message)
}

/// The API server refused or lost a write of the Secret, with a token (`has_token`) or without.
#[must_use]
pub fn secret_write_failed(secret: &str, error: &dyn Display, why: CallFailure<'_>, has_token: bool) -> Failure {
    let advice = match why {
        CallFailure::Forbidden(said) if said.contains("exceeded quota") => "raise the quota of the namespace",
        CallFailure::Forbidden(said) | CallFailure::Refused(said) if said.contains("webhook") => {
            "contact those who run that admission webhook"
        }
        CallFailure::Forbidden(said) | CallFailure::Refused(said) if said.contains("olicy") => {
            "contact those who made that admission policy"
        }
        CallFailure::Forbidden(said) if said.contains("being terminated") => "the namespace is being deleted",
        CallFailure::Forbidden(_) => "allow the operator's service account to create and patch Secrets",
        CallFailure::Refused(_) => "change what the API server names, or contact the administrator of the cluster",
        CallFailure::NoAnswer => {
            "contact the administrator of the cluster, whose API server does not answer, or waits for an admission webhook"
        }
    };
    let after = if has_token { "; the token is kept and written later" } else { "; the token in it is good" };
    Failure::new(Reason::SecretWriteFailed, format!("Secret {secret} could not be written ({error}): {advice}{after}"))
}

/// Requests are not sent for now.
#[must_use]
pub fn blocked(authority: &str, blocked: Blocked) -> Failure {
    match blocked {
        Blocked::Client(failure) => failure,
        Blocked::Server(reason) => Failure::new(
            reason,
            format!(
                "ITwinAuthority {authority} fails repeatedly; it is asked by single probes until it answers: contact the \
                 operators of the authorization server"
            ),
        ),
        Blocked::ServerWait(reason) => Failure::new(
            reason,
            format!(
                "ITwinAuthority {authority} asked all its clients to wait (Retry-After): lower its requestsPerMinute, or \
                 contact the operators of the authorization server; it is tried again"
            ),
        ),
    }
}

/// The authority that a spec names does not exist.
#[must_use]
pub fn authority_not_found(authority: &str) -> Failure {
    let message = format!(
        "there is no ITwinAuthority {authority}: name another in spec.authorityRef, or ask an administrator to create it"
    );
    Failure::new(Reason::AuthorityNotFound, message)
}

/// The authority cannot be asked, since it failed itself.
#[must_use]
pub fn authority_not_ready(authority: &str, failure: &Failure) -> Failure {
    let message = format!("ITwinAuthority {authority} is not ready: {}", failure.message);
    Failure::new(Reason::AuthorityNotReady, message)
}

/// The authority exists, but this version cannot read it; `error` is the parser's.
#[must_use]
pub fn authority_not_decoded(authority: &str, error: &str) -> Failure {
    let message = format!(
        "ITwinAuthority {authority} could not be decoded ({error}): ask its administrator to apply it again with the \
         CRDs of the operator's version"
    );
    Failure::new(Reason::AuthorityNotReady, message)
}

/// The note of an event about the renew annotation.
#[must_use]
pub fn renew_annotation_too_long() -> String {
    format!(
        "the annotation {} has more than {RENEW_MAX} characters and is ignored: write a shorter value, such as the time in \
         seconds",
        secret_keys::RENEW
    )
}
