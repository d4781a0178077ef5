//! What is concluded at a start of a Secret that was not read.

use std::sync::Arc;

use chrono::TimeDelta;
use itwin_core::{fingerprint, observed::Integrity, samples};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::*;
use crate::controller::observation::desired;

/// There is no other credential.
struct Alone;

impl Others for Alone {
    fn writers(&self, _: &ObjectKey) -> Vec<Contender> {
        Vec::new()
    }

    fn readers(&self, _: &ObjectKey) -> Vec<Contender> {
        Vec::new()
    }

    fn living(&self, _: &str) -> Option<ownership::Named> {
        None
    }
}

/// A credential with a status that says when the token of the samples was issued, and this of `Ready`.
fn credential(scope: &str, reason: &str) -> ITwinServiceCredential {
    let held = samples::content().token_metadata;
    serde_json::from_value(json!({
        "apiVersion": "credentials.itwin.dev/v1alpha1",
        "kind": "ITwinServiceCredential",
        "metadata": {"name": "agent", "namespace": "team", "uid": "uid", "generation": 1},
        "spec": {"clientCredentialsRef": {"name": "client"}, "scopes": [scope]},
        "status": {
            "observedGeneration": 1,
            "conditions": [{
                "type": "Ready", "status": "False", "reason": reason, "message": "because",
                "lastTransitionTime": time::to_rfc3339(held.issued_at),
            }],
            "issuer": &*held.issuer,
            "issuedAt": time::to_rfc3339(held.issued_at),
            "expiresAt": time::to_rfc3339(held.expires_at),
        },
    }))
    .expect("a credential")
}

/// The Secret that was written for this credential, as if managed fields showed nothing; others may have removed what
/// describes its token.
fn secret(written_for: &ITwinServiceCredential, is_described: bool) -> SecretMetadata {
    let spec = &written_for.spec;
    let mut content = samples::content();
    content.token_metadata.request = fingerprint::request(spec).into();
    content.token_metadata.authority = Some(spec.authority_ref.name.as_str().into());
    content.token_metadata.client_reference = Some(fingerprint::client_reference(&spec.client_credentials_ref).into());
    let data = desired_secret::data(written_for, &content).expect("no template");
    let mut annotations = desired_secret::all_annotations(written_for, &content, &data);
    annotations.retain(|key, _| is_described || !secret_keys::TOKEN_METADATA.contains(&key.as_str()));
    SecretMetadata::new(&ObjectMeta {
        annotations: Some(annotations),
        uid: Some("secret".to_owned()),
        resource_version: Some("1".to_owned()),
        ..ObjectMeta::default()
    })
}

/// What a process that just started concludes; `None` where the Secret is none that it may write.
fn concluded(credential: &ITwinServiceCredential, secret: SecretMetadata) -> Option<Integrity> {
    let now = samples::content().token_metadata.issued_at + TimeDelta::minutes(1);
    let (references, retry_state) = (References::new(credential), RetryState::recall(credential, now));
    let (known, fetched) = (Known::Present(Arc::new(secret)), FetchedSecrets::default());
    let wanted = (&desired(&references), &Authority::Pending);
    match target(&references, &retry_state, &fetched, &known, &Alone, wanted) {
        Target::Ours(held) => Some(held.data),
        _ => None,
    }
}

#[test]
fn token_that_the_status_does_not_vouch_for_does_not_count_whether_or_not_the_secret_describes_it() {
    for (reason, expected) in [("SecretReadFailed", Integrity::Untrusted), ("TokenExpired", Integrity::Suspect)] {
        let credential = credential("a", reason);
        for is_described in [true, false] {
            let concluded = concluded(&credential, secret(&credential, is_described));
            assert_eq!(concluded, Some(expected), "{reason}, described: {is_described}");
        }
    }
}

#[test]
fn nothing_is_found_out_about_a_token_of_another_spec() {
    let untrusted = credential("a", "SecretReadFailed");
    let edited = credential("b", "SecretReadFailed");
    assert_eq!(concluded(&untrusted, secret(&untrusted, true)), Some(Integrity::Untrusted));
    assert_eq!(concluded(&edited, secret(&untrusted, true)), Some(Integrity::Suspect), "as managed fields say");
}
