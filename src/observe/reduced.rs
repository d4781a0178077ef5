//! Decodes metadata part by part, skips what the operator does not need, and bounds each part.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use itwin_api::{GROUP, secret_keys};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta, OwnerReference};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// The kind of a credential.
const CREDENTIAL_KIND: &str = "ITwinServiceCredential";

/// The number of labels, and of annotations, of a Secret that are read in addition to the operator's own.
pub const PAIRS_MAX: usize = 512;
/// The maximum length of a label or annotation value that is read, in bytes. The schema allows no longer ones in the
/// template of a credential.
pub const VALUE_MAX: usize = 64 << 10;
/// The number of `managedFields` entries that are read. The API server merges entries of updates beyond ten.
pub const MANAGERS_MAX: usize = 32;
/// The number of keys of labels, of annotations and of data that are read in one entry.
pub const FIELDS_MAX: usize = 512;
/// The number of owner references to credentials that are read besides the controller. The operator adds none of them.
pub const OWNERS_MAX: usize = 8;
/// The maximum length of a name, UID, digest or kind that is read, in bytes: a kind with its group has at most 317.
pub const NAME_MAX: usize = 512;

/// Metadata with only the parts that [`super::target::SecretMetadata`] needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Reduced(pub(super) ObjectMeta);

impl<'de> Deserialize<'de> for Reduced {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Read {
            name: Option<String>,
            namespace: Option<String>,
            uid: Option<String>,
            resource_version: Option<String>,
            #[serde(default)]
            labels: Of<Pairs>,
            #[serde(default)]
            annotations: Of<Pairs>,
            #[serde(default)]
            owner_references: Of<Owners>,
            #[serde(default)]
            managed_fields: Of<Managers>,
        }
        let parts = Read::deserialize(deserializer)?;
        Ok(Self(ObjectMeta {
            name: parts.name,
            namespace: parts.namespace,
            uid: parts.uid,
            resource_version: parts.resource_version,
            labels: Some(parts.labels.0.all),
            annotations: Some(parts.annotations.0.all),
            owner_references: Some(parts.owner_references.0.all),
            managed_fields: Some(parts.managed_fields.0.0),
            ..ObjectMeta::default()
        }))
    }
}

/// Collects parts of an object or array while it is decoded.
pub(super) trait Collect: Default {
    /// The type of its values or items.
    type Part: DeserializeOwned;

    /// Whether the value of this key is decoded.
    fn wants(&self, _key: &str) -> bool {
        true
    }

    /// Collects a value with its key, or an item, whose key is empty.
    fn take(&mut self, key: String, part: Self::Part);
}

/// An object or array that is decoded part by part.
#[derive(Default)]
pub(super) struct Of<C>(pub(super) C);

impl<'de, C: Collect> Deserialize<'de> for Of<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Parts(PhantomData)).map(Self)
    }
}

struct Parts<C>(PhantomData<C>);

impl<'de, C: Collect> Visitor<'de> for Parts<C> {
    type Value = C;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<C, A::Error> {
        let mut all = C::default();
        while let Some(key) = map.next_key::<String>()? {
            if all.wants(&key) {
                all.take(key, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(all)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<C, A::Error> {
        let mut all = C::default();
        while let Some(item) = items.next_element()? {
            all.take(String::new(), item);
        }
        Ok(all)
    }
}

/// Labels or annotations: the operator's own and a limited number of others.
#[derive(Default)]
struct Pairs {
    all: BTreeMap<String, String>,
    others: usize,
}

impl Collect for Pairs {
    type Part = Text<VALUE_MAX>;

    fn wants(&self, key: &str) -> bool {
        secret_keys::OUR_OWN.contains(&key) || self.others <= PAIRS_MAX
    }

    fn take(&mut self, key: String, Text(value): Self::Part) {
        let Some(value) = value else { return };
        self.others += usize::from(!secret_keys::OUR_OWN.contains(&key.as_str()));
        self.all.insert(key, value);
    }
}

/// A string; `None` if it has more than `MOST` bytes.
struct Text<const MOST: usize>(Option<String>);

/// A string, truncated to [`NAME_MAX`] bytes: no name that the operator knows is that long.
#[derive(Default)]
pub(super) struct Cut(pub(super) String);

/// The longest prefix that has at most [`NAME_MAX`] bytes.
#[must_use]
pub fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(NAME_MAX)]
}

struct TextVisitor<T>(fn(&str) -> T);

impl<T> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok(self.0(text))
    }
}

impl<'de, const MOST: usize> Deserialize<'de> for Text<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(|text| Self((text.len() <= MOST).then(|| text.to_owned()))))
    }
}

impl<'de> Deserialize<'de> for Cut {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(|text| Self(cut(text).to_owned())))
    }
}

/// The owner reference with `controller: true`, of which there is at most one, and a limited number of those to
/// credentials.
#[derive(Default)]
struct Owners {
    all: Vec<OwnerReference>,
    others: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    #[serde(default)]
    api_version: Cut,
    #[serde(default)]
    kind: Cut,
    #[serde(default)]
    name: Cut,
    #[serde(default)]
    uid: Cut,
    #[serde(default)]
    controller: bool,
}

impl Collect for Owners {
    type Part = Owner;

    fn take(&mut self, _: String, owner: Owner) {
        let is_first = |all: &[OwnerReference]| all.iter().all(|owner| owner.controller != Some(true));
        let is_kept = if owner.controller {
            is_first(&self.all)
        } else {
            let is_of_a_credential = owner.kind.0 == CREDENTIAL_KIND && owner.api_version.0.starts_with(GROUP);
            self.others += usize::from(is_of_a_credential);
            is_of_a_credential && self.others <= OWNERS_MAX
        };
        if is_kept {
            self.all.push(OwnerReference {
                api_version: owner.api_version.0,
                kind: owner.kind.0,
                name: owner.name.0,
                uid: owner.uid.0,
                controller: owner.controller.then_some(true),
                block_owner_deletion: None,
            });
        }
    }
}

/// The first entries of `managedFields`.
#[derive(Default)]
struct Managers(Vec<ManagedFieldsEntry>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manager {
    #[serde(default)]
    manager: Cut,
    #[serde(default)]
    fields_v1: Of<Fields>,
}

impl Collect for Managers {
    type Part = Manager;

    fn take(&mut self, _: String, entry: Manager) {
        if self.0.len() <= MANAGERS_MAX {
            self.0.push(ManagedFieldsEntry {
                manager: Some(entry.manager.0),
                fields_v1: Some(FieldsV1(Value::Object(entry.fields_v1.0.0))),
                ..ManagedFieldsEntry::default()
            });
        }
    }
}

/// The parts of an entry that are read, each with its keys.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Collect for Fields {
    type Part = Of<Keys>;

    fn wants(&self, key: &str) -> bool {
        ["f:metadata", "f:data", "f:immutable"].contains(&key)
    }

    fn take(&mut self, key: String, Of(Keys(keys)): Of<Keys>) {
        self.0.insert(key, Value::Object(keys));
    }
}

/// The first keys of a part, and the keys within labels and annotations.
#[derive(Default)]
struct Keys(Map<String, Value>);

impl Collect for Keys {
    type Part = Of<InnerKeys>;

    fn take(&mut self, key: String, Of(InnerKeys(keys)): Of<InnerKeys>) {
        if self.0.len() <= FIELDS_MAX && key.len() <= NAME_MAX {
            let keys = if ["f:labels", "f:annotations"].contains(&key.as_str()) { keys } else { Map::new() };
            self.0.insert(key, Value::Object(keys));
        }
    }
}

/// The first keys of labels or annotations.
#[derive(Default)]
struct InnerKeys(Map<String, Value>);

impl Collect for InnerKeys {
    type Part = IgnoredAny;

    fn take(&mut self, key: String, _: IgnoredAny) {
        if self.0.len() <= FIELDS_MAX && key.len() <= NAME_MAX {
            self.0.insert(key, Value::Object(Map::new()));
        }
    }
}

#[cfg(test)]
mod tests;
