//! `ITwinServiceCredential`: what an application team writes to get a token into a Secret.
//!
//! There is no URL and no namespace in it: a tenant names an authority that an administrator configured, and Secrets
//! of its own namespace. What can be known to be wrong is refused by the schema, before anything happens.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{duration, schema};

/// The authority that is used where a credential names none.
pub const DEFAULT_AUTHORITY: &str = "bentley-ims";

/// A request for an OAuth 2.0 access token of the iTwin Platform, kept valid in a Secret of the same namespace.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "credentials.itwin.dev",
    version = "v1alpha1",
    kind = "ITwinServiceCredential",
    plural = "itwinservicecredentials",
    singular = "itwinservicecredential",
    shortname = "itcred",
    category = "itwin",
    namespaced,
    status = "CredentialStatus",
    derive = "PartialEq",
    doc = "Asks an ITwinAuthority for an OAuth 2.0 access token (client credentials, RFC 6749 section 4.4), keeps it valid in a Secret of this namespace, and renews it before it expires.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt"),
    printcolumn(name = "Renews", type_ = "string", json_path = ".status.renewAt"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(
        name = "Authority",
        type_ = "string",
        json_path = ".spec.authorityRef.name",
        priority = 1
    ),
    printcolumn(name = "Scopes", type_ = "string", json_path = ".spec.scopes", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("(has(self.spec.secretName) ? self.spec.secretName : self.metadata.name) != self.spec.clientCredentialsRef.name")
        .message("the token would be written into the client Secret itself: set spec.secretName to another name than spec.clientCredentialsRef.name"),
    validation = Rule::new("(has(self.spec.secretName) ? self.spec.secretName : self.metadata.name) == (has(oldSelf.spec.secretName) ? oldSelf.spec.secretName : oldSelf.metadata.name)")
        .message("spec.secretName is immutable: create another ITwinServiceCredential for another Secret, then delete this one")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.renewBefore) && has(self.renewBeforePercentage))")
        .message("set at most one of renewBefore and renewBeforePercentage"),
    validation = Rule::new("!has(self.renewBefore) || duration(self.renewBefore) >= duration(self.minimumValidity)")
        .message("renewBefore is shorter than minimumValidity, so that the token would fall below it before each renewal: raise renewBefore or lower minimumValidity (default 5m)")
)]
pub struct CredentialSpec {
    /// The ITwinAuthority to ask. It is cluster-scoped and written by administrators.
    #[serde(default)]
    pub authority_ref: AuthorityRef,

    /// The Secret of this namespace that holds what the app registration gave.
    pub client_credentials_ref: ClientCredentialsRef,

    /// The OAuth 2.0 grant to use. `client_credentials` (RFC 6749 section 4.4) is what service apps use; `password`
    /// (section 4.3) is for legacy service users, where the authority allows it.
    #[serde(default)]
    pub grant_type: GrantType,

    /// Scopes to ask for, each a scope token of RFC 6749 section 3.3; a set of 1 to 64.
    #[serde(default = "default_scopes")]
    #[schemars(schema_with = "schema::scopes")]
    #[x_kube(validation = Rule::new("self.map(scope, size(scope) + 1).sum() <= 8192")
        .message("scopes: with a space behind each they have more than 8192 bytes together, request fewer"))]
    pub scopes: Vec<String>,

    /// Resource indicators (RFC 8707): absolute URIs of the services that the token is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::resources")]
    #[x_kube(validation = Rule::new("self.map(resource, bytes(resource).size()).sum() <= 8192")
        .message("resources: they have more than 8192 bytes together, name fewer or shorter ones"))]
    pub resources: Vec<String>,

    /// The Secret that is written, in this namespace; the credential's own name where this is absent. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub secret_name: Option<String>,

    /// Labels, annotations and further keys of the Secret that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,

    /// How long before its expiry a token is renewed, as a Go duration such as `20m`. More than half of the token's
    /// real lifetime is brought down to half. Default: a third of the lifetime.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "duration::deserialize_optional")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("renewBefore must be at least 1s"))]
    pub renew_before: Option<Duration>,

    /// The same as a percentage of the token's real lifetime, 1 to 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50))]
    pub renew_before_percentage: Option<i32>,

    /// The validity that a workload may count on whenever it reads the Secret: the length of its longest call. Below
    /// it the credential is not Ready.
    #[serde(default = "default_minimum_validity", deserialize_with = "duration::deserialize")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('24h')").message("minimumValidity must be at most 24h"))]
    pub minimum_validity: Duration,

    /// Workloads of this namespace to restart after a token was written, for programs that read the token once. An
    /// administrator must have allowed it (chart value `rolloutRestart.enabled`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub rollout_restart_targets: Vec<RolloutRestartTarget>,

    /// What becomes of the Secret when the credential is deleted: `Delete` lets it be garbage collected, `Retain`
    /// leaves it.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Keeps the Secret as it is and asks for no token.
    #[serde(default)]
    pub suspend: bool,
}

impl ITwinServiceCredential {
    /// The name of the Secret that is written for this credential.
    #[must_use]
    pub fn target_name(&self) -> &str {
        self.spec.secret_name.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}

/// Names the ITwinAuthority to ask.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuthorityRef {
    /// Name of an ITwinAuthority.
    #[serde(default = "default_authority")]
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

impl Default for AuthorityRef {
    fn default() -> Self {
        Self { name: default_authority() }
    }
}

/// Names the Secret with the client's credentials, and its keys where they are not the usual ones.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientCredentialsRef {
    /// Name of a Secret in this namespace. One trailing newline in its values is tolerated.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Key of the client identifier.
    #[serde(default = "default_client_id_key")]
    #[schemars(schema_with = "schema::secret_key")]
    pub client_id_key: String,
    /// Key of the client secret.
    #[serde(default = "default_client_secret_key")]
    #[schemars(schema_with = "schema::secret_key")]
    pub client_secret_key: String,
    /// Key of the PEM private key, where the authority uses `private_key_jwt`.
    #[serde(default = "default_private_key_key")]
    #[schemars(schema_with = "schema::secret_key")]
    pub private_key_key: String,
    /// Key of the service user's name, for grant type `password`.
    #[serde(default = "default_username_key")]
    #[schemars(schema_with = "schema::secret_key")]
    pub username_key: String,
    /// Key of the service user's password, for grant type `password`.
    #[serde(default = "default_password_key")]
    #[schemars(schema_with = "schema::secret_key")]
    pub password_key: String,
}

/// An OAuth 2.0 grant type.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantType {
    /// RFC 6749 section 4.4.
    #[default]
    ClientCredentials,
    /// RFC 6749 section 4.3, for legacy service users.
    Password,
}

impl GrantType {
    /// The word in a token request and in both specs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::Password => "password",
        }
    }
}

/// What becomes of the Secret when its credential is deleted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeletionPolicy {
    /// The Secret is garbage collected with the credential.
    #[default]
    Delete,
    /// The Secret stays; its token is valid until it expires, and is not renewed.
    Retain,
}

/// Additions to the Secret that is written.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!has(self.labels) || self.labels.all(k, k != 'app.kubernetes.io/managed-by' && !k.startsWith('credentials.itwin.dev/'))")
        .message("secretTemplate.labels: app.kubernetes.io/managed-by and the prefix credentials.itwin.dev/ are the operator's own, use other keys"),
    validation = Rule::new("!has(self.annotations) || self.annotations.all(k, !k.startsWith('credentials.itwin.dev/'))")
        .message("secretTemplate.annotations: the prefix credentials.itwin.dev/ is the operator's own, use other keys"),
    validation = Rule::new("!has(self.data) || self.data.all(k, !(k in ['access_token', 'authorization', 'token_type', 'expires_at', 'scope', 'issuer']))")
        .message("secretTemplate.data: access_token, authorization, token_type, expires_at, scope and issuer are always written, use other keys"),
    validation = Rule::new("!has(self.data) || self.data.all(k, size(k) <= 253 && k.matches('^[-._a-zA-Z0-9]+$'))")
        .message("secretTemplate.data: a key of a Secret consists of letters, digits, '-', '_' and '.', at most 253 of them"),
    validation = Rule::new("!has(self.data) || self.data.all(k, bytes(self.data[k]).size() <= 4096)")
        .message("secretTemplate.data: a template has more than 4096 bytes, shorten it"),
    validation = Rule::new("!has(self.data) || self.data.map(k, size(k) + bytes(self.data[k]).size()).sum() <= 16384")
        .message("secretTemplate.data: the templates and their keys have more than 16384 bytes together, use fewer or shorter ones"),
    validation = Rule::new("!has(self.labels) || self.labels.all(k, k.indexOf('/') <= 253 && k.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$'))")
        .message("secretTemplate.labels: a key has at most 63 letters, digits, '-', '_' and '.', begins and ends with a letter or digit, and may have a domain before it as in example.com/team"),
    validation = Rule::new("!has(self.labels) || self.labels.all(k, self.labels[k].matches('^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$'))")
        .message("secretTemplate.labels: a value has at most 63 letters, digits, '-', '_' and '.', and begins and ends with a letter or digit; use an annotation for other text"),
    validation = Rule::new("!has(self.annotations) || self.annotations.all(k, k.indexOf('/') <= 253 && k.lowerAscii().matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?([a-z0-9][-a-z0-9_.]{0,61})?[a-z0-9]$'))")
        .message("secretTemplate.annotations: a key has at most 63 letters, digits, '-', '_' and '.', begins and ends with a letter or digit, and may have a domain before it as in example.com/team"),
    validation = Rule::new("(has(self.labels) ? self.labels.map(k, size(k) + size(self.labels[k])).sum() : 0) + (has(self.annotations) ? self.annotations.map(k, size(k) + bytes(self.annotations[k]).size()).sum() : 0) <= 12288")
        .message("secretTemplate: labels and annotations with their keys have more than 12288 bytes together, use fewer or shorter ones")
)]
pub struct SecretTemplate {
    /// Labels to put on the Secret, at most 32; with the annotations and all keys at most 12 KiB.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to put on the Secret, at most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Extra keys, each a text with placeholders `{{ name | filter }}`. Names: `access_token`, `token_type`,
    /// `expires_at`, `scope`, `issuer`. Filters: `b64encode`, `lower`, `upper`, `trim`, `tojson`, `urlencode`. At most
    /// 16 templates of 4 KiB, 16 KiB together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::templates")]
    pub data: BTreeMap<String, String>,
}

/// A workload to restart after the Secret was written.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutRestartTarget {
    /// Kind of the workload.
    pub kind: WorkloadKind,
    /// Name of the workload.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

/// Kinds of workloads that can be restarted.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum WorkloadKind {
    Deployment,
    StatefulSet,
    DaemonSet,
}

/// What the operator last saw and did. Nothing in it is an input to a decision about names, keys or owners.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the Secret holds a usable token for the current spec. `Renewed`: how the last attempt ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The Secret that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Issuer identifier of the authority that issued the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Client identifier that the token was issued to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Scopes that were granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// When the request for the token was sent, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<String>,
    /// When the token expires, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The next attempt to get a token, RFC 3339. Absent while suspended, and while the credential waits for an authority
    /// that fails again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<String>,
    /// expiresAt less minimumValidity: until then an outage of the authority is survived, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usable_until: Option<String>,
    /// Failed attempts since the last token. Waiting for an authority that fails again and again is no attempt.
    #[serde(default)]
    pub consecutive_failures: i32,
    /// The last failed attempt since the last token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
    /// The last value of the annotation credentials.itwin.dev/renew that was acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_renew_request: Option<String>,
}

/// A failed attempt.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastFailure {
    /// When it failed, RFC 3339.
    pub time: String,
    /// The reason, one of those of the condition `Renewed`.
    pub reason: String,
    /// What happened, to which object, and what to do.
    pub message: String,
}

fn default_authority() -> String {
    DEFAULT_AUTHORITY.to_owned()
}
fn default_scopes() -> Vec<String> {
    vec!["itwin-platform".to_owned()]
}
fn default_minimum_validity() -> Duration {
    std::time::Duration::from_secs(5 * 60).into()
}
fn default_client_id_key() -> String {
    "client_id".to_owned()
}
fn default_client_secret_key() -> String {
    "client_secret".to_owned()
}
fn default_private_key_key() -> String {
    "private_key".to_owned()
}
fn default_username_key() -> String {
    "username".to_owned()
}
fn default_password_key() -> String {
    "password".to_owned()
}
