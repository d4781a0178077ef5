//! The objects that administrators and users of the operator create. Tests, the demo and the benchmark build them
//! here, so that a change of the API has one place.

use serde_json::{Value, json};

/// The API version of our custom resources.
pub const API_VERSION: &str = "credentials.itwin.dev/v1alpha1";

/// An ITwinAuthority; `spec` is merged into `server`, the fields that name the authorization server and its
/// certificate authority.
#[must_use]
pub fn authority(name: &str, server: Value, spec: &Value) -> Value {
    custom_resource("ITwinAuthority", name, server, spec)
}

/// An ITwinServiceCredential; `spec` is merged into its references to the authority and the client Secret.
#[must_use]
pub fn credential(name: &str, authority: &str, client_secret: &str, spec: &Value) -> Value {
    let references = json!({"authorityRef": {"name": authority}, "clientCredentialsRef": {"name": client_secret}});
    custom_resource("ITwinServiceCredential", name, references, spec)
}

fn custom_resource(kind: &str, name: &str, mut full: Value, spec: &Value) -> Value {
    merge(&mut full, spec);
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": full})
}

/// A client Secret.
#[must_use]
pub fn client_secret(name: &str, client_id: &str, client_secret: &str) -> Value {
    secret(name, &json!({"client_id": client_id, "client_secret": client_secret}))
}

/// A Secret with these values, as text.
#[must_use]
pub fn secret(name: &str, values: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values})
}

/// The owner reference to a credential.
#[must_use]
pub fn owner_reference(credential: &str, uid: impl Into<Value>) -> Value {
    json!({"apiVersion": API_VERSION, "kind": "ITwinServiceCredential", "name": credential, "uid": uid.into()})
}

/// Merges `patch` into `value` (RFC 7396).
pub fn merge(value: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    let Value::Object(fields) = value else { return };
    for (key, patched) in patch {
        if patched.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), patched);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spec_is_merged_and_null_removes_a_field() {
        let spec = json!({"authorityRef": null, "clientCredentialsRef": {"clientIdKey": "id"}, "suspend": true});
        let credential = credential("agent", "ims", "client", &spec);
        let expected = json!({"clientCredentialsRef": {"name": "client", "clientIdKey": "id"}, "suspend": true});
        assert_eq!(credential["spec"], expected);
    }
}
