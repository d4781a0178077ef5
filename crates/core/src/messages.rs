//! Sentences that users read in conditions and events: what happened, to which object, and what to do.

use std::fmt::Display;

use itwin_api::{conditions::Reason, limits::RENEW_MAX, secret_keys};

use crate::{failure::Failure, quote::Quote, requests::Blocked, withheld::Withheld};

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
    /// No other field manager owns what differs.
    Hidden,
}

/// The Secret to write is changed repeatedly.
#[must_use]
pub fn secret_conflict(secret: &str, by: Contention<'_>) -> Failure {
    let by = match by {
        Contention::Manager(manager) => format!("by field manager {manager}"),
        Contention::Deleted => "or deleted".to_owned(),
        Contention::Hidden => {
            "by an admission policy, by a writer that removes fields, or under the operator's own field \
                               manager"
                .to_owned()
        }
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
    /// The API server refused the request otherwise.
    Refused(&'a Quote),
    /// The API server could not process it, or an admission webhook did not answer.
    Unavailable(&'a Quote),
    /// No answer, or none that could be read.
    NoAnswer,
}

/// A Secret could not be read; `error` says how the call failed.
#[must_use]
pub fn secret_unreadable(secret: &str, error: &dyn Display, why: CallFailure<'_>) -> Failure {
    let advice = match why {
        CallFailure::Forbidden(_) => "allow the operator's service account to get Secrets in this namespace",
        CallFailure::Refused(_) | CallFailure::Unavailable(_) | CallFailure::NoAnswer => {
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

/// What follows a write of the Secret that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterWrite {
    /// The token that was to be written is kept.
    TokenKept,
    /// The Secret holds a good token.
    TokenGood,
    /// The token is written without these parts of the template.
    WrittenWithout(Withheld),
}

/// The API server refused or lost a write of the Secret.
#[must_use]
pub fn secret_write_failed(secret: &str, error: &dyn Display, why: CallFailure<'_>, after: AfterWrite) -> Failure {
    let advice = match why {
        CallFailure::Forbidden(said) if said.contains("exceeded quota") => "raise the quota of the namespace",
        CallFailure::Forbidden(said) | CallFailure::Refused(said) | CallFailure::Unavailable(said)
            if said.contains("webhook") =>
        {
            "contact those who run that admission webhook"
        }
        CallFailure::Forbidden(said) | CallFailure::Refused(said) | CallFailure::Unavailable(said)
            if said.contains("olicy") =>
        {
            "contact those who made that admission policy"
        }
        CallFailure::Forbidden(said) if said.contains("being terminated") => "the namespace is being deleted",
        CallFailure::Forbidden(_) => "allow the operator's service account to create and patch Secrets",
        CallFailure::Refused(_) | CallFailure::Unavailable(_) => {
            "change what the API server names, or contact the administrator of the cluster"
        }
        CallFailure::NoAnswer => {
            "contact the administrator of the cluster, whose API server does not answer, or waits for an admission webhook"
        }
    };
    let after = match after {
        AfterWrite::TokenKept => "; the token is kept and written later".to_owned(),
        AfterWrite::TokenGood => "; the token in it is good".to_owned(),
        AfterWrite::WrittenWithout(withheld) => format!(
            "; the token is written without the {} of spec.secretTemplate that the Secret does not have, which are tried \
             again",
            withheld.name()
        ),
    };
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
    let message = match failure.reason {
        // such a message names a field only
        Reason::ConfigurationInvalid => {
            format!("ITwinAuthority {authority} is invalid, ask its administrator to correct it: {}", failure.message)
        }
        // the others name the authority
        _ => failure.message.clone(),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_that_is_not_ready_is_named_once() {
        for (reason, message) in [
            (Reason::ConfigurationInvalid, "spec.caBundle: contains no certificate"),
            (Reason::TLSFailed, "the server of the discovery document of ITwinAuthority ims has a certificate"),
        ] {
            let failure = authority_not_ready("ims", &Failure::new(reason, message));
            assert_eq!(failure.message.matches("ITwinAuthority ims").count(), 1, "{}", failure.message);
            assert!(failure.message.contains(message), "{}", failure.message);
        }
    }
}
