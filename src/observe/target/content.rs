//! What a whole Secret holds: whether its data is what the operator wrote, and its token.

use std::collections::BTreeMap;

use itwin_api::{credential::SecretTemplate, limits::ACCESS_TOKEN_MAX, secret_keys};
use itwin_core::{
    desired_secret,
    last_held::{LastHeld, Record},
};
use itwin_oauth::{sensitive::Sensitive, token::fits_a_header};
use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::{SecretMetadata, bounded, managed_fields::data_keys_of_others};
use crate::observe::reduced::NAME_MAX;

/// Whether a Secret's data and token metadata are what the operator wrote. A token that the operator would not write is
/// not, even if the digest matches: anyone who may read and write the Secret can calculate the digest.
#[must_use]
pub fn is_what_we_wrote(secret: &Secret) -> bool {
    let (Some(data), Some(annotations)) = (&secret.data, &secret.metadata.annotations) else { return false };
    if holds_no_token_of_ours(data) {
        return false;
    }
    annotations.get(secret_keys::CONTENT).is_some_and(|digest| *digest == desired_secret::digest(data, annotations))
}

/// Whether a Secret's data is what the operator wrote, except for keys that someone else added: those that these templates
/// do not have or, where the operator wrote for earlier ones, those that other field managers own.
#[must_use]
pub fn is_ours_except_for_extra_keys(secret: &Secret, template: Option<&SecretTemplate>) -> bool {
    let (Some(data), Some(annotations)) = (&secret.data, &secret.metadata.annotations) else { return false };
    if holds_no_token_of_ours(data) {
        return false;
    }
    let Some(written) = annotations.get(secret_keys::CONTENT) else { return false };
    let is_written = |ours: &BTreeMap<String, ByteString>| *written == desired_secret::digest(ours, annotations);
    if is_written(&desired_secret::without_extra_keys(data, template)) {
        return true;
    }
    let of_others = data_keys_of_others(&secret.metadata);
    let is_ours = |key: &str| secret_keys::DATA_KEYS.contains(&key) || !of_others.contains(key);
    let entries = data.iter().filter(|(key, _)| is_ours(key));
    is_written(&entries.map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// The token of a Secret, if it has one that the operator would write. Others could end the header that they are put
/// into, or be obeyed by the terminal that they are printed to.
#[must_use]
pub fn token(secret: &Secret) -> Option<Sensitive> {
    let value = secret.data.as_ref()?.get(secret_keys::ACCESS_TOKEN).filter(|value| may_be_ours(value))?;
    std::str::from_utf8(&value.0).ok().map(|text| Sensitive::new(text.to_owned()))
}

/// Whether the operator would write this token: it accepts no other from a server.
fn may_be_ours(token: &ByteString) -> bool {
    token.0.len() <= ACCESS_TOKEN_MAX && fits_a_header(&token.0)
}

/// Whether the data has a token that the operator would not write.
fn holds_no_token_of_ours(data: &BTreeMap<String, ByteString>) -> bool {
    data.get(secret_keys::ACCESS_TOKEN).is_some_and(|token| !may_be_ours(token))
}

/// What is to be remembered of a Secret that holds what the operator wrote.
#[must_use]
pub fn last_held(secret_metadata: &SecretMetadata, secret: &Secret, token: Option<&Sensitive>) -> Option<LastHeld> {
    let client_fingerprint = bounded(secret.metadata.annotations.as_ref()?, secret_keys::CLIENT, NAME_MAX)?;
    let SecretMetadata { description, renewed_for, .. } = secret_metadata;
    let record = Record::new(token?, description.clone(), client_fingerprint, renewed_for.clone());
    let token_metadata = secret_metadata.token_metadata.clone()?;
    Some(LastHeld { token_metadata, record: Some(record), sealed: None })
}
