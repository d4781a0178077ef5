//! Several credentials that name one Secret, as the one to write or as their client Secret: which of them may.
//!
//! A Secret is written by one credential, and never one that another credential of the namespace reads as its client
//! Secret. Who is older has the name; a credential that owns the existing Secret by UID keeps it.

use chrono::{DateTime, Utc};

use super::{facts::Refusal, ownership::Marks};
use crate::api::conditions::Reason;

/// A credential that names a Secret. The older comes first; UIDs part those of one second.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// When it was created.
    pub created_at: Option<DateTime<Utc>>,
    /// Its UID.
    pub uid: String,
    /// Its name.
    pub name: String,
}

/// The oldest of `others` that is older than `ours`.
fn oldest_before<'a>(ours: &Claim, others: &'a [Claim]) -> Option<&'a Claim> {
    others.iter().filter(|other| other.uid != ours.uid && *other < ours).min()
}

/// Why a Secret that does not exist yet must not be created for `ours`: of several `writers` the oldest has it, whichever
/// is reconciled first. Once there is a Secret, [`super::ownership::owner`] decides.
#[must_use]
pub fn elder(secret: &str, ours: &Claim, writers: &[Claim]) -> Option<Refusal> {
    let elder = oldest_before(ours, writers)?;
    Some(Refusal::new(
        Reason::SecretNotOwned,
        format!(
            "Secret {secret} is for ITwinServiceCredential {}, which is older and names it too: set spec.secretName to \
             another name in a new credential, or delete the older one",
            elder.name
        ),
    ))
}

/// Why a Secret that `ours` does not own must not become its own, whether it exists or not: one of its `readers`, for
/// which it is the client Secret, is older.
#[must_use]
pub fn older_reader(secret: &str, ours: &Claim, readers: &[Claim]) -> Option<Refusal> {
    let reader = oldest_before(ours, readers)?;
    Some(Refusal::new(
        Reason::SecretNotOwned,
        format!(
            "Secret {secret} is the client Secret of ITwinServiceCredential {}, so that no token is written into it: set \
             spec.secretName to another name in a new credential, or another spec.clientCredentialsRef.name in {}",
            reader.name, reader.name
        ),
    ))
}

/// Why `ours` must not read its client Secret: one of the `writers` of that Secret is older, or owns it by what stands on
/// it, `marks`.
#[must_use]
pub fn writer_of_client(secret: &str, ours: &Claim, writers: &[Claim], marks: Option<&Marks>) -> Option<Refusal> {
    let owner_uid = marks.and_then(Marks::owner_uid);
    let owns = |writer: &&Claim| writer.uid != ours.uid && owner_uid == Some(&writer.uid);
    let writer = writers.iter().find(owns).or_else(|| oldest_before(ours, writers))?;
    Some(Refusal::new(
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

    fn claim(second: i64, uid: &str) -> Claim {
        Claim { created_at: DateTime::from_timestamp(second, 0), uid: uid.into(), name: format!("name-of-{uid}") }
    }

    fn retained_by(uid: &str) -> Marks {
        Marks { owner_uid: Some(uid.into()), ..Marks::default() }
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
        assert_eq!(older_reader("secret", &both[1], &both[..1]), None);
        assert!(writer_of_client("secret", &both[0], &both[1..], None).is_some());
    }

    #[test]
    fn younger_writer_of_a_client_secret_is_refused_and_its_reader_is_not() {
        let (reader, writer) = (claim(1, "reader"), claim(2, "writer"));
        let refusal = older_reader("secret", &writer, std::slice::from_ref(&reader)).expect("a reader");
        assert!(refusal.reason == Reason::SecretNotOwned && refusal.message.contains("name-of-reader"), "{refusal:?}");
        assert_eq!(writer_of_client("secret", &reader, &[writer], None), None);
    }

    #[test]
    fn younger_reader_of_a_secret_that_is_to_be_written_is_refused_and_its_writer_is_not() {
        let (writer, reader) = (claim(1, "writer"), claim(2, "reader"));
        let refusal = writer_of_client("secret", &reader, std::slice::from_ref(&writer), None).expect("a writer");
        assert_eq!(refusal.reason, Reason::ClientCredentialsInvalid);
        assert!(refusal.message.contains("name-of-writer"), "{refusal:?}");
        assert_eq!(older_reader("secret", &writer, &[reader]), None);
    }

    #[test]
    fn reader_of_a_secret_that_a_writer_owns_is_refused_whatever_their_ages() {
        let (reader, writers) = (claim(1, "reader"), [claim(2, "other"), claim(3, "writer")]);
        let refused = |marks: &Marks| writer_of_client("secret", &reader, &writers, Some(marks));
        assert!(refused(&retained_by("writer")).is_some_and(|refusal| refusal.message.contains("name-of-writer")));
        assert_eq!(refused(&retained_by("somebody-else")), None);
    }

    #[test]
    fn credential_contends_with_others_only() {
        let ours = claim(1, "ours");
        let alone = std::slice::from_ref(&ours);
        assert_eq!(elder("secret", &ours, alone), None);
        assert_eq!(older_reader("secret", &ours, alone), None);
        assert_eq!(writer_of_client("secret", &ours, alone, Some(&retained_by("ours"))), None);
    }
}
