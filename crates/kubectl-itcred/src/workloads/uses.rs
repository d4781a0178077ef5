//! How the pods of a workload use Secrets.

use super::{Container, Item, Mount, PodSpec, Volume};

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
