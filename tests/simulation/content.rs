//! What the operator puts into a Secret, as `act::secret_writer` does it.

use std::collections::BTreeMap;

use itwin_credential_operator::{
    act::secret_writer::{self, Content},
    api::{
        credential::{DeletionPolicy, ITwinServiceCredential},
        secret_keys,
    },
    clock,
    decide::fingerprint,
};
use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::Resource;

pub fn annotations(credential: &ITwinServiceCredential, content: &Content) -> BTreeMap<String, String> {
    let data = data(content);
    let digest = fingerprint::content(data.iter().map(|(key, value)| (key.as_str(), value.0.as_slice())));
    let stamp = [
        (secret_keys::REQUEST, content.request.clone()),
        (secret_keys::CLIENT, content.client_fingerprint.clone()),
        (secret_keys::CLIENT_VERSION, content.client_version.clone()),
        (secret_keys::CLIENT_ID, content.client_id.clone()),
        (secret_keys::ISSUER_ANNOTATION, content.issuer.clone()),
        (secret_keys::CONTENT, digest),
        (secret_keys::ISSUED_AT, clock::to_rfc3339(content.grant.issued_at)),
        (secret_keys::EXPIRES_AT_ANNOTATION, clock::to_rfc3339(content.grant.expires_at)),
    ];
    let mut annotations = secret_writer::annotations(credential);
    annotations.extend(stamp.map(|(key, value)| (key.to_owned(), value)));
    annotations
}

pub fn data(content: &Content) -> BTreeMap<String, ByteString> {
    let token = content.grant.token.expose();
    [
        (secret_keys::ACCESS_TOKEN, token.to_owned()),
        (secret_keys::AUTHORIZATION, format!("Bearer {token}")),
        (secret_keys::TOKEN_TYPE, content.grant.token_type.clone()),
        (secret_keys::EXPIRES_AT, clock::to_rfc3339(content.grant.expires_at)),
        (secret_keys::SCOPE, content.grant.scopes.join(" ")),
        (secret_keys::ISSUER, content.issuer.clone()),
    ]
    .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
    .into()
}

pub fn owner(credential: &ITwinServiceCredential) -> Option<OwnerReference> {
    (credential.spec.deletion_policy == DeletionPolicy::Delete).then(|| credential.controller_owner_ref(&())).flatten()
}
