//! Who owns an existing Secret, decided by UIDs and by the namespace and name in its ownership metadata.
//!
//! A tenant who may create credentials but not read Secrets must not take over another user's Secret by naming it
//! (stackabletech/secret-operator#707). So neither a label nor a name in a spec alone decides. A Secret of a credential
//! carries its UID. A Secret that a deleted credential left behind carries the namespace and name, and a UID that no
//! credential has. Where the UID was removed, the namespace and name on the Secret decide: anyone who may write that
//! annotation may write the one with the UID too.

mod messages;
mod metadata;

pub use self::metadata::{Controller, Named, OUR_KIND, OwnershipMetadata, Writer};
use crate::failure::Failure;

/// The owner of an existing Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This credential.
    Us,
    /// No one: its owner was a deleted credential with this namespace and name, or a user offers it. This credential
    /// may adopt it, but does not trust its token.
    Adoptable,
    /// Someone else.
    Other(Failure),
}

/// The owner of `secret` from the point of view of the credential `ours`. `find` returns the existing credential with a
/// UID.
#[must_use]
pub fn owner(
    ownership: &OwnershipMetadata,
    secret: &str,
    ours: &Writer<'_>,
    find: &dyn Fn(&str) -> Option<Named>,
) -> Owner {
    let Some(uid) = ownership.owner_uid() else {
        return if ours.is_named_by(ownership.owner.as_ref()) {
            // only the annotation with the UID was removed, which is reverted like any other edit
            Owner::Us
        } else if ownership.adopt.as_deref() == Some(ours.name) {
            Owner::Adoptable
        } else {
            Owner::Other(messages::without_owner(secret, ours))
        };
    };
    if uid == ours.uid {
        return Owner::Us;
    }
    match &ownership.controller {
        Some(controller) if *controller.kind != *OUR_KIND => {
            return Owner::Other(messages::controlled(secret, controller));
        }
        _ => {}
    }
    if let Some(existing) = find(uid) {
        return Owner::Other(messages::owned(secret, ours, &existing, ownership.owner.as_ref()));
    }
    let is_our_name = ours.is_named_by(ownership.owner.as_ref());
    match &ownership.controller {
        // garbage collection will delete it; a reference to another name was set by someone else
        Some(controller) if is_our_name && *controller.name == *ours.name => Owner::Adoptable,
        Some(controller) => {
            Owner::Other(messages::of_missing_controller(secret, ours, controller, ownership.owner.as_ref()))
        }
        None if is_our_name || ownership.adopt.as_deref() == Some(ours.name) => Owner::Adoptable,
        None => Owner::Other(messages::left_behind(secret, ours, ownership.owner.as_ref())),
    }
}

#[cfg(test)]
mod tests {
    use itwin_api::conditions::Reason;

    use super::*;

    const OURS: Writer<'static> = Writer { namespace: "team-a", name: "mine", uid: "uid-1" };

    fn named(namespace: &str, name: &str) -> Named {
        Named { namespace: namespace.into(), name: name.into() }
    }

    fn empty() -> OwnershipMetadata {
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

    /// The owner from the point of view of [`OURS`] if no other credential exists.
    fn of(ownership: &OwnershipMetadata) -> Owner {
        owner(ownership, "secret", &OURS, &|_| None)
    }

    /// The same if a credential of this name exists with the UID `uid-0`.
    fn of_existing(ownership: &OwnershipMetadata, namespace: &str, name: &str) -> Owner {
        owner(ownership, "secret", &OURS, &|uid| (uid == "uid-0").then(|| named(namespace, name)))
    }

    /// Why the Secret is not owned.
    fn message(owner: Owner) -> String {
        let Owner::Other(failure) = owner else { return format!("{owner:?}, which is not a failure") };
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
    fn another_controller_takes_precedence_over_annotations() {
        let mut ownership =
            controlled_by("apps/Deployment", "mine", "uid-0").named("team-a", "mine").offered_to("mine");
        ownership.owner_uid = Some("uid-1".into());
        assert!(message(of(&ownership)).contains("controlled by Deployment mine"));
    }

    #[test]
    fn secret_left_behind_by_a_credential_of_our_namespace_and_name_is_adoptable() {
        assert_eq!(of(&controlled_by(OUR_KIND, "mine", "uid-0").named("team-a", "mine")), Owner::Adoptable);
        assert_eq!(of(&retained_by("uid-0").named("team-a", "mine")), Owner::Adoptable);
    }

    #[test]
    fn secret_left_behind_that_names_no_owner_must_be_offered() {
        assert!(message(of(&controlled_by(OUR_KIND, "mine", "uid-0"))).contains("delete the Secret"));
        let message = message(of(&retained_by("uid-0")));
        for text in ["adopt=mine'", "its other keys are then removed", "unless spec.deletionPolicy is Retain"] {
            assert!(message.contains(text), "{message}");
        }
        assert_eq!(of(&retained_by("uid-0").offered_to("mine")), Owner::Adoptable);
    }

    #[test]
    fn secret_left_behind_by_another_name_must_be_offered() {
        let ownership = retained_by("uid-0").named("team-a", "theirs");
        assert!(message(of(&ownership)).contains("left behind by ITwinServiceCredential theirs"));
        assert_eq!(of(&ownership.offered_to("mine")), Owner::Adoptable);
    }

    #[test]
    fn secret_that_names_us_and_lost_its_uid_is_ours_and_that_of_another_name_or_namespace_is_not() {
        assert_eq!(of(&empty().named("team-a", "mine")), Owner::Us);
        assert_eq!(of(&empty().named("team-a", "mine").offered_to("theirs")), Owner::Us);
        for (namespace, name) in [("team-a", "theirs"), ("team-b", "mine"), ("", ""), ("team-a", "")] {
            assert!(message(of(&empty().named(namespace, name))).contains("is not owned"), "{namespace}/{name}");
        }
        let mut controlled = controlled_by("apps/Deployment", "mine", "uid-0").named("team-a", "mine");
        controlled.owner_uid = None;
        assert!(message(of(&controlled)).contains("controlled by Deployment mine"));
    }

    #[test]
    fn controller_of_another_name_takes_precedence_over_the_owner_annotation() {
        let ownership = controlled_by(OUR_KIND, "theirs", "uid-0").named("team-a", "mine");
        assert!(message(of(&ownership)).contains("ITwinServiceCredential theirs"));
    }

    #[test]
    fn copy_from_another_namespace_is_not_owned_and_the_message_names_the_original() {
        for copied in [controlled_by(OUR_KIND, "mine", "uid-0"), retained_by("uid-0")] {
            let copied = copied.named("team-b", "mine");
            for owner in [of(&copied), of_existing(&copied, "team-b", "mine")] {
                let message = message(owner);
                let copy = "is a copy of the Secret of ITwinServiceCredential team-b/mine: delete it";
                assert!(message.contains(copy), "{message}");
            }
        }
    }

    #[test]
    fn owner_in_another_namespace_is_not_named_unless_the_secret_names_it() {
        let message = message(of_existing(&retained_by("uid-0").named("team-a", "mine"), "team-b", "hidden"));
        assert!(message.contains("a copy") && !message.contains("team-b") && !message.contains("hidden"), "{message}");
    }

    #[test]
    fn secret_of_an_existing_owner_is_not_adoptable_even_if_it_is_offered_and_has_our_name() {
        for ownership in [retained_by("uid-0"), controlled_by(OUR_KIND, "mine", "uid-0")] {
            let ownership = ownership.named("team-a", "mine").offered_to("mine");
            let message = message(of_existing(&ownership, "team-a", "theirs"));
            assert!(message.contains("belongs to ITwinServiceCredential theirs, which exists"), "{message}");
        }
    }

    #[test]
    fn secret_without_ownership_metadata_is_not_owned_until_it_is_offered() {
        assert!(message(of(&empty())).contains("adopt=mine"));
        assert!(message(of(&empty().offered_to("theirs"))).contains("adopt=mine"));
        assert_eq!(of(&empty().offered_to("mine")), Owner::Adoptable);
    }

    #[test]
    fn controller_that_no_longer_exists_takes_precedence_over_an_offer() {
        let ownership = controlled_by(OUR_KIND, "theirs", "uid-0").named("team-a", "theirs").offered_to("mine");
        assert!(message(of(&ownership)).contains("delete the Secret"));
    }

    #[test]
    fn name_of_an_owner_begins_no_line_of_a_log() {
        for kind in ["apps/Deployment\u{1b}[2J", OUR_KIND] {
            let ownership = controlled_by(kind, "a\n2026-01-01T00:00:00Z ERROR forged", "uid-0");
            let message = message(of(&ownership));
            assert!(message.contains(" a?2026-01-01T00:00:00Z?ERROR?forged"), "{message}");
            assert!(!message.contains(char::is_control), "{message:?}");
        }
    }

    #[test]
    fn long_name_of_an_owner_is_truncated() {
        let ownership = controlled_by("apps/Deployment", &"é".repeat(10_000), "uid-0");
        assert!(message(of(&ownership)).len() < 1000);
    }
}
