//! The pods of a workload, and how they use Secrets.
//!
//! Of an object only the parts that matter are decoded: a cluster has ten thousand pods.

mod uses;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

pub use self::uses::{How, Use};

/// A field that is absent, or null as in a manifest with an empty list.
///
/// # Errors
/// What the value is instead.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Metadata of an object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Name.
    pub name: Option<String>,
    /// The beginning of a name that the API server completes.
    pub generate_name: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Owners.
    #[serde(deserialize_with = "nullable")]
    pub owner_references: Vec<Owner>,
}

/// An owner of an object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Owner {
    pub kind: String,
    pub name: String,
    pub controller: Option<bool>,
}

impl Metadata {
    /// The controller, as kind and name.
    #[must_use]
    pub fn controller(&self) -> Option<(&str, &str)> {
        let owner = self.owner_references.iter().find(|owner| owner.controller == Some(true))?;
        Some((&owner.kind, &owner.name))
    }

    /// The name, or the beginning of one.
    #[must_use]
    pub fn shown_name(&self) -> String {
        let generated = || self.generate_name.as_ref().map(|name| format!("{name}*"));
        self.name.clone().or_else(generated).unwrap_or_else(|| "(without a name)".to_owned())
    }
}

/// The spec of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PodSpec {
    #[serde(deserialize_with = "nullable")]
    pub volumes: Vec<Volume>,
    #[serde(deserialize_with = "nullable")]
    pub containers: Vec<Container>,
    #[serde(deserialize_with = "nullable")]
    pub init_containers: Vec<Container>,
    #[serde(deserialize_with = "nullable")]
    pub ephemeral_containers: Vec<Container>,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Volume {
    pub name: String,
    pub secret: Option<SecretVolume>,
    pub projected: Option<Projected>,
}

/// A Secret as a volume.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct SecretVolume {
    pub secret_name: String,
    #[serde(deserialize_with = "nullable")]
    pub items: Vec<Item>,
    pub optional: Option<bool>,
}

/// A volume of several sources.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Projected {
    #[serde(deserialize_with = "nullable")]
    pub sources: Vec<Source>,
}

/// A source of such a volume.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Source {
    pub secret: Option<SecretSource>,
}

/// A Secret as a source.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct SecretSource {
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub items: Vec<Item>,
    pub optional: Option<bool>,
}

/// A key of a Secret as a file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Item {
    pub key: String,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Container {
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<Variable>,
    #[serde(deserialize_with = "nullable")]
    pub env_from: Vec<EnvFrom>,
    #[serde(deserialize_with = "nullable")]
    pub volume_mounts: Vec<Mount>,
}

/// An environment variable.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Variable {
    pub name: String,
    pub value_from: Option<ValueFrom>,
}

/// Where its value comes from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ValueFrom {
    pub secret_key_ref: Option<KeyRef>,
}

/// A key of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct KeyRef {
    pub name: String,
    pub key: String,
    pub optional: Option<bool>,
}

/// All keys of a Secret as variables.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct EnvFrom {
    pub secret_ref: Option<NameRef>,
}

/// The name of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct NameRef {
    pub name: String,
}

/// A volume in a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Mount {
    pub name: String,
    pub mount_path: String,
    pub sub_path: Option<String>,
    pub sub_path_expr: Option<String>,
}
