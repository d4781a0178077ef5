//! Digests of labels and annotations, which are stored instead of their text.

use itwin_api::digest;

pub(super) const LABEL: &str = "label";
pub(super) const ANNOTATION: &str = "annotation";

pub(super) fn pair(kind: &str, key: &str, value: &str) -> u32 {
    digest::short([kind, key, value])
}

/// The digest of a label or annotation without its value.
pub(super) fn key_digest(kind: &str, key: &str) -> u32 {
    digest::short([kind, key])
}
