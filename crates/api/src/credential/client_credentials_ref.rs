//! The reference of a credential to its client Secret: the keys of that Secret, and which of their values may be shown.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::identifier_key::names_an_identifier;
use crate::schema;

/// Names the Secret with the client's credentials, and its keys if they differ from the defaults.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(self.clientIdKey in [self.clientSecretKey, self.privateKeyKey, self.passwordKey])")
        .message("clientIdKey names the key of a secret, name the key of the client identifier")
        .field_path(".clientIdKey")
)]
pub struct ClientCredentialsRef {
    /// Name of a Secret in this namespace. One trailing newline in a value is ignored.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Key of the client identifier. It is shown, in the status for instance, only if the name of the key ends in the
    /// word `id`, such as `CLIENT_ID` or `clientId`. Default: `client_id`.
    #[serde(default = "default_client_id_key")]
    #[schemars(schema_with = "schema::secret_key")]
    pub client_id_key: String,
    /// Key of the client secret. Default: `client_secret`.
    #[serde(default = "default_client_secret_key")]
    #[schemars(schema_with = "schema::secret_key")]
    pub client_secret_key: String,
    /// Key of the PEM private key, if the authority uses `private_key_jwt`. Default: `private_key`.
    #[serde(default = "default_private_key_key")]
    #[schemars(schema_with = "schema::secret_key")]
    pub private_key_key: String,
    /// Key of the service user's name, for grant type `password`. Default: `username`.
    #[serde(default = "default_username_key")]
    #[schemars(schema_with = "schema::secret_key")]
    pub username_key: String,
    /// Key of the service user's password, for grant type `password`. Default: `password`.
    #[serde(default = "default_password_key")]
    #[schemars(schema_with = "schema::secret_key")]
    pub password_key: String,
    /// Key of the time when the client's credentials expire, in RFC 3339, such as `2027-01-31T00:00:00Z`. The key is
    /// optional: with it, a metric, an alert and the condition `Ready` warn before. Default: `expires_at`.
    #[serde(default = "default_expires_at_key")]
    #[schemars(schema_with = "schema::secret_key")]
    pub expires_at_key: String,
    /// Key of the identifier of the private key, which assertions carry as `kid`. The Secret need not have it.
    /// Default: `key_id`.
    #[serde(default = "default_key_id_key")]
    #[schemars(schema_with = "schema::secret_key")]
    pub key_id_key: String,
    /// Key of the PEM certificate of the private key, whose thumbprints assertions carry as `x5t` and `x5t#S256`. The
    /// Secret need not have it. Default: `certificate`.
    #[serde(default = "default_certificate_key")]
    #[schemars(schema_with = "schema::secret_key")]
    pub certificate_key: String,
}

impl ClientCredentialsRef {
    /// Whether the client identifier may be shown to users who may not read Secrets: whether nothing says that it is a
    /// secret.
    #[must_use]
    pub fn shows_client_id(&self) -> bool {
        names_an_identifier(&self.client_id_key) && self.secret_named_as_client_id().is_none()
    }

    /// The same of the identifier of the private key.
    #[must_use]
    pub fn shows_key_id(&self) -> bool {
        names_an_identifier(&self.key_id_key)
    }

    /// The field of a secret that names the same key as `clientIdKey`, if one does. The schema refuses that; an earlier one
    /// did not.
    #[must_use]
    pub fn secret_named_as_client_id(&self) -> Option<&'static str> {
        let secrets = [
            ("clientSecretKey", &self.client_secret_key),
            ("privateKeyKey", &self.private_key_key),
            ("passwordKey", &self.password_key),
        ];
        secrets.into_iter().find(|(_, key)| **key == self.client_id_key).map(|(field, _)| field)
    }
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
fn default_key_id_key() -> String {
    "key_id".to_owned()
}
fn default_certificate_key() -> String {
    "certificate".to_owned()
}
fn default_username_key() -> String {
    "username".to_owned()
}
fn default_password_key() -> String {
    "password".to_owned()
}
fn default_expires_at_key() -> String {
    "expires_at".to_owned()
}
