//! The rotation of a client secret: which key is replaced, what is written, and what to know before.

pub mod overlap;
mod progress;
mod result;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use itwin_api::{authority::ClientAuthentication, credential::ClientCredentialsRef, time};
use itwin_oauth::sensitive::Sensitive;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde_json::{Value, json};

pub use self::{
    progress::{Progress, progress},
    result::{Rotated, Rotation, RotationResult},
};

/// The longest value that is read, in bytes: a private key.
pub const VALUE_MAX: usize = itwin_api::limits::PRIVATE_KEY_MAX + 2;
/// Where kubectl keeps what was applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The key of the client Secret that is replaced; `None` where the client has no secret.
#[must_use]
pub fn key(keys: &ClientCredentialsRef, method: ClientAuthentication) -> Option<&str> {
    match method {
        ClientAuthentication::ClientSecretPost | ClientAuthentication::ClientSecretBasic => {
            Some(&keys.client_secret_key)
        }
        ClientAuthentication::PrivateKeyJwt => Some(&keys.private_key_key),
        ClientAuthentication::None => None,
    }
}

/// How a client authenticates, by what its Secret holds; `None` where that does not say.
#[must_use]
pub fn method_of(secret: &Secret, keys: &ClientCredentialsRef) -> Option<ClientAuthentication> {
    let has = |key: &str| secret.data.as_ref().is_some_and(|data| data.contains_key(key));
    match (has(&keys.client_secret_key), has(&keys.private_key_key)) {
        (true, false) => Some(ClientAuthentication::ClientSecretPost),
        (false, true) => Some(ClientAuthentication::PrivateKeyJwt),
        _ => None,
    }
}

/// The client Secret as it will be, to be checked before anything is written.
#[must_use]
pub fn with_value(secret: &Secret, key: &str, value: &Sensitive) -> Secret {
    let mut secret = secret.clone();
    let value = ByteString(value.expose().as_bytes().to_vec());
    secret.data.get_or_insert_default().insert(key.to_owned(), value);
    secret
}

/// The patch that writes a value: only if the Secret is still the one that was read, and nothing but this key and that
/// of the expiry, which never takes the place of the value. It is no `kubectl apply`, so that the value is in no
/// annotation.
#[must_use]
pub fn patch(
    keys: &ClientCredentialsRef,
    key: &str,
    value: &Sensitive,
    expires_at: Option<DateTime<Utc>>,
    resource_version: Option<&str>,
) -> Value {
    let mut patch = json!({
        "metadata": {"resourceVersion": resource_version},
        "data": {key: STANDARD.encode(value.expose())},
    });
    if let Some(at) = expires_at.filter(|_| keys.expires_at_key != key) {
        patch["data"][&keys.expires_at_key] = STANDARD.encode(time::to_rfc3339(at)).into();
    }
    patch
}

/// The part of that patch that the Secret does not hold yet; `None` where nothing is left to write.
#[must_use]
pub fn unwritten(
    secret: &Secret,
    keys: &ClientCredentialsRef,
    key: &str,
    value: &Sensitive,
    expires_at: Option<DateTime<Utc>>,
) -> Option<Value> {
    let mut patch = patch(keys, key, value, expires_at, secret.metadata.resource_version.as_deref());
    let held = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|held| STANDARD.encode(&held.0));
    let data = patch["data"].as_object_mut()?;
    data.retain(|key, new| held(key).as_deref() != new.as_str());
    (!data.is_empty()).then_some(patch)
}

/// What to know about the client Secret before it is written.
#[must_use]
pub fn notes(secret: &Secret, keys: &ClientCredentialsRef, expires_at: Option<DateTime<Utc>>) -> Vec<String> {
    let mut notes = Vec::new();
    let has = |key: &str| secret.data.as_ref().is_some_and(|data| data.contains_key(key));
    let annotations = secret.metadata.annotations.as_ref();
    if annotations.is_some_and(|annotations| annotations.contains_key(LAST_APPLIED)) {
        notes.push(format!(
            "the Secret was written with 'kubectl apply', which keeps the old value in an annotation and writes it \
             again when it is applied again: remove it with 'kubectl annotate secret {} -n {} \
             {LAST_APPLIED}-'",
            secret.metadata.name.as_deref().unwrap_or_default(),
            secret.metadata.namespace.as_deref().unwrap_or_default()
        ));
    }
    if has(&keys.expires_at_key) && overlap::has_expiry(keys) && expires_at.is_none() {
        notes.push(format!(
            "key {} says when the old value expires: set it with --expires-at, or remove it",
            keys.expires_at_key
        ));
    }
    let managers = secret.metadata.managed_fields.iter().flatten().filter(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        fields.is_some_and(|fields| fields.get("f:data").is_some())
    });
    for manager in managers.filter_map(|entry| entry.manager.as_deref()) {
        if !manager.starts_with("kubectl") {
            notes.push(format!(
                "field manager {manager} wrote the Secret: if it writes it again, change the value at its source too"
            ));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{minutes, now};

    const NEW: &str = "a new secret";

    fn keys() -> ClientCredentialsRef {
        serde_json::from_value(json!({"name": "client"})).expect("valid")
    }

    fn secret(value: Value) -> Secret {
        serde_json::from_value(value).expect("a Secret")
    }

    #[test]
    fn patch_sets_the_key_and_the_expiry_alone_and_only_on_what_was_read() {
        let value = Sensitive::new(NEW.to_owned());
        let patch = patch(&keys(), "client_secret", &value, Some(now()), Some("7"));
        let expected = json!({
            "metadata": {"resourceVersion": "7"},
            "data": {"client_secret": STANDARD.encode(NEW), "expires_at": STANDARD.encode(time::to_rfc3339(now()))},
        });
        assert_eq!(patch, expected);
        let without = super::patch(&keys(), "client_secret", &value, None, None);
        assert_eq!(without["data"].as_object().map(serde_json::Map::len), Some(1));
        let same = ClientCredentialsRef { expires_at_key: "client_secret".to_owned(), ..keys() };
        let of_same = super::patch(&same, "client_secret", &value, Some(now()), None);
        assert_eq!(of_same["data"], json!({"client_secret": STANDARD.encode(NEW)}));
    }

    #[test]
    fn expiry_is_written_too_where_the_secret_has_the_value_already() {
        let value = Sensitive::new(NEW.to_owned());
        let expiry = STANDARD.encode(time::to_rfc3339(now()));
        let with = |data: Value| secret(json!({"metadata": {"resourceVersion": "7"}, "data": data}));
        let left = |data: Value, expires_at| unwritten(&with(data), &keys(), "client_secret", &value, expires_at);
        let same = json!({"client_secret": STANDARD.encode(NEW)});
        assert_eq!(left(same.clone(), None), None);
        let alone = json!({"metadata": {"resourceVersion": "7"}, "data": {"expires_at": expiry}});
        assert_eq!(left(same, Some(now())), Some(alone.clone()));
        let of_the_old = json!({"client_secret": STANDARD.encode(NEW), "expires_at": STANDARD.encode(minutes(-2))});
        assert_eq!(left(of_the_old, Some(now())), Some(alone));
        let both = json!({"client_secret": STANDARD.encode(NEW), "expires_at": expiry});
        assert_eq!(left(both, Some(now())), None);
        let other = json!({"client_secret": STANDARD.encode("old"), "expires_at": STANDARD.encode(minutes(-2))});
        assert_eq!(left(other, Some(now())), Some(patch(&keys(), "client_secret", &value, Some(now()), Some("7"))));
    }

    #[test]
    fn key_is_that_of_the_way_in_which_the_client_authenticates() {
        for (method, expected) in [
            (ClientAuthentication::ClientSecretPost, Some("client_secret")),
            (ClientAuthentication::ClientSecretBasic, Some("client_secret")),
            (ClientAuthentication::PrivateKeyJwt, Some("private_key")),
            (ClientAuthentication::None, None),
        ] {
            assert_eq!(key(&keys(), method), expected);
        }
    }

    #[test]
    fn what_may_undo_the_rotation_is_said_before() {
        let applied = secret(json!({
            "metadata": {"name": "client", "namespace": "team-b", "annotations": {LAST_APPLIED: "{}"},
                         "managedFields": [
                {"manager": "external-secrets", "fieldsV1": {"f:data": {}}},
                {"manager": "kubectl-client-side-apply", "fieldsV1": {"f:data": {}}},
                {"manager": "other", "fieldsV1": {"f:metadata": {}}},
            ]},
            "data": {"expires_at": ""},
        }));
        let notes = notes(&applied, &keys(), None);
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert!(
            notes[0].contains("kubectl annotate secret client -n team-b ") && notes[2].contains("external-secrets")
        );
        assert_eq!(super::notes(&applied, &keys(), Some(now())).len(), 2);
        assert!(super::notes(&Secret::default(), &keys(), None).is_empty());
        // the operator reads no expiry from a key that another field names
        let same = ClientCredentialsRef { username_key: "expires_at".to_owned(), ..keys() };
        assert_eq!(super::notes(&applied, &same, None).len(), 2);
    }

    #[test]
    fn secret_is_checked_with_the_new_value() {
        let old =
            secret(json!({"data": {"client_id": STANDARD.encode("id"), "client_secret": STANDARD.encode("old")}}));
        let new = with_value(&old, "client_secret", &Sensitive::new(NEW.to_owned()));
        assert_eq!(new.data.as_ref().map(|data| data["client_secret"].0.clone()), Some(NEW.as_bytes().to_vec()));
        assert_eq!(new.data.map(|data| data.len()), Some(2));
    }

    #[test]
    fn client_is_known_by_the_one_key_that_its_secret_has() {
        let keys: ClientCredentialsRef = serde_json::from_value(json!({"name": "client"})).expect("valid");
        let of = |held: &[&str]| {
            let data = held.iter().map(|key| ((*key).to_owned(), ByteString(b"x".to_vec()))).collect();
            method_of(&Secret { data: Some(data), ..Secret::default() }, &keys)
        };
        assert_eq!(of(&["client_id", "client_secret"]), Some(ClientAuthentication::ClientSecretPost));
        assert_eq!(of(&["client_id", "private_key"]), Some(ClientAuthentication::PrivateKeyJwt));
        assert_eq!((of(&["client_secret", "private_key"]), of(&["client_id"])), (None, None));
    }
}
