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
#[x_kube(
    validation = Rule::new("!(has(self.caBundle) && has(self.caBundleRef))")
        .message("set at most one of caBundle and caBundleRef")
        .field_path(".caBundleRef"),
    validation = Rule::new("!has(self.defaultTokenLifetime) || self.accessTokenFormat == 'opaque'")
        .message("defaultTokenLifetime is for opaque tokens only, a JWT says itself when it expires: remove it, or set accessTokenFormat to opaque")
        .field_path(".defaultTokenLifetime"),
    validation = Rule::new("!has(self.clientAssertion) || self.clientAuthentication == 'private_key_jwt'")
        .message("clientAssertion is for clients that sign assertions: set clientAuthentication to private_key_jwt, or remove clientAssertion")
        .field_path(".clientAssertion"),
    validation = Rule::new("self.clientAuthentication != 'none' || self.allowedGrantTypes.all(grant, grant == 'password')")
        .message("clientAuthentication none is for public clients, whose only grant type is password: set allowedGrantTypes to [password]")
        .field_path(".allowedGrantTypes")
)]
pub struct AuthoritySpec {
    /// Issuer identifier (RFC 8414): an https URL without user information, query or fragment, such as
    /// `https://ims.bentley.com`. A trailing slash is ignored where issuers are compared, and sent as it is written here.
    /// Immutable.
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

    /// What the server demands of client assertions, with `clientAuthentication: private_key_jwt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_assertion: Option<ClientAssertion>,

    /// CA certificates in PEM, base64 encoded. They replace the system's root certificates for this authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_048_576))]
    #[x_kube(validation = Rule::new("!self.contains('-')")
        .message("caBundle must be base64 of a PEM file, not the PEM itself: \
                  write the output of `base64 < ca.crt | tr -d '\\n'`"))]
    pub ca_bundle: Option<String>,

    /// Where such CA certificates are in the operator's own namespace. They are followed when they change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<CaBundleRef>,

    /// `jwt`: the operator checks signature, `iss`, `exp`, `nbf` and `aud` before it writes a token. `opaque`: only
    /// `expires_in` of the response determines when the token expires, or `defaultTokenLifetime`. Default: `jwt`.
    #[serde(default)]
    pub access_token_format: AccessTokenFormat,

    /// The lifetime of opaque tokens for which the server sends no `expires_in`, as its documentation states it; 10s to
    /// 8760h. Default: such tokens are refused.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "duration::deserialize_optional")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = schema::duration_rule(
        "(duration(self) >= duration('10s') && duration(self) <= duration('8760h'))",
        "defaultTokenLifetime must be between 10s and 8760h"
    ))]
    pub default_token_lifetime: Option<Duration>,

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

    /// Scopes that credentials may request, and that their tokens may carry. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::allowed_scopes")]
    pub allowed_scopes: Option<Vec<String>>,

    /// `Strict`: every requested scope must be granted, in the token's signed claim where there is one, and in the
    /// response where it names scopes. `Lenient`: a scope that is named in neither is only logged, for servers that do
    /// not name what they grant.
    /// Default: `Strict`.
    #[serde(default)]
    pub scope_check: ScopeCheck,

    /// Values that credentials may set `audience` and `resources` to. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::allowed_audiences")]
    pub allowed_audiences: Option<Vec<String>>,

    /// Deadline of one request, including the response body; 1s to 60s. Default: 10s.
    #[serde(default = "default_request_timeout", deserialize_with = "duration::deserialize")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = schema::duration_rule(
        "(duration(self) >= duration('1s') && duration(self) <= duration('60s'))",
        "requestTimeout must be between 1s and 60s"
    ))]
    pub request_timeout: Duration,

    /// Deadline of a connection: name resolution, proxy, TCP and TLS; 100ms to 60s. At most requestTimeout is used.
    /// Default: 5s.
    #[serde(default = "default_connect_timeout", deserialize_with = "duration::deserialize")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = schema::duration_rule(
        "(duration(self) >= duration('100ms') && duration(self) <= duration('60s'))",
        "connectTimeout must be between 100ms and 60s"
    ))]
    pub connect_timeout: Duration,

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
    /// Nothing: public clients, with grant type `password`.
    None,
}

/// Names a key with CA certificates in PEM, in the namespace that the operator runs in.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaBundleRef {
    /// `ConfigMap` or `Secret`.
    pub kind: CaBundleKind,
    /// Name of the object.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Key of the certificates, such as `ca.crt`.
    #[schemars(schema_with = "schema::ca_bundle_key")]
    pub key: String,
}

/// The kind of an object that holds CA certificates.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum CaBundleKind {
    ConfigMap,
    Secret,
}

impl CaBundleKind {
    /// The kind as objects name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// What a server demands of client assertions (RFC 7523).
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientAssertion {
    /// The claim `aud`: `issuer`, `tokenEndpoint`, or any other text, which is sent as it is.
    /// Default: `issuer`.
    #[serde(default = "default_assertion_audience")]
    #[schemars(schema_with = "schema::audience")]
    #[x_kube(validation = Rule::new("self.matches('^[!-~]+$')")
        .message("clientAssertion.audience: write issuer, tokenEndpoint, or the audience that the server demands, without spaces"))]
    pub audience: String,
    /// The algorithm. Default: RS256, ES256, ES384 or EdDSA, by the type of the private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<AssertionAlgorithm>,
}

/// An algorithm that signs client assertions (RFC 7518 section 3.1).
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum AssertionAlgorithm {
    RS256,
    PS256,
    ES256,
    ES384,
    EdDSA,
}

/// Whether every requested scope must be granted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScopeCheck {
    /// It must be.
    #[default]
    Strict,
    /// It is only logged.
    Lenient,
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
    /// The token endpoint in use. Unusual parts of a discovered path are not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// The key set in use. Unusual parts of a discovered path are not shown.
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
fn default_connect_timeout() -> Duration {
    std::time::Duration::from_secs(5).into()
}
fn default_assertion_audience() -> String {
    "issuer".to_owned()
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
