//! Credentials as packed text: JSON, compressed with a dictionary.
//!
//! A credential is unpacked for each reconciliation. That costs a hundredth of the reconciliation, and between two of them,
//! which is most of an hour, the text takes a fifth of the memory of the object.

use itwin_api::credential::ITwinServiceCredential;
use kube::Resource;
use lz4_flex::block;

/// What most credentials have in common, so that packed texts need not hold it. It may be anything: it only makes them
/// smaller, and they never leave this process.
const FAMILIAR: &[u8] = br#"{"annotations":{"credentials.itwin.dev/renew":"},"labels":{},"managedFields":[],"lastFailure":{
"time":"20","reason":"ServerError","message":"no answer"},"lastRenewRequest":""scopes":["itwin-platform"],"secretName":"
"secretTemplate":{"data":{"labels":{"annotations":{"rolloutRestartTargets":[{"kind":"Deployment","name":"resource":""
[{"creationTimestamp":"2026-01-01T00:00:00Z","generation":1,"labels":{},"managedFields":[],"name":"","namespace":"
","resourceVersion":"1","uid":"-"},{"authorityRef":{"name":"ims"},"clientCredentialsRef":{"name":"client",
"clientIdKey":"client_id","clientSecretKey":"client_secret","privateKeyKey":"private_key","usernameKey":"username",
"passwordKey":"password"},"grantType":"client_credentials","scopes":["itwin-platform"],"minimumValidity":"300s",
"rolloutRestartDelay":"10s","deletionPolicy":"Delete","suspend":false},{"observedGeneration":1,"conditions":[{"lastTransitionTime":"
2026-01-01T00:00:00Z","message":"Secret holds a valid token","observedGeneration":1,"reason":"TokenValid",
"status":"True","type":"Ready"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"a verified token was written into
Secret ","observedGeneration":1,"reason":"TokenIssued","status":"True","type":"Renewed"}],"secretName":"","issuer":
"https://ims.bentley.com","clientId":"service-","scopes":["itwin-platform"],"issuedAt":"2026-01-01T00:00:00Z",
"expiresAt":"2026-01-01T01:00:00Z","renewAt":"2026-01-01T00:40:00Z","usableUntil":"2026-01-01T00:55:00Z",
"consecutiveFailures":0}]"#;

/// The packed text of a credential.
pub(super) fn pack(credential: &ITwinServiceCredential) -> Box<[u8]> {
    let parts = (credential.meta(), &credential.spec, &credential.status);
    // what was read from JSON can be written as JSON
    let text = serde_json::to_vec(&parts).unwrap_or_default();
    block::compress_prepend_size_with_dict(&text, FAMILIAR).into()
}

/// The credential of a packed text.
pub(super) fn unpack(packed: &[u8]) -> Option<ITwinServiceCredential> {
    let text = block::decompress_size_prepended_with_dict(packed, FAMILIAR).unwrap_or_default();
    match serde_json::from_slice(&text) {
        Ok((metadata, spec, status)) => Some(ITwinServiceCredential { metadata, spec, status }),
        Err(error) => {
            // it was written by `pack`; silence would be a credential that is never renewed
            tracing::error!(%error, "a credential that was kept cannot be read, please report this as a bug");
            None
        }
    }
}
