//! How the pods of a workload use Secrets.
//!
//! Of an object only the parts that matter are decoded: a cluster has ten thousand pods.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

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

/// How a pod uses a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// An environment variable of this name.
    Env(String),
    /// All keys as environment variables.
    EnvFrom,
    /// A file that is mounted alone, at this path.
    SubPath(String),
    /// A volume, at this path.
    Mounted(String),
    /// A volume that no container mounts.
    Unmounted,
}

/// A use of a Secret by a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The Secret.
    pub secret: String,
    /// The container, where one uses it.
    pub container: String,
    /// How.
    pub how: How,
    /// The keys that must be there; none where all are taken as they are.
    pub keys: Vec<String>,
}

impl PodSpec {
    /// Every use of a Secret.
    #[must_use]
    pub fn uses(&self) -> Vec<Use> {
        let containers = || self.containers.iter().chain(&self.init_containers).chain(&self.ephemeral_containers);
        let mut uses: Vec<Use> = containers().flat_map(of_environment).collect();
        for volume in &self.volumes {
            for (secret, keys) in secrets_of(volume) {
                let mounts = containers().flat_map(|container| {
                    let mounts = container.volume_mounts.iter().filter(|mount| mount.name == volume.name);
                    mounts.map(move |mount| (container.name.clone(), how_mounted(mount)))
                });
                let mut found: Vec<_> = mounts.collect();
                if found.is_empty() {
                    found.push((String::new(), How::Unmounted));
                }
                uses.extend(found.into_iter().map(|(container, how)| Use {
                    secret: secret.clone(),
                    container,
                    how,
                    keys: keys.clone(),
                }));
            }
        }
        uses
    }
}

fn of_environment(container: &Container) -> Vec<Use> {
    let of = |secret: &str, how: How, keys: Vec<String>| Use {
        secret: secret.to_owned(),
        container: container.name.clone(),
        how,
        keys,
    };
    let variables = container.env.iter().filter_map(|variable| {
        let key = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
        let keys = if key.optional == Some(true) { Vec::new() } else { vec![key.key.clone()] };
        Some(of(&key.name, How::Env(variable.name.clone()), keys))
    });
    let all = container.env_from.iter().filter_map(|from| from.secret_ref.as_ref());
    variables.chain(all.map(|secret| of(&secret.name, How::EnvFrom, Vec::new()))).collect()
}

/// The Secrets of a volume, each with the keys that must be there.
fn secrets_of(volume: &Volume) -> Vec<(String, Vec<String>)> {
    let keys = |items: &[Item], optional: Option<bool>| match optional {
        Some(true) => Vec::new(),
        _ => items.iter().map(|item| item.key.clone()).collect(),
    };
    let own = volume.secret.iter().map(|secret| (secret.secret_name.clone(), keys(&secret.items, secret.optional)));
    let sources = volume.projected.iter().flat_map(|projected| &projected.sources);
    let projected = sources.filter_map(|source| source.secret.as_ref());
    own.chain(projected.map(|secret| (secret.name.clone(), keys(&secret.items, secret.optional)))).collect()
}

fn how_mounted(mount: &Mount) -> How {
    let is_set = |path: &Option<String>| path.as_ref().is_some_and(|path| !path.is_empty());
    if is_set(&mount.sub_path) || is_set(&mount.sub_path_expr) {
        How::SubPath(mount.mount_path.clone())
    } else {
        How::Mounted(mount.mount_path.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_use_a_secret_is_found() {
        let spec: PodSpec = serde_json::from_value(json!({
            "volumes": [
                {"name": "whole", "secret": {"secretName": "a"}},
                {"name": "items", "secret": {"secretName": "b", "items": [{"key": "access_token", "path": "token"}]}},
                {"name": "all", "projected": {"sources": [{"secret": {"name": "c"}}, {"configMap": {"name": "x"}}]}},
                {"name": "unused", "secret": {"secretName": "d"}},
                {"name": "other", "emptyDir": {}},
            ],
            "containers": [{
                "name": "main",
                "env": [
                    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "e", "key": "access_token"}}},
                    {"name": "PLAIN", "value": "x"},
                    {"name": "FIELD", "valueFrom": {"fieldRef": {"fieldPath": "x"}}},
                ],
                "envFrom": [{"secretRef": {"name": "f"}}, {"configMapRef": {"name": "x"}}],
                "volumeMounts": [
                    {"name": "whole", "mountPath": "/w"},
                    {"name": "items", "mountPath": "/i", "subPath": "token"},
                    {"name": "other", "mountPath": "/o"},
                ],
            }],
            "initContainers": [{"name": "init", "volumeMounts": [
                {"name": "all", "mountPath": "/p", "subPathExpr": "$(X)"},
            ]}],
            "ephemeralContainers": [{"name": "debug", "volumeMounts": [{"name": "whole", "mountPath": "/d"}]}],
        }))
        .expect("a spec");
        let found: Vec<(String, String, How)> =
            spec.uses().into_iter().map(|used| (used.secret, used.container, used.how)).collect();
        let expected = [
            ("e", "main", How::Env("TOKEN".into())),
            ("f", "main", How::EnvFrom),
            ("a", "main", How::Mounted("/w".into())),
            ("a", "debug", How::Mounted("/d".into())),
            ("b", "main", How::SubPath("/i".into())),
            ("c", "init", How::SubPath("/p".into())),
            ("d", "", How::Unmounted),
        ];
        assert_eq!(found, expected.map(|(secret, container, how)| (secret.into(), container.into(), how)));
        assert_eq!(spec.uses()[4].keys, ["access_token"]);
    }

    #[test]
    fn empty_fields_of_a_manifest_are_null() {
        let spec: PodSpec =
            serde_json::from_value(json!({"volumes": null, "containers": [{"name": "a", "env": null}]}))
                .expect("a spec");
        assert!(spec.uses().is_empty());
    }
}
