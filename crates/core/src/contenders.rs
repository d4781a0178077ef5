//! Several credentials that name one Secret, as the one to write or as their client Secret: which of them may.
//!
//! A Secret is written by one credential, and never one that another credential of the namespace reads as its client
//! Secret. Who is older has the name; a credential that owns the existing Secret by UID keeps it.

use chrono::{DateTime, Utc};
use itwin_api::{conditions::Reason, failure::Failure};

use crate::ownership::OwnershipMetadata;

/// A credential that names a Secret. The older comes first; UIDs part those of one second.
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

/// Why a Secret that does not exist yet must not be created for `ours`: of several `writers` the oldest has it, whichever
/// is reconciled first. Once there is a Secret, [`super::ownership::owner`] decides.
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

/// Why a Secret that `ours` does not own must not become its own, whether it exists or not: one of its `readers`, for
/// which it is the client Secret, is older.
#[must_use]
pub fn older_reader(secret: &str, ours: &Contender, readers: &[Contender]) -> Option<Failure> {
    let reader = oldest_before(ours, readers)?;
    Some(Failure::new(
        Reason::SecretNotOwned,
        format!(
            "Secret {secret} is the client Secret of ITwinServiceCredential {}, so that no token is written into it: set \
             spec.secretName to another name in a new credential, or another spec.clientCredentialsRef.name in {}",
            reader.name, reader.name
        ),
    ))
}

/// Why `ours` must not read its client Secret: one of the `writers` of that Secret is older, or owns it by what stands on
/// it, `ownership`.
#[must_use]
pub fn writer_of_client(
    secret: &str,
    ours: &Contender,
    writers: &[Contender],
    ownership: Option<&OwnershipMetadata>,
) -> Option<Failure> {
    let owner_uid = ownership.and_then(OwnershipMetadata::owner_uid);
    let owns = |writer: &&Contender| writer.uid != ours.uid && owner_uid == Some(&writer.uid);
    let writer = writers.iter().find(owns).or_else(|| oldest_before(ours, writers))?;
    Some(Failure::new(
        Reason::ClientCredentialsInvalid,
        format!(
            "Secret {secret} is the one that ITwinServiceCredential {} writes its token into, and no client Secret: set \
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
    fn oldest_contender_has_the_secret_whichever_is_reconciled_first() {
        let (old, young) = (contender(1, "b"), contender(2, "a"));
        let both = [young.clone(), old.clone()];
        assert_eq!(oldest_contender("secret", &old, &both), None);
        let failure = oldest_contender("secret", &young, &both).expect("an elder");
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
    fn younger_writer_of_a_client_secret_is_refused_and_its_reader_is_not() {
        let (reader, writer) = (contender(1, "reader"), contender(2, "writer"));
        let failure = older_reader("secret", &writer, std::slice::from_ref(&reader)).expect("a reader");
        assert!(failure.reason == Reason::SecretNotOwned && failure.message.contains("name-of-reader"), "{failure:?}");
        assert_eq!(writer_of_client("secret", &reader, &[writer], None), None);
    }

    #[test]
    fn younger_reader_of_a_secret_that_is_to_be_written_is_refused_and_its_writer_is_not() {
        let (writer, reader) = (contender(1, "writer"), contender(2, "reader"));
        let failure = writer_of_client("secret", &reader, std::slice::from_ref(&writer), None).expect("a writer");
        assert_eq!(failure.reason, Reason::ClientCredentialsInvalid);
        assert!(failure.message.contains("name-of-writer"), "{failure:?}");
        assert_eq!(older_reader("secret", &writer, &[reader]), None);
    }

    #[test]
    fn reader_of_a_secret_that_a_writer_owns_is_refused_whatever_their_ages() {
        let (reader, writers) = (contender(1, "reader"), [contender(2, "other"), contender(3, "writer")]);
        let refused = |ownership: &OwnershipMetadata| writer_of_client("secret", &reader, &writers, Some(ownership));
        assert!(refused(&retained_by("writer")).is_some_and(|failure| failure.message.contains("name-of-writer")));
        assert_eq!(refused(&retained_by("somebody-else")), None);
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
