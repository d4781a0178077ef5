//! The client Secret: its keys and their lengths, never a value.

use itwin_api::authority::ClientAuthentication;
use itwin_core::client_expiry::{ClientExpiry, Expires};
use itwin_credential_operator::observe::client_secret::{self, ClientMaterial};
use k8s_openapi::api::core::v1::Secret;

use super::{Observed, Section, Seen};
use crate::span::relative;

/// Keys that are listed: a Secret may hold thousands.
const LISTED: usize = 12;

pub(super) fn section(observed: &Observed) -> Section {
    let mut section = Section::new("Client Secret");
    let keys = &observed.credential.spec.client_credentials_ref;
    let secret_ref = format!("{}/{}", observed.namespace(), keys.name);
    let secret = match &observed.client {
        Seen::Known(Some(secret)) => secret,
        Seen::Known(None) => {
            // without the authority, what most need
            let method = observed.config().map_or(ClientAuthentication::ClientSecretPost, |c| c.client_authentication);
            section.failure(&client_secret::not_found(&secret_ref, keys, method, observed.credential.spec.grant_type));
            return section;
        }
        Seen::Unknown(why) => {
            section.unknown(format!("Secret {secret_ref} is not checked: {why}"));
            return section;
        }
    };
    section.note(format!("Secret {secret_ref} has {}", listed(secret)));
    let material = ClientMaterial::new(secret.clone(), keys, secret_ref.clone());
    match observed.config() {
        Some(config) => section.result(
            material
                .credentials(config.client_authentication, observed.credential.spec.grant_type)
                .map(|_| "its keys are as the authority needs them"),
        ),
        None => section.unknown("which keys are needed is not known without the authority"),
    }
    if let Some(expires) = material.expires() {
        let expiry = ClientExpiry { secret: &secret_ref, key: &keys.expires_at_key, expires };
        match (expiry.notice(observed.now), expires) {
            (Some(notice), _) => section.problem(notice),
            (None, Expires::At(at)) => section.ok(format!("it expires {}", relative(at, observed.now))),
            (None, Expires::Invalid) => {}
        }
    }
    section
}

/// The keys of a Secret, each with the length of its value.
fn listed(secret: &Secret) -> String {
    let keys: Vec<String> = secret
        .data
        .iter()
        .flatten()
        .take(LISTED)
        .map(|(key, value)| format!("{key} ({} bytes)", value.0.len()))
        .collect();
    let others = secret.data.as_ref().map_or(0, |data| data.len().saturating_sub(LISTED));
    match (keys.is_empty(), others) {
        (true, _) => "no keys".to_owned(),
        (_, 0) => keys.join(", "),
        _ => format!("{} and {others} other keys", keys.join(", ")),
    }
}
