//! Which other field manager changes what the operator writes: the one that owns a field which differs, not any that once
//! wrote something else on the Secret.

use std::sync::Arc;

/// What another field manager owns of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldOwner {
    /// Its name.
    pub manager: Arc<str>,
    /// It owns keys of the data, or annotations that describe the token.
    pub data: bool,
    /// It owns owner references.
    pub owner_references: bool,
    /// Digests of the labels and annotations that it owns, sorted.
    pub keys: Box<[u32]>,
}

/// What of a Secret differs from what it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// The data, or annotations that describe the token.
    pub data: bool,
    /// The owner reference.
    pub owner_references: bool,
    /// Digests of labels and annotations that are not as they should be.
    pub keys: Vec<u32>,
}

/// The other field manager that owns some of what differs, and of several the one that wrote last: `owners` are in the order
/// of their writes. `None` if none does: admission changes a write under the name of its sender, and no one owns what is
/// gone.
#[must_use]
pub fn rival<'a>(owners: &'a [FieldOwner], difference: &Difference) -> Option<&'a str> {
    let owns = |owner: &&FieldOwner| {
        (owner.data && difference.data)
            || (owner.owner_references && difference.owner_references)
            || difference.keys.iter().any(|key| owner.keys.binary_search(key).is_ok())
    };
    owners.iter().rfind(owns).map(|owner| &*owner.manager)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rival_owns_what_differs_and_wrote_last() {
        let owner = |manager: &str, data, owner_references, keys: &[u32]| FieldOwner {
            manager: manager.into(),
            data,
            owner_references,
            keys: keys.into(),
        };
        let owners = [
            owner("editor", true, false, &[]),
            owner("labels", false, false, &[3, 5]),
            owner("relabels", false, false, &[5]),
            owner("owners", false, true, &[]),
            owner("harmless", false, false, &[9]),
        ];
        let of = |data, owner_references, keys: &[u32]| {
            rival(&owners, &Difference { data, owner_references, keys: keys.to_vec() })
        };
        assert_eq!(of(true, false, &[]), Some("editor"));
        assert_eq!(of(false, false, &[3]), Some("labels"));
        assert_eq!(of(false, false, &[3, 5]), Some("relabels"));
        assert_eq!(of(false, true, &[]), Some("owners"));
        assert_eq!(of(false, false, &[7]), None, "it was removed, or admission changed it");
        assert_eq!(of(false, false, &[]), None);
    }
}
