//! The metadata of a Secret: its version, its owner, the metadata of its token, and who wrote its data.
//!
//! Metadata is enough to decide that a Secret is up to date, so that the Secret itself need not be read.
//! `managedFields` show whether another field manager wrote the data, so that the operator detects manual edits made
//! while it was down without reading the data of every Secret.
//!
//! Users who may write Secrets control this metadata, so each part is limited to the maximum that the operator itself
//! writes. A longer value counts as absent.

mod content;
mod digests;
mod managed_fields;
mod seal;

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use itwin_api::{secret_keys, time};
use itwin_core::{
    last_held::Sealed,
    object::ObjectVersion,
    ownership::{Controller, Named, OUR_KIND, OwnershipMetadata},
    rivals::FieldOwner,
    secret_patch::Leftovers,
    token::{Description, TokenMetadata},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

pub use self::content::{is_ours_except_for_extra_keys, is_what_we_wrote, last_held, token};
use self::{
    digests::{ANNOTATION, LABEL, key_digest, pair},
    managed_fields::{field_owners, may_be_immutable, owned_keys, sole_writer_of},
    seal::Seal,
};
use super::{
    intern::intern,
    reduced::{NAME_MAX, PAIRS_MAX, cut},
};

/// The maximum length of an issuer, in bytes: that of an ITwinAuthority.
const ISSUER_MAX: usize = 2048;
/// The maximum length of a client identifier, in bytes: that of a client Secret.
const CLIENT_ID_MAX: usize = 1 << 10;
/// The maximum length of the scopes, in bytes: 64 of 128 bytes each.
const SCOPES_MAX: usize = 8 << 10;

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
    /// What proves the token once others have removed the annotations.
    seal: Option<Seal>,
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
            seal: annotation(secret_keys::CLIENT)
                .zip(annotation(secret_keys::CONTENT))
                .and_then(|(client, content)| Seal::new(client, content)),
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

    /// What its annotations say besides the token metadata, and what proves the token without them.
    #[must_use]
    pub fn sealed(&self) -> Option<Sealed> {
        Some(self.seal.as_ref()?.with(self.description.clone(), self.renewed_for.clone()))
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

/// A value; `None` if it has more than `most` bytes.
fn bounded<'a>(pairs: &'a BTreeMap<String, String>, key: &str, most: usize) -> Option<&'a str> {
    pairs.get(key).map(String::as_str).filter(|value| value.len() <= most)
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

#[cfg(test)]
mod tests;
