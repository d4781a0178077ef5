//! The resources that the server offers, and in what they differ.

use std::{fmt, sync::Arc};

use serde_json::{Value, json};

use crate::{schema::Schema, validate::Invalid};

/// Completes an object before it is validated, as the defaults of a CRD's schema do.
pub type Defaulter = Arc<dyn Fn(&mut Value) + Send + Sync>;
/// Says what is invalid in a new object, given the stored one where there is one.
pub type Validator = Arc<dyn Fn(&Value, Option<&Value>) -> Vec<Invalid> + Send + Sync>;

/// How objects of a resource behave when they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Secrets: `stringData`, immutable type, `immutable`.
    Secret,
    /// ConfigMaps.
    ConfigMap,
    /// Namespaces: they end only after their content.
    Namespace,
    /// Deployments, StatefulSets and DaemonSets.
    Workload,
    /// Leases: an update names the version that it replaces, or creates.
    Lease,
    /// Events of `events.k8s.io`: immutable but for their series.
    Event,
    /// Custom resources with the status subresource.
    Custom,
}

/// One resource.
#[derive(Clone)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// Version, such as `v1`.
    pub version: String,
    /// Plural name, as in URLs.
    pub plural: String,
    /// Kind.
    pub kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// How objects behave.
    pub rules: Rules,
    /// The structural schema of a custom resource: defaults, pruning and types of lists.
    pub schema: Option<Arc<Schema>>,
    /// Completes objects, after the defaults of the schema.
    pub defaulter: Option<Defaulter>,
    /// Validates objects, after the server's own rules.
    pub validator: Option<Validator>,
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.qualified())
    }
}

/// How a map or list of an object is owned by field managers (`x-kubernetes-map-type`, `x-kubernetes-list-type`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A map whose fields are owned one by one.
    Granular,
    /// Owned as a whole.
    Atomic,
    /// A list of distinct values.
    Set,
    /// A list of objects that these fields distinguish.
    Keyed(Vec<String>),
}

impl Resource {
    /// A resource without schema or hooks.
    #[must_use]
    pub fn new(group: &str, version: &str, plural: &str, kind: &str, namespaced: bool, rules: Rules) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            kind: kind.to_owned(),
            namespaced,
            rules,
            schema: None,
            defaulter: None,
            validator: None,
        }
    }

    /// The same with the `openAPIV3Schema` of its CRD.
    #[must_use]
    pub fn with_schema(mut self, schema: Value) -> Self {
        self.schema = Some(Arc::new(Schema::new(schema)));
        self
    }

    /// Plural and group as in messages, such as `deployments.apps`.
    #[must_use]
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `apiVersion` of its objects.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    pub(crate) fn has_status(&self) -> bool {
        matches!(self.rules, Rules::Workload | Rules::Custom | Rules::Namespace)
    }

    pub(crate) fn creates_on_update(&self) -> bool {
        matches!(self.rules, Rules::Lease | Rules::Event)
    }

    pub(crate) fn updates_unconditionally(&self) -> bool {
        !matches!(self.rules, Rules::Lease | Rules::Custom)
    }

    pub(crate) fn counts_generations(&self) -> bool {
        matches!(self.rules, Rules::Workload | Rules::Custom)
    }

    /// What an object without content looks like to field management: structures of built-in types are always there,
    /// and so are never owned themselves.
    pub(crate) fn empty(&self) -> Value {
        match self.rules {
            Rules::Secret | Rules::ConfigMap => json!({"metadata": {}}),
            Rules::Namespace => json!({"metadata": {}, "spec": {}, "status": {}}),
            Rules::Lease => json!({"metadata": {}, "spec": {}}),
            Rules::Workload => json!({
                "metadata": {},
                "spec": {
                    "selector": null,
                    "strategy": {},
                    "updateStrategy": {},
                    "template": {"metadata": {}, "spec": {"containers": []}},
                },
                "status": {},
            }),
            Rules::Event => json!({
                "metadata": {},
                "eventTime": null,
                "regarding": {},
                "deprecatedSource": {},
                "deprecatedFirstTimestamp": null,
                "deprecatedLastTimestamp": null,
            }),
            Rules::Custom => json!({}),
        }
    }

    /// How the map or list at a path is owned; elements of lists are `*`.
    pub(crate) fn shape(&self, path: &[&str], is_list: bool) -> Shape {
        let keyed = |keys: &[&str]| Shape::Keyed(keys.iter().map(|key| (*key).to_owned()).collect());
        match path {
            ["metadata", "ownerReferences"] => return keyed(&["uid"]),
            ["metadata", "finalizers"] => return Shape::Set,
            ["metadata", "ownerReferences", _] => return Shape::Atomic,
            _ => {}
        }
        let otherwise = if is_list { Shape::Atomic } else { Shape::Granular };
        match (self.rules, path) {
            (Rules::Workload, ["spec", "selector"]) | (Rules::Event, ["regarding" | "related"]) => Shape::Atomic,
            (Rules::Workload, ["spec", "template", "spec", "containers"]) => keyed(&["name"]),
            (Rules::Workload | Rules::Namespace, ["status", "conditions"]) => keyed(&["type"]),
            (Rules::Custom, _) => self.schema.as_ref().and_then(|schema| schema.shape(path)).unwrap_or(otherwise),
            _ => otherwise,
        }
    }
}

/// What the operator reads and writes: the kinds of the core, `apps`, `coordination.k8s.io` and `events.k8s.io`, and
/// its own custom resources without their schema.
#[must_use]
pub fn table() -> Vec<Resource> {
    const ITWIN: &str = "credentials.itwin.dev";
    vec![
        Resource::new("", "v1", "namespaces", "Namespace", false, Rules::Namespace),
        Resource::new("", "v1", "secrets", "Secret", true, Rules::Secret),
        Resource::new("", "v1", "configmaps", "ConfigMap", true, Rules::ConfigMap),
        Resource::new("apps", "v1", "deployments", "Deployment", true, Rules::Workload),
        Resource::new("apps", "v1", "statefulsets", "StatefulSet", true, Rules::Workload),
        Resource::new("apps", "v1", "daemonsets", "DaemonSet", true, Rules::Workload),
        Resource::new("coordination.k8s.io", "v1", "leases", "Lease", true, Rules::Lease),
        Resource::new("events.k8s.io", "v1", "events", "Event", true, Rules::Event),
        Resource::new(ITWIN, "v1alpha1", "itwinservicecredentials", "ITwinServiceCredential", true, Rules::Custom),
        Resource::new(ITWIN, "v1alpha1", "itwinauthorities", "ITwinAuthority", false, Rules::Custom),
    ]
}
