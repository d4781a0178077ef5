//! Whose a Secret is, as far as the credentials of its namespace may be read.
//!
//! The operator knows all credentials, and says of an owner that it does not know that it is gone. A user may not read
//! all of them: what could not be read is not gone.

use itwin_api::conditions::Reason;
use itwin_core::{
    failure::Failure,
    ownership::{self, Named, OUR_KIND, Owner, OwnershipMetadata, Writer},
};

use crate::check::Seen;

/// The longest name of an owner that is shown, in characters.
const SHOWN: usize = 253;

/// The credential that must be read to know whose a Secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// None: the Secret itself says enough.
    Nothing,
    /// The one with this name, if it has this UID.
    Name(&'a str, &'a str),
    /// The one with this UID.
    Uid(&'a str),
}

/// Which other credential must be read.
#[must_use]
pub fn wanted<'a>(ownership: &'a OwnershipMetadata, ours: &Writer<'_>) -> Wanted<'a> {
    let Some(uid) = ownership.owner_uid().filter(|uid| *uid != ours.uid) else { return Wanted::Nothing };
    match (&ownership.controller, &ownership.owner) {
        (Some(controller), _) if *controller.kind != *OUR_KIND => return Wanted::Nothing,
        // a copy of the Secret of another namespace
        (None, Some(owner)) if *owner.namespace != *ours.namespace => return Wanted::Nothing,
        _ => {}
    }
    match name(ownership) {
        // the name is that of this credential, which has another UID
        Some(name) if name != ours.name => Wanted::Name(name, uid),
        _ => Wanted::Uid(uid),
    }
}

/// The name of the owner, as the Secret says.
fn name(ownership: &OwnershipMetadata) -> Option<&str> {
    let of_controller = ownership.controller.as_ref().map(|controller| &*controller.name);
    let name = of_controller.or_else(|| ownership.owner.as_ref().map(|owner| &*owner.name));
    name.filter(|name| !name.is_empty())
}

/// The owner of a Secret from the point of view of a credential, given the other one that owns it.
#[must_use]
pub fn of(ownership: &OwnershipMetadata, secret: &str, ours: &Writer<'_>, other: &Seen<Option<Named>>) -> Owner {
    let find = |_: &str| other.known().cloned().flatten();
    match (ownership::owner(ownership, secret, ours, &find), other) {
        // the operator's message would call the owner gone, and advise to delete its Secret
        (Owner::Other(_), Seen::Unknown(why)) => Owner::Other(of_unknown(secret, name(ownership), why)),
        (owner, _) => owner,
    }
}

fn of_unknown(secret: &str, name: Option<&str>, why: &str) -> Failure {
    let owner = match name {
        Some(name) => format!("ITwinServiceCredential {}", name.chars().take(SHOWN).collect::<String>()),
        None => "another ITwinServiceCredential".to_owned(),
    };
    let message = format!(
        "Secret {secret} belongs to {owner}, and whether that one exists is not known ({why}): ask someone who may \
         read it"
    );
    Failure::new(Reason::SecretNotOwned, message)
}

#[cfg(test)]
mod tests {
    use itwin_core::ownership::Controller;

    use super::*;

    const OURS: Writer<'static> = Writer { namespace: "team-a", name: "younger", uid: "uid-younger" };

    fn named(namespace: &str, name: &str) -> Named {
        Named { namespace: namespace.into(), name: name.into() }
    }

    fn controlled_by(kind: &str, name: &str, uid: &str) -> OwnershipMetadata {
        let controller = Controller { kind: kind.into(), name: name.into(), uid: uid.into() };
        OwnershipMetadata { controller: Some(controller), owner_uid: Some(uid.into()), ..OwnershipMetadata::default() }
    }

    fn retained_by(namespace: &str, name: &str) -> OwnershipMetadata {
        let owner = Some(named(namespace, name));
        OwnershipMetadata { owner_uid: Some("uid-0".into()), owner, ..OwnershipMetadata::default() }
    }

    #[test]
    fn owner_is_read_by_the_name_that_the_secret_says() {
        assert_eq!(wanted(&controlled_by(OUR_KIND, "older", "uid-0"), &OURS), Wanted::Name("older", "uid-0"));
        assert_eq!(wanted(&retained_by("team-a", "older"), &OURS), Wanted::Name("older", "uid-0"));
        for without_a_name in [controlled_by(OUR_KIND, "younger", "uid-0"), controlled_by(OUR_KIND, "", "uid-0")] {
            assert_eq!(wanted(&without_a_name, &OURS), Wanted::Uid("uid-0"));
        }
        for known in [
            OwnershipMetadata::default(),
            controlled_by(OUR_KIND, "younger", "uid-younger"),
            controlled_by("apps/Deployment", "app", "uid-0"),
            retained_by("team-b", "older"),
        ] {
            assert_eq!(wanted(&known, &OURS), Wanted::Nothing, "{known:?}");
        }
    }

    #[test]
    fn secret_is_to_be_deleted_only_if_its_owner_is_known_to_be_gone() {
        let message = |ownership: &OwnershipMetadata, other: &Seen<Option<Named>>| {
            let owner = of(ownership, "team-a/shared", &OURS, other);
            if let Owner::Other(failure) = owner { failure.message } else { format!("{owner:?}") }
        };
        for ownership in [controlled_by(OUR_KIND, "older", "uid-0"), retained_by("team-a", "older")] {
            let exists = message(&ownership, &Seen::Known(Some(named("team-a", "older"))));
            assert!(exists.contains("belongs to ITwinServiceCredential older, which exists"), "{exists}");
            let unknown = message(&ownership, &Seen::Unknown("forbidden".to_owned()));
            assert!(unknown.contains("belongs to ITwinServiceCredential older, and whether"), "{unknown}");
            assert!(unknown.contains("forbidden") && !unknown.contains("delete"), "{unknown}");
            let gone = message(&ownership, &Seen::Known(None));
            assert!(gone.contains("delete"), "{gone}");
        }
        let ours = controlled_by(OUR_KIND, "younger", "uid-younger");
        assert_eq!(of(&ours, "team-a/shared", &OURS, &Seen::Unknown(String::new())), Owner::Us);
    }
}
