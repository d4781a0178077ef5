//! Every parser of texts from tenants and authorization servers, with texts meant to do harm, on a small stack:
//! each returns an error of bounded length, and none ends the process. No server is needed.

#![allow(missing_docs, clippy::panic)]

mod corpus;
mod objects;
mod process;
mod seeds;

use std::{collections::BTreeMap, sync::LazyLock};

use chrono::{DateTime, TimeDelta, Utc};
use corpus::corpus;
use futures::{FutureExt, future::BoxFuture};
use itwin_api::{
    authority::ClientAuthentication,
    credential::{ClientCredentialsRef, GrantType, SecretTemplate},
    duration,
    limits::ACCESS_TOKEN_MAX,
};
use itwin_core::{
    messages_oauth::{
        authority as authority_messages,
        token::{self as token_messages, Names},
        verdict,
    },
    template,
};
use itwin_credential_operator::observe::client_secret::ClientMaterial;
use itwin_oauth::{
    assertion::{self, Assertion, AssertionId, AssertionRules, ClientKey},
    discovery,
    identifier::Identifier,
    jwt::{self, VerificationError},
    key_set::{KeySet, KeySetError},
    limits::RETRY_AFTER_MAX,
    sensitive::Sensitive,
    token::{self, ClientCredentials, Proof, Server, TokenRequest},
    transport::{self, Transport, TransportError},
};
use k8s_openapi::{ByteString, api::core::v1::Secret};

/// A stack as small as that of any thread; those of the operator have 2 MiB.
const STACK: usize = 256 * 1024;
/// The longest message, in bytes: it becomes part of conditions, events and logs.
const MESSAGE_MAX: usize = 700;
const ISSUER: &str = "https://ims.example.com";

/// Runs `work` on a small stack; a panic in it is a failure of the test.
fn on_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(work).expect("a thread");
    thread.join().expect("no panic");
}

/// The start of a text, to identify it.
fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned()
}

fn is_bounded(message: &str, text: &[u8]) {
    assert!(!message.is_empty() && message.len() <= MESSAGE_MAX, "{}: {message}", shown(text));
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("in range")
}

fn assertion_id() -> AssertionId {
    AssertionId::from_random([0; assertion::ID_BYTES])
}

/// The names in messages.
fn names() -> Names {
    Names {
        authority: "ims".to_owned(),
        client_secret: "team/client".to_owned(),
        keys: client_keys(),
        grant_type: GrantType::ClientCredentials,
        method: ClientAuthentication::default(),
        is_endpoint_discovered: false,
    }
}

fn client_keys() -> ClientCredentialsRef {
    serde_json::from_value(serde_json::json!({"name": "client"})).expect("keys")
}

#[test]
fn templates() {
    let check = |text: &str| {
        let data = BTreeMap::from([("key".to_owned(), text.to_owned())]);
        template::check(Some(&SecretTemplate { data, ..SecretTemplate::default() })).map_err(|failure| failure.message)
    };
    on_small_stack(move || {
        for text in corpus::templates() {
            is_bounded(&check(&text).expect_err(&text), text.as_bytes());
        }
        for text in corpus() {
            // a text without a placeholder is a template too
            if let Err(message) = check(&String::from_utf8_lossy(&text)) {
                is_bounded(&message, &text);
            }
        }
    });
}

#[test]
fn values_of_a_client_secret() {
    on_small_stack(|| {
        for text in corpus() {
            let names = ["client_id", "client_secret", "private_key", "username", "password", "key_id", "certificate"];
            let data = names.map(|name| (name.to_owned(), ByteString(text.clone())));
            let secret = Secret { data: Some(data.into()), ..Secret::default() };
            let material = ClientMaterial::new(secret, &client_keys(), "team/client".to_owned());
            for method in [ClientAuthentication::ClientSecretPost, ClientAuthentication::PrivateKeyJwt] {
                // a short text without control characters can be a value
                match material.credentials(method, GrantType::Password) {
                    Ok(client) => assert!(client.id.sent().len() <= 1024),
                    Err(failure) => is_bounded(&failure.message, &text),
                }
            }
        }
    });
}

#[test]
fn private_keys() {
    on_small_stack(|| {
        for text in corpus().into_iter().chain(corpus::private_keys().into_iter().map(String::into_bytes)) {
            let pem = Sensitive::new(String::from_utf8_lossy(&text).into_owned());
            let id = assertion_id();
            let clock_skew = TimeDelta::zero();
            let content =
                Assertion { client_id: "id", audience: ISSUER, algorithm: None, now: now(), clock_skew, id: &id };
            let key = ClientKey { pem, key_id: None, certificate: None };
            assert!(assertion::sign(&key, &content).is_err(), "{}", shown(&text));
        }
    });
}

/// A response without a server.
struct Canned(u16, Vec<u8>);

impl Transport for Canned {
    fn send(&self, _: ::http::Request<Vec<u8>>) -> BoxFuture<'_, Result<::http::Response<Vec<u8>>, TransportError>> {
        let answer = ::http::Response::builder().status(self.0).header("content-type", "application/json");
        let answer = answer.body(self.1.clone()).expect("an answer");
        async { Ok(answer) }.boxed()
    }
}

fn request(status: u16, body: Vec<u8>) -> Result<token::TokenResponse, String> {
    let request = TokenRequest {
        client: ClientCredentials {
            id: Identifier::Public("id".to_owned()),
            proof: Proof::SecretInBody(Sensitive::new("secret".to_owned())),
            user: None,
        },
        scopes: vec!["itwin-platform".to_owned()],
        resources: Vec::new(),
        audience: None,
    };
    let endpoint = url::Url::parse(ISSUER).expect("a URL");
    let server = Server {
        token_endpoint: &endpoint,
        written_token_endpoint: endpoint.as_str(),
        issuer: ISSUER,
        assertion: &AssertionRules::default(),
    };
    let response = token::request(&Canned(status, body), server, &request, now(), &assertion_id()).now_or_never();
    response.expect("nothing to wait for").map_err(|error| token_messages::not_issued(&error, &names()).message)
}

#[test]
fn token_responses() {
    on_small_stack(|| {
        for text in corpus() {
            for status in [200, 400] {
                match request(status, text.clone()) {
                    Ok(_) => panic!("accepted: {}", shown(&text)),
                    Err(message) => is_bounded(&message, &text),
                }
            }
        }
    });
}

#[test]
fn access_token_is_bounded() {
    let answer = |size: usize| {
        let token = "t".repeat(size);
        request(200, format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":60}}"#).into_bytes())
    };
    assert!(answer(ACCESS_TOKEN_MAX).is_ok());
    assert!(answer(ACCESS_TOKEN_MAX + 1).is_err_and(|why| why.contains("access_token has more than 32768 bytes")));
}

/// JSON as deep as its parser follows, which is accepted: the stack must suffice for it.
fn deepest(fields: &str) -> Vec<u8> {
    const LEVELS: usize = 31;
    format!(r#"{{{fields},"x":{}{}}}"#, "[".repeat(LEVELS), "]".repeat(LEVELS)).into_bytes()
}

#[test]
fn deepest_json_fits_the_stack() {
    on_small_stack(|| {
        assert!(request(200, deepest(r#""access_token":"t","token_type":"Bearer","expires_in":60"#)).is_ok());
        let document = deepest(r#""issuer":"https://ims.example.com","token_endpoint":"https://ims.example.com/t""#);
        assert!(discovery::endpoints(&document, ISSUER, None, None, true).is_ok());
        assert!(KeySet::parse(&deepest(r#""keys":[]"#)).is_err_and(|error| error == KeySetError::NoSigningKey));
    });
}

#[test]
fn discovery_documents() {
    on_small_stack(|| {
        for text in corpus() {
            let error = discovery::endpoints(&text, ISSUER, None, None, true).expect_err(&shown(&text));
            is_bounded(&authority_messages::unavailable(&error.into(), "ims").message, &text);
        }
    });
}

#[test]
fn key_sets() {
    on_small_stack(|| {
        for text in corpus() {
            let Err(error) = KeySet::parse(&text) else { panic!("accepted: {}", shown(&text)) };
            is_bounded(&authority_messages::unavailable(&error.into(), "ims").message, &text);
        }
    });
}

/// A key set with one public key, whose private key no one has.
static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let keys = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1","use":"sig",
        "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    KeySet::parse(keys.as_bytes()).expect("a key set")
});

#[test]
fn header_and_claims_of_a_token() {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    on_small_stack(|| {
        let proof = Proof::SecretInBody(Sensitive::new("secret".to_owned()));
        let client = ClientCredentials { id: Identifier::Public("agent".to_owned()), proof, user: None };
        let request = TokenRequest { client, scopes: Vec::new(), resources: Vec::new(), audience: None };
        for text in corpus() {
            let part = URL_SAFE_NO_PAD.encode(&text);
            let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"1"}"#);
            let whole = String::from_utf8_lossy(&text).into_owned();
            for token in [whole, format!("{part}.{part}.{part}"), format!("{header}.{part}.{part}")] {
                let token = Sensitive::new(token);
                let refused = KEYS.verify(&token, ISSUER, &[]).expect_err(&shown(&text));
                for error in [refused, VerificationError::Issuer, VerificationError::Audience] {
                    let presented = jwt::presented(&token, error, &request, ISSUER, &[]);
                    is_bounded(&verdict::not_trusted(error, presented.as_ref(), "ims").message, &text);
                }
            }
        }
    });
}

#[test]
fn retry_after() {
    on_small_stack(|| {
        for text in corpus() {
            let Ok(value) = ::http::HeaderValue::from_bytes(&text) else { continue };
            let headers = ::http::HeaderMap::from_iter([(::http::header::RETRY_AFTER, value)]);
            // a number of any size is one
            let is_number = !text.is_empty() && text.len() <= RETRY_AFTER_MAX && text.iter().all(u8::is_ascii_digit);
            let expected = is_number.then(|| TimeDelta::seconds(u32::MAX.into()));
            assert_eq!(transport::retry_after(&headers, now()), expected, "{}", shown(&text));
        }
        // it is read, and no instant is out of range
        for text in ["4294967295", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            let headers = ::http::HeaderMap::from_iter([(::http::header::RETRY_AFTER, text.parse().expect("a value"))]);
            assert_eq!(transport::retry_after(&headers, now()), Some(TimeDelta::seconds(u32::MAX.into())));
        }
    });
}

#[test]
fn durations() {
    on_small_stack(|| {
        for text in corpus() {
            is_bounded(&duration::parse(&String::from_utf8_lossy(&text)).expect_err(&shown(&text)), &text);
        }
    });
}
