//! Fields that name one key of a client Secret: what a rotation writes for one of them would overwrite the others.

use itwin_api::credential::{ClientCredentialsRef, CredentialSpec, GrantType, ITwinServiceCredential};

/// The field of the key that `--expires-at` writes.
const EXPIRY: &str = "expiresAtKey";

/// A field of a credential, and the key that it names.
type Named<'a> = (&'static str, &'a str);

/// The fields whose values a token request may need.
fn required(keys: &ClientCredentialsRef) -> [Named<'_>; 5] {
    [
        ("clientIdKey", &keys.client_id_key),
        ("clientSecretKey", &keys.client_secret_key),
        ("privateKeyKey", &keys.private_key_key),
        ("usernameKey", &keys.username_key),
        ("passwordKey", &keys.password_key),
    ]
}

/// The fields whose keys a Secret need not have. The operator reads none that one of the others names too.
fn optional(keys: &ClientCredentialsRef) -> [Named<'_>; 3] {
    [("keyIdKey", &keys.key_id_key), ("certificateKey", &keys.certificate_key), (EXPIRY, &keys.expires_at_key)]
}

/// The field that names this key besides `expiresAtKey`, if one does: then the key is not that of an expiry.
fn besides_expiry(keys: &ClientCredentialsRef, key: &str) -> Option<&'static str> {
    let mut fields = required(keys).into_iter().chain(optional(keys));
    fields.find(|(field, named)| *field != EXPIRY && *named == key).map(|(field, _)| field)
}

/// Whether `expiresAtKey` names a key of its own, so that the operator reads an expiry from it.
#[must_use]
pub fn has_expiry(keys: &ClientCredentialsRef) -> bool {
    besides_expiry(keys, &keys.expires_at_key).is_none()
}

/// The field for which the operator reads this key, other than as a client secret or private key.
fn besides_secret(spec: &CredentialSpec, key: &str) -> Option<&'static str> {
    let keys = &spec.client_credentials_ref;
    let is_read = |field: &str| match field {
        "clientIdKey" => true,
        "usernameKey" | "passwordKey" => spec.grant_type == GrantType::Password,
        _ => false,
    };
    let of_request = required(keys).into_iter().find(|(field, named)| *named == key && is_read(field));
    let is_required = required(keys).iter().any(|(_, named)| *named == key);
    let besides = optional(keys).into_iter().find(|(_, named)| *named == key && !is_required);
    of_request.or(besides).map(|(field, _)| field)
}

fn name(credential: &ITwinServiceCredential) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", text(&credential.metadata.namespace), text(&credential.metadata.name))
}

/// Why the rotation of `key` would overwrite a value that is read for something else, by any of the credentials that
/// use the client Secret; `None` if it would not.
#[must_use]
pub fn of_secret(credentials: &[ITwinServiceCredential], key: &str) -> Option<String> {
    let (credential, field) = credentials.iter().find_map(|one| Some((one, besides_secret(&one.spec, key)?)))?;
    Some(format!(
        "the new secret would overwrite another value: {field} of ITwinServiceCredential {} names key {key} too. Keep \
         each value under a key of its own",
        name(credential)
    ))
}

/// The same of the expiry, which is written to the key that `keys` names.
#[must_use]
pub fn of_expiry(credentials: &[ITwinServiceCredential], keys: &ClientCredentialsRef) -> Option<String> {
    let key = &keys.expires_at_key;
    let field = |one: &ITwinServiceCredential| besides_expiry(&one.spec.client_credentials_ref, key);
    let (credential, field) = credentials.iter().find_map(|one| Some((one, field(one)?)))?;
    Some(format!(
        "--expires-at would overwrite another value: {field} of ITwinServiceCredential {} names key {key} too, as \
         {EXPIRY} does. Name another key there, or leave out --expires-at",
        name(credential)
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::view::tests::credential;

    fn with(name: &str, keys: &Value, grant: &str) -> ITwinServiceCredential {
        let changes = json!({"spec": {"clientCredentialsRef": keys, "grantType": grant}});
        credential(name, &changes)
    }

    #[test]
    fn expiry_overwrites_no_key_that_another_field_names() {
        let service = "client_credentials";
        let plain = with("plain", &json!({}), service);
        let keys = &plain.spec.client_credentials_ref;
        assert!(has_expiry(keys) && of_expiry(std::slice::from_ref(&plain), keys).is_none());
        for field in [
            "clientIdKey",
            "clientSecretKey",
            "privateKeyKey",
            "usernameKey",
            "passwordKey",
            "keyIdKey",
            "certificateKey",
        ] {
            // of the credential itself, and of another one that uses the client Secret
            let own = with("own", &json!({"expiresAtKey": "same", field: "same"}), service);
            assert!(!has_expiry(&own.spec.client_credentials_ref), "{field}");
            let why = of_expiry(std::slice::from_ref(&own), &own.spec.client_credentials_ref).unwrap_or_default();
            assert!(why.contains(&format!("{field} of ITwinServiceCredential team-a/own names key same")), "{why}");
            let other = with("other", &json!({field: "expires_at"}), service);
            let why = of_expiry(&[plain.clone(), other], keys).unwrap_or_default();
            assert!(why.contains(&format!("{field} of ITwinServiceCredential team-a/other")), "{why}");
        }
    }

    #[test]
    fn secret_overwrites_no_key_that_is_read_for_something_else() {
        let of = |keys: Value, grant: &str| of_secret(&[with("other", &keys, grant)], "shared");
        let (service, user) = ("client_credentials", "password");
        for (keys, grant) in [
            (json!({"clientIdKey": "shared"}), service),
            (json!({"usernameKey": "shared"}), user),
            (json!({"clientSecretKey": "shared", "passwordKey": "shared"}), user),
            (json!({"keyIdKey": "shared"}), service),
            (json!({"certificateKey": "shared"}), service),
            (json!({"expiresAtKey": "shared"}), service),
        ] {
            let why = of(keys.clone(), grant).unwrap_or_default();
            assert!(why.contains("ITwinServiceCredential team-a/other names key shared too"), "{keys}: {why}");
        }
        for keys in [
            json!({}),
            json!({"clientSecretKey": "shared", "privateKeyKey": "shared"}),
            // the operator reads neither of the two
            json!({"clientSecretKey": "shared", "passwordKey": "shared"}),
            json!({"clientSecretKey": "shared", "keyIdKey": "shared", "expiresAtKey": "shared"}),
        ] {
            assert_eq!(of(keys.clone(), service), None, "{keys}");
        }
    }
}
