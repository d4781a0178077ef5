//! What is concluded about the Secret to write from what was read of it.

use std::sync::Arc;

use crate::observed::{Drift, Form, Integrity};

/// The kind of Secret that the operator writes.
pub const SECRET_TYPE: &str = "Opaque";

/// What a read of the whole Secret found, at the version that is known of it.
#[derive(Clone, Copy, Debug)]
pub struct ReadData<'a> {
    /// Its data is what the operator wrote.
    pub is_ours: bool,
    /// It is, except for keys that were added, or its token at least is the one that was written or read last.
    pub is_token_intact: bool,
    /// It is, as far as this process remembers, and its annotations do not count.
    pub is_remembered: bool,
    /// The field `immutable` is true.
    pub is_immutable: bool,
    /// Its type.
    pub type_: &'a str,
}

/// What the metadata of the Secret says about its data.
#[derive(Clone, Copy, Debug)]
pub struct DataClues {
    /// The version that was read or trusted last, and held what the operator wrote, is this one; `None` where there is
    /// none yet.
    pub is_verified_version: Option<bool>,
    /// How many keys of `data` the operator wrote, if no one else wrote any.
    pub sole_writer_of: Option<usize>,
    /// How many keys the operator writes for the current spec.
    pub keys_written: usize,
    /// The field `immutable` may have been set.
    pub may_be_immutable: bool,
    /// The keys of templates are those of the current spec.
    pub is_template_current: bool,
    /// Annotations describe a token.
    pub has_token_metadata: bool,
}

/// Whether the token is the one that the operator wrote. Other damage costs a patch, not a token.
///
/// Who wrote the data says enough at a start. Later each change is read: anyone may write under the operator's name.
#[must_use]
pub fn integrity(read: Option<ReadData<'_>>, clues: &DataClues) -> Integrity {
    match (read, clues.is_verified_version) {
        (Some(read), _) if read.is_ours || read.is_token_intact => Integrity::Verified,
        (Some(_), _) => Integrity::Tampered,
        (None, Some(true)) => Integrity::Verified,
        (None, None) if clues.sole_writer_of == Some(clues.keys_written) => Integrity::Verified,
        (None, _) if clues.sole_writer_of.is_none() => Integrity::Suspect,
        (None, _) => Integrity::Unverified,
    }
}

/// Whether the Secret can take a token. One that the operator wrote last needs no read for that, unless it may have been
/// made immutable, or has keys of other templates, which must be known to be removed.
#[must_use]
pub fn form(read: Option<ReadData<'_>>, clues: &DataClues) -> Form {
    match read {
        Some(read) if read.is_immutable => Form::Immutable,
        Some(read) if read.type_ != SECRET_TYPE => Form::OtherType(Arc::from(read.type_)),
        Some(_) => Form::Writable,
        None if clues.has_token_metadata && !clues.may_be_immutable && clues.is_template_current => Form::Presumed,
        None => Form::Unread,
    }
}

/// What the metadata of the Secret is, next to what the spec wants.
#[derive(Clone, Copy, Debug)]
pub struct MetadataClues {
    /// It has an owner reference to the credential: the one with `controller: true` where the spec wants one, else any.
    pub has_owner: bool,
    /// The spec wants one.
    pub wants_owner: bool,
    /// The keys of templates are those of the current spec.
    pub is_template_current: bool,
    /// All labels and annotations that the spec wants are there.
    pub carries_desired: bool,
    /// Labels or annotations of an earlier template are there.
    pub has_leftovers: bool,
    /// The data, or what the annotations say about it, is not what the operator wrote.
    pub is_data_tampered: bool,
}

/// What of labels, annotations, owner reference and the keys of the data is not as it should be.
#[must_use]
pub fn drift(clues: &MetadataClues) -> Drift {
    if clues.has_owner != clues.wants_owner {
        Drift::Ownership
    } else if !clues.is_template_current || clues.is_data_tampered {
        Drift::Data
    } else if !clues.carries_desired || clues.has_leftovers {
        Drift::Metadata
    } else {
        Drift::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: ReadData<'_> = ReadData {
        is_ours: true,
        is_token_intact: true,
        is_remembered: false,
        is_immutable: false,
        type_: SECRET_TYPE,
    };
    const CLUES: DataClues = DataClues {
        is_verified_version: None,
        sole_writer_of: Some(6),
        keys_written: 6,
        may_be_immutable: false,
        is_template_current: true,
        has_token_metadata: true,
    };

    #[test]
    fn data_is_classified_by_what_was_read_and_else_by_who_wrote_it() {
        let others = DataClues { sole_writer_of: None, ..CLUES };
        let table = [
            (None, CLUES, Integrity::Verified),
            (None, others, Integrity::Suspect),
            (None, DataClues { is_verified_version: Some(false), ..others }, Integrity::Suspect),
            (None, DataClues { sole_writer_of: Some(5), ..CLUES }, Integrity::Unverified),
            (None, DataClues { is_verified_version: Some(true), ..others }, Integrity::Verified),
            (None, DataClues { is_verified_version: Some(false), ..CLUES }, Integrity::Unverified),
            (Some(READ), others, Integrity::Verified),
            (Some(ReadData { is_ours: false, ..READ }), others, Integrity::Verified),
            (Some(ReadData { is_ours: false, is_token_intact: false, ..READ }), CLUES, Integrity::Tampered),
        ];
        for (number, (read, clues, expected)) in table.into_iter().enumerate() {
            assert_eq!(integrity(read, &clues), expected, "row {number}");
        }
    }

    #[test]
    fn secret_is_read_before_a_write_only_where_it_may_not_take_a_token() {
        let table = [
            (None, CLUES, Form::Presumed),
            (None, DataClues { has_token_metadata: false, ..CLUES }, Form::Unread),
            (None, DataClues { may_be_immutable: true, ..CLUES }, Form::Unread),
            (None, DataClues { is_template_current: false, ..CLUES }, Form::Unread),
            (Some(READ), CLUES, Form::Writable),
            (Some(ReadData { is_immutable: true, ..READ }), CLUES, Form::Immutable),
            (Some(ReadData { type_: "kubernetes.io/tls", ..READ }), CLUES, Form::OtherType("kubernetes.io/tls".into())),
        ];
        for (number, (read, clues, expected)) in table.into_iter().enumerate() {
            assert_eq!(form(read, &clues), expected, "row {number}");
        }
    }

    #[test]
    fn each_part_of_the_metadata_counts_and_ownership_first() {
        let intact = MetadataClues {
            has_owner: true,
            wants_owner: true,
            is_template_current: true,
            carries_desired: true,
            has_leftovers: false,
            is_data_tampered: false,
        };
        assert_eq!(drift(&intact), Drift::None);
        assert_eq!(drift(&MetadataClues { has_owner: false, wants_owner: false, ..intact }), Drift::None);
        for (broken, expected) in [
            (MetadataClues { has_owner: false, ..intact }, Drift::Ownership),
            (MetadataClues { wants_owner: false, is_data_tampered: true, ..intact }, Drift::Ownership),
            (MetadataClues { is_template_current: false, ..intact }, Drift::Data),
            (MetadataClues { carries_desired: false, ..intact }, Drift::Metadata),
            (MetadataClues { has_leftovers: true, ..intact }, Drift::Metadata),
            (MetadataClues { is_data_tampered: true, carries_desired: false, ..intact }, Drift::Data),
        ] {
            assert_eq!(drift(&broken), expected, "{broken:?}");
        }
    }
}
