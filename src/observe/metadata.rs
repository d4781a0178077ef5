//! The metadata of a Secret, decoded without the parts that the operator does not need.
//!
//! Users who may write a Secret may set 256 KiB of annotations, and labels, owner references and `managedFields` up to
//! the size limit of an object. Decoded as [`ObjectMeta`], these take ten times the memory of their text. So a Secret
//! of a list is stored as text until the operator knows that a credential references it. Then only as much of each part
//! is decoded as the operator could have written, and one more item, which shows [`super::target::SecretMetadata`] that
//! there are more.

use std::{borrow::Cow, collections::BTreeMap};

use itwin_api::secret_keys;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Resource, core::NamespaceResourceScope};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::value::RawValue;

use super::reduced::{Collect, Cut, Of, Reduced};

/// Keys of data that are read in addition to the operator's own. In a client Secret with more keys, the alphabetically
/// last ones count as missing.
pub const DATA_MAX: usize = 1024;
/// The metadata of an object as text, of which only the identity is decoded.
#[derive(Clone, Debug)]
struct Metadata {
    /// Name, namespace, UID and resourceVersion.
    identity: ObjectMeta,
    text: Box<RawValue>,
}

impl Metadata {
    fn read(&self) -> ObjectMeta {
        // a Secret whose metadata cannot be decoded is not owned, and does not end the watch
        serde_json::from_str(self.text.get()).map_or_else(|_| self.identity.clone(), |Reduced(metadata)| metadata)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Identity {
            name: Option<String>,
            namespace: Option<String>,
            uid: Option<String>,
            resource_version: Option<String>,
        }
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let Identity { name, namespace, uid, resource_version } =
            serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        let identity = ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() };
        Ok(Self { identity, text })
    }
}

/// A Secret of which the API server sent only the metadata.
#[derive(Clone, Debug, Deserialize)]
pub struct PartialSecret {
    metadata: Metadata,
}

impl PartialSecret {
    /// Decodes the metadata.
    #[must_use]
    pub fn read(&self) -> ObjectMeta {
        self.metadata.read()
    }
}

/// A Secret with its data.
#[derive(Deserialize)]
pub struct WholeSecret {
    metadata: Metadata,
    #[serde(default)]
    data: Of<Data>,
    /// The API server does not bound its length.
    #[serde(rename = "type")]
    type_: Option<Cut>,
    immutable: Option<bool>,
}

impl WholeSecret {
    /// Its name, namespace, UID and resourceVersion.
    #[must_use]
    pub fn identity(&self) -> &ObjectMeta {
        &self.metadata.identity
    }

    /// The Secret with its decoded metadata and a limited number of keys of data ([`DATA_MAX`]).
    #[must_use]
    pub fn read(self) -> Secret {
        Secret {
            metadata: self.metadata.read(),
            data: Some(self.data.0.0),
            type_: self.type_.map(|type_| type_.0),
            immutable: self.immutable,
            ..Secret::default()
        }
    }
}

/// Keys of data and their values.
#[derive(Default)]
struct Data(BTreeMap<String, ByteString>);

impl Collect for Data {
    type Part = ByteString;

    fn wants(&self, key: &str) -> bool {
        secret_keys::DATA_KEYS.contains(&key) || self.0.len() <= DATA_MAX
    }

    fn take(&mut self, key: String, value: ByteString) {
        self.0.insert(key, value);
    }
}

impl Resource for PartialSecret {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Secret::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Secret::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Secret::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Secret::plural(&())
    }

    /// Only the metadata is requested.
    fn metadata_api() -> bool {
        true
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata.identity
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata.identity
    }
}

#[cfg(test)]
mod tests {
    use kube::{
        ResourceExt,
        core::{ObjectList, WatchEvent},
    };
    use serde_json::json;

    use super::*;
    use crate::observe::reduced::NAME_MAX;

    #[test]
    fn secrets_are_decoded_from_a_list_and_from_a_watch() {
        let secret = json!({"metadata": {"name": "a", "namespace": "team", "resourceVersion": "7"}});
        let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "items": [secret]});
        let list: ObjectList<PartialSecret> = serde_json::from_str(&list.to_string()).expect("a list");
        assert_eq!(list.items[0].name_any(), "a");
        let event = format!(r#"{{"type":"MODIFIED","object":{secret}}}"#);
        let event: WatchEvent<PartialSecret> = serde_json::from_str(&event).expect("an event");
        assert!(matches!(event, WatchEvent::Modified(secret) if secret.resource_version().as_deref() == Some("7")));
    }

    #[test]
    fn secret_whose_metadata_cannot_be_decoded_has_no_owner() {
        let text = json!({"metadata": {"name": "a", "annotations": {secret_keys::OWNER_UID: 7}}}).to_string();
        let metadata = serde_json::from_str::<PartialSecret>(&text).expect("no Secret ends the watch").read();
        assert_eq!(metadata.name.as_deref(), Some("a"));
        assert!(metadata.annotations.is_none());
    }

    #[test]
    fn own_keys_of_data_and_a_limited_number_of_others_are_read() {
        let mut data: BTreeMap<String, String> =
            (0..20_000).map(|number| (format!("a{number:05}"), String::new())).collect();
        data.extend(secret_keys::DATA_KEYS.map(|key| (key.to_owned(), "eA==".to_owned())));
        let secret = json!({"metadata": {"name": "a"}, "data": data, "type": "Opaque", "immutable": true});
        let secret: WholeSecret = serde_json::from_str(&secret.to_string()).expect("a Secret");
        let secret = secret.read();
        let data = secret.data.unwrap_or_default();
        assert_eq!(data.get(secret_keys::ACCESS_TOKEN).map(|value| value.0.as_slice()), Some(&b"x"[..]));
        assert_eq!(data.len(), DATA_MAX + 1 + secret_keys::DATA_KEYS.len());
        assert_eq!((secret.type_.as_deref(), secret.immutable), (Some("Opaque"), Some(true)));
    }

    #[test]
    fn type_is_bounded() {
        let secret = json!({"metadata": {"name": "a"}, "type": "x".repeat(1 << 20)});
        let secret: WholeSecret = serde_json::from_str(&secret.to_string()).expect("a Secret");
        assert_eq!(secret.read().type_.map(|type_| type_.len()), Some(NAME_MAX));
    }
}
