//! `ITwinAuthority`: an authorization server that may be asked for tokens. Only administrators write it.
//!
//! It is the trust anchor and the only place where a URL enters the system. A tenant can therefore never point the
//! operator, and with it a client secret, at a server of their own.

#![expect(clippy::duplicated_attributes, reason = "printer columns have the same type; the lint compares their parts")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{credential::GrantType, duration, schema};

/// An OAuth 2.0 authorization server and the rules for using it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "credentials.itwin.dev",
    version = "v1alpha1",
    kind = "ITwinAuthority",
    plural = "itwinauthorities",
    singular = "itwinauthority",
    shortname = "itauth",
    category = "itwin",
    status = "AuthorityStatus",
    derive = "PartialEq",
    doc = "An OAuth 2.0 authorization server that ITwinServiceCredentials may request tokens from, and the rules for these requests. Only administrators write it.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Issuer", type_ = "string", json_path = ".spec.issuer"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct AuthoritySpec {
    /// Issuer identifier (RFC 8414): an https URL without user information, query or fragment, such as
    /// `https://ims.bentley.com`. A trailing slash is ignored. Immutable.
    #[schemars(schema_with = "schema::url")]
    #[x_kube(
        validation = Rule::new("self.matches('^https://[^/?#@ ]+(/[^?#@ ]*)?$') && isURL(self)")
            .message("issuer must be an https URL without user information, query or fragment, such as https://ims.bentley.com"),
        validation = Rule::new("self == oldSelf || self + '/' == oldSelf || self == oldSelf + '/'")
            .message("issuer is immutable: create another ITwinAuthority for another issuer")
    )]
    pub issuer: String,

    /// Token endpoint. Default: the endpoint in the issuer's discovery document, which must have the issuer's origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    #[x_kube(validation = Rule::new("self.matches('^https://[^/?#@ ]+(/[^#@ ]*)?$') && isURL(self)")
        .message("tokenEndpoint must be an https URL without user information or fragment"))]
    pub token_endpoint: Option<String>,

    /// URL of the JSON Web Key Set with the signing keys. Default: the URL in the issuer's discovery document, which
    /// must have the issuer's origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    #[x_kube(validation = Rule::new("self.matches('^https://[^/?#@ ]+(/[^#@ ]*)?$') && isURL(self)")
        .message("jwksUri must be an https URL without user information or fragment"))]
    pub jwks_uri: Option<String>,

    /// How clients authenticate at the token endpoint (RFC 6749 section 2.3.1). Default: `client_secret_post`.
    #[serde(default)]
    pub client_authentication: ClientAuthentication,

    /// CA certificates in PEM, base64 encoded. They replace the system's root certificates for this authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_048_576))]
    #[x_kube(validation = Rule::new("!self.contains('-')")
        .message("caBundle must be base64 of a PEM file, not the PEM itself: write the output of 'base64 -w0 ca.crt'"))]
    pub ca_bundle: Option<String>,

    /// `jwt`: the operator checks signature, `iss`, `exp`, `nbf` and `aud` before it writes a token. `opaque`: only
    /// `expires_in` of the response determines when the token expires. Default: `jwt`.
    #[serde(default)]
    pub access_token_format: AccessTokenFormat,

    /// The token's `aud` must contain one of these. Default: `aud` is not checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::audiences")]
    pub audiences: Vec<String>,

    /// Grant types that credentials may use. Default: `client_credentials`.
    #[serde(default = "default_grant_types")]
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_grant_types: Vec<GrantType>,

    /// Selects by labels the namespaces whose credentials may use this authority. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<LabelSelector>,

    /// Scopes that credentials may request. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::allowed_scopes")]
    pub allowed_scopes: Option<Vec<String>>,

    /// Deadline of one request, including the response body; 1s to 60s. Default: 10s.
    #[serde(default = "default_request_timeout", deserialize_with = "duration::deserialize")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = schema::duration_rule(
        "(duration(self) >= duration('1s') && duration(self) <= duration('60s'))",
        "requestTimeout must be between 1s and 60s"
    ))]
    pub request_timeout: Duration,

    /// Token requests in flight at the same time, 1 to 256. Default: 8.
    #[serde(default = "default_max_concurrent_requests")]
    #[schemars(range(min = 1, max = 256))]
    pub max_concurrent_requests: i32,

    /// Token requests per minute, 1 to 60000. Default: 300.
    #[serde(default = "default_requests_per_minute")]
    #[schemars(range(min = 1, max = 60_000))]
    pub requests_per_minute: i32,

    /// Tolerated difference between the clocks of the authority and the operator, at most 10m. Default:
    /// 60s.
    #[serde(default = "default_clock_skew", deserialize_with = "duration::deserialize")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = schema::duration_rule("duration(self) <= duration('10m')", "clockSkew must be at most 10m"))]
    pub clock_skew: Duration,
}

/// How a client authenticates at the token endpoint.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthentication {
    /// Client identifier and secret in the request body.
    #[default]
    ClientSecretPost,
    /// HTTP Basic, client identifier and secret form-encoded (RFC 6749 section 2.3.1).
    ClientSecretBasic,
    /// A signed assertion (RFC 7523 section 2.2).
    PrivateKeyJwt,
}

/// The format of this authority's access tokens.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessTokenFormat {
    /// A signed JSON Web Token (RFC 7519).
    #[default]
    Jwt,
    /// A string whose structure is the authority's own.
    Opaque,
}

/// The observed state of the authority.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: endpoints and signing keys are known. `False` too if they could not be refreshed for an hour; tokens
    /// are still requested with those that are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The token endpoint in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// The key set in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// The number of signing keys in the key set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_keys: Option<i32>,
    /// When endpoints and signing keys were fetched last, RFC 3339. While that succeeds, this is written with other
    /// changes, or once it is an hour old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refresh_time: Option<String>,
}

fn default_grant_types() -> Vec<GrantType> {
    vec![GrantType::ClientCredentials]
}
fn default_request_timeout() -> Duration {
    std::time::Duration::from_secs(10).into()
}
fn default_max_concurrent_requests() -> i32 {
    8
}
fn default_requests_per_minute() -> i32 {
    300
}
fn default_clock_skew() -> Duration {
    std::time::Duration::from_secs(60).into()
}
