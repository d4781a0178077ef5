//! Objects as they come from a watch: without what nothing here reads, and without letting one that this version cannot
//! understand end the watch of all others.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{Resource, core::error_boundary::InvalidObject};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, Visitor},
};
use serde_json::{Map, Value};

use crate::api::{limits::RENEW_MAX, secret_keys};

/// The longest part of a parser's error that is kept, in bytes.
const ERROR_MAX: usize = 1024;

/// An object, or why it cannot be understood. Like [`kube::core::DeserializeGuard`], but what others write on an object
/// is skipped instead of copied twice: `managedFields`, labels, and annotations, of which `kubectl apply` makes one with
/// the whole object.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, InvalidObject>);

#[derive(Deserialize)]
struct Raw {
    metadata: Metadata,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

/// What is read of the metadata.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(default, rename = "credentials.itwin.dev/renew")]
    renew: Renew,
}

/// The annotation by which a renewal is asked for. A value that is too long is dropped while it is read.
#[derive(Default)]
enum Renew {
    #[default]
    Absent,
    Value(String),
    TooLong,
}

impl<'de> Deserialize<'de> for Renew {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Renew;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the text of an annotation")
            }

            fn visit_none<E: Error>(self) -> Result<Renew, E> {
                Ok(Renew::Absent)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Renew, D::Error> {
                deserializer.deserialize_str(self)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Renew, E> {
                let is_short = text.chars().nth(RENEW_MAX).is_none();
                Ok(if is_short { Renew::Value(text.to_owned()) } else { Renew::TooLong })
            }
        }
        deserializer.deserialize_option(Text)
    }
}

impl Renew {
    /// The annotation as it is kept: the value, or a mark that it was too long, which no object can have by itself.
    fn kept(self) -> Option<BTreeMap<String, String>> {
        let (key, value) = match self {
            Self::Absent => return None,
            Self::Value(value) => (secret_keys::RENEW, value),
            Self::TooLong => (secret_keys::RENEW_TOO_LONG, String::new()),
        };
        Some(BTreeMap::from([(key.to_owned(), value)]))
    }
}

impl From<Metadata> for ObjectMeta {
    fn from(metadata: Metadata) -> Self {
        Self {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            generation: metadata.generation,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            annotations: metadata.annotations.renew.kept(),
            ..Self::default()
        }
    }
}

impl<'de, K: Resource + DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Raw { metadata, spec, status } = Raw::deserialize(deserializer)?;
        let metadata = metadata.into();
        let parts = [("metadata", Value::Object(Map::new())), ("spec", spec), ("status", status)];
        let parts = parts.into_iter().map(|(name, part)| (name.to_owned(), part)).collect();
        Ok(Self(match K::deserialize(Value::Object(parts)) {
            Ok(mut object) => {
                *object.meta_mut() = metadata;
                Ok(object)
            }
            Err(error) => {
                // it can repeat a whole value
                let mut error = error.to_string();
                error.truncate(error.floor_char_boundary(ERROR_MAX));
                Err(InvalidObject { error, metadata })
            }
        }))
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|invalid| &invalid.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|invalid| &mut invalid.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;
    use crate::api::{authority::ITwinAuthority, credential::ITwinServiceCredential};

    fn object(change: fn(&mut Value)) -> Guarded<ITwinServiceCredential> {
        let mut value = json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinServiceCredential",
            "metadata": {
                "name": "agent",
                "namespace": "team",
                "uid": "uid",
                "resourceVersion": "7",
                "generation": 2,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"team": "a"},
                "annotations": {secret_keys::RENEW: "now", "example.com/other": "text"},
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {"authorityRef": {"name": "ims"}, "clientCredentialsRef": {"name": "client"}},
            "status": {"observedGeneration": 2},
        });
        change(&mut value);
        serde_json::from_value(value).expect("no object ends the watch")
    }

    #[test]
    fn all_is_there_that_is_read() {
        let credential = object(|_| {}).0.expect("it can be understood");
        assert_eq!(credential.spec.client_credentials_ref.name, "client");
        assert_eq!(credential.status.as_ref().and_then(|status| status.observed_generation), Some(2));
        assert_eq!(credential.uid().as_deref(), Some("uid"));
        assert_eq!(credential.resource_version().as_deref(), Some("7"));
        assert_eq!(credential.metadata.generation, Some(2));
        assert!(credential.metadata.creation_timestamp.is_some());
        assert!(credential.metadata.deletion_timestamp.is_none());
        assert_eq!(credential.annotations().get(secret_keys::RENEW).map(String::as_str), Some("now"));
    }

    #[test]
    fn renew_annotation_that_is_too_long_is_not_kept_and_leaves_a_mark() {
        let renew = |value: Value| {
            let mut object =
                json!({"metadata": {"name": "agent"}, "spec": {"clientCredentialsRef": {"name": "client"}}});
            object["metadata"]["annotations"] =
                json!({secret_keys::RENEW: value, secret_keys::RENEW_TOO_LONG: "forged"});
            // as the client reads it, and from a value that is parsed already
            let text = object.to_string();
            let from_text: Guarded<ITwinServiceCredential> = serde_json::from_str(&text).expect("guarded");
            let from_value: Guarded<ITwinServiceCredential> = serde_json::from_value(object).expect("guarded");
            let kept = |guarded: Guarded<ITwinServiceCredential>| guarded.0.expect("understood").annotations().clone();
            let (kept, same) = (kept(from_text), kept(from_value));
            assert_eq!(kept, same);
            kept
        };
        let pair = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        for longest in ["x".repeat(RENEW_MAX), "ä".repeat(RENEW_MAX), "\n".repeat(RENEW_MAX)] {
            assert_eq!(renew(json!(longest)), pair(secret_keys::RENEW, &longest));
            assert_eq!(renew(json!(format!("{longest}x"))), pair(secret_keys::RENEW_TOO_LONG, ""));
        }
        assert_eq!(renew(json!("x".repeat(250_000))), pair(secret_keys::RENEW_TOO_LONG, ""));
        assert!(renew(Value::Null).is_empty());
    }

    #[test]
    fn error_about_a_long_value_is_cut() {
        let mut value = json!({"metadata": {"name": "agent"}, "spec": {"clientCredentialsRef": {"name": "client"}}});
        value["spec"]["suspend"] = json!("ä".repeat(100_000));
        let guarded: Guarded<ITwinServiceCredential> = serde_json::from_value(value).expect("guarded");
        assert!(guarded.0.is_err_and(|invalid| (512..=ERROR_MAX).contains(&invalid.error.len())));
    }

    #[test]
    fn what_nobody_reads_is_left_out() {
        let credential = object(|_| {}).0.expect("it can be understood");
        assert_eq!(credential.annotations().len(), 1);
        assert!(credential.labels().is_empty() && credential.managed_fields().is_empty());
    }

    #[test]
    fn object_that_cannot_be_understood_is_told_by_name() {
        let guarded = object(|value| value["spec"]["suspend"] = json!("perhaps"));
        assert_eq!(guarded.meta().name.as_deref(), Some("agent"));
        let invalid = guarded.0.expect_err("suspend is no text");
        assert!(invalid.error.contains("perhaps"), "{}", invalid.error);
        assert!(object(|value| value["spec"] = Value::Null).0.is_err());
        assert!(object(|value| value["status"] = json!({"conditions": 7})).0.is_err());
    }

    #[test]
    fn object_without_a_status_is_understood() {
        let without = object(|value| drop(value.as_object_mut().expect("an object").remove("status")));
        assert!(without.0.expect("it can be understood").status.is_none());
        let authority = json!({"metadata": {"name": "ims"}, "spec": {"issuer": "https://ims.example.com"}});
        let authority: Guarded<ITwinAuthority> = serde_json::from_value(authority).expect("guarded");
        assert_eq!(authority.meta().name.as_deref(), Some("ims"));
        assert!(authority.0.is_ok());
    }
}
