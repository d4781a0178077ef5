//! Objects as they come from a watch: without what nothing here reads, and without letting one that this version cannot
//! understand end the watch of all others.

mod finalizers;

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData};

use itwin_api::{limits::RENEW_MAX, secret_keys};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{Resource, core::error_boundary::InvalidObject};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, Visitor},
};
use serde_json::value::RawValue;

use self::finalizers::Finalizers;

/// The longest part of a parser's error that is kept, in bytes.
const ERROR_MAX: usize = 1024;

/// An object as its text, of which only what is read of the metadata was parsed. Like
/// [`kube::core::DeserializeGuard`], but a page of such objects takes no more memory than its text, and what others
/// write on an object is skipped: `managedFields`, labels, and annotations, of which `kubectl apply` makes one with the
/// whole object.
#[derive(Clone, Debug)]
pub struct Guarded<K> {
    metadata: ObjectMeta,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
    kind: PhantomData<K>,
}

impl<K: Resource + DeserializeOwned> Guarded<K> {
    /// The object.
    ///
    /// # Errors
    /// Why it could not be decoded.
    #[expect(clippy::result_large_err, reason = "the error is kube's, and there is one at a time")]
    pub fn open(self) -> Result<K, InvalidObject> {
        let [spec, status] = [&self.spec, &self.status].map(|part| part.as_ref().map_or("null", |part| part.get()));
        let text = format!(r#"{{"metadata":{{}},"spec":{spec},"status":{status}}}"#);
        match serde_json::from_str::<K>(&text) {
            Ok(mut object) => {
                *object.meta_mut() = self.metadata;
                Ok(object)
            }
            Err(error) => {
                // it can repeat a whole value
                let mut error = error.to_string();
                error.truncate(error.floor_char_boundary(ERROR_MAX));
                Err(InvalidObject { error, metadata: self.metadata })
            }
        }
    }
}

#[derive(Deserialize)]
struct Parts {
    metadata: Metadata,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
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
    finalizers: Option<Finalizers>,
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
            finalizers: metadata.finalizers.filter(|_| metadata.deletion_timestamp.is_some()).map(|names| names.0),
            deletion_timestamp: metadata.deletion_timestamp,
            annotations: metadata.annotations.renew.kept(),
            ..Self::default()
        }
    }
}

impl<'de, K> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Parts { metadata, spec, status } = Parts::deserialize(deserializer)?;
        Ok(Self { metadata: metadata.into(), spec, status, kind: PhantomData })
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
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use itwin_api::{authority::ITwinAuthority, credential::ITwinServiceCredential};
    use kube::{ResourceExt, core::WatchEvent};
    use serde_json::{Value, json};

    use super::*;

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
        let credential = object(|_| {}).open().expect("it can be decoded");
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
            let kept =
                |guarded: Guarded<ITwinServiceCredential>| guarded.open().expect("understood").annotations().clone();
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
        assert!(guarded.open().is_err_and(|invalid| (512..=ERROR_MAX).contains(&invalid.error.len())));
    }

    #[test]
    fn what_no_one_reads_is_left_out() {
        let credential = object(|_| {}).open().expect("it can be decoded");
        assert_eq!(credential.annotations().len(), 1);
        assert!(credential.labels().is_empty() && credential.managed_fields().is_empty());
    }

    #[test]
    fn invalid_object_is_reported_by_name() {
        let guarded = object(|value| value["spec"]["suspend"] = json!("perhaps"));
        assert_eq!(guarded.meta().name.as_deref(), Some("agent"));
        let invalid = guarded.open().expect_err("suspend is no text");
        assert!(invalid.error.contains("perhaps"), "{}", invalid.error);
        assert_eq!(invalid.metadata.name.as_deref(), Some("agent"));
        assert!(object(|value| value["spec"] = Value::Null).open().is_err());
        assert!(object(|value| value["status"] = json!({"conditions": 7})).open().is_err());
    }

    #[test]
    fn object_without_a_status_is_understood() {
        let without = object(|value| drop(value.as_object_mut().expect("an object").remove("status")));
        assert!(without.open().expect("it can be decoded").status.is_none());
        let authority = json!({"metadata": {"name": "ims"}, "spec": {"issuer": "https://ims.example.com"}});
        let authority: Guarded<ITwinAuthority> = serde_json::from_value(authority).expect("guarded");
        assert_eq!(authority.meta().name.as_deref(), Some("ims"));
        assert!(authority.open().is_ok());
    }
    #[test]
    fn event_of_a_watch_is_read_from_its_line() {
        let line = r#"{"type":"ADDED","object":{"metadata":{"name":"agent"},"spec":{"clientCredentialsRef":{"name":"client"}}}}"#;
        let event: WatchEvent<Guarded<ITwinServiceCredential>> = serde_json::from_str(line).expect("an event");
        let WatchEvent::Added(guarded) = event else { unreachable!("it was added") };
        assert_eq!(guarded.open().expect("a credential").spec.client_credentials_ref.name, "client");
    }
}
