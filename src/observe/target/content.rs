//! What a whole Secret holds: whether its data is what the operator wrote, and its token.

use std::collections::BTreeMap;

use itwin_api::{credential::SecretTemplate, limits::ACCESS_TOKEN_MAX, secret_keys};
use itwin_core::{
    desired_secret,
    last_held::{LastHeld, Record},
};
use itwin_oauth::sensitive::Sensitive;
use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::{SecretMetadata, bounded};
use crate::observe::reduced::NAME_MAX;

/// Whether a Secret's data and token metadata are what the operator wrote. A token that is longer than the operator
/// accepts is not, even if the digest matches: anyone who may read and write the Secret can calculate the digest.
#[must_use]
pub fn is_what_we_wrote(secret: &Secret) -> bool {
    let (Some(data), Some(annotations)) = (&secret.data, &secret.metadata.annotations) else { return false };
    if data.get(secret_keys::ACCESS_TOKEN).is_some_and(|token| token.0.len() > ACCESS_TOKEN_MAX) {
        return false;
    }
    annotations.get(secret_keys::CONTENT).is_some_and(|digest| *digest == desired_secret::digest(data, annotations))
}

/// Whether a Secret's data is what the operator wrote for these templates, except for keys that someone else added.
#[must_use]
pub fn is_ours_except_for_extra_keys(secret: &Secret, template: Option<&SecretTemplate>) -> bool {
    let (Some(data), Some(annotations)) = (&secret.data, &secret.metadata.annotations) else { return false };
    let is_ours = |key: &str| {
        secret_keys::DATA_KEYS.contains(&key) || template.is_some_and(|template| template.data.contains_key(key))
    };
    let ours: BTreeMap<String, ByteString> =
        data.iter().filter(|(key, _)| is_ours(key)).map(|(key, value)| (key.clone(), value.clone())).collect();
    annotations.get(secret_keys::CONTENT).is_some_and(|digest| *digest == desired_secret::digest(&ours, annotations))
}

/// The token of a Secret, if it has one that is not too long.
#[must_use]
pub fn token(secret: &Secret) -> Option<Sensitive> {
    let value = secret.data.as_ref()?.get(secret_keys::ACCESS_TOKEN)?;
    let text = std::str::from_utf8(&value.0).ok().filter(|text| (1..=ACCESS_TOKEN_MAX).contains(&text.len()))?;
    Some(Sensitive::new(text.to_owned()))
}

/// What is to be remembered of a Secret that holds what the operator wrote.
#[must_use]
pub fn last_held(secret_metadata: &SecretMetadata, secret: &Secret, token: Option<&Sensitive>) -> Option<LastHeld> {
    let client_fingerprint = bounded(secret.metadata.annotations.as_ref()?, secret_keys::CLIENT, NAME_MAX)?;
    let SecretMetadata { description, renewed_for, .. } = secret_metadata;
    let record = Record::new(token?, description.clone(), client_fingerprint, renewed_for.clone());
    Some(LastHeld { token_metadata: secret_metadata.token_metadata.clone()?, record: Some(record) })
}
