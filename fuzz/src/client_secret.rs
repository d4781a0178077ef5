//! Values of a client Secret of any bytes, private keys among them: each is usable, or rejected with a bounded message.

use chrono::{DateTime, TimeDelta};
use itwin_api::{authority::ClientAuthentication, credential::GrantType};
use itwin_credential_operator::observe::client_secret::ClientMaterial;
use itwin_oauth::{
    assertion::{self, Assertion, AssertionId, ClientKey, ID_BYTES, Thumbprints},
    sensitive::Sensitive,
    token::Proof,
};
use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::{is_bounded, on_small_stack};

/// One run of the target.
pub fn run(data: &[u8]) {
    on_small_stack(|| {
        let names = ["client_secret", "private_key", "username", "password", "key_id", "certificate"];
        let mut values: Vec<_> = names.map(|name| (name.to_owned(), ByteString(data.to_vec()))).into();
        values.push(("client_id".to_owned(), ByteString(b"id".to_vec())));
        let secret = Secret { data: Some(values.into_iter().collect()), ..Secret::default() };
        let keys = serde_json::from_str(r#"{"name": "client"}"#).expect("keys");
        let material = ClientMaterial::new(secret, &keys, "team/client".to_owned());
        for method in [ClientAuthentication::ClientSecretPost, ClientAuthentication::PrivateKeyJwt] {
            match material.credentials(method, GrantType::ClientCredentials) {
                Err(failure) => is_bounded(&failure.message),
                Ok(client) => {
                    if let Proof::PrivateKey(key) = client.proof {
                        sign(&key);
                    }
                }
            }
        }
        // the parsers alone, too, with texts that no value of a Secret can be
        let text = String::from_utf8_lossy(data).into_owned();
        let certificate = Thumbprints::from_pem(&text);
        sign(&ClientKey { pem: Sensitive::new(text), key_id: None, certificate });
    });
}

fn sign(key: &ClientKey) {
    let id = AssertionId::from_random([0; ID_BYTES]);
    let (audience, clock_skew) = ("https://ims.example.com", TimeDelta::zero());
    let _ = assertion::sign(
        key,
        &Assertion { client_id: "id", audience, algorithm: None, now: DateTime::UNIX_EPOCH, clock_skew, id: &id },
    );
}
