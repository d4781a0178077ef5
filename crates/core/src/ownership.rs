//! Whose is an existing Secret? Decided by UIDs, and by the namespace and name that stand on the Secret itself.
//!
//! A tenant who may create credentials but not read Secrets must not get hold of somebody's Secret by naming it
//! (stackabletech/secret-operator#707). So no label and no name alone decides: a Secret of ours carries our UID, and one
//! that a predecessor left behind carries our namespace and name, and a UID that no credential has any more.

use std::sync::Arc;

use itwin_api::{conditions::Reason, failure::Failure};

/// The longest part of a name that a message repeats: as long as a name of Kubernetes may be. An owner reference is not
/// checked for that.
const SHOWN_MAX: usize = 253;

/// Namespace and name of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// What an existing Secret says of its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnershipMetadata {
    /// The owner reference with `controller: true`.
    pub controller: Option<Controller>,
    /// The annotation with the owner's UID.
    pub owner_uid: Option<Arc<str>>,
    /// The annotation with the owner's namespace and name; absent where it holds anything else.
    pub owner: Option<Named>,
    /// The annotation by which its owner offers it to a credential.
    pub adopt: Option<Arc<str>>,
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

/// The credential that wants to write a Secret.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// Its namespace, which is the Secret's.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
}

/// Who an existing Secret belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This credential.
    Us,
    /// No one: its owner was a credential of this namespace and name that is gone, or it was offered. It may be taken
    /// over; its token is not ours.
    Adoptable,
    /// Somebody else.
    Other(Failure),
}

impl OwnershipMetadata {
    /// The UID of the credential that it belongs to: that of its controller, or without one that of the annotation.
    #[must_use]
    pub fn owner_uid(&self) -> Option<&str> {
        self.controller.as_ref().map(|controller| &controller.uid).or(self.owner_uid.as_ref()).map(|uid| &**uid)
    }
}

impl Writer<'_> {
    fn is_named_by(&self, owner: Option<&Named>) -> bool {
        owner.is_some_and(|owner| *owner.namespace == *self.namespace && *owner.name == *self.name)
    }
}

/// Who the Secret `secret` belongs to, seen from the credential `ours`. `living` finds the credential that has a UID now.
#[must_use]
pub fn owner(
    ownership: &OwnershipMetadata,
    secret: &str,
    ours: &Writer<'_>,
    living: &dyn Fn(&str) -> Option<Named>,
) -> Owner {
    let Some(uid) = ownership.owner_uid() else {
        return match ownership.adopt.as_deref() {
            Some(adopt) if adopt == ours.name => Owner::Adoptable,
            _ => Owner::Other(unmarked(secret, ours)),
        };
    };
    if uid == ours.uid {
        return Owner::Us;
    }
    match &ownership.controller {
        Some(controller) if *controller.kind != *OUR_KIND => return Owner::Other(controlled(secret, controller)),
        _ => {}
    }
    if let Some(alive) = living(uid) {
        return Owner::Other(owned(secret, ours, &alive, ownership.owner.as_ref()));
    }
    let left_by_us = ours.is_named_by(ownership.owner.as_ref());
    match &ownership.controller {
        // garbage collection is on its way; a reference to another name was put there by somebody else
        Some(controller) if left_by_us && *controller.name == *ours.name => Owner::Adoptable,
        Some(controller) => Owner::Other(ownerless(secret, ours, controller, ownership.owner.as_ref())),
        None if left_by_us || ownership.adopt.as_deref() == Some(ours.name) => Owner::Adoptable,
        None => Owner::Other(left_behind(secret, ours, ownership.owner.as_ref())),
    }
}

fn not_owned(message: String) -> Failure {
    Failure::new(Reason::SecretNotOwned, message)
}

fn unmarked(secret: &str, ours: &Writer<'_>) -> Failure {
    not_owned(format!(
        "Secret {secret} exists and is not ours: delete it, or let this credential take it over with \
         'kubectl annotate secret {secret} credentials.itwin.dev/adopt={}'",
        ours.name
    ))
}

fn controlled(secret: &str, controller: &Controller) -> Failure {
    let kind = controller.kind.rsplit('/').next().unwrap_or_default();
    not_owned(format!(
        "Secret {secret} is controlled by {} {}: set spec.secretName to another name in a new credential, or delete that \
         owner",
        shown(kind),
        shown(&controller.name)
    ))
}

/// Its owner exists. One of another namespace is named only where the Secret itself names it.
fn owned(secret: &str, ours: &Writer<'_>, alive: &Named, owner: Option<&Named>) -> Failure {
    if *alive.namespace != *ours.namespace {
        return copy(secret, owner.filter(|owner| *owner == alive));
    }
    not_owned(format!(
        "Secret {secret} belongs to ITwinServiceCredential {}, which exists: set spec.secretName to another name in a new \
         credential, or delete that one",
        alive.name
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

/// Its controller was a credential that is gone, and not certainly one of ours.
fn ownerless(secret: &str, ours: &Writer<'_>, controller: &Controller, owner: Option<&Named>) -> Failure {
    if let Some(owner) = owner.filter(|owner| *owner.namespace != *ours.namespace) {
        return copy(secret, Some(owner));
    }
    not_owned(format!(
        "Secret {secret} is controlled by an ITwinServiceCredential {} that does not exist in this namespace: delete the \
         Secret, and this credential creates its own",
        shown(&controller.name)
    ))
}

fn left_behind(secret: &str, ours: &Writer<'_>, owner: Option<&Named>) -> Failure {
    let adopt = format!("'kubectl annotate secret {secret} credentials.itwin.dev/adopt={}'", ours.name);
    let what = match owner {
        Some(Named { namespace, name }) if **namespace != *ours.namespace => {
            format!("is a copy of the Secret of ITwinServiceCredential {namespace}/{name}")
        }
        Some(owner) => format!("was left behind by ITwinServiceCredential {}", owner.name),
        None => "was left behind by a credential whose name it does not carry".to_owned(),
    };
    not_owned(format!("Secret {secret} {what}: delete it, or let this credential take it over with {adopt}"))
}

fn shown(name: &str) -> &str {
    name.char_indices().nth(SHOWN_MAX).map_or(name, |(end, _)| &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Writer<'static> = Writer { namespace: "team-a", name: "mine", uid: "uid-1" };

    fn named(namespace: &str, name: &str) -> Named {
        Named { namespace: namespace.into(), name: name.into() }
    }

    fn unmarked() -> OwnershipMetadata {
        OwnershipMetadata::default()
    }

    fn retained_by(uid: &str) -> OwnershipMetadata {
        OwnershipMetadata { owner_uid: Some(uid.into()), ..OwnershipMetadata::default() }
    }

    fn controlled_by(kind: &str, name: &str, uid: &str) -> OwnershipMetadata {
        let controller = Controller { kind: kind.into(), name: name.into(), uid: uid.into() };
        OwnershipMetadata { controller: Some(controller), ..retained_by(uid) }
    }

    impl OwnershipMetadata {
        fn named(self, namespace: &str, name: &str) -> Self {
            Self { owner: Some(named(namespace, name)), ..self }
        }

        fn offered_to(self, name: &str) -> Self {
            Self { adopt: Some(name.into()), ..self }
        }
    }

    /// Seen from [`OURS`], where all credentials that own any Secret are gone.
    fn of(ownership: &OwnershipMetadata) -> Owner {
        owner(ownership, "secret", &OURS, &|_| None)
    }

    /// The same where the credential of this name has the UID `uid-0`.
    fn of_living(ownership: &OwnershipMetadata, namespace: &str, name: &str) -> Owner {
        owner(ownership, "secret", &OURS, &|uid| (uid == "uid-0").then(|| named(namespace, name)))
    }

    /// Why it is refused.
    fn message(owner: Owner) -> String {
        let Owner::Other(failure) = owner else { return format!("{owner:?}, which is not refused") };
        assert_eq!(failure.reason, Reason::SecretNotOwned);
        failure.message
    }

    #[test]
    fn controller_reference_with_our_uid_is_ours() {
        assert_eq!(of(&controlled_by(OUR_KIND, "mine", "uid-1").named("team-a", "mine")), Owner::Us);
    }

    #[test]
    fn annotation_with_our_uid_is_ours_without_a_controller() {
        assert_eq!(of(&retained_by("uid-1").named("team-a", "mine")), Owner::Us);
    }

    #[test]
    fn secret_of_an_earlier_version_is_ours_by_its_uid() {
        assert_eq!(of(&controlled_by(OUR_KIND, "mine", "uid-1")), Owner::Us);
        assert_eq!(of(&retained_by("uid-1")), Owner::Us);
    }

    #[test]
    fn another_controller_beats_every_annotation() {
        let mut ownership =
            controlled_by("apps/Deployment", "mine", "uid-0").named("team-a", "mine").offered_to("mine");
        ownership.owner_uid = Some("uid-1".into());
        assert!(message(of(&ownership)).contains("controlled by Deployment mine"));
    }

    #[test]
    fn secret_left_behind_by_a_credential_of_our_namespace_and_name_can_be_taken_over() {
        assert_eq!(of(&controlled_by(OUR_KIND, "mine", "uid-0").named("team-a", "mine")), Owner::Adoptable);
        assert_eq!(of(&retained_by("uid-0").named("team-a", "mine")), Owner::Adoptable);
    }

    #[test]
    fn secret_left_behind_that_names_no_owner_must_be_offered() {
        assert!(message(of(&controlled_by(OUR_KIND, "mine", "uid-0"))).contains("delete the Secret"));
        assert!(message(of(&retained_by("uid-0"))).contains("adopt=mine"));
        assert_eq!(of(&retained_by("uid-0").offered_to("mine")), Owner::Adoptable);
    }

    #[test]
    fn secret_left_behind_by_another_name_must_be_offered() {
        let ownership = retained_by("uid-0").named("team-a", "theirs");
        assert!(message(of(&ownership)).contains("left behind by ITwinServiceCredential theirs"));
        assert_eq!(of(&ownership.offered_to("mine")), Owner::Adoptable);
    }

    #[test]
    fn owner_annotation_without_a_uid_proves_nothing() {
        assert!(message(of(&unmarked().named("team-a", "mine"))).contains("is not ours"));
    }

    #[test]
    fn controller_of_another_name_beats_the_owner_annotation() {
        let ownership = controlled_by(OUR_KIND, "theirs", "uid-0").named("team-a", "mine");
        assert!(message(of(&ownership)).contains("ITwinServiceCredential theirs"));
    }

    #[test]
    fn copy_from_another_namespace_is_refused_and_its_original_named() {
        for copied in [controlled_by(OUR_KIND, "mine", "uid-0"), retained_by("uid-0")] {
            let copied = copied.named("team-b", "mine");
            for seen in [of(&copied), of_living(&copied, "team-b", "mine")] {
                let message = message(seen);
                let copy = "is a copy of the Secret of ITwinServiceCredential team-b/mine: delete it";
                assert!(message.contains(copy), "{message}");
            }
        }
    }

    #[test]
    fn owner_in_another_namespace_that_the_secret_does_not_name_is_not_named() {
        let message = message(of_living(&retained_by("uid-0").named("team-a", "mine"), "team-b", "hidden"));
        assert!(message.contains("a copy") && !message.contains("team-b") && !message.contains("hidden"), "{message}");
    }

    #[test]
    fn secret_of_a_living_owner_is_not_vacant_even_where_it_is_offered_and_bears_our_name() {
        for ownership in [retained_by("uid-0"), controlled_by(OUR_KIND, "mine", "uid-0")] {
            let ownership = ownership.named("team-a", "mine").offered_to("mine");
            let message = message(of_living(&ownership, "team-a", "theirs"));
            assert!(message.contains("belongs to ITwinServiceCredential theirs, which exists"), "{message}");
        }
    }

    #[test]
    fn unmarked_secret_is_somebody_elses_until_it_is_offered_to_us() {
        assert!(message(of(&unmarked())).contains("adopt=mine"));
        assert!(message(of(&unmarked().offered_to("theirs"))).contains("adopt=mine"));
        assert_eq!(of(&unmarked().offered_to("mine")), Owner::Adoptable);
    }

    #[test]
    fn offer_does_not_beat_a_controller_that_is_gone() {
        let ownership = controlled_by(OUR_KIND, "theirs", "uid-0").named("team-a", "theirs").offered_to("mine");
        assert!(message(of(&ownership)).contains("delete the Secret"));
    }

    #[test]
    fn long_name_of_an_owner_is_cut() {
        let ownership = controlled_by("apps/Deployment", &"é".repeat(10_000), "uid-0");
        assert!(message(of(&ownership)).len() < 1000);
    }
}
