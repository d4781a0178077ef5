//! The Secret as it should be: labels, annotations, owner reference and data, and the patch that makes it so.

use std::{collections::BTreeMap, sync::Arc};

use itwin_api::{
    GROUP, MANAGER,
    credential::{DeletionPolicy, ITwinServiceCredential, SecretTemplate},
    secret_keys, time,
};
use k8s_openapi::{
    ByteString,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use serde_json::{Value, json};

use crate::{
    failure::Failure,
    fingerprint,
    template::{self, Templates},
    token::{BEARER, Content, Description, TokenMetadata},
};

/// Labels that the Secret must carry.
#[must_use]
pub fn labels(credential: &ITwinServiceCredential) -> BTreeMap<String, String> {
    let mut labels = credential.spec.secret_template.clone().unwrap_or_default().labels;
    labels.extend(own_labels(credential));
    labels
}

/// Those of them that every Secret has.
#[must_use]
pub fn own_labels(credential: &ITwinServiceCredential) -> BTreeMap<String, String> {
    let name = credential.metadata.name.as_deref().unwrap_or_default();
    BTreeMap::from([
        (secret_keys::MANAGED_BY.to_owned(), MANAGER.to_owned()),
        (secret_keys::CREDENTIAL.to_owned(), secret_keys::credential_label(name)),
    ])
}

/// Annotations that the Secret must carry, except those about the token.
#[must_use]
pub fn annotations(credential: &ITwinServiceCredential) -> BTreeMap<String, String> {
    let mut annotations = credential.spec.secret_template.clone().unwrap_or_default().annotations;
    annotations.extend(own_annotations(credential));
    if let Some(digest) = template::fingerprint(credential.spec.secret_template.as_ref()) {
        annotations.insert(secret_keys::TEMPLATE.to_owned(), digest);
    }
    annotations
}

/// Those of them that do not depend on the template.
#[must_use]
pub fn own_annotations(credential: &ITwinServiceCredential) -> BTreeMap<String, String> {
    let ObjectMeta { uid, namespace, name, .. } = &credential.metadata;
    let owner = format!("{}/{}", namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default());
    BTreeMap::from([
        (secret_keys::OWNER_UID.to_owned(), uid.clone().unwrap_or_default()),
        (secret_keys::OWNER.to_owned(), owner),
    ])
}

/// The data of a Secret.
pub type Data = BTreeMap<String, ByteString>;

/// All that the Secret is to hold for this token.
///
/// # Errors
/// [`itwin_api::conditions::Reason::TemplateInvalid`]
pub fn data(credential: &ITwinServiceCredential, content: &Content) -> Result<Data, Failure> {
    with_templates(credential, token_data(content))
}

fn with_templates(credential: &ITwinServiceCredential, mut data: Data) -> Result<Data, Failure> {
    data.extend(Templates::new(credential.spec.secret_template.as_ref())?.render(&data));
    Ok(data)
}

/// The data for the current templates over the token that the Secret holds, `held`.
///
/// # Errors
/// [`itwin_api::conditions::Reason::TemplateInvalid`]
pub fn rerendered(credential: &ITwinServiceCredential, held: &Data) -> Result<Data, Failure> {
    let token = secret_keys::DATA_KEYS.iter().filter_map(|key| held.get_key_value(*key));
    with_templates(credential, token.map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// The data without keys that neither the operator nor these templates write.
#[must_use]
pub fn without_extra_keys(data: &Data, template: Option<&SecretTemplate>) -> Data {
    let is_ours = |key: &str| {
        secret_keys::DATA_KEYS.contains(&key) || template.is_some_and(|template| template.data.contains_key(key))
    };
    data.iter().filter(|(key, _)| is_ours(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A merge patch of the data: it sets what is wanted and removes other keys that are `present`.
#[must_use]
pub fn data_patch<'a>(present: impl IntoIterator<Item = &'a String>, data: &'a Data) -> Value {
    let stale = present.into_iter().filter(|key| !data.contains_key(*key));
    let mut patched: BTreeMap<&str, Value> = stale.map(|key| (key.as_str(), Value::Null)).collect();
    patched.extend(data.iter().map(|(key, value)| (key.as_str(), json!(value))));
    json!(patched)
}

/// Annotations that the Secret must carry, those about the token in `data` included.
#[must_use]
pub fn all_annotations(
    credential: &ITwinServiceCredential,
    content: &Content,
    data: &Data,
) -> BTreeMap<String, String> {
    let mut annotations = annotations(credential);
    let TokenMetadata { request, issuer, authority, client_reference, client_version, issued_at, expires_at } =
        &content.token_metadata;
    let Description { client_id, scopes } = &content.description;
    let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
    let always = [
        (secret_keys::REQUEST, request.to_string()),
        (secret_keys::CLIENT, content.client_fingerprint.to_string()),
        (secret_keys::CLIENT_VERSION, client_version.to_string()),
        (secret_keys::CLIENT_ID, text(client_id)),
        (secret_keys::ISSUER_ANNOTATION, issuer.to_string()),
        (secret_keys::GRANTED, text(scopes)),
        (secret_keys::ISSUED_AT, time::to_rfc3339(*issued_at)),
        (secret_keys::EXPIRES_AT_ANNOTATION, time::to_rfc3339(*expires_at)),
    ];
    annotations.extend(always.map(|(key, value)| (key.to_owned(), value)));
    let optional = [
        (secret_keys::CLIENT_REFERENCE, client_reference),
        (secret_keys::AUTHORITY, authority),
        (secret_keys::RENEWED_FOR, &content.renewed_for),
    ];
    let present = optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.as_deref()?.to_owned())));
    annotations.extend(present);
    let sealed = digest(data, &annotations);
    annotations.insert(secret_keys::CONTENT.to_owned(), sealed);
    annotations
}

/// The keys that every Secret has. No value ends in a newline: Node's header validation refuses one.
fn token_data(content: &Content) -> Data {
    let TokenMetadata { issuer, expires_at, .. } = &content.token_metadata;
    let token = content.token.expose();
    [
        (secret_keys::ACCESS_TOKEN, token.to_owned()),
        (secret_keys::AUTHORIZATION, format!("{BEARER} {token}")),
        (secret_keys::TOKEN_TYPE, BEARER.to_owned()),
        (secret_keys::EXPIRES_AT, time::to_rfc3339(*expires_at)),
        (secret_keys::SCOPE, content.description.scopes.as_deref().unwrap_or_default().to_owned()),
        (secret_keys::ISSUER, issuer.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
    .collect()
}

/// The digest of a Secret's `data` and of the annotations that describe it, as it is kept in [`secret_keys::CONTENT`].
#[must_use]
pub fn digest(data: &BTreeMap<String, ByteString>, annotations: &BTreeMap<String, String>) -> String {
    let reported = secret_keys::TOKEN_METADATA.iter().filter_map(|key| Some((*key, annotations.get(*key)?.as_bytes())));
    fingerprint::content(data.iter().map(|(key, value)| (key.as_str(), value.0.as_slice())).chain(reported))
}

/// The controller reference to the credential; none where the Secret is to outlive it.
#[must_use]
pub fn owner(credential: &ITwinServiceCredential) -> Option<OwnerReference> {
    let metadata = &credential.metadata;
    match credential.spec.deletion_policy {
        DeletionPolicy::Retain => None,
        DeletionPolicy::Delete => Some(OwnerReference {
            api_version: format!("{GROUP}/v1alpha1"),
            kind: "ITwinServiceCredential".to_owned(),
            name: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
            controller: Some(true),
            // it would need a permission on the credential's finalizers, and serves nothing here
            block_owner_deletion: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::content;

    fn credential(change: fn(&mut Value)) -> ITwinServiceCredential {
        let mut value = json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinServiceCredential",
            "metadata": {"name": "agent", "namespace": "team", "uid": "uid"},
            "spec": {
                "clientCredentialsRef": {"name": "client"},
                "secretTemplate": {
                    "labels": {"app": "a", "app.kubernetes.io/managed-by": "another"},
                    "data": {"header": "token {{ access_token }}"},
                },
            },
        });
        change(&mut value);
        serde_json::from_value(value).expect("a credential")
    }

    #[test]
    fn labels_of_the_operator_win_over_those_of_the_template() {
        let labels = labels(&credential(|_| {}));
        assert_eq!(labels["app"], "a");
        assert_eq!(labels[secret_keys::MANAGED_BY], MANAGER);
        assert_eq!(labels[secret_keys::CREDENTIAL], "agent");
    }

    #[test]
    fn secret_outlives_its_credential_only_where_the_spec_says_so() {
        let owned = owner(&credential(|_| {})).expect("an owner");
        assert_eq!((owned.kind.as_str(), owned.uid.as_str()), ("ITwinServiceCredential", "uid"));
        assert_eq!((owned.controller, owned.block_owner_deletion), (Some(true), None));
        assert_eq!(owner(&credential(|value| value["spec"]["deletionPolicy"] = json!("Retain"))), None);
    }

    #[test]
    fn data_holds_the_token_and_what_templates_make_of_it() {
        let text = |data: &Data, key: &str| String::from_utf8(data[key].0.clone()).expect("text");
        let credential = credential(|_| {});
        let full = data(&credential, &content()).expect("a valid template");
        assert_eq!(text(&full, secret_keys::AUTHORIZATION), "Bearer secret");
        assert_eq!(text(&full, secret_keys::SCOPE), "a b");
        assert_eq!(text(&full, "header"), "token secret");
        let mut held = full.clone();
        held.insert("header".to_owned(), ByteString::default());
        held.insert("added".to_owned(), ByteString::default());
        assert_eq!(rerendered(&credential, &held).expect("a valid template"), full);
    }

    #[test]
    fn digest_in_the_annotations_covers_the_data_and_what_describes_it() {
        let (credential, content) = (credential(|_| {}), content());
        let data = data(&credential, &content).expect("a valid template");
        let annotations = all_annotations(&credential, &content, &data);
        assert_eq!(annotations[secret_keys::CONTENT], digest(&data, &annotations));
        assert_eq!(annotations[secret_keys::CLIENT_VERSION], "uid/1");
        assert_eq!(annotations[secret_keys::OWNER], "team/agent");
        assert_ne!(digest(&Data::new(), &annotations), digest(&data, &annotations));
        assert_ne!(digest(&data, &BTreeMap::new()), digest(&data, &annotations));
    }

    #[test]
    fn patch_of_the_data_removes_other_keys() {
        let data = Data::from([("kept".to_owned(), ByteString(b"x".to_vec()))]);
        let present = ["kept".to_owned(), "stale".to_owned()];
        assert_eq!(data_patch(&present, &data), json!({"kept": "eA==", "stale": null}));
    }
}
