//! What `managedFields` show of a Secret: who wrote its data, and what each field manager owns.

use std::collections::{BTreeMap, BTreeSet};

use itwin_api::{MANAGER, secret_keys};
use itwin_core::rivals::FieldOwner;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use serde_json::Value;

use super::digests::{ANNOTATION, LABEL, key_digest};
use crate::observe::{
    intern::intern,
    reduced::{FIELDS_MAX, MANAGERS_MAX},
};

/// The maximum length of a field manager's name in messages, in bytes; the API server has the same limit.
pub(super) const MANAGER_MAX: usize = 128;
/// The number of other field managers that are remembered: a fight has few parties.
const FIELD_OWNERS_MAX: usize = 4;
/// The number of labels and annotations of each that are remembered.
pub(super) const OWNED_KEYS_MAX: usize = 64;
/// The total length of the label keys, and of the annotation keys, that are remembered as set by a template, in bytes.
/// Further ones stay on the Secret when they are removed from the template.
pub(super) const TEMPLATE_KEYS_MAX: usize = 12 << 10;

/// What the other field managers own: the API server sorts them by the time of their writes.
pub(super) fn field_owners(metadata: &ObjectMeta) -> Box<[FieldOwner]> {
    let owner = |entry: &ManagedFieldsEntry| {
        let manager = entry.manager.as_deref().filter(|manager| *manager != MANAGER && manager.len() <= MANAGER_MAX)?;
        let fields = &entry.fields_v1.as_ref()?.0;
        let keys_of = |kind: &'static str, part: &str| {
            let keys = fields["f:metadata"][part].as_object().into_iter().flat_map(|keys| keys.keys());
            keys.filter_map(|key| key.strip_prefix("f:")).map(move |key| key_digest(kind, key))
        };
        let mut keys: Vec<u32> = keys_of(LABEL, "f:labels").chain(keys_of(ANNOTATION, "f:annotations")).collect();
        keys.truncate(OWNED_KEYS_MAX);
        keys.sort_unstable();
        Some(FieldOwner {
            manager: intern(manager),
            data: fields.get("f:data").is_some() || describes_token(fields),
            owner_references: fields["f:metadata"].get("f:ownerReferences").is_some(),
            keys: keys.into(),
        })
    };
    let mut owners: Vec<FieldOwner> = metadata.managed_fields.iter().flatten().filter_map(owner).collect();
    owners.drain(..owners.len().saturating_sub(FIELD_OWNERS_MAX));
    owners.into()
}

/// Whether fields contain an annotation that describes the token.
fn describes_token(fields: &Value) -> bool {
    let annotations = &fields["f:metadata"]["f:annotations"];
    let is_owned = |key: &&str| annotations.get(format!("f:{key}")).is_some();
    secret_keys::TOKEN_METADATA.iter().chain([&secret_keys::CONTENT]).any(is_owned)
}

/// The number of keys of `data` that the operator's field manager owns. `None` if another manager owns a key or an
/// annotation that describes the token, since an edited expiry would prevent the renewal, or if there are more fields
/// than are read. Then the operator reads the data.
pub(super) fn sole_writer_of(metadata: &ObjectMeta) -> Option<usize> {
    if has_more_managers(metadata) {
        return None;
    }
    let mut ours = 0;
    for entry in metadata.managed_fields.iter().flatten() {
        let Some(fields) = entry.fields_v1.as_ref().map(|fields| &fields.0) else { continue };
        let is_ours = entry.manager.as_deref() == Some(MANAGER);
        if !is_ours && (has_more(&fields["f:metadata"]["f:annotations"]) || describes_token(fields)) {
            return None;
        }
        let Some(data) = fields.get("f:data") else { continue };
        if !is_ours {
            return None;
        }
        ours += data.as_object().map_or(0, |keys| keys.keys().filter(|key| key.starts_with("f:")).count());
    }
    Some(ours)
}

/// The keys of `data` that other field managers own.
pub(super) fn data_keys_of_others(metadata: &ObjectMeta) -> BTreeSet<&str> {
    let others = metadata.managed_fields.iter().flatten().filter(|entry| entry.manager.as_deref() != Some(MANAGER));
    let data = others.filter_map(|entry| entry.fields_v1.as_ref()?.0.get("f:data")?.as_object());
    data.flat_map(|keys| keys.keys()).filter_map(|key| key.strip_prefix("f:")).collect()
}

/// Whether there are more entries of `managedFields` than are read.
fn has_more_managers(metadata: &ObjectMeta) -> bool {
    metadata.managed_fields.as_ref().is_some_and(|entries| entries.len() > MANAGERS_MAX)
}

/// Whether a part of an entry has more keys than are read.
fn has_more(part: &Value) -> bool {
    part.as_object().is_some_and(|keys| keys.len() > FIELDS_MAX)
}

/// Whether a field manager wrote the field `immutable`; only the Secret itself shows its value.
pub(super) fn may_be_immutable(metadata: &ObjectMeta) -> bool {
    let mut entries = metadata.managed_fields.iter().flatten().filter_map(|entry| entry.fields_v1.as_ref());
    has_more_managers(metadata) || entries.any(|fields| fields.0.get("f:immutable").is_some())
}

/// The `present` keys of this part of the metadata that only the operator's field manager owns, except reserved ones. A
/// key that another manager also owns is not removed; if some fields of other managers are unknown, no key is.
pub(super) fn owned_keys(
    metadata: &ObjectMeta,
    part: &str,
    present: Option<&BTreeMap<String, String>>,
    is_our_own: fn(&str) -> bool,
) -> Box<[Box<str>]> {
    let (mut ours, mut theirs) = (BTreeSet::new(), BTreeSet::new());
    if has_more_managers(metadata) {
        return Box::default();
    }
    for entry in metadata.managed_fields.iter().flatten() {
        let Some(fields) = entry.fields_v1.as_ref().map(|fields| &fields.0["f:metadata"][part]) else { continue };
        let is_ours = entry.manager.as_deref() == Some(MANAGER);
        if !is_ours && has_more(fields) {
            return Box::default();
        }
        let keys = fields.as_object().into_iter().flat_map(|fields| fields.keys());
        let keys = keys.filter_map(|key| key.strip_prefix("f:"));
        if is_ours { ours.extend(keys) } else { theirs.extend(keys) }
    }
    let is_left = |key: &&&str| !is_our_own(key) && present.is_some_and(|pairs| pairs.contains_key(**key));
    let mut length = 0;
    let fits = |key: &&&str| {
        length += key.len();
        length <= TEMPLATE_KEYS_MAX
    };
    ours.difference(&theirs).filter(is_left).take_while(fits).map(|key| Box::from(*key)).collect()
}
