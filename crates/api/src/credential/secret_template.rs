//! What a credential adds to its token Secret: labels, annotations and further keys, and the rules for them.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Additions to the token Secret.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!has(self.labels) || self.labels.all(k, k != 'app.kubernetes.io/managed-by' && !k.startsWith('credentials.itwin.dev/'))")
        .message("secretTemplate.labels: app.kubernetes.io/managed-by and the prefix credentials.itwin.dev/ are reserved for the operator, use other keys"),
    validation = Rule::new("!has(self.annotations) || self.annotations.all(k, !k.startsWith('credentials.itwin.dev/'))")
        .message("secretTemplate.annotations: the prefix credentials.itwin.dev/ is reserved for the operator, use other keys"),
    validation = Rule::new("!has(self.data) || self.data.all(k, !(k in ['access_token', 'authorization', 'token_type', 'expires_at', 'scope', 'issuer']))")
        .message("secretTemplate.data: access_token, authorization, token_type, expires_at, scope and issuer are always written, use other keys"),
    validation = Rule::new("!has(self.data) || self.data.all(k, size(k) <= 253 && k.matches('^[-._a-zA-Z0-9]+$'))")
        .message("secretTemplate.data: a key of a Secret consists of letters, digits, '-', '_' and '.', at most 253 of them"),
    validation = Rule::new("!has(self.data) || self.data.all(k, k != '.' && !k.startsWith('..'))")
        .message("secretTemplate.data: a key of a Secret is not '.' and does not begin with '..', begin the key with a letter, a digit or a single '.'"),
    validation = Rule::new("!has(self.data) || self.data.all(k, bytes(self.data[k]).size() <= 4096)")
        .message("secretTemplate.data: a template has more than 4096 bytes, shorten it"),
    validation = Rule::new("!has(self.data) || self.data.map(k, size(k) + bytes(self.data[k]).size()).sum() <= 16384")
        .message("secretTemplate.data: the templates and their keys have more than 16384 bytes in total, use fewer or shorter ones"),
    validation = Rule::new("!has(self.labels) || self.labels.all(k, k.indexOf('/') <= 253 && k.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$'))")
        .message("secretTemplate.labels: a key has at most 63 letters, digits, '-', '_' and '.', begins and ends with a letter or digit, and may have a domain prefix as in example.com/team"),
    validation = Rule::new("!has(self.labels) || self.labels.all(k, self.labels[k].matches('^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$'))")
        .message("secretTemplate.labels: a value has at most 63 letters, digits, '-', '_' and '.', and begins and ends with a letter or digit; use an annotation for other text"),
    validation = Rule::new("!has(self.annotations) || self.annotations.all(k, k.indexOf('/') <= 253 && k.lowerAscii().matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?([a-z0-9][-a-z0-9_.]{0,61})?[a-z0-9]$'))")
        .message("secretTemplate.annotations: a key has at most 63 letters, digits, '-', '_' and '.', begins and ends with a letter or digit, and may have a domain prefix as in example.com/team"),
    validation = Rule::new("(has(self.labels) ? self.labels.map(k, size(k) + size(self.labels[k])).sum() : 0) + (has(self.annotations) ? self.annotations.map(k, size(k) + bytes(self.annotations[k]).size()).sum() : 0) <= 12288")
        .message("secretTemplate: labels and annotations with their keys have more than 12288 bytes in total, use fewer or shorter ones")
)]
pub struct SecretTemplate {
    /// Labels of the Secret, at most 32. Labels and annotations with their keys have at most 12 KiB in total.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Secret, at most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Additional keys. Each value is text with placeholders `{{ name | filter }}`. Names: `access_token`,
    /// `token_type`, `expires_at`, `scope`, `issuer`. Filters: `b64encode`, `lower`, `upper`, `trim`, `tojson`,
    /// `urlencode`. At most 16 templates of 4 KiB each, 16 KiB in total.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::templates")]
    pub data: BTreeMap<String, String>,
}
