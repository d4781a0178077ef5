//! The status of a credential: what the operator observed and did.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What the operator last observed and did. The operator never decides about names, keys or owners by it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the Secret holds a usable token for the current spec. `Renewed`: how the last attempt ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The token Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Issuer identifier of the authority that issued the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Client identifier that the token was issued to. Absent if it may be a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Scopes that were granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The same scopes as text, separated by spaces, for columns and scripts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// When the request for the token was sent, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<String>,
    /// When the token expires, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The time of the next attempt to get a token, RFC 3339. Absent while the credential is suspended or waits for an
    /// open circuit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<String>,
    /// expiresAt minus minimumValidity, RFC 3339. Until then an outage of the authority does not affect workloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usable_until: Option<String>,
    /// Failed renewals since the last token. While the circuit of the authority is open, attempts that are due count too,
    /// and the value then grows in steps that double. Changes of others to the Secret do not count.
    #[serde(default)]
    pub consecutive_failures: i32,
    /// The last failed attempt since the last token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
    /// The last value of the annotation credentials.itwin.dev/renew that the operator handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_renew_request: Option<String>,
    /// When the client's credentials expire, as the key `expires_at` of the client Secret said when it was read last, RFC
    /// 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_expires_at: Option<String>,
}

/// A failed attempt.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastFailure {
    /// When it failed, RFC 3339.
    pub time: String,
    /// A reason of the condition `Renewed`.
    pub reason: String,
    /// What happened. While it is the last attempt, the condition `Renewed` says more, and what to do.
    pub message: String,
}
