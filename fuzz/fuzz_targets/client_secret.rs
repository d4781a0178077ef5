//! Values of a client Secret of any bytes, private keys among them: each is usable, or rejected with a bounded message.
#![no_main]

use chrono::DateTime;
use itwin_api::{authority::ClientAuthentication, credential::GrantType};
use itwin_credential_operator::observe::client_secret::ClientMaterial;
use itwin_credential_operator_fuzz::{is_bounded, on_small_stack};
use itwin_oauth::{assertion::{self, AssertionId, ID_BYTES}, sensitive::Sensitive, token::Proof};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    on_small_stack(|| {
        let names = ["client_secret", "private_key", "username", "password"];
        let mut values: Vec<_> = names.map(|name| (name.to_owned(), ByteString(data.to_vec()))).into();
        values.push(("client_id".to_owned(), ByteString(b"id".to_vec())));
        let secret = Secret { data: Some(values.into_iter().collect()), ..Secret::default() };
        let keys = serde_json::from_str(r#"{"name": "client"}"#).expect("keys");
        let material = ClientMaterial::new(secret, &keys, "team/client".to_owned());
        for method in [ClientAuthentication::ClientSecretPost, ClientAuthentication::PrivateKeyJwt] {
            match material.credentials(method, GrantType::ClientCredentials) {
                Err(failure) => is_bounded(&failure.message),
                Ok(client) => {
                    if let Proof::PrivateKey(pem) = client.proof {
                        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
                        let _ = assertion::sign(&pem, &client.id, "https://ims.example.com", now, &AssertionId::from_random([0; ID_BYTES]));
                    }
                }
            }
        }
        // the key parser alone, too, with texts that no value of a Secret can be
        let pem = Sensitive::new(String::from_utf8_lossy(data).into_owned());
        let id = AssertionId::from_random([0; ID_BYTES]);
        let _ = assertion::sign(&pem, "id", "https://ims.example.com", DateTime::UNIX_EPOCH, &id);
    });
});
