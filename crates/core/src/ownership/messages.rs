//! What users read of a Secret that belongs to someone else: whose it is, and what to do.

use itwin_api::conditions::Reason;

use super::metadata::{Controller, Named, Writer};
use crate::failure::Failure;

/// The longest part of a name that a message repeats: the maximum length of an object name, in characters. The API
/// server limits neither the length nor the characters of a name in an owner reference.
const SHOWN_MAX: usize = 253;

fn not_owned(message: String) -> Failure {
    Failure::new(Reason::SecretNotOwned, message)
}

pub(super) fn without_owner(secret: &str, ours: &Writer<'_>) -> Failure {
    not_owned(format!(
        "Secret {secret} exists and is not owned by this credential: delete it, or {}",
        adopt(secret, ours)
    ))
}

pub(super) fn controlled(secret: &str, controller: &Controller) -> Failure {
    let kind = controller.kind.rsplit('/').next().unwrap_or_default();
    not_owned(format!(
        "Secret {secret} is controlled by {} {}: set spec.secretName to another name in a new credential, or delete that \
         owner",
        shown(kind),
        shown(&controller.name)
    ))
}

/// The owner exists. An owner in another namespace is named only if the Secret itself names it.
pub(super) fn owned(secret: &str, ours: &Writer<'_>, existing: &Named, owner: Option<&Named>) -> Failure {
    if *existing.namespace != *ours.namespace {
        return copy(secret, owner.filter(|owner| *owner == existing));
    }
    not_owned(format!(
        "Secret {secret} belongs to ITwinServiceCredential {}, which exists: set spec.secretName to another name in a new \
         credential, or delete that one",
        existing.name
    ))
}

fn copy(secret: &str, of: Option<&Named>) -> Failure {
    let of = match of {
        Some(Named { namespace, name }) => format!("ITwinServiceCredential {namespace}/{name}"),
        None => "an ITwinServiceCredential in another namespace".to_owned(),
    };
    not_owned(format!(
        "Secret {secret} is a copy of the Secret of {of}: delete it, and this credential creates its own, or set \
         spec.secretName to another name in a new credential"
    ))
}

/// The controller is a credential that no longer exists and whose name does not match.
pub(super) fn of_missing_controller(
    secret: &str,
    ours: &Writer<'_>,
    controller: &Controller,
    owner: Option<&Named>,
) -> Failure {
    if let Some(owner) = owner.filter(|owner| *owner.namespace != *ours.namespace) {
        return copy(secret, Some(owner));
    }
    not_owned(format!(
        "Secret {secret} is controlled by an ITwinServiceCredential {} that does not exist in this namespace: delete the \
         Secret, and this credential creates its own",
        shown(&controller.name)
    ))
}

pub(super) fn left_behind(secret: &str, ours: &Writer<'_>, owner: Option<&Named>) -> Failure {
    let what = match owner {
        Some(Named { namespace, name }) if **namespace != *ours.namespace => {
            format!("is a copy of the Secret of ITwinServiceCredential {namespace}/{name}")
        }
        Some(owner) => format!("was left behind by ITwinServiceCredential {}", owner.name),
        None => "was left behind by a credential that it does not name".to_owned(),
    };
    not_owned(format!("Secret {secret} {what}: delete it, or {}", adopt(secret, ours)))
}

/// How a credential adopts a Secret, and what becomes of it then.
fn adopt(secret: &str, ours: &Writer<'_>) -> String {
    format!(
        "let this credential adopt it with 'kubectl annotate secret {secret} credentials.itwin.dev/adopt={}': its other \
         keys are then removed, and it is deleted with the credential unless spec.deletionPolicy is Retain",
        ours.name
    )
}

/// The name of a kind or object has only ASCII characters: others, such as line breaks, are not repeated.
fn shown(name: &str) -> String {
    name.chars().take(SHOWN_MAX).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}
