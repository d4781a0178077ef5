//! Sentences that users read in conditions and events: what happened, to which object, and what to do.

use std::fmt::Display;

use itwin_api::{conditions::Reason, limits::RENEW_MAX, secret_keys};

use crate::{call_failure::CallFailure, failure::Failure, requests::Blocked, withheld::Withheld};

/// The length of a Secret's type that is shown, in characters: that of a name with a domain in front of it.
const TYPE_SHOWN: usize = 253;

/// The Secret to write cannot be changed.
#[must_use]
pub fn secret_immutable(secret: &str) -> Failure {
    Failure::new(
        Reason::SecretImmutable,
        format!(
            "Secret {secret} is immutable, so that its data cannot be written: delete it, it is made again at once"
        ),
    )
}

/// The Secret to write is of another type than the operator writes. The API server accepts any text as a type, of any
/// length: only what looks like one is shown.
#[must_use]
pub fn secret_type_mismatch(secret: &str, type_: &str) -> Failure {
    let is_usual = |c: char| c.is_ascii_alphanumeric() || "./_-".contains(c);
    let is_shown = (1..=TYPE_SHOWN).contains(&type_.len()) && type_.chars().all(is_usual);
    let of_type = if is_shown { format!("of type {type_}") } else { "of another type".to_owned() };
    let message = format!(
        "Secret {secret} is {of_type}, and only Opaque Secrets are written: delete it, or name another in a new credential"
    );
    Failure::new(Reason::SecretTypeMismatch, message)
}

/// The Secret to write changes faster than it is reconciled.
#[must_use]
pub fn secret_changes_constantly(secret: &str) -> Failure {
    let message =
        format!("Secret {secret} is changed again and again by another writer: check its metadata.managedFields");
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

/// A Secret could not be read; `error` says how the call failed.
#[must_use]
pub fn secret_read_failed(secret: &str, error: &dyn Display, why: CallFailure<'_>) -> Failure {
    let advice = match why {
        CallFailure::Forbidden(_) => "allow the operator's service account to get Secrets in this namespace",
        CallFailure::Refused(_) | CallFailure::Unavailable(_) | CallFailure::Timeout | CallFailure::NoAnswer => {
            "contact the administrator of the cluster, whose API server fails to read Secrets"
        }
    };
    Failure::new(Reason::SecretReadFailed, format!("Secret {secret} could not be read ({error}): {advice}"))
}

/// The Secrets of the credential's namespace cannot be watched; `error` says how that failed, and whether it is forbidden.
#[must_use]
pub fn secrets_unwatched(error: &str, is_forbidden: bool) -> Failure {
    let advice = if is_forbidden {
        "allow the operator's service account to list and watch Secrets"
    } else {
        "contact the administrator of the cluster, whose API server fails to list or watch Secrets"
    };
    let message = format!(
        "the Secrets of this namespace cannot be watched ({error}), so that changes of them are noticed within 5 minutes \
         and not immediately: {advice}"
    );
    Failure::new(Reason::SecretReadFailed, message)
}

/// The labels of a namespace could not be read, and the authority restricts namespaces by them.
#[must_use]
pub fn namespace_read_failed(namespace: &str, authority: &str, error: &dyn Display, why: CallFailure<'_>) -> Failure {
    let advice = match why {
        CallFailure::Forbidden(_) => "allow the operator's service account to get namespaces",
        CallFailure::Refused(_) | CallFailure::Unavailable(_) | CallFailure::Timeout | CallFailure::NoAnswer => {
            "contact the administrator of the cluster, whose API server fails to read namespaces"
        }
    };
    let message = format!(
        "the labels of namespace {namespace} could not be read ({error}), and ITwinAuthority {authority} allows \
         namespaces by their labels: {advice}"
    );
    Failure::new(Reason::NamespaceNotAllowed, message)
}

/// What follows a write of the Secret that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterWrite {
    /// The token that was to be written is kept.
    TokenKept,
    /// The token is dropped: the namespace has too many that could not be written.
    TokenDropped,
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
        why if let Some(advice) = why.admission_advice() => advice,
        CallFailure::Forbidden(said) if said.contains("being terminated") => "the namespace is being deleted",
        CallFailure::Forbidden(_) => "allow the operator's service account to create and patch Secrets",
        CallFailure::Refused(_) | CallFailure::Unavailable(_) => {
            "change what the API server names, or contact the administrator of the cluster"
        }
        CallFailure::Timeout | CallFailure::NoAnswer => {
            "contact the administrator of the cluster, whose API server does not answer, or waits for an admission webhook"
        }
    };
    let after = match after {
        AfterWrite::TokenKept => "; the token is kept and written later".to_owned(),
        AfterWrite::TokenDropped => {
            "; the token is not kept, since the operator keeps too many tokens of this namespace \
                                     already, and another one is requested later"
                .to_owned()
        }
        AfterWrite::TokenGood => "; the token in it is good".to_owned(),
        AfterWrite::WrittenWithout(withheld) => format!(
            "; the token is written without the {} of spec.secretTemplate that the Secret does not have, which are tried \
             again",
            withheld.name()
        ),
    };
    Failure::new(Reason::SecretWriteFailed, format!("Secret {secret} could not be written ({error}): {advice}{after}"))
}

/// The Secret could not be created, since its namespace does not exist.
#[must_use]
pub fn secret_without_namespace(secret: &str) -> Failure {
    let message = format!(
        "Secret {secret} could not be created, because its namespace is gone: create the namespace again if the token is \
         still needed"
    );
    Failure::new(Reason::SecretWriteFailed, message)
}

/// Requests are not sent for now.
#[must_use]
pub fn blocked(authority: &str, blocked: Blocked) -> Failure {
    match blocked {
        Blocked::Client(failure) => failure,
        Blocked::Server(reason) => Failure::new(
            reason,
            format!(
                "ITwinAuthority {authority} fails repeatedly; only half-open probes are sent until it answers: contact the \
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

/// The authority that a spec names was not shown by a list that is not complete, or by a watch that fails; `trouble` says
/// how, and whether a permission is missing.
#[must_use]
pub fn authorities_unlisted(authority: &str, trouble: Option<(&str, bool)>) -> Failure {
    let (error, advice) = match trouble {
        Some((error, true)) => {
            (error, "allow the operator's service account to list and watch itwinauthorities in the whole cluster")
        }
        Some((error, false)) => {
            (error, "contact the administrator of the cluster, whose API server fails to list or watch them")
        }
        None => ("no response yet", "contact the administrator of the cluster, whose API server does not answer"),
    };
    let message = format!(
        "whether ITwinAuthority {authority} exists is not known, since the ITwinAuthorities could not be listed \
         or watched ({error}): {advice}"
    );
    Failure::new(Reason::AuthorityNotReady, message)
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
    use crate::quote::Quote;

    #[test]
    fn type_of_a_secret_is_shown_where_it_looks_like_one() {
        let message = |type_: &str| secret_type_mismatch("a", type_).message;
        assert!(message("kubernetes.io/tls").contains("Secret a is of type kubernetes.io/tls, and"));
        assert!(message(&"x".repeat(TYPE_SHOWN)).contains("of type xxx"));
        for type_ in ["", &"x".repeat(TYPE_SHOWN + 1), "two words", "line\nbreak", "esc\u{1b}[0m"] {
            assert!(message(type_).contains("Secret a is of another type, and"), "{type_:?}");
        }
    }

    #[test]
    fn permission_is_advised_only_where_one_is_missing() {
        let said = Quote::new("User \"a\" cannot patch resource \"secrets\": secrets \"policy-webhook\" is forbidden");
        let denied = Quote::new("ValidatingAdmissionPolicy 'labels' with binding 'all' denied request: no");
        let failed = Quote::new("failed calling webhook \"a\": connection refused");
        for (why, advice) in [
            (CallFailure::Forbidden(&said), "service account"),
            (CallFailure::Forbidden(&denied), "made that admission policy"),
            (CallFailure::Refused(&denied), "made that admission policy"),
            (CallFailure::Unavailable(&failed), "run that admission webhook"),
        ] {
            let message = secret_write_failed("token", &"error", why, AfterWrite::TokenKept).message;
            assert!(message.contains(advice), "{advice:?} is not in: {message}");
        }
        let namespace = |why| namespace_read_failed("team", "ims", &"error", why).message;
        assert!(namespace(CallFailure::Forbidden(&said)).contains("service account"));
        for why in [CallFailure::Unavailable(&failed), CallFailure::Timeout, CallFailure::NoAnswer] {
            let message = namespace(why);
            assert!(!message.contains("service account") && message.contains("administrator"), "{message}");
        }
        let forbidden = authorities_unlisted("ims", Some(("HTTP 403", true))).message;
        assert!(forbidden.contains("service account to list and watch itwinauthorities"), "{forbidden}");
        for trouble in [Some(("HTTP 500", false)), None] {
            let message = authorities_unlisted("ims", trouble).message;
            assert!(!message.contains("service account") && message.contains("administrator"), "{message}");
        }
    }

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
