//! What the metadata of a Secret tells: its version, its owner, the token in it, and who wrote its data.
//!
//! Metadata is all that is needed to decide that nothing is to be done, so that no Secret is read for that. Whether
//! somebody else wrote the data stands in `managedFields`: a hand edit made while the operator was down is noticed
//! without reading the data of every Secret.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::intern::intern;
use crate::{
    api::{MANAGER, limits::ACCESS_TOKEN_MAX, secret_keys},
    clock,
    decide::{
        facts::Stamp,
        fingerprint,
        ownership::{Controller, Marks, Named},
    },
    digest,
};

/// What is kept of a Secret that somebody here cares for. Small: there are as many as credentials, twice.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `<uid>/<resourceVersion>`: another one means that something in it changed.
    pub version: Arc<str>,
    /// What it says of its owner.
    pub marks: Marks,
    /// What it says of the token in it.
    pub stamp: Option<Stamp>,
    /// Digest of the templates by which keys of it were rendered.
    pub template: Option<Arc<str>>,
    /// Digest of the renew annotation that was acted upon with the token in it.
    pub renewed_for: Option<Arc<str>>,
    /// What the token was issued for.
    pub description: Description,
    /// How many keys of `data` we wrote, if nobody else wrote any, nor an annotation that tells of it.
    pub sole_writer_of: Option<usize>,
    /// Somebody set `immutable`.
    pub may_be_immutable: bool,
    /// Labels that a template gave it.
    template_labels: Box<[Box<str>]>,
    /// Annotations that a template gave it.
    template_annotations: Box<[Box<str>]>,
    /// Digests of its labels and annotations, sorted, to see whether the wished ones are there.
    pairs: Box<[u32]>,
}

/// What a token was issued for, as far as no decision needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Client identifier.
    pub client_id: Option<Arc<str>>,
    /// Granted scopes, as RFC 6749, section 3.3 writes them.
    pub scopes: Option<Arc<str>>,
}

impl Description {
    /// The granted scopes, one by one.
    #[must_use]
    pub fn scopes(&self) -> Vec<String> {
        self.scopes.iter().flat_map(|scopes| scopes.split_ascii_whitespace()).map(str::to_owned).collect()
    }
}

impl Seen {
    /// Reads a Secret's metadata.
    #[must_use]
    pub fn new(metadata: &ObjectMeta) -> Self {
        let annotations = metadata.annotations.as_ref();
        let annotation = |key: &str| annotations.and_then(|annotations| annotations.get(key)).map(String::as_str);
        let shared = |key: &str| annotation(key).map(intern);
        let controller = controller(metadata);
        let owner = controller.as_ref().map(|controller| (&controller.uid, &controller.name));
        // what the owner reference says too is not kept twice
        let same_as = |known: Option<&Arc<str>>, text: &str| match known {
            Some(known) if **known == *text => known.clone(),
            _ => Arc::from(text),
        };
        let (uid, resource_version) = (metadata.uid.as_deref(), metadata.resource_version.as_deref());
        let mut pairs: Vec<u32> = digests("label", metadata.labels.iter().flatten())
            .chain(digests("annotation", metadata.annotations.iter().flatten()))
            .collect();
        pairs.sort_unstable();
        Self {
            version: format!("{}/{}", uid.unwrap_or_default(), resource_version.unwrap_or_default()).into(),
            marks: Marks {
                owner_uid: annotation(secret_keys::OWNER_UID).map(|uid| same_as(owner.map(|(uid, _)| uid), uid)),
                adopt: annotation(secret_keys::ADOPT).map(Arc::from),
                owner: annotation(secret_keys::OWNER).and_then(named).map(|(namespace, name)| Named {
                    namespace: intern(namespace),
                    name: same_as(owner.map(|(_, name)| name), name),
                }),
                controller,
            },
            stamp: stamp(metadata),
            template: shared(secret_keys::TEMPLATE),
            renewed_for: annotation(secret_keys::RENEWED_FOR).map(Arc::from),
            description: Description {
                client_id: shared(secret_keys::CLIENT_ID),
                scopes: shared(secret_keys::GRANTED),
            },
            sole_writer_of: sole_writer_of(metadata),
            may_be_immutable: may_be_immutable(metadata),
            template_labels: put_there(metadata, "f:labels"),
            template_annotations: put_there(metadata, "f:annotations"),
            pairs: pairs.into(),
        }
    }

    /// UID of the Secret.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.version.split_once('/').map_or("", |(uid, _)| uid)
    }

    /// Its resourceVersion, for guarded writes.
    #[must_use]
    pub fn resource_version(&self) -> &str {
        self.version.split_once('/').map_or("", |(_, version)| version)
    }

    /// Whether all these labels and annotations are there.
    #[must_use]
    pub fn carries(&self, labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> bool {
        digests("label", labels)
            .chain(digests("annotation", annotations))
            .all(|digest| self.pairs.binary_search(&digest).is_ok())
    }
}

/// Labels and annotations that a template once gave the Secret and that are wished no more.
#[derive(Debug, PartialEq, Eq)]
pub struct Leftovers<'a> {
    /// Keys of labels.
    pub labels: Vec<&'a str>,
    /// Keys of annotations.
    pub annotations: Vec<&'a str>,
}

impl Leftovers<'_> {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

impl Seen {
    /// What we put there and is not among the wished labels and annotations.
    #[must_use]
    pub fn leftovers(
        &self,
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
    ) -> Leftovers<'_> {
        fn unwished<'a>(keys: &'a [Box<str>], wished: &BTreeMap<String, String>) -> Vec<&'a str> {
            keys.iter().map(|key| &**key).filter(|key| !wished.contains_key(*key)).collect()
        }
        Leftovers {
            labels: unwished(&self.template_labels, labels),
            annotations: unwished(&self.template_annotations, annotations),
        }
    }
}

/// The digest of a Secret's `data` and of the annotations that tell of it, as it stands in [`secret_keys::CONTENT`].
#[must_use]
pub fn content(data: &BTreeMap<String, ByteString>, annotations: &BTreeMap<String, String>) -> String {
    let told = secret_keys::STAMP.iter().filter_map(|key| Some((*key, annotations.get(*key)?.as_bytes())));
    fingerprint::content(data.iter().map(|(key, value)| (key.as_str(), value.0.as_slice())).chain(told))
}

/// Whether a Secret's data, and what its annotations tell of it, is what we wrote. A token that is longer than one that
/// we accept is not, whatever the digest says: anyone who may read and write the Secret can compute that.
#[must_use]
pub fn is_what_we_wrote(secret: &Secret) -> bool {
    let (Some(data), Some(annotations)) = (&secret.data, &secret.metadata.annotations) else { return false };
    if data.get(secret_keys::ACCESS_TOKEN).is_some_and(|token| token.0.len() > ACCESS_TOKEN_MAX) {
        return false;
    }
    annotations.get(secret_keys::CONTENT).is_some_and(|digest| *digest == content(data, annotations))
}

fn digests<'a>(
    kind: &'static str,
    pairs: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> impl Iterator<Item = u32> {
    pairs.into_iter().map(move |(key, value)| digest::short([kind, key, value]))
}

fn controller(metadata: &ObjectMeta) -> Option<Controller> {
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    // the version is no part of the identity: an owner reference outlives it
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    Some(Controller {
        kind: intern(&format!("{group}/{}", owner.kind)),
        name: owner.name.as_str().into(),
        uid: owner.uid.as_str().into(),
    })
}

/// The longest name of a namespace (RFC 1123 label), and of an object (RFC 1123 subdomain).
const NAMES_MAX: (usize, usize) = (63, 253);

/// Namespace and name in the annotation about the owner, if it holds what the operator writes there.
fn named(text: &str) -> Option<(&str, &str)> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let is_name = |name: &str, max: usize| (1..=max).contains(&name.len()) && name.chars().all(legal);
    text.split_once('/').filter(|(namespace, name)| is_name(namespace, NAMES_MAX.0) && is_name(name, NAMES_MAX.1))
}

fn stamp(metadata: &ObjectMeta) -> Option<Stamp> {
    let annotations = metadata.annotations.as_ref()?;
    Some(Stamp {
        request: intern(annotations.get(secret_keys::REQUEST)?),
        issuer: intern(annotations.get(secret_keys::ISSUER_ANNOTATION)?),
        client_version: intern(annotations.get(secret_keys::CLIENT_VERSION)?),
        issued_at: clock::from_rfc3339(annotations.get(secret_keys::ISSUED_AT)?)?,
        expires_at: clock::from_rfc3339(annotations.get(secret_keys::EXPIRES_AT_ANNOTATION)?)?,
    })
}

/// How many keys of `data` our own field manager owns, if no other manager owns any, nor an annotation that tells of
/// it: an edited expiry would keep us from renewing.
fn sole_writer_of(metadata: &ObjectMeta) -> Option<usize> {
    let mut ours = 0;
    for entry in metadata.managed_fields.iter().flatten() {
        let Some(fields) = entry.fields_v1.as_ref().map(|fields| &fields.0) else { continue };
        let is_ours = entry.manager.as_deref() == Some(MANAGER);
        let tells = |key: &&str| fields["f:metadata"]["f:annotations"].get(format!("f:{key}")).is_some();
        if !is_ours && secret_keys::STAMP.iter().chain([&secret_keys::CONTENT]).any(tells) {
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

/// Whether anybody ever wrote the field `immutable`; what is in it, only the Secret itself tells.
fn may_be_immutable(metadata: &ObjectMeta) -> bool {
    let entries = metadata.managed_fields.iter().flatten().filter_map(|entry| entry.fields_v1.as_ref());
    entries.into_iter().any(|fields| fields.0.get("f:immutable").is_some())
}

/// Keys of this part of the metadata that our own field manager alone owns, those of our own names apart. What somebody
/// else wrote too, or wrote first, is his.
fn put_there(metadata: &ObjectMeta, part: &str) -> Box<[Box<str>]> {
    let (mut ours, mut theirs) = (BTreeSet::new(), BTreeSet::new());
    for entry in metadata.managed_fields.iter().flatten() {
        let fields = entry.fields_v1.as_ref().and_then(|fields| fields.0.get("f:metadata")?.get(part)?.as_object());
        let keys = fields.into_iter().flat_map(|fields| fields.keys()).filter_map(|key| key.strip_prefix("f:"));
        if entry.manager.as_deref() == Some(MANAGER) { ours.extend(keys) } else { theirs.extend(keys) }
    }
    ours.difference(&theirs).filter(|key| !secret_keys::is_our_own(key)).map(|key| Box::from(*key)).collect()
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
        Seen::new(&metadata(serde_json::json!({"managedFields": entries}))).sole_writer_of
    }

    #[test]
    fn data_is_ours_only_if_nobody_else_wrote_any_of_it() {
        assert_eq!(written_by(&[(MANAGER, &["a", "b"])]), Some(2));
        assert_eq!(written_by(&[(MANAGER, &["a"]), ("kubectl-edit", &["b"])]), None);
        assert_eq!(written_by(&[]), Some(0));
    }

    #[test]
    fn annotation_about_the_token_that_somebody_else_wrote_makes_it_doubtful() {
        let written = |key: &str| {
            let annotations = serde_json::json!({format!("f:{key}"): {}});
            let theirs = serde_json::json!({"f:metadata": {"f:annotations": annotations}});
            let ours = serde_json::json!({"f:data": {"f:a": {}}});
            let entry = |manager: &str, fields| serde_json::json!({"manager": manager, "fieldsV1": fields});
            let fields = [entry(MANAGER, ours), entry("kubectl-annotate", theirs)];
            Seen::new(&metadata(serde_json::json!({"managedFields": fields}))).sole_writer_of
        };
        assert_eq!(written(secret_keys::EXPIRES_AT_ANNOTATION), None);
        assert_eq!(written(secret_keys::CONTENT), None);
        assert_eq!(written(secret_keys::ADOPT), Some(1), "an offer is somebody else's by its nature");
        assert_eq!(written("example.com/theirs"), Some(1));
    }

    #[test]
    fn digest_covers_data_and_what_is_told_of_it() {
        let with_token = |size: usize, change: fn(&mut Secret)| {
            let mut secret = Secret {
                data: Some([("access_token".to_owned(), ByteString(vec![b't'; size]))].into()),
                metadata: metadata(serde_json::json!({"annotations": {secret_keys::EXPIRES_AT_ANNOTATION: "then"}})),
                ..Secret::default()
            };
            let annotations = secret.metadata.annotations.clone().unwrap_or_default();
            let digest = content(secret.data.as_ref().expect("data"), &annotations);
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
    fn field_immutable_is_seen_whoever_wrote_it() {
        let fields = |fields: serde_json::Value| {
            let entry = serde_json::json!({"manager": "kubectl", "operation": "Update", "fieldsV1": fields});
            Seen::new(&metadata(serde_json::json!({"managedFields": [entry]}))).may_be_immutable
        };
        assert!(fields(serde_json::json!({"f:immutable": {}})));
        assert!(!fields(serde_json::json!({"f:data": {"f:immutable": {}}})));
    }

    #[test]
    fn owner_is_read_only_as_the_operator_writes_it() {
        let owner = |text: &str| {
            let annotations = serde_json::json!({secret_keys::OWNER: text});
            let owner = Seen::new(&metadata(serde_json::json!({"annotations": annotations}))).marks.owner;
            owner.map(|Named { namespace, name }| format!("{namespace} {name}"))
        };
        assert_eq!(owner("team-a/my.agent-1").as_deref(), Some("team-a my.agent-1"));
        let long = format!("team-a/{}", "a".repeat(254));
        for wrong in ["", "agent", "/agent", "team-a/", "team-a/a/b", "Team/agent", "team-a/a b", &long] {
            assert_eq!(owner(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn stamp_needs_every_part() {
        let whole = serde_json::json!({
            secret_keys::REQUEST: "r",
            secret_keys::ISSUER_ANNOTATION: "https://ims",
            secret_keys::CLIENT_VERSION: "u/1",
            secret_keys::ISSUED_AT: "2026-01-01T00:00:00Z",
            secret_keys::EXPIRES_AT_ANNOTATION: "2026-01-01T01:00:00Z",
        });
        assert!(Seen::new(&metadata(serde_json::json!({"annotations": whole}))).stamp.is_some());
        for key in whole.as_object().expect("an object").keys() {
            let mut part = whole.clone();
            part.as_object_mut().expect("an object").remove(key);
            assert!(Seen::new(&metadata(serde_json::json!({"annotations": part}))).stamp.is_none(), "{key}");
        }
    }

    #[test]
    fn wished_labels_are_found_among_foreign_ones() {
        let seen = Seen::new(&metadata(serde_json::json!({"labels": {"a": "1", "b": "2"}, "annotations": {"c": "3"}})));
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert!(seen.carries(&map("a", "1"), &map("c", "3")));
        assert!(!seen.carries(&map("a", "2"), &BTreeMap::new()));
        assert!(!seen.carries(&map("c", "3"), &BTreeMap::new()), "an annotation is no label");
    }

    #[test]
    fn only_what_we_alone_put_there_is_a_leftover() {
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
        let seen = Seen::new(&metadata(serde_json::json!({
            "managedFields": [entry(MANAGER, ours), entry("kubectl-label", theirs)],
        })));
        let wished = BTreeMap::from([("team".to_owned(), "another value is no leftover".to_owned())]);
        assert_eq!(seen.leftovers(&wished, &BTreeMap::new()), Leftovers { labels: vec!["stage"], annotations: vec![] });
    }
}
