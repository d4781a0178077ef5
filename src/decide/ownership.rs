//! May we write this Secret? By UID only.
//!
//! A tenant who may create credentials but not read Secrets must not get hold of somebody's Secret by naming it
//! (stackabletech/secret-operator#707), so an existing Secret is ours only by what stands on the Secret itself.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::facts::Refusal;
use crate::api::{conditions::Reason, secret_keys};

/// What an existing Secret says of its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The owner reference with `controller: true`.
    pub controller: Option<Controller>,
    /// The annotation with the owner's UID.
    pub owner_uid: Option<Arc<str>>,
    /// The annotation by which its owner offers it to a credential.
    pub adopt: Option<Arc<str>>,
    /// The label with the name of the credential that it was written for.
    pub credential: Option<Arc<str>>,
}

/// An owner reference with `controller: true`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Kind, with the API group: `credentials.itwin.dev/ITwinServiceCredential`.
    pub kind: Arc<str>,
    /// Name of the owner.
    pub name: Arc<str>,
    /// UID of the owner.
    pub uid: Arc<str>,
}

/// The kind as it stands in [`Controller::kind`] for our own owner references.
pub const OUR_KIND: &str = "credentials.itwin.dev/ITwinServiceCredential";

/// Who an existing Secret belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This credential.
    Us,
    /// Nobody, or a credential of this name that is gone: it may be taken over, its token is not ours.
    Vacant,
    /// Somebody else.
    Other(Refusal),
}

/// Who the Secret `secret` belongs to, seen from the credential `name` with `uid`.
#[must_use]
pub fn owner(marks: &Marks, secret: &str, name: &str, uid: &str) -> Owner {
    match &marks.controller {
        Some(controller) if *controller.uid == *uid => Owner::Us,
        // names are unique: the owner that had this one is gone, and garbage collection is on its way
        Some(controller) if *controller.kind == *OUR_KIND && *controller.name == *name => Owner::Vacant,
        Some(controller) => Owner::Other(Refusal::new(
            Reason::SecretNotOwned,
            format!(
                "Secret {secret} is controlled by {} {}: set spec.secretName to another name in a new credential, or delete that owner",
                controller.kind.rsplit('/').next().unwrap_or_default(),
                controller.name
            ),
        )),
        None if marks.owner_uid.as_deref() == Some(uid) => Owner::Us,
        None if marks.adopt.as_deref() == Some(name) => Owner::Vacant,
        // the same without an owner reference, as `Retain` and `kubectl delete --cascade=orphan` leave it behind
        None if marks.owner_uid.is_some()
            && marks.credential.as_deref() == Some(&*secret_keys::credential_label(name)) =>
        {
            Owner::Vacant
        }
        None => Owner::Other(Refusal::new(
            Reason::SecretNotOwned,
            format!(
                "Secret {secret} exists and is not ours: delete it, or let this credential take it over with \
                 'kubectl annotate secret {secret} credentials.itwin.dev/adopt={name}'"
            ),
        )),
    }
}

/// A credential that names a Secret as the one to write. The older comes first; UIDs part those of one second.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// When it was created.
    pub created_at: Option<DateTime<Utc>>,
    /// Its UID.
    pub uid: String,
    /// Its name.
    pub name: String,
}

/// Why a Secret that does not exist yet must not be created for `ours`: of several claims the oldest has it, whichever
/// is looked at first. Once there is a Secret, [`owner`] alone decides.
#[must_use]
pub fn elder(secret: &str, ours: &Claim, others: &[Claim]) -> Option<Refusal> {
    let elder = others.iter().filter(|other| other.uid != ours.uid && *other < ours).min()?;
    Some(Refusal::new(
        Reason::SecretNotOwned,
        format!(
            "Secret {secret} is for ITwinServiceCredential {}, which is older and names it too: set spec.secretName to \
             another name in a new credential, or delete the older one",
            elder.name
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(second: i64, uid: &str) -> Claim {
        Claim { created_at: DateTime::from_timestamp(second, 0), uid: uid.into(), name: format!("name-of-{uid}") }
    }

    #[test]
    fn oldest_claim_has_the_secret_whichever_is_looked_at_first() {
        let (old, young) = (claim(1, "b"), claim(2, "a"));
        let both = [young.clone(), old.clone()];
        assert_eq!(elder("secret", &old, &both), None);
        let refusal = elder("secret", &young, &both).expect("an elder");
        assert!(refusal.reason == Reason::SecretNotOwned && refusal.message.contains("name-of-b"), "{refusal:?}");
    }

    #[test]
    fn uid_parts_claims_of_the_same_second() {
        let both = [claim(1, "b"), claim(1, "a")];
        assert_eq!(elder("secret", &both[1], &both), None);
        assert!(elder("secret", &both[0], &both).is_some());
    }

    fn controlled_by(kind: &str, name: &str, uid: &str) -> Marks {
        Marks {
            controller: Some(Controller { kind: kind.into(), name: name.into(), uid: uid.into() }),
            ..Marks::default()
        }
    }

    fn is_foreign(marks: &Marks) -> bool {
        matches!(owner(marks, "secret", "mine", "uid-1"), Owner::Other(refusal) if refusal.reason == Reason::SecretNotOwned)
    }

    #[test]
    fn controller_reference_with_our_uid_is_ours() {
        assert_eq!(owner(&controlled_by(OUR_KIND, "mine", "uid-1"), "secret", "mine", "uid-1"), Owner::Us);
    }

    #[test]
    fn reference_of_a_deleted_credential_of_our_name_can_be_taken_over() {
        assert_eq!(owner(&controlled_by(OUR_KIND, "mine", "uid-0"), "secret", "mine", "uid-1"), Owner::Vacant);
    }

    #[test]
    fn another_credentials_secret_is_foreign() {
        assert!(is_foreign(&controlled_by(OUR_KIND, "theirs", "uid-0")));
    }

    #[test]
    fn another_kind_of_our_name_is_foreign() {
        assert!(is_foreign(&controlled_by("apps/Deployment", "mine", "uid-0")));
    }

    #[test]
    fn unmarked_secret_is_foreign() {
        assert!(is_foreign(&Marks::default()));
    }

    #[test]
    fn annotation_does_not_beat_another_controller() {
        let mut marks = controlled_by("apps/Deployment", "x", "uid-0");
        marks.owner_uid = Some("uid-1".into());
        marks.adopt = Some("mine".into());
        assert!(is_foreign(&marks));
    }

    #[test]
    fn retained_secret_is_ours_by_its_annotation() {
        let marks = Marks { owner_uid: Some("uid-1".into()), ..Marks::default() };
        assert_eq!(owner(&marks, "secret", "mine", "uid-1"), Owner::Us);
    }

    #[test]
    fn secret_left_behind_by_a_credential_of_our_name_can_be_taken_over() {
        let left_by = |name: &str| Marks {
            owner_uid: Some("uid-0".into()),
            credential: Some(secret_keys::credential_label(name).into()),
            ..Marks::default()
        };
        assert_eq!(owner(&left_by("mine"), "secret", "mine", "uid-1"), Owner::Vacant);
        assert!(is_foreign(&left_by("theirs")));
        assert!(is_foreign(&Marks { owner_uid: None, ..left_by("mine") }), "a label alone is anybody's");
        let mut controlled = controlled_by("apps/Deployment", "x", "uid-0");
        controlled.credential = left_by("mine").credential;
        controlled.owner_uid = left_by("mine").owner_uid;
        assert!(is_foreign(&controlled));
    }

    #[test]
    fn offered_secret_can_be_taken_over_by_the_named_credential_only() {
        let offered_to = |name: &str| Marks { adopt: Some(name.into()), ..Marks::default() };
        assert_eq!(owner(&offered_to("mine"), "secret", "mine", "uid-1"), Owner::Vacant);
        assert!(is_foreign(&offered_to("theirs")));
    }
}
