//! The digests in the annotations of a Secret, which prove its token once others have removed the annotations. A process
//! that starts trusts a Secret and does not read it, so that it knows no other proof.

use itwin_api::digest::hex;
use itwin_core::last_held::Sealed;

use super::SecretMetadata;

/// The number of bytes of a digest.
const DIGEST: usize = 32;

/// The digest of the client's credentials, and that of the data and of the annotations that describe it. Each Secret has
/// them, so that they are kept as bytes.
#[derive(Clone, Debug)]
pub(super) struct Seal(Box<[[u8; DIGEST]; 2]>);

impl Seal {
    /// `None` where these are no digests: the operator did not write them.
    pub(super) fn new(client: &str, content: &str) -> Option<Self> {
        Some(Self(Box::new([bytes(client)?, bytes(content)?])))
    }
}

/// The bytes of a digest in hexadecimal.
fn bytes(digest: &str) -> Option<[u8; DIGEST]> {
    let mut bytes = [0; DIGEST];
    if digest.len() != 2 * DIGEST {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(digest.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

impl SecretMetadata {
    /// What its annotations say besides the token metadata, and what proves the token without them.
    #[must_use]
    pub fn sealed(&self) -> Option<Sealed> {
        let [client, content] = &*self.seal.as_ref()?.0;
        Some(Sealed {
            description: self.description.clone(),
            client_fingerprint: hex(client).into(),
            renewed_for: self.renewed_for.clone(),
            digest: hex(content).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use itwin_api::{credential::ITwinServiceCredential, secret_keys};
    use itwin_core::{desired_secret, last_held::LastHeld, samples, token::Content};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::json;

    use super::*;

    #[test]
    fn annotations_that_were_read_prove_the_token_without_them() {
        let credential: ITwinServiceCredential = serde_json::from_value(json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinServiceCredential",
            "metadata": {"name": "agent", "namespace": "team", "uid": "uid"},
            "spec": {"clientCredentialsRef": {"name": "client"}},
        }))
        .expect("a credential");
        let content = Content { client_fingerprint: "0f".repeat(DIGEST).into(), ..samples::content() };
        let data = desired_secret::data(&credential, &content).expect("no template");
        let annotations = desired_secret::all_annotations(&credential, &content, &data);
        let secret_metadata =
            SecretMetadata::new(&ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() });
        let token_metadata = secret_metadata.token_metadata.clone().expect("token metadata");
        let sealed = secret_metadata.sealed().map(Box::new);
        let held = LastHeld { token_metadata, record: None, sealed };
        let proven = held.sealed_content(&content.token, &credential).expect("the same token");
        assert_eq!(LastHeld::written(&proven), LastHeld::written(&content));
    }

    #[test]
    fn what_is_no_digest_seals_nothing() {
        let digest = "0f".repeat(DIGEST);
        let longer = format!("{digest}0");
        let other = format!("{}ä", &digest[2..]);
        assert!(Seal::new(&digest, &digest).is_some());
        for wrong in ["", "fingerprint", &digest[1..], &longer, &other] {
            assert!(Seal::new(wrong, &digest).is_none() && Seal::new(&digest, wrong).is_none(), "{wrong}");
        }
        let annotations = [(secret_keys::CLIENT.to_owned(), digest)].into();
        let metadata = ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() };
        assert!(SecretMetadata::new(&metadata).sealed().is_none(), "one of two");
    }
}
