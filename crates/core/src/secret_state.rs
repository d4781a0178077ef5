//! What is concluded about the Secret to write from what was read of it.

use std::sync::Arc;

use crate::{
    observed::{Drift, Form, Integrity},
    token::TokenMetadata,
};

/// The kind of Secret that the operator writes.
pub const SECRET_TYPE: &str = "Opaque";

/// The longest part of a type that is kept and shown, in bytes: the API server does not limit it.
const TYPE_MAX: usize = 253;

/// The part of a type that is kept and shown.
#[must_use]
pub fn shown_type(type_: &str) -> &str {
    &type_[..type_.floor_char_boundary(TYPE_MAX)]
}

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

/// What says which token the Secret holds.
#[derive(Clone, Copy, Debug)]
pub struct TokenClues<'a> {
    /// What its annotations say.
    pub recorded: Option<&'a TokenMetadata>,
    /// What is remembered of a write, a read, or a status of before.
    pub remembered: Option<&'a TokenMetadata>,
    /// Whether it is the one that is remembered, as a read of this version showed; `None` where none did.
    pub is_remembered: Option<bool>,
}

/// The token that the Secret holds. Where others removed what describes it, that is the one that is remembered until a
/// read shows what it is, which the second part of the result says.
#[must_use]
pub fn token<'a>(read: Option<ReadData<'_>>, clues: &TokenClues<'a>) -> (Option<&'a TokenMetadata>, bool) {
    match read {
        // what was written proves more than annotations that someone changed
        Some(read) if read.is_remembered => (clues.remembered, false),
        None if clues.recorded.is_none() && clues.is_remembered != Some(false) => {
            (clues.remembered, clues.remembered.is_some() && clues.is_remembered.is_none())
        }
        _ => (clues.recorded, false),
    }
}

/// What the metadata of the Secret says about its data.
#[derive(Clone, Copy, Debug)]
pub struct DataClues<'a> {
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
    /// A read of this version showed that the token in it is not the one that was written.
    pub is_disproved: bool,
    /// Whether the token in it was ever the one that was written is not known.
    pub is_token_untrusted: bool,
    /// They do not, and a read must show whether the Secret holds the token that is remembered.
    pub is_undescribed: bool,
    /// The type of the Secret, if this process read or wrote it: the metadata does not show it, and it never changes.
    pub type_: Option<&'a str>,
}

/// Whether the token is the one that the operator wrote. Other damage costs a patch, not a token.
///
/// Who wrote the data says enough at a start. Later each change is read: anyone may write under the operator's name.
#[must_use]
pub fn integrity(read: Option<ReadData<'_>>, clues: &DataClues<'_>) -> Integrity {
    match (read, clues.is_verified_version) {
        (Some(read), _) if read.is_ours || read.is_token_intact => Integrity::Verified,
        (Some(_), _) => Integrity::Tampered,
        (None, _) if clues.is_disproved => Integrity::Tampered,
        (None, Some(true)) if !clues.is_undescribed => Integrity::Verified,
        (None, _) if clues.is_token_untrusted => Integrity::Untrusted,
        (None, None) if !clues.is_undescribed && clues.sole_writer_of == Some(clues.keys_written) => {
            Integrity::Verified
        }
        (None, _) if clues.sole_writer_of.is_none() => Integrity::Suspect,
        (None, _) => Integrity::Unverified,
    }
}

/// Whether the Secret can take a token. One that the operator wrote last needs no read for that, unless it may have been
/// made immutable, or has keys of other templates, or of others who replaced the token, which must be known to be removed. Its
/// type must have been observed: anyone who may write Secrets can give one of another type all that the operator writes into
/// metadata.
#[must_use]
pub fn form(read: Option<ReadData<'_>>, clues: &DataClues<'_>) -> Form {
    let is_presumed =
        clues.has_token_metadata && !clues.may_be_immutable && clues.is_template_current && !clues.is_disproved;
    match (read, read.map(|read| read.type_).or(clues.type_)) {
        (_, Some(type_)) if type_ != SECRET_TYPE => Form::OtherType(Arc::from(shown_type(type_))),
        (Some(read), _) if read.is_immutable => Form::Immutable,
        (Some(_), _) => Form::Writable,
        (None, None) => Form::TypeUnknown,
        (None, Some(_)) if is_presumed => Form::Presumed,
        (None, Some(_)) => Form::Unread,
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
    const CLUES: DataClues<'_> = DataClues {
        is_verified_version: None,
        sole_writer_of: Some(6),
        keys_written: 6,
        may_be_immutable: false,
        is_template_current: true,
        has_token_metadata: true,
        is_disproved: false,
        is_token_untrusted: false,
        is_undescribed: false,
        type_: Some(SECRET_TYPE),
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
            (None, DataClues { is_undescribed: true, ..CLUES }, Integrity::Unverified),
            (None, DataClues { is_undescribed: true, is_verified_version: Some(true), ..CLUES }, Integrity::Unverified),
            (None, DataClues { is_undescribed: true, ..others }, Integrity::Suspect),
            (None, DataClues { is_verified_version: Some(false), ..CLUES }, Integrity::Unverified),
            (None, DataClues { is_token_untrusted: true, ..CLUES }, Integrity::Untrusted),
            (None, DataClues { is_token_untrusted: true, ..others }, Integrity::Untrusted),
            (
                None,
                DataClues { is_token_untrusted: true, is_verified_version: Some(false), ..CLUES },
                Integrity::Untrusted,
            ),
            (
                None,
                DataClues { is_token_untrusted: true, is_verified_version: Some(true), ..CLUES },
                Integrity::Verified,
            ),
            (None, DataClues { is_disproved: true, ..CLUES }, Integrity::Tampered),
            (
                None,
                DataClues { is_disproved: true, is_token_untrusted: true, is_verified_version: Some(false), ..others },
                Integrity::Tampered,
            ),
            (Some(READ), DataClues { is_disproved: true, is_token_untrusted: true, ..others }, Integrity::Verified),
            (Some(READ), others, Integrity::Verified),
            (Some(ReadData { is_ours: false, ..READ }), others, Integrity::Verified),
            (Some(ReadData { is_ours: false, is_token_intact: false, ..READ }), CLUES, Integrity::Tampered),
        ];
        for (number, (read, clues, expected)) in table.into_iter().enumerate() {
            assert_eq!(integrity(read, &clues), expected, "row {number}");
        }
    }

    #[test]
    fn token_that_nothing_describes_is_the_one_that_is_remembered_until_a_read_shows_what_it_is() {
        let before = crate::samples::content().token_metadata;
        let after = TokenMetadata { request: "another".into(), ..before.clone() };
        let stripped = TokenClues { recorded: None, remembered: Some(&before), is_remembered: None };
        let described = TokenClues { recorded: Some(&after), ..stripped };
        let other = ReadData { is_ours: false, is_token_intact: false, ..READ };
        let remembered = ReadData { is_ours: false, is_remembered: true, ..READ };
        for (number, (read, clues, expected)) in [
            (None, stripped, (Some(&before), true)),
            (None, TokenClues { is_remembered: Some(false), ..stripped }, (None, false)),
            (None, TokenClues { is_remembered: Some(true), ..stripped }, (Some(&before), false)),
            (None, TokenClues { remembered: None, ..stripped }, (None, false)),
            (None, described, (Some(&after), false)),
            (Some(remembered), stripped, (Some(&before), false)),
            (Some(remembered), described, (Some(&before), false)),
            (Some(other), stripped, (None, false)),
            (Some(READ), described, (Some(&after), false)),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(token(read, &clues), expected, "row {number}");
        }
    }

    #[test]
    fn secret_is_read_before_a_write_only_where_it_may_not_take_a_token() {
        let table = [
            (None, CLUES, Form::Presumed),
            (None, DataClues { has_token_metadata: false, ..CLUES }, Form::Unread),
            (None, DataClues { may_be_immutable: true, ..CLUES }, Form::Unread),
            (None, DataClues { is_template_current: false, ..CLUES }, Form::Unread),
            (None, DataClues { is_disproved: true, ..CLUES }, Form::Unread),
            (Some(READ), DataClues { type_: None, ..CLUES }, Form::Writable),
            (Some(ReadData { is_immutable: true, ..READ }), CLUES, Form::Immutable),
            (Some(ReadData { type_: "kubernetes.io/tls", ..READ }), CLUES, Form::OtherType("kubernetes.io/tls".into())),
        ];
        for (number, (read, clues, expected)) in table.into_iter().enumerate() {
            assert_eq!(form(read, &clues), expected, "row {number}");
        }
    }

    #[test]
    fn secret_is_read_before_the_first_write_of_a_process_and_never_written_if_it_is_of_another_type() {
        let other = || Form::OtherType("kubernetes.io/tls".into());
        let table = [
            (DataClues { type_: None, ..CLUES }, Form::TypeUnknown),
            (DataClues { type_: None, is_verified_version: Some(true), ..CLUES }, Form::TypeUnknown),
            (DataClues { type_: None, has_token_metadata: false, ..CLUES }, Form::TypeUnknown),
            (DataClues { type_: Some("kubernetes.io/tls"), ..CLUES }, other()),
            (DataClues { type_: Some("kubernetes.io/tls"), may_be_immutable: true, ..CLUES }, other()),
        ];
        for (number, (clues, expected)) in table.into_iter().enumerate() {
            assert_eq!(form(None, &clues), expected, "row {number}");
        }
        assert_eq!(
            form(Some(ReadData { type_: "", ..READ }), &CLUES),
            Form::OtherType("".into()),
            "what is read counts"
        );
        let long = "é".repeat(10_000);
        let cut = form(Some(ReadData { type_: &long, ..READ }), &CLUES);
        assert!(matches!(&cut, Form::OtherType(shown) if shown.len() <= TYPE_MAX), "{cut:?}");
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
