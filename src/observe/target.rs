//! The metadata of a Secret: its version, its owner, the metadata of its token, and who wrote its data.
//!
//! Metadata is enough to decide that a Secret is up to date, so that the Secret itself need not be read.
//! `managedFields` show whether another field manager wrote the data, so that the operator detects manual edits made
//! while it was down without reading the data of every Secret.
//!
//! Users who may write Secrets control this metadata, so each part is limited to the maximum that the operator itself
//! writes. A longer value counts as absent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use itwin_api::{MANAGER, credential::SecretTemplate, digest, limits::ACCESS_TOKEN_MAX, secret_keys, time};
use itwin_core::{
    desired_secret,
    last_held::{LastHeld, Record},
    object::ObjectVersion,
    ownership::{Controller, Named, OUR_KIND, OwnershipMetadata},
    rivals::FieldOwner,
    secret_patch::Leftovers,
    token::{Description, TokenMetadata},
};
use itwin_oauth::{sensitive::Sensitive, token::fits_a_header};
use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference},
};
use serde_json::Value;

use super::{
    intern::intern,
    reduced::{FIELDS_MAX, MANAGERS_MAX, NAME_MAX, PAIRS_MAX, cut},
};

/// The maximum length of a field manager's name in messages, in bytes; the API server has the same limit.
const MANAGER_MAX: usize = 128;
/// The number of other field managers that are remembered: a fight has few parties.
const FIELD_OWNERS_MAX: usize = 4;
/// The number of labels and annotations of each that are remembered.
const OWNED_KEYS_MAX: usize = 64;
/// The maximum length of an issuer, in bytes: that of an ITwinAuthority.
const ISSUER_MAX: usize = 2048;
/// The maximum length of a client identifier, in bytes: that of a client Secret.
const CLIENT_ID_MAX: usize = 1 << 10;
/// The maximum length of the scopes, in bytes: 64 of 128 bytes each.
const SCOPES_MAX: usize = 8 << 10;
/// The total length of the label keys, and of the annotation keys, that are remembered as set by a template, in bytes.
/// Further ones stay on the Secret when they are removed from the template.
const TEMPLATE_KEYS_MAX: usize = 12 << 10;

/// What is stored of a referenced Secret. It is small, since there are up to two for each credential.
#[derive(Clone, Debug)]
pub struct SecretMetadata {
    /// `<uid>/<resourceVersion>`, which changes with the Secret.
    pub version: ObjectVersion,
    /// Its ownership metadata.
    pub ownership: OwnershipMetadata,
    /// Its token metadata.
    pub token_metadata: Option<TokenMetadata>,
    /// Digest of the templates of its rendered keys.
    pub template: Option<Arc<str>>,
    /// Digest of the renew annotation that the token was requested for.
    pub renewed_for: Option<Arc<str>>,
    /// When the token was issued for which all workloads were restarted.
    pub restarted_for: Option<DateTime<Utc>>,
    /// The workloads that are left for the token.
    pub restart_targets: Option<Arc<str>>,
    /// What the token was issued for.
    pub description: Description,
    /// The number of keys of `data` that the operator wrote; `None` if another field manager wrote a key or an
    /// annotation that describes the token.
    pub sole_writer_of: Option<usize>,
    /// What the other field managers own, in the order of their writes: of a limited number of the last ones.
    pub field_owners: Box<[FieldOwner]>,
    /// Whether a field manager set `immutable`.
    pub may_be_immutable: bool,
    /// Labels set by a template.
    template_labels: Box<[Box<str>]>,
    /// Annotations set by a template.
    template_annotations: Box<[Box<str>]>,
    /// Sorted digests of its labels and annotations, to check for the desired ones: those of the operator's own and of
    /// [`PAIRS_MAX`] others.
    pairs: Box<[u32]>,
    /// Whether there are others.
    has_more_pairs: bool,
}

impl SecretMetadata {
    /// Extracts this from a Secret's metadata.
    #[must_use]
    pub fn new(metadata: &ObjectMeta) -> Self {
        let annotations = metadata.annotations.as_ref();
        let within = |key: &str, most: usize| bounded(annotations?, key, most);
        let annotation = |key: &str| within(key, NAME_MAX);
        let controller = controller(metadata);
        let owner = controller.as_ref().map(|controller| (&controller.uid, &controller.name));
        // a value that is also in the owner reference is shared
        let same_as = |known: Option<&Arc<str>>, text: &str| match known {
            Some(known) if **known == *text => known.clone(),
            _ => Arc::from(text),
        };
        let labels = metadata.labels.as_ref();
        let (uid, resource_version) = (metadata.uid.as_deref(), metadata.resource_version.as_deref());
        let (pairs, has_more_pairs) = pairs(metadata);
        Self {
            version: ObjectVersion::new(uid.unwrap_or_default(), resource_version.unwrap_or_default()),
            ownership: OwnershipMetadata {
                owner_uid: annotation(secret_keys::OWNER_UID).map(|uid| same_as(owner.map(|(uid, _)| uid), uid)),
                adopt: annotation(secret_keys::ADOPT).map(Arc::from),
                owner: annotation(secret_keys::OWNER).and_then(named).map(|(namespace, name)| Named {
                    namespace: intern(namespace),
                    name: same_as(owner.map(|(_, name)| name), name),
                }),
                controller,
                references: references(metadata),
            },
            token_metadata: token_metadata(metadata),
            template: annotation(secret_keys::TEMPLATE).map(intern),
            renewed_for: annotation(secret_keys::RENEWED_FOR).map(Arc::from),
            restarted_for: annotation(secret_keys::RESTARTED_FOR).and_then(time::from_rfc3339),
            restart_targets: annotation(secret_keys::RESTART_TARGETS).map(intern),
            description: Description {
                // empty where it may be a secret
                client_id: within(secret_keys::CLIENT_ID, CLIENT_ID_MAX).filter(|id| !id.is_empty()).map(intern),
                scopes: within(secret_keys::GRANTED, SCOPES_MAX).map(intern),
            },
            sole_writer_of: sole_writer_of(metadata),
            field_owners: field_owners(metadata),
            may_be_immutable: may_be_immutable(metadata),
            template_labels: owned_keys(metadata, "f:labels", labels, secret_keys::is_our_own_label),
            template_annotations: owned_keys(
                metadata,
                "f:annotations",
                annotations,
                secret_keys::is_our_own_annotation,
            ),
            pairs,
            has_more_pairs,
        }
    }

    /// UID of the Secret.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.version.uid()
    }

    /// Its resourceVersion, for optimistic concurrency.
    #[must_use]
    pub fn resource_version(&self) -> &str {
        self.version.resource_version()
    }

    /// Whether the Secret has all these labels and annotations. If it has more than are stored, a missing one counts as
    /// present, since the operator would otherwise write it repeatedly.
    #[must_use]
    pub fn carries(&self, labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> bool {
        self.missing(labels, annotations).is_empty()
    }

    /// Digests of the keys of those that the Secret does not have, or with another value.
    #[must_use]
    pub fn missing(&self, labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Vec<u32> {
        let missing_of = |kind: &'static str, pairs: &BTreeMap<String, String>| {
            let is_missing = |(key, value): &(&String, &String)| {
                self.pairs.binary_search(&pair(kind, key, value)).is_err() && (!self.has_more_pairs || is_ours(key))
            };
            pairs.iter().filter(is_missing).map(|(key, _)| key_digest(kind, key)).collect::<Vec<_>>()
        };
        let mut missing = missing_of(LABEL, labels);
        missing.extend(missing_of(ANNOTATION, annotations));
        missing
    }
}

impl SecretMetadata {
    /// Whether all workloads were restarted for the token.
    #[must_use]
    pub fn are_workloads_restarted(&self) -> bool {
        let issued_at = self.token_metadata.as_ref().map(|token_metadata| token_metadata.issued_at);
        issued_at.is_some() && self.restarted_for == issued_at
    }

    /// Labels and annotations that the operator set and that are not among the desired ones.
    #[must_use]
    pub fn leftovers(
        &self,
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
    ) -> Leftovers<'_> {
        fn undesired<'a>(keys: &'a [Box<str>], desired: &BTreeMap<String, String>) -> Vec<&'a str> {
            keys.iter().map(|key| &**key).filter(|key| !desired.contains_key(*key)).collect()
        }
        Leftovers {
            labels: undesired(&self.template_labels, labels),
            annotations: undesired(&self.template_annotations, annotations),
        }
    }
}

/// What the other field managers own: the API server sorts them by the time of their writes.
fn field_owners(metadata: &ObjectMeta) -> Box<[FieldOwner]> {
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

/// Whether a Secret's data is what the operator wrote for these templates, except for keys that someone else added.
#[must_use]
pub fn is_ours_except_for_extra_keys(secret: &Secret, template: Option<&SecretTemplate>) -> bool {
    let (Some(data), Some(annotations)) = (&secret.data, &secret.metadata.annotations) else { return false };
    if holds_no_token_of_ours(data) {
        return false;
    }
    let is_ours = |key: &str| {
        secret_keys::DATA_KEYS.contains(&key) || template.is_some_and(|template| template.data.contains_key(key))
    };
    let ours: BTreeMap<String, ByteString> =
        data.iter().filter(|(key, _)| is_ours(key)).map(|(key, value)| (key.clone(), value.clone())).collect();
    annotations.get(secret_keys::CONTENT).is_some_and(|digest| *digest == desired_secret::digest(&ours, annotations))
}

/// Whether a Secret's data and token metadata are what the operator wrote. A token that the operator would not write is
/// not, even if the digest matches: anyone who may read and write the Secret can calculate the digest.
#[must_use]
pub fn is_what_we_wrote(secret: &Secret) -> bool {
    let (Some(data), Some(annotations)) = (&secret.data, &secret.metadata.annotations) else { return false };
    if holds_no_token_of_ours(data) {
        return false;
    }
    annotations.get(secret_keys::CONTENT).is_some_and(|digest| *digest == desired_secret::digest(data, annotations))
}

/// The token of a Secret, if it has one that the operator would write. Others could end the header that they are put
/// into, or be obeyed by the terminal that they are printed to.
#[must_use]
pub fn token(secret: &Secret) -> Option<Sensitive> {
    let value = secret.data.as_ref()?.get(secret_keys::ACCESS_TOKEN).filter(|value| may_be_ours(value))?;
    std::str::from_utf8(&value.0).ok().map(|text| Sensitive::new(text.to_owned()))
}

/// Whether the operator would write this token: it accepts no other from a server.
fn may_be_ours(token: &ByteString) -> bool {
    token.0.len() <= ACCESS_TOKEN_MAX && fits_a_header(&token.0)
}

/// Whether the data has a token that the operator would not write.
fn holds_no_token_of_ours(data: &BTreeMap<String, ByteString>) -> bool {
    data.get(secret_keys::ACCESS_TOKEN).is_some_and(|token| !may_be_ours(token))
}

/// What is to be remembered of a Secret that holds what the operator wrote.
#[must_use]
pub fn last_held(secret_metadata: &SecretMetadata, secret: &Secret, token: Option<&Sensitive>) -> Option<LastHeld> {
    let client_fingerprint = bounded(secret.metadata.annotations.as_ref()?, secret_keys::CLIENT, NAME_MAX)?;
    let SecretMetadata { description, renewed_for, .. } = secret_metadata;
    let record = Record::new(token?, description.clone(), client_fingerprint, renewed_for.clone());
    Some(LastHeld { token_metadata: secret_metadata.token_metadata.clone()?, record: Some(record) })
}

/// A value; `None` if it has more than `most` bytes.
fn bounded<'a>(pairs: &'a BTreeMap<String, String>, key: &str, most: usize) -> Option<&'a str> {
    pairs.get(key).map(String::as_str).filter(|value| value.len() <= most)
}

const LABEL: &str = "label";
const ANNOTATION: &str = "annotation";

fn pair(kind: &str, key: &str, value: &str) -> u32 {
    digest::short([kind, key, value])
}

/// The digest of a label or annotation without its value.
fn key_digest(kind: &str, key: &str) -> u32 {
    digest::short([kind, key])
}

fn is_ours(key: &str) -> bool {
    secret_keys::OUR_OWN.contains(&key)
}

/// The digests of labels and annotations that are stored, and whether there are more.
fn pairs(metadata: &ObjectMeta) -> (Box<[u32]>, bool) {
    let labels = metadata.labels.iter().flatten().map(|(key, value)| (LABEL, key, value));
    let annotations = metadata.annotations.iter().flatten().map(|(key, value)| (ANNOTATION, key, value));
    let (mut kept, mut others) = (Vec::new(), 0);
    for (kind, key, value) in labels.chain(annotations) {
        let is_kept = is_ours(key) || others < PAIRS_MAX;
        others += usize::from(!is_ours(key));
        if is_kept {
            kept.push(pair(kind, key, value));
        }
    }
    kept.sort_unstable();
    (kept.into(), others > PAIRS_MAX)
}

/// The kind of an owner, with its group but without the version, which is not part of the identity.
fn kind(owner: &OwnerReference) -> String {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    cut(&format!("{}/{}", cut(group), cut(&owner.kind))).to_owned()
}

/// The credentials that own the Secret without being its controller.
fn references(metadata: &ObjectMeta) -> Box<[Arc<str>]> {
    let others = metadata.owner_references.iter().flatten().filter(|owner| owner.controller != Some(true));
    others.filter(|owner| kind(owner) == OUR_KIND).map(|owner| cut(&owner.uid).into()).collect()
}

fn controller(metadata: &ObjectMeta) -> Option<Controller> {
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    // a string that is too long is truncated: the Secret has an owner, even though no object has such a name
    Some(Controller { kind: intern(&kind(owner)), name: cut(&owner.name).into(), uid: cut(&owner.uid).into() })
}

/// The maximum length of the name of a namespace (RFC 1123 label) and of an object (RFC 1123 subdomain).
const NAMES_MAX: (usize, usize) = (63, 253);

/// Namespace and name in the annotation about the owner; `None` if the operator cannot have written the value.
fn named(text: &str) -> Option<(&str, &str)> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let is_name = |name: &str, max: usize| (1..=max).contains(&name.len()) && name.chars().all(legal);
    text.split_once('/').filter(|(namespace, name)| is_name(namespace, NAMES_MAX.0) && is_name(name, NAMES_MAX.1))
}

fn token_metadata(metadata: &ObjectMeta) -> Option<TokenMetadata> {
    let annotations = metadata.annotations.as_ref()?;
    let annotation = |key: &str| bounded(annotations, key, NAME_MAX);
    Some(TokenMetadata {
        request: intern(annotation(secret_keys::REQUEST)?),
        issuer: intern(bounded(annotations, secret_keys::ISSUER_ANNOTATION, ISSUER_MAX)?),
        authority: annotation(secret_keys::AUTHORITY).map(intern),
        client_reference: annotation(secret_keys::CLIENT_REFERENCE).map(intern),
        client_version: intern(annotation(secret_keys::CLIENT_VERSION)?).into(),
        issued_at: time::from_rfc3339(annotation(secret_keys::ISSUED_AT)?)?,
        expires_at: time::from_rfc3339(annotation(secret_keys::EXPIRES_AT_ANNOTATION)?)?,
    })
}

/// The number of keys of `data` that the operator's field manager owns. `None` if another manager owns a key or an
/// annotation that describes the token, since an edited expiry would prevent the renewal, or if there are more fields
/// than are read. Then the operator reads the data.
fn sole_writer_of(metadata: &ObjectMeta) -> Option<usize> {
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

/// Whether there are more entries of `managedFields` than are read.
fn has_more_managers(metadata: &ObjectMeta) -> bool {
    metadata.managed_fields.as_ref().is_some_and(|entries| entries.len() > MANAGERS_MAX)
}

/// Whether a part of an entry has more keys than are read.
fn has_more(part: &Value) -> bool {
    part.as_object().is_some_and(|keys| keys.len() > FIELDS_MAX)
}

/// Whether a field manager wrote the field `immutable`; only the Secret itself shows its value.
fn may_be_immutable(metadata: &ObjectMeta) -> bool {
    let mut entries = metadata.managed_fields.iter().flatten().filter_map(|entry| entry.fields_v1.as_ref());
    has_more_managers(metadata) || entries.any(|fields| fields.0.get("f:immutable").is_some())
}

/// The `present` keys of this part of the metadata that only the operator's field manager owns, except reserved ones. A
/// key that another manager also owns is not removed; if some fields of other managers are unknown, no key is.
fn owned_keys(
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

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(value: serde_json::Value) -> ObjectMeta {
        serde_json::from_value(value).expect("metadata")
    }

    fn written_by(entries: &[(&str, &[&str])]) -> Option<usize> {
        let entries: Vec<_> = entries
            .iter()
            .map(|(manager, keys)| {
                let keys: serde_json::Map<_, _> =
                    keys.iter().map(|key| (format!("f:{key}"), serde_json::json!({}))).collect();
                serde_json::json!({"manager": manager, "operation": "Update", "fieldsV1": {"f:data": keys}})
            })
            .collect();
        SecretMetadata::new(&metadata(serde_json::json!({"managedFields": entries}))).sole_writer_of
    }

    #[test]
    fn data_is_ours_only_if_no_one_else_wrote_any_of_it() {
        assert_eq!(written_by(&[(MANAGER, &["a", "b"])]), Some(2));
        assert_eq!(written_by(&[(MANAGER, &["a"]), ("kubectl-edit", &["b"])]), None);
        assert_eq!(written_by(&[]), Some(0));
    }

    #[test]
    fn token_metadata_written_by_another_manager_makes_the_data_unverified() {
        let written = |key: &str| {
            let annotations = serde_json::json!({format!("f:{key}"): {}});
            let theirs = serde_json::json!({"f:metadata": {"f:annotations": annotations}});
            let ours = serde_json::json!({"f:data": {"f:a": {}}});
            let entry = |manager: &str, fields| serde_json::json!({"manager": manager, "fieldsV1": fields});
            let fields = [entry(MANAGER, ours), entry("kubectl-annotate", theirs)];
            SecretMetadata::new(&metadata(serde_json::json!({"managedFields": fields}))).sole_writer_of
        };
        assert_eq!(written(secret_keys::EXPIRES_AT_ANNOTATION), None);
        assert_eq!(written(secret_keys::CONTENT), None);
        assert_eq!(written(secret_keys::ADOPT), Some(1), "an offer is always written by someone else");
        assert_eq!(written("example.com/theirs"), Some(1));
    }

    #[test]
    fn digest_covers_data_and_token_metadata() {
        let with_token = |size: usize, change: fn(&mut Secret)| {
            let mut secret = Secret {
                data: Some([("access_token".to_owned(), ByteString(vec![b't'; size]))].into()),
                metadata: metadata(serde_json::json!({"annotations": {secret_keys::EXPIRES_AT_ANNOTATION: "then"}})),
                ..Secret::default()
            };
            let annotations = secret.metadata.annotations.clone().unwrap_or_default();
            let digest = desired_secret::digest(secret.data.as_ref().expect("data"), &annotations);
            let annotations = secret.metadata.annotations.get_or_insert_default();
            annotations.insert(secret_keys::CONTENT.to_owned(), digest);
            change(&mut secret);
            is_what_we_wrote(&secret)
        };
        let sealed = |change: fn(&mut Secret)| with_token(5, change);
        assert!(sealed(|_| {}));
        assert!(with_token(ACCESS_TOKEN_MAX, |_| {}) && !with_token(ACCESS_TOKEN_MAX + 1, |_| {}));
        assert!(!sealed(|secret| secret.data.get_or_insert_default().clear()));
        assert!(!sealed(|secret| {
            let annotations = secret.metadata.annotations.get_or_insert_default();
            annotations.insert(secret_keys::EXPIRES_AT_ANNOTATION.to_owned(), "later".to_owned());
        }));
    }

    #[test]
    fn token_that_could_end_a_header_is_no_token_even_if_the_digest_matches() {
        let usable = |token: &str, extra: bool| {
            let mut data = BTreeMap::from([("access_token".to_owned(), ByteString(token.as_bytes().to_vec()))]);
            let digest = desired_secret::digest(&data, &BTreeMap::new());
            if extra {
                data.insert("extra".to_owned(), ByteString(vec![1]));
            }
            let mut secret = Secret { data: Some(data), ..Secret::default() };
            secret.metadata.annotations = Some([(secret_keys::CONTENT.to_owned(), digest)].into());
            let is_ours = if extra { is_ours_except_for_extra_keys(&secret, None) } else { is_what_we_wrote(&secret) };
            (super::token(&secret).is_some(), is_ours)
        };
        for extra in [false, true] {
            assert_eq!(usable("eyJ.a-b_c|~+/==", extra), (true, true));
            for wrong in ["a\u{1b}]52;c;aGk=\u{7}", "a\r\nX: y", "a\n", "a b", "a\u{202e}", "ä", ""] {
                assert_eq!(usable(wrong, extra), (false, false), "{wrong:?}");
            }
            assert_eq!(usable(&"t".repeat(ACCESS_TOKEN_MAX + 1), extra), (false, false));
        }
    }

    #[test]
    fn field_immutable_is_observed_from_any_manager() {
        let fields = |fields: serde_json::Value| {
            let entry = serde_json::json!({"manager": "kubectl", "operation": "Update", "fieldsV1": fields});
            SecretMetadata::new(&metadata(serde_json::json!({"managedFields": [entry]}))).may_be_immutable
        };
        assert!(fields(serde_json::json!({"f:immutable": {}})));
        assert!(!fields(serde_json::json!({"f:data": {"f:immutable": {}}})));
    }

    #[test]
    fn owner_is_read_only_in_the_format_of_the_operator() {
        let owner = |text: &str| {
            let annotations = serde_json::json!({secret_keys::OWNER: text});
            let owner = SecretMetadata::new(&metadata(serde_json::json!({"annotations": annotations}))).ownership.owner;
            owner.map(|Named { namespace, name }| format!("{namespace} {name}"))
        };
        assert_eq!(owner("team-a/my.agent-1").as_deref(), Some("team-a my.agent-1"));
        let long = format!("team-a/{}", "a".repeat(254));
        for wrong in ["", "agent", "/agent", "team-a/", "team-a/a/b", "Team/agent", "team-a/a b", &long] {
            assert_eq!(owner(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn token_metadata_requires_every_part() {
        let whole = serde_json::json!({
            secret_keys::REQUEST: "r",
            secret_keys::ISSUER_ANNOTATION: "https://ims",
            secret_keys::CLIENT_VERSION: "u/1",
            secret_keys::ISSUED_AT: "2026-01-01T00:00:00Z",
            secret_keys::EXPIRES_AT_ANNOTATION: "2026-01-01T01:00:00Z",
        });
        assert!(SecretMetadata::new(&metadata(serde_json::json!({"annotations": whole}))).token_metadata.is_some());
        for key in whole.as_object().expect("an object").keys() {
            let mut part = whole.clone();
            part.as_object_mut().expect("an object").remove(key);
            assert!(
                SecretMetadata::new(&metadata(serde_json::json!({"annotations": part}))).token_metadata.is_none(),
                "{key}"
            );
        }
    }

    #[test]
    fn desired_labels_are_found_among_others() {
        let secret_metadata = SecretMetadata::new(&metadata(
            serde_json::json!({"labels": {"a": "1", "b": "2"}, "annotations": {"c": "3"}}),
        ));
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert!(secret_metadata.carries(&map("a", "1"), &map("c", "3")));
        assert!(!secret_metadata.carries(&map("a", "2"), &BTreeMap::new()));
        assert!(!secret_metadata.carries(&map("c", "3"), &BTreeMap::new()), "an annotation is not a label");
    }

    #[test]
    fn only_keys_that_no_other_manager_owns_are_leftovers() {
        let entry = |manager: &str, labels: serde_json::Value| serde_json::json!({"manager": manager, "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": labels}}});
        let ours = serde_json::json!({
            ".": {},
            "f:team": {},
            "f:stage": {},
            "f:shared": {},
            "f:app.kubernetes.io/managed-by": {},
            "f:credentials.itwin.dev/credential": {},
        });
        let theirs = serde_json::json!({"f:shared": {}, "f:theirs": {}});
        let secret_metadata = SecretMetadata::new(&metadata(serde_json::json!({
            "labels": {"team": "1", "stage": "2", "shared": "3", "theirs": "4"},
            "managedFields": [entry(MANAGER, ours), entry("kubectl-label", theirs)],
        })));
        let desired = BTreeMap::from([("team".to_owned(), "another value is not a leftover".to_owned())]);
        assert_eq!(
            secret_metadata.leftovers(&desired, &BTreeMap::new()),
            Leftovers { labels: vec!["stage"], annotations: vec![] }
        );
    }

    #[test]
    fn annotation_that_a_template_may_set_is_a_leftover_under_the_name_of_our_label_too() {
        let keys = serde_json::json!({"f:app.kubernetes.io/managed-by": {}, "f:credentials.itwin.dev/owner": {}});
        let pairs = serde_json::json!({secret_keys::MANAGED_BY: "x", secret_keys::OWNER: "team/agent"});
        let fields = serde_json::json!({"f:metadata": {"f:labels": keys, "f:annotations": keys}});
        let secret_metadata = SecretMetadata::new(&metadata(serde_json::json!({
            "labels": pairs,
            "annotations": pairs,
            "managedFields": [{"manager": MANAGER, "operation": "Update", "fieldsV1": fields}],
        })));
        assert_eq!(
            secret_metadata.leftovers(&BTreeMap::new(), &BTreeMap::new()),
            Leftovers { labels: vec![], annotations: vec![secret_keys::MANAGED_BY] }
        );
    }

    /// Metadata with an annotation of this length.
    fn with_annotation(key: &str, length: usize) -> SecretMetadata {
        SecretMetadata::new(&metadata(serde_json::json!({"annotations": {key: "x".repeat(length)}})))
    }

    #[test]
    fn annotation_that_is_too_long_counts_as_absent() {
        type Part = fn(&SecretMetadata) -> Option<&str>;
        let parts: [(&str, usize, Part); 6] = [
            (secret_keys::OWNER_UID, NAME_MAX, |secret_metadata| secret_metadata.ownership.owner_uid.as_deref()),
            (secret_keys::ADOPT, NAME_MAX, |secret_metadata| secret_metadata.ownership.adopt.as_deref()),
            (secret_keys::TEMPLATE, NAME_MAX, |secret_metadata| secret_metadata.template.as_deref()),
            (secret_keys::RENEWED_FOR, NAME_MAX, |secret_metadata| secret_metadata.renewed_for.as_deref()),
            (secret_keys::CLIENT_ID, CLIENT_ID_MAX, |secret_metadata| secret_metadata.description.client_id.as_deref()),
            (secret_keys::GRANTED, SCOPES_MAX, |secret_metadata| secret_metadata.description.scopes.as_deref()),
        ];
        for (key, most, part) in parts {
            assert_eq!(part(&with_annotation(key, most)).map(str::len), Some(most), "{key}");
            assert_eq!(part(&with_annotation(key, most + 1)), None, "{key}");
        }
    }

    #[test]
    fn what_other_field_managers_own_is_remembered_within_limits() {
        let entry = |manager: &str, fields: Value| serde_json::json!({"manager": manager, "fieldsV1": fields});
        let labels = |count: usize| -> Value {
            let keys: serde_json::Map<_, _> =
                (0..count).map(|key| (format!("f:a{key}"), serde_json::json!({}))).collect();
            serde_json::json!({"f:metadata": {"f:labels": keys}})
        };
        let owners = |entries: Vec<Value>| {
            SecretMetadata::new(&metadata(serde_json::json!({"managedFields": entries}))).field_owners
        };
        let expires_at = format!("f:{}", secret_keys::EXPIRES_AT_ANNOTATION);
        let all = owners(vec![
            entry("first", labels(1)),
            entry("many", labels(20_000)),
            entry("editor", serde_json::json!({"f:data": {"f:a": {}}})),
            entry(MANAGER, serde_json::json!({"f:data": {"f:a": {}}})),
            entry("annotator", serde_json::json!({"f:metadata": {"f:annotations": {expires_at: {}}}})),
            entry(&"x".repeat(MANAGER_MAX + 1), labels(1)),
            entry("owner", serde_json::json!({"f:metadata": {"f:ownerReferences": {}}})),
        ]);
        let names: Vec<&str> = all.iter().map(|owner| &*owner.manager).collect();
        assert_eq!(names, ["many", "editor", "annotator", "owner"], "the last ones");
        assert_eq!(all.iter().map(|owner| owner.data).collect::<Vec<_>>(), [false, true, true, false]);
        assert!(all[3].owner_references && all[0].keys.len() == OWNED_KEYS_MAX);

        let own = owners(vec![entry("labels", labels(1))]);
        let desired = BTreeMap::from([("a0".to_owned(), "ours".to_owned())]);
        let theirs = SecretMetadata::new(&metadata(serde_json::json!({"labels": {"a0": "theirs"}})));
        assert_eq!(theirs.missing(&desired, &BTreeMap::new()), own[0].keys.to_vec());
    }

    #[test]
    fn added_keys_are_distinguished_from_a_tampered_token() {
        let template =
            SecretTemplate { data: [("extra".to_owned(), "text".to_owned())].into(), ..SecretTemplate::default() };
        let changed = |change: fn(&mut Secret)| {
            let data = [("access_token", "token"), ("extra", "text")];
            let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())));
            let mut secret = Secret { data: Some(data.into()), ..Secret::default() };
            let digest = desired_secret::digest(secret.data.as_ref().expect("data"), &BTreeMap::new());
            secret.metadata.annotations = Some([(secret_keys::CONTENT.to_owned(), digest)].into());
            change(&mut secret);
            is_ours_except_for_extra_keys(&secret, Some(&template))
        };
        assert!(changed(|secret| drop(
            secret.data.get_or_insert_default().insert("other".into(), ByteString(vec![1]))
        )));
        assert!(!changed(|secret| drop(
            secret.data.get_or_insert_default().insert("extra".into(), ByteString(vec![1]))
        )));
        assert!(!changed(|secret| drop(secret.data.get_or_insert_default().remove("access_token"))));
    }

    #[test]
    fn token_metadata_with_a_part_that_is_too_long_is_absent() {
        let token_metadata = |key: &str, length: usize| {
            let mut annotations = serde_json::json!({
                secret_keys::REQUEST: "r",
                secret_keys::ISSUER_ANNOTATION: "https://ims",
                secret_keys::CLIENT_VERSION: "u/1",
                secret_keys::ISSUED_AT: "2026-01-01T00:00:00Z",
                secret_keys::EXPIRES_AT_ANNOTATION: "2026-01-01T01:00:00Z",
            });
            annotations[key] = "x".repeat(length).into();
            SecretMetadata::new(&metadata(serde_json::json!({"annotations": annotations}))).token_metadata
        };
        let parts = [
            (secret_keys::REQUEST, NAME_MAX),
            (secret_keys::ISSUER_ANNOTATION, ISSUER_MAX),
            (secret_keys::CLIENT_VERSION, NAME_MAX),
        ];
        for (key, most) in parts {
            assert!(token_metadata(key, most).is_some() && token_metadata(key, most + 1).is_none(), "{key}");
        }
    }

    #[test]
    fn owner_with_long_strings_is_an_unknown_owner() {
        let long = "x".repeat(10 * NAME_MAX);
        let owner = serde_json::json!({
            "apiVersion": format!("{long}/v1"), "kind": long, "name": long, "uid": long, "controller": true,
        });
        let secret_metadata = SecretMetadata::new(&metadata(serde_json::json!({"ownerReferences": [owner]})));
        let controller = secret_metadata.ownership.controller.expect("an owner");
        for text in [controller.kind, controller.name, controller.uid] {
            assert_eq!(text.len(), NAME_MAX);
        }
    }

    fn many(count: usize) -> serde_json::Map<String, Value> {
        (0..count).map(|number| (format!("a{number:05}"), "1".into())).collect()
    }

    #[test]
    fn own_labels_and_annotations_and_a_limited_number_of_others_are_stored() {
        let mut annotations = many(20_000);
        annotations.insert(secret_keys::OWNER_UID.to_owned(), "uid".into());
        let labels = serde_json::json!({secret_keys::MANAGED_BY: MANAGER, "team": "a"});
        let secret_metadata =
            SecretMetadata::new(&metadata(serde_json::json!({"labels": labels, "annotations": annotations})));
        assert_eq!(secret_metadata.pairs.len(), PAIRS_MAX + 2);
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let none = BTreeMap::new();
        assert!(secret_metadata.carries(&map("team", "a"), &map(secret_keys::OWNER_UID, "uid")));
        assert!(secret_metadata.carries(&none, &map("a19999", "1")), "it is not stored");
        assert!(secret_metadata.carries(&none, &map("a19999", "2")), "its value is unknown");
        assert!(
            !secret_metadata.carries(&none, &map(secret_keys::OWNER_UID, "another")),
            "the operator's own are always stored"
        );
        assert!(!secret_metadata.carries(&map(secret_keys::CREDENTIAL, "agent"), &none));
    }

    #[test]
    fn missing_label_is_detected_if_all_are_stored() {
        let secret_metadata = SecretMetadata::new(&metadata(serde_json::json!({"annotations": many(PAIRS_MAX)})));
        assert!(!secret_metadata.carries(&BTreeMap::from([("team".to_owned(), "a".to_owned())]), &BTreeMap::new()));
    }

    #[test]
    fn more_managed_fields_than_are_read_leave_the_data_unverified() {
        let entry = |manager: &str, fields: Value| serde_json::json!({"manager": manager, "fieldsV1": fields});
        let keys = |count: usize| -> serde_json::Map<String, Value> {
            (0..count).map(|number| (format!("f:a{number:05}"), serde_json::json!({}))).collect()
        };
        let ours =
            entry(MANAGER, serde_json::json!({"f:data": {"f:a": {}}, "f:metadata": {"f:labels": {"f:team": {}}}}));
        let secret_metadata = |others: Vec<Value>| {
            let entries: Vec<Value> = [ours.clone()].into_iter().chain(others).collect();
            SecretMetadata::new(&metadata(serde_json::json!({"labels": {"team": "a"}, "managedFields": entries})))
        };
        let observed = |secret_metadata: &SecretMetadata| {
            (secret_metadata.sole_writer_of, secret_metadata.may_be_immutable, secret_metadata.template_labels.len())
        };
        let others = |count: usize| (1..count).map(|_| entry("m", serde_json::json!({}))).collect();
        assert_eq!(observed(&secret_metadata(others(MANAGERS_MAX))), (Some(1), false, 1));
        assert_eq!(observed(&secret_metadata(others(MANAGERS_MAX + 1))), (None, true, 0));
        let annotations = |count| vec![entry("m", serde_json::json!({"f:metadata": {"f:annotations": keys(count)}}))];
        assert_eq!(observed(&secret_metadata(annotations(FIELDS_MAX))), (Some(1), false, 1));
        assert_eq!(observed(&secret_metadata(annotations(FIELDS_MAX + 1))), (None, false, 1));
        let labels = |count| vec![entry("m", serde_json::json!({"f:metadata": {"f:labels": keys(count)}}))];
        assert_eq!(observed(&secret_metadata(labels(FIELDS_MAX + 1))), (Some(1), false, 0));
    }

    #[test]
    fn owned_keys_are_stored_if_they_exist_and_up_to_the_limit() {
        let label = |number: usize| format!("example.com/{number:05}-{}", "x".repeat(45));
        let fields: serde_json::Map<_, _> =
            (0..5000).map(|number| (format!("f:{}", label(number)), serde_json::json!({}))).collect();
        let labels: BTreeMap<String, String> = (0..1000).map(|number| (label(number), "1".to_owned())).collect();
        let secret_metadata = |labels: &BTreeMap<String, String>| {
            SecretMetadata::new(&metadata(serde_json::json!({
                "labels": labels,
                "managedFields": [{"manager": MANAGER, "fieldsV1": {"f:metadata": {"f:labels": fields}}}],
            })))
        };
        let kept: usize = secret_metadata(&labels).template_labels.iter().map(|key| key.len()).sum();
        assert!((TEMPLATE_KEYS_MAX - 100..=TEMPLATE_KEYS_MAX).contains(&kept), "{kept}");
        let none = BTreeMap::new();
        assert!(secret_metadata(&none).leftovers(&none, &none).is_empty(), "a missing key cannot be removed");
    }
}
