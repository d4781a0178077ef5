//! Tokens whose keys have to be fetched again, from a server in memory and with a paused clock.

use std::sync::Mutex;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use futures::future::BoxFuture;
use itwin_api::{authority::ClientAuthentication, conditions::Reason, credential::GrantType};
use itwin_core::failure::Failure;
use itwin_oauth::{
    identifier::Identifier,
    token::{ClientCredentials, Proof},
    transport::TransportError,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::oauth::key_refetch::{AUTHORITY_FLOOR, RETRY_CEILING};

const ISSUER: &str = "https://ims.example.com";
const SECOND: Duration = Duration::from_secs(1);

/// A server with two keys.
struct FakeServer {
    keys: [(EncodingKey, String); 2],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Which key signs.
    signs: usize,
    /// Which key is published.
    published: usize,
    /// The key set is answered with this status.
    failing: Option<u16>,
    /// The key set takes so long.
    delay: Duration,
    /// How often the key set was requested.
    fetches: usize,
    /// The discovery document is answered with 429 and this wait.
    limited: Option<TimeDelta>,
    /// How often the discovery document was requested.
    discoveries: usize,
}

impl FakeServer {
    fn new() -> Arc<Self> {
        let key = |_| {
            let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
            (EncodingKey::from_ed_der(&pair.serialize_der()), URL_SAFE_NO_PAD.encode(pair.public_key_raw()))
        };
        Arc::new(Self { keys: [0, 1].map(key), state: Mutex::default() })
    }

    /// Signs with the second key from now on, and publishes it.
    fn rotate(&self) {
        self.change(|state| (state.signs, state.published) = (1, 1));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no panic"));
    }

    fn fetches(&self) -> usize {
        self.state.lock().expect("no panic").fetches
    }

    fn discovery(&self) -> Result<Value, TransportError> {
        let mut state = self.state.lock().expect("no panic");
        state.discoveries += 1;
        match state.limited {
            Some(wait) => Err(TransportError::RateLimited(Some(wait), Vec::new())),
            None => Ok(json!({
                "issuer": ISSUER, "token_endpoint": format!("{ISSUER}/token"), "jwks_uri": format!("{ISSUER}/keys"),
            })),
        }
    }

    fn token(&self) -> Value {
        let signs = self.state.lock().expect("no panic").signs;
        let header = Header { kid: Some(signs.to_string()), ..Header::new(Algorithm::EdDSA) };
        let claims = json!({"iss": ISSUER, "exp": 4_000_000_000_u64});
        let token = jsonwebtoken::encode(&header, &claims, &self.keys[signs].0).expect("a token");
        json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600})
    }

    async fn key_set(&self) -> Result<Value, TransportError> {
        let (published, failing, delay) = {
            let mut state = self.state.lock().expect("no panic");
            state.fetches += 1;
            (state.published, state.failing, state.delay)
        };
        tokio::time::sleep(delay).await;
        if let Some(status) = failing {
            return Err(TransportError::Server(status, None, Vec::new()));
        }
        let (kid, x) = (published.to_string(), &self.keys[published].1);
        Ok(json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": kid, "alg": "EdDSA", "use": "sig", "x": x}]}))
    }
}

/// A connection to the server.
struct Connection(Arc<FakeServer>);

impl Transport for Connection {
    fn send(&self, request: http::Request<Vec<u8>>) -> BoxFuture<'_, Result<http::Response<Vec<u8>>, TransportError>> {
        Box::pin(async move {
            let body = match request.uri().path() {
                "/token" => self.0.token(),
                "/.well-known/openid-configuration" => self.0.discovery()?,
                _ => self.0.key_set().await?,
            };
            Ok(http::Response::new(body.to_string().into_bytes()))
        })
    }
}

/// An authority whose endpoints the administrator named, and whose keys are known.
async fn authority(server: &Arc<FakeServer>) -> Authority {
    let endpoints = (format!("{ISSUER}/token"), format!("{ISSUER}/keys"));
    known(server, json!({"issuer": ISSUER, "tokenEndpoint": endpoints.0, "jwksUri": endpoints.1})).await
}

/// An authority of this spec whose endpoints and keys are known.
async fn known(server: &Arc<FakeServer>, spec: Value) -> Authority {
    let config = AuthorityConfig::new(&serde_json::from_value(spec).expect("a spec")).expect("a valid spec");
    let metrics = Arc::new(Metrics::new(true).expect("metrics"));
    let server = server.clone();
    let connect: Connect = Arc::new(move |_| Ok(Arc::new(Connection(server.clone()))));
    let authority = Authority::new("ims".to_owned(), config, metrics, Clock::system(), &connect).expect("an authority");
    authority.refresh().await.expect("endpoints and keys");
    authority
}

/// A token for this client, or what users read.
async fn requested(authority: &Authority, client: &str) -> Result<(), Failure> {
    let names = Names {
        authority: "ims".to_owned(),
        client_secret: client.to_owned(),
        keys: serde_json::from_value(json!({"name": "client"})).expect("keys"),
        grant_type: GrantType::ClientCredentials,
        method: ClientAuthentication::None,
        is_endpoint_discovered: false,
    };
    let request = TokenRequest {
        client: ClientCredentials { id: Identifier::Public("id".to_owned()), proof: Proof::Nothing, user: None },
        scopes: Vec::new(),
        resources: Vec::new(),
        audience: None,
    };
    let requested = authority.request_token(&request, &names).await;
    requested.map(drop).map_err(|error| messages_oauth::request_failed(&error, &names))
}

async fn reason(authority: &Authority, client: &str) -> Option<Reason> {
    requested(authority, client).await.err().map(|failure| failure.reason)
}

#[tokio::test(start_paused = true)]
async fn keys_that_could_not_be_fetched_are_fetched_by_the_next_attempt() {
    let server = FakeServer::new();
    let authority = authority(&server).await;
    server.rotate();
    server.change(|state| state.failing = Some(500));
    let before = server.fetches();
    let failure = requested(&authority, "team-a/client").await.expect_err("the key set fails");
    assert_eq!(failure.reason, Reason::ServerError, "{}", failure.message);
    // what was not checked is not claimed
    let failure = requested(&authority, "team-b/client").await.expect_err("it failed just now");
    assert!(failure.message.contains("key set of ITwinAuthority ims answered HTTP 500"), "{}", failure.message);
    assert_eq!(server.fetches() - before, 1);
    server.change(|state| state.failing = None);
    tokio::time::advance(SECOND).await;
    assert_eq!(requested(&authority, "team-a/client").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn key_set_that_goes_on_failing_is_fetched_a_few_times_for_any_number_of_clients() {
    let server = FakeServer::new();
    let authority = authority(&server).await;
    server.rotate();
    server.change(|state| state.failing = Some(500));
    let before = server.fetches();
    for second in 0..60 {
        for client in 0..5 {
            let client = format!("team-{client}/client-{second}");
            assert_eq!(reason(&authority, &client).await, Some(Reason::ServerError));
        }
        tokio::time::advance(SECOND).await;
    }
    let fetches = server.fetches() - before;
    assert_eq!(fetches, 9, "after 0, 1, 3, 7 and 15 s, and then every 10 s");
    server.change(|state| state.failing = None);
    tokio::time::advance(RETRY_CEILING).await;
    assert_eq!(requested(&authority, "team/client").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn discovery_document_that_asks_for_a_wait_is_not_requested_for_tokens_meanwhile() {
    let server = FakeServer::new();
    let authority = known(&server, json!({"issuer": ISSUER})).await;
    server.change(|state| {
        (state.signs, state.limited, state.discoveries) = (1, Some(TimeDelta::minutes(10)), 0);
    });
    for client in 0..20 {
        let client = format!("team-{client}/client");
        assert_eq!(reason(&authority, &client).await, Some(Reason::TokenRejected));
        tokio::time::advance(AUTHORITY_FLOOR).await;
    }
    let discoveries = || server.state.lock().expect("no panic").discoveries;
    assert_eq!(discoveries(), 1);
    // the keys are where they were
    server.rotate();
    assert_eq!(reason(&authority, "team/client").await, None);
    server.change(|state| state.signs = 0);
    tokio::time::advance(SECOND * 600).await;
    assert_eq!(reason(&authority, "team/client").await, Some(Reason::TokenRejected));
    assert_eq!(discoveries(), 2, "the wait is over");
}

#[tokio::test(start_paused = true)]
async fn tokens_of_one_client_use_up_no_fetch_of_another() {
    let server = FakeServer::new();
    let authority = authority(&server).await;
    server.change(|state| state.signs = 1);
    let before = server.fetches();
    for _ in 0..20 {
        assert_eq!(reason(&authority, "noisy/client").await, Some(Reason::TokenRejected));
        tokio::time::advance(SECOND).await;
    }
    assert_eq!(server.fetches() - before, 3, "once, and after 5 and 15 s for a key set that is late");
    server.rotate();
    assert_eq!(reason(&authority, "neighbor/client").await, None);
    assert_eq!(server.fetches() - before, 4);
}

#[tokio::test(start_paused = true)]
async fn key_set_that_shows_a_key_seconds_late_is_fetched_a_second_time() {
    for (late, expected) in [(1, 5), (5, 5), (12, 15), (30, 35), (60, 75)] {
        let server = FakeServer::new();
        let authority = authority(&server).await;
        server.change(|state| state.signs = 1);
        let mut accepted = None;
        for second in 0..90 {
            if second == late {
                server.rotate();
            }
            let refused = reason(&authority, "team/client").await;
            assert!(matches!(refused, None | Some(Reason::TokenRejected)), "{refused:?}");
            accepted = accepted.or(refused.is_none().then_some(second));
            tokio::time::advance(SECOND).await;
        }
        assert_eq!(accepted, Some(expected), "{late} s late");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_the_keys_share_one_fetch_and_its_failure() {
    let server = FakeServer::new();
    let authority = authority(&server).await;
    server.rotate();
    server.change(|state| (state.failing, state.delay) = (Some(503), SECOND * 3));
    let before = server.fetches();
    let clients = ["a/client", "b/client", "c/client"];
    let reasons = futures::future::join_all(clients.map(|client| reason(&authority, client))).await;
    assert_eq!(reasons, [Some(Reason::ServerError); 3]);
    assert_eq!(server.fetches() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn token_that_was_issued_waits_for_the_keys_for_a_limited_time() {
    let server = FakeServer::new();
    let authority = authority(&server).await;
    server.rotate();
    server.change(|state| state.delay = KEY_REFETCH_LIMIT * 10);
    let failure = requested(&authority, "team/client").await.expect_err("the key set is late");
    assert_eq!(failure.reason, Reason::Timeout);
    assert!(failure.message.contains("within 15s, and an issued token"), "{}", failure.message);
}
