//! Contention for a Secret: which of several credentials may write or read it.
//!
//! One credential writes a Secret, and no credential writes a Secret that another credential of the namespace reads as
//! its client Secret. The oldest contender gets the name. A credential that owns the existing Secret by UID keeps it.

use chrono::{DateTime, Utc};
use itwin_api::conditions::Reason;

use crate::{
    failure::Failure,
    ownership::{Named, OwnershipMetadata},
};

/// A credential that names a Secret. Contenders are ordered by age; UIDs order those created in the same second.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contender {
    /// When it was created.
    pub created_at: Option<DateTime<Utc>>,
    /// Its UID.
    pub uid: String,
    /// Its name.
    pub name: String,
}

/// The oldest of `others` that is older than `ours`.
fn oldest_before<'a>(ours: &Contender, others: &'a [Contender]) -> Option<&'a Contender> {
    others.iter().filter(|other| other.uid != ours.uid && *other < ours).min()
}

/// Why `ours` must not create the Secret, which does not exist yet: the oldest of several `writers` creates it, in
/// whatever order they are reconciled. If the Secret exists, [`super::ownership::owner`] decides.
#[must_use]
pub fn oldest_contender(secret: &str, ours: &Contender, writers: &[Contender]) -> Option<Failure> {
    let oldest_contender = oldest_before(ours, writers)?;
    Some(Failure::new(
        Reason::SecretNotOwned,
        format!(
            "Secret {secret} is for ITwinServiceCredential {}, which is older and names it too: set spec.secretName to \
             another name in a new credential, or delete the older one",
            oldest_contender.name
        ),
    ))
}

/// Why `ours` must not create or adopt the Secret: one of the `readers` that use it as their client Secret is older.
#[must_use]
pub fn older_reader(secret: &str, ours: &Contender, readers: &[Contender]) -> Option<Failure> {
    let reader = oldest_before(ours, readers)?;
    Some(Failure::new(
        Reason::SecretNotOwned,
        format!(
            "Secret {secret} is the client Secret of ITwinServiceCredential {}, so no token is written into it: set \
             spec.secretName to another name in a new credential, or another spec.clientCredentialsRef.name in {}",
            reader.name, reader.name
        ),
    ))
}

/// Whether a Secret names this credential as its owner.
fn is_named(ownership: &OwnershipMetadata, secret: &str, writer: &Contender) -> bool {
    let namespace = secret.split_once('/').map_or("", |(namespace, _)| namespace);
    let is_of = |owner: &Named| *owner.namespace == *namespace && *owner.name == *writer.name;
    ownership.owner.as_ref().is_some_and(is_of)
}

/// Whether a Secret is offered to this credential, or was left behind by an earlier one with its namespace and name.
fn is_for(ownership: &OwnershipMetadata, secret: &str, writer: &Contender) -> bool {
    ownership.adopt.as_deref() == Some(&writer.name) || is_named(ownership, secret, writer)
}

/// Why `ours` must not read its client Secret: one of the `writers` of that Secret owns it according to its ownership
/// metadata, or is older and would create or adopt it. `ownership` is `None` unless the Secret is known to exist: one
/// that does, and that no writer may take, is the client Secret that `ours` names, also if a writer names it.
#[must_use]
pub fn writer_of_client(
    secret: &str,
    ours: &Contender,
    writers: &[Contender],
    ownership: Option<&OwnershipMetadata>,
) -> Option<Failure> {
    let others = || writers.iter().filter(|writer| writer.uid != ours.uid);
    let writer = match ownership {
        None => oldest_before(ours, writers)?,
        Some(ownership) => {
            // as `super::ownership::owner` decides
            let owns = |writer: &&Contender| {
                ownership.owner_uid().map_or_else(|| is_named(ownership, secret, writer), |uid| uid == writer.uid)
            };
            let adopts = |writer: &&Contender| *writer < ours && is_for(ownership, secret, writer);
            others().find(owns).or_else(|| others().find(adopts))?
        }
    };
    Some(Failure::new(
        Reason::ClientCredentialsInvalid,
        format!(
            "Secret {secret} is the token Secret of ITwinServiceCredential {}, and not a client Secret: set \
             spec.clientCredentialsRef.name to the Secret with the client's credentials, or delete {}",
            writer.name, writer.name
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contender(second: i64, uid: &str) -> Contender {
        Contender { created_at: DateTime::from_timestamp(second, 0), uid: uid.into(), name: format!("name-of-{uid}") }
    }

    fn retained_by(uid: &str) -> OwnershipMetadata {
        OwnershipMetadata { owner_uid: Some(uid.into()), ..OwnershipMetadata::default() }
    }

    #[test]
    fn oldest_contender_gets_the_secret_in_any_order_of_reconciliation() {
        let (old, young) = (contender(1, "b"), contender(2, "a"));
        let both = [young.clone(), old.clone()];
        assert_eq!(oldest_contender("secret", &old, &both), None);
        let failure = oldest_contender("secret", &young, &both).expect("an older contender");
        assert!(failure.reason == Reason::SecretNotOwned && failure.message.contains("name-of-b"), "{failure:?}");
    }

    #[test]
    fn uid_orders_contenders_of_the_same_second() {
        let both = [contender(1, "b"), contender(1, "a")];
        assert_eq!(oldest_contender("secret", &both[1], &both), None);
        assert!(oldest_contender("secret", &both[0], &both).is_some());
        assert_eq!(older_reader("secret", &both[1], &both[..1]), None);
        assert!(writer_of_client("secret", &both[0], &both[1..], None).is_some());
    }

    #[test]
    fn younger_writer_of_a_client_secret_fails_and_its_reader_does_not() {
        let (reader, writer) = (contender(1, "reader"), contender(2, "writer"));
        let failure = older_reader("secret", &writer, std::slice::from_ref(&reader)).expect("a reader");
        assert!(failure.reason == Reason::SecretNotOwned && failure.message.contains("name-of-reader"), "{failure:?}");
        assert_eq!(writer_of_client("secret", &reader, &[writer], None), None);
    }

    #[test]
    fn younger_reader_of_a_token_secret_fails_and_its_writer_does_not() {
        let (writer, reader) = (contender(1, "writer"), contender(2, "reader"));
        let failure = writer_of_client("secret", &reader, std::slice::from_ref(&writer), None).expect("a writer");
        assert_eq!(failure.reason, Reason::ClientCredentialsInvalid);
        assert!(failure.message.contains("name-of-writer"), "{failure:?}");
        assert_eq!(older_reader("secret", &writer, &[reader]), None);
    }

    #[test]
    fn reader_of_a_secret_that_a_writer_owns_fails_regardless_of_their_ages() {
        let (reader, writers) = (contender(1, "reader"), [contender(2, "other"), contender(3, "writer")]);
        let failure = |ownership: &OwnershipMetadata| writer_of_client("secret", &reader, &writers, Some(ownership));
        assert!(failure(&retained_by("writer")).is_some_and(|failure| failure.message.contains("name-of-writer")));
        assert_eq!(failure(&retained_by("another")), None);
    }

    #[test]
    fn client_secret_that_exists_is_read_although_an_older_credential_names_it() {
        let (writer, reader) = (contender(1, "writer"), contender(2, "reader"));
        let is_refused = |ownership: &OwnershipMetadata, reader: &Contender| {
            writer_of_client("team/secret", reader, std::slice::from_ref(&writer), Some(ownership)).is_some()
        };
        let of_user = OwnershipMetadata::default();
        assert!(!is_refused(&of_user, &reader));
        assert!(!is_refused(&retained_by("another"), &reader));
        assert!(is_refused(&retained_by("writer"), &reader), "it is the token Secret");
        let named = |namespace: &str, name: &str| Some(Named { namespace: namespace.into(), name: name.into() });
        let left_behind = |namespace: &str, name: &str| OwnershipMetadata {
            owner: named(namespace, name),
            ..retained_by("predecessor")
        };
        let offered = |name: &str| OwnershipMetadata { adopt: Some(name.into()), ..OwnershipMetadata::default() };
        assert!(is_refused(&offered("name-of-writer"), &reader) && !is_refused(&offered("another"), &reader));
        assert!(is_refused(&left_behind("team", "name-of-writer"), &reader), "the writer is to adopt it");
        for (namespace, name) in [("team", "another"), ("elsewhere", "name-of-writer")] {
            assert!(!is_refused(&left_behind(namespace, name), &reader), "{namespace}/{name}");
        }
        let older_reader = contender(0, "reader");
        assert!(!is_refused(&offered("name-of-writer"), &older_reader), "the writer may not adopt it");
        assert!(!is_refused(&left_behind("team", "name-of-writer"), &older_reader), "the same");
        let without_uid = OwnershipMetadata { owner: named("team", "name-of-writer"), ..OwnershipMetadata::default() };
        assert!(is_refused(&without_uid, &older_reader), "it is the token Secret, which lost its UID");
    }

    #[test]
    fn credential_contends_with_others_only() {
        let ours = contender(1, "ours");
        let alone = std::slice::from_ref(&ours);
        assert_eq!(oldest_contender("secret", &ours, alone), None);
        assert_eq!(older_reader("secret", &ours, alone), None);
        assert_eq!(writer_of_client("secret", &ours, alone, Some(&retained_by("ours"))), None);
    }
}
