//! `ITwinServiceCredential`: an application team's request for a token in a Secret.
//!
//! It contains no URL and no namespace: a tenant names an authority that an administrator configured, and Secrets of
//! their own namespace. The schema rejects invalid values at admission.

mod client_credentials_ref;
mod identifier_key;
mod rollout_restart;
mod secret_template;
mod status;

use kube::{CustomResource, KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    client_credentials_ref::ClientCredentialsRef,
    rollout_restart::{RolloutRestartTarget, WorkloadKind},
    secret_template::SecretTemplate,
    status::{CredentialStatus, LastFailure},
};
use super::{duration, schema};

/// The authority of a credential that names none.
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
    doc = "Requests an OAuth 2.0 access token from an ITwinAuthority (client credentials, RFC 6749 section 4.4), stores it in a Secret of this namespace, and renews it before it expires.",
    selectable = ".spec.authorityRef.name",
    selectable = ".spec.secretName",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Renewed", type_ = "string", json_path = r#".status.conditions[?(@.type=="Renewed")].status"#),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt"),
    printcolumn(name = "Renews", type_ = "string", json_path = ".status.renewAt"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(
        name = "Authority",
        type_ = "string",
        json_path = ".spec.authorityRef.name",
        priority = 1
    ),
    printcolumn(name = "Scopes", type_ = "string", json_path = ".status.scope", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("(has(self.spec.secretName) ? self.spec.secretName : self.metadata.name) != self.spec.clientCredentialsRef.name")
        .message("the token would be written into the client Secret itself: set spec.secretName to another name than spec.clientCredentialsRef.name")
        .field_path(".spec.secretName"),
    validation = Rule::new("(has(self.spec.secretName) ? self.spec.secretName : self.metadata.name) == (has(oldSelf.spec.secretName) ? oldSelf.spec.secretName : oldSelf.metadata.name)")
        .message("spec.secretName is immutable: create another ITwinServiceCredential for another Secret, then delete this one")
        .field_path(".spec.secretName")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.renewBefore) && has(self.renewBeforePercentage))")
        .message("set at most one of renewBefore and renewBeforePercentage")
        .field_path(".renewBefore"),
    validation = schema::renew_before_rule()
)]
pub struct CredentialSpec {
    /// The ITwinAuthority to request the token from. It is cluster-scoped and written by administrators. Default: the one
    /// with the name `bentley-ims`.
    #[serde(default)]
    pub authority_ref: AuthorityRef,

    /// The Secret of this namespace that holds the client ID and client secret (or private key) of the app
    /// registration.
    pub client_credentials_ref: ClientCredentialsRef,

    /// The OAuth 2.0 grant type. Service apps use `client_credentials` (RFC 6749 section 4.4); `password` (section 4.3)
    /// is for legacy service users, if the authority allows it. Default: `client_credentials`.
    #[serde(default)]
    pub grant_type: GrantType,

    /// Scopes to request, each a scope token of RFC 6749 section 3.3; a set of up to 64. An empty list sends no `scope`,
    /// for servers that grant what the client is registered for. Default: `itwin-platform`.
    #[serde(default = "default_scopes")]
    #[schemars(schema_with = "schema::scopes")]
    #[x_kube(validation = Rule::new("self.map(scope, size(scope) + 1).sum() <= 8192")
        .message("scopes: they have more than 8192 bytes in total, counting a space after each; request fewer"))]
    pub scopes: Vec<String>,

    /// Resource indicators (RFC 8707): absolute URIs of the services that the token is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::resources")]
    #[x_kube(validation = Rule::new("self.map(resource, bytes(resource).size()).sum() <= 8192")
        .message("resources: they have more than 8192 bytes in total; name fewer or shorter ones"))]
    pub resources: Vec<String>,

    /// The `audience` parameter, by which some servers choose the API that the token is for, such as the identifier of
    /// an API of Auth0. Several are separated by single spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::audience")]
    #[x_kube(validation = Rule::new("self.matches('^[!-~]+( [!-~]+)*$')")
        .message("audience: write the identifier of the API as the authorization server has it, in ASCII and without spaces at either end, such as https://api.example.com"))]
    pub audience: Option<String>,

    /// The Secret in this namespace that the operator writes the token into. Default: the credential's name. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub secret_name: Option<String>,

    /// Labels, annotations and additional keys of the token Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,

    /// How long before its expiry a token is renewed, as a Go duration such as `20m`. The operator uses at most half of
    /// the token's actual lifetime. Default: a third of the lifetime.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "duration::deserialize_optional")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = schema::duration_rule("duration(self) >= duration('1s')", "renewBefore must be at least 1s"))]
    pub renew_before: Option<Duration>,

    /// How long before its expiry a token is renewed, as a percentage of the token's actual lifetime, 1 to 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50))]
    pub renew_before_percentage: Option<i32>,

    /// The time that a token is guaranteed to be valid for when a workload reads it from the Secret, such as the
    /// duration of the workload's longest call. While the token is valid for less, the credential is not Ready. At most
    /// 24h. Default: 5m, or a quarter of the token's actual lifetime if that is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "duration::deserialize_optional")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = schema::duration_rule("duration(self) <= duration('24h')", "minimumValidity must be at most 24h"))]
    pub minimum_validity: Option<Duration>,

    /// Workloads of this namespace to restart after each new token, for programs that read the token only once. A
    /// workload that is added later is restarted after the next new token. An administrator must allow it (chart value
    /// `rolloutRestart.enabled`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub rollout_restart_targets: Vec<RolloutRestartTarget>,

    /// How long after a new token the workloads are restarted, so that the kubelet has updated the Secret in their
    /// volumes by then. At most 1h and a quarter of the token's lifetime; with `0s` they are restarted immediately.
    /// Default: 10s.
    #[serde(default = "default_rollout_restart_delay", deserialize_with = "duration::deserialize")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = schema::duration_rule("duration(self) <= duration('1h')", "rolloutRestartDelay must be at most 1h"))]
    pub rollout_restart_delay: Duration,

    /// What happens to the Secret when the credential is deleted: with `Delete` it is garbage collected, with `Retain`
    /// it stays. Default: `Delete`.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Stops token requests. The Secret stays as it is. Default: false.
    #[serde(default)]
    pub suspend: bool,
}

impl ITwinServiceCredential {
    /// The name of the token Secret.
    #[must_use]
    pub fn target_name(&self) -> &str {
        self.spec.secret_name.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}

/// Names the ITwinAuthority to request the token from.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuthorityRef {
    /// Name of an ITwinAuthority. Default: `bentley-ims`.
    #[serde(default = "default_authority")]
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

impl Default for AuthorityRef {
    fn default() -> Self {
        Self { name: default_authority() }
    }
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
    /// The value in a token request and in both specs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::Password => "password",
        }
    }
}

/// What happens to the Secret when its credential is deleted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeletionPolicy {
    /// The Secret is garbage collected with the credential.
    #[default]
    Delete,
    /// The Secret stays. Its token is valid until it expires and is not renewed.
    Retain,
}

fn default_authority() -> String {
    DEFAULT_AUTHORITY.to_owned()
}
fn default_scopes() -> Vec<String> {
    vec!["itwin-platform".to_owned()]
}
fn default_rollout_restart_delay() -> Duration {
    std::time::Duration::from_secs(10).into()
}
