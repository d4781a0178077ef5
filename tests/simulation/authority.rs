//! Authorization servers in memory: they answer over the operator's own [`Transport`], and know what they issued.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock, Mutex, MutexGuard},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use itwin_credential_operator::oauth::authority::Connect;
use itwin_oauth::transport::{Transport, TransportError};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::clock::Clocks;

/// How long each answer takes.
const ANSWERED_AFTER: Duration = Duration::from_millis(80);
/// How long a token lives where nothing else is said.
pub const LIFETIME: TimeDelta = TimeDelta::minutes(20);

/// The path of the token endpoint.
const TOKEN: &str = "/token";
/// Its path after it has moved.
const MOVED: &str = "/moved";

/// Opaque tokens begin with this.
const OPAQUE: &str = "opaque-token-";
/// JWTs begin with this: `{"` in base64.
const JWT: &str = "eyJ";

/// The authorization servers, by name; the name of the ITwinAuthority is the same.
pub const NAMES: [&str; 2] = ["opaque", "signed"];

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behavior {
    Normal,
    Refuses,
    Hangs,
    Slow(Duration),
    Unavailable(u16),
    TooManyRequests(i64),
    Malformed,
    Expired,
    ShortLived(i64),
    NarrowScope,
    ForgedSignature,
    /// Tokens are issued, but neither metadata nor keys are served.
    WithoutMetadata,
    /// Token requests are answered with 503 and a wait of so many seconds. Metadata and keys are served.
    Busy(i64),
    /// The token endpoint has another URL, which the metadata names.
    Moved,
}

/// A token that was issued.
#[derive(Clone)]
pub struct Issued {
    pub server: String,
    pub client: String,
    /// The client's secret: another one is another client.
    pub secret: String,
    pub scopes: String,
    pub expires_at: DateTime<Utc>,
    /// When it counts as expired: its lifetime runs from the start of the request (contract section 4).
    pub counts_until: DateTime<Utc>,
    /// It is one that must never be written.
    pub is_bad: bool,
}

/// One token request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub client: String,
    pub scopes: String,
    pub at: DateTime<Utc>,
}

#[derive(Default)]
struct State {
    behaviors: BTreeMap<String, Behavior>,
    /// Secrets of the clients.
    clients: BTreeMap<String, String>,
    /// What was issued, by token.
    issued: BTreeMap<String, Issued>,
    asked: Vec<Asked>,
    /// Token requests that are in flight, by server, client and scopes.
    in_flight: BTreeMap<String, usize>,
    /// Those of which two were in flight at the same time.
    doubled: BTreeSet<String>,
    counter: u64,
    /// How often the signing key changed.
    rotations: usize,
    all_bad: bool,
    sends_twice: bool,
}

/// All servers. Clones are the same ones.
#[derive(Clone)]
pub struct Servers {
    state: Arc<Mutex<State>>,
    clocks: Clocks,
}

struct SigningKey {
    private: EncodingKey,
    public: String,
}

/// Keys of this run of the tests: signatures are deterministic for a key (RFC 8032), and no test depends on which.
static KEYS: LazyLock<[SigningKey; 2]> = LazyLock::new(|| [signing_key(), signing_key()]);

fn signing_key() -> SigningKey {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let public = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
    SigningKey { private: EncodingKey::from_ed_der(&pair.serialize_der()), public }
}

impl Servers {
    /// Servers without clients.
    pub fn new(clocks: Clocks) -> Self {
        Self { state: Arc::default(), clocks }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    /// Sets what a server does from now on.
    pub fn behave(&self, server: &str, behavior: Behavior) {
        self.state().behaviors.insert(server.to_owned(), behavior);
    }

    /// All servers behave normally from now on.
    pub fn recover(&self) {
        self.state().behaviors.clear();
    }

    /// Sets the secret of a client.
    pub fn set_client(&self, client: &str, secret: &str) {
        self.state().clients.insert(client.to_owned(), secret.to_owned());
    }

    /// The token, if one of these servers issued it.
    pub fn issued(&self, token: &str) -> Option<Issued> {
        self.state().issued.get(token).cloned()
    }

    /// Whether this is the secret of this client.
    pub fn is_client(&self, client: &str, secret: &str) -> bool {
        self.state().clients.get(client).map(String::as_str) == Some(secret)
    }

    /// From now on the servers sign with another key, and publish only that one.
    pub fn rotate_keys(&self) {
        self.state().rotations += 1;
    }

    /// From now on the operator sends every token request twice.
    pub fn send_twice(&self) {
        self.state().sends_twice = true;
    }

    /// Requests of which two were in flight at the same time.
    pub fn doubled(&self) -> Vec<String> {
        self.state().doubled.iter().cloned().collect()
    }

    fn depart(&self, request: String) -> InFlight {
        let mut state = self.state();
        let count = state.in_flight.entry(request.clone()).or_default();
        *count += 1;
        if *count > 1 {
            state.doubled.insert(request.clone());
        }
        InFlight { servers: self.clone(), request }
    }

    /// From now on the oracle calls every token bad: as if one that must be rejected were accepted.
    pub fn accept_all(&self) {
        self.state().all_bad = true;
    }

    /// Whether a text contains one of the tokens.
    pub fn is_token_in(&self, text: &str) -> bool {
        // most texts contain nothing that looks like one, and there are hundreds of tokens
        let is_possible = [OPAQUE, JWT].iter().any(|prefix| text.contains(prefix));
        is_possible && self.state().issued.keys().any(|token| text.contains(token))
    }

    /// All token requests, in their order.
    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// The token requests of this time up to now, in their order.
    pub fn asked_within(&self, time: TimeDelta) -> Vec<Asked> {
        let since = self.clocks.now() - time;
        let state = self.state();
        let recent = state.asked.iter().rev().take_while(|asked| asked.at > since).count();
        state.asked[state.asked.len() - recent..].to_vec()
    }

    /// What connects the operator to these servers.
    pub fn connect(&self) -> Connect {
        let servers = self.clone();
        Arc::new(move |config| {
            let host = config.issuer.trim_start_matches("https://");
            let name = host.split('.').next().unwrap_or_default().to_owned();
            Ok(Arc::new(Connection { servers: servers.clone(), name, deadline: config.request_timeout }))
        })
    }
}

/// A token request until it is answered or dropped.
struct InFlight {
    servers: Servers,
    request: String,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(count) = self.servers.state().in_flight.get_mut(&self.request) {
            *count -= 1;
        }
    }
}

struct Connection {
    servers: Servers,
    name: String,
    deadline: Duration,
}

impl Transport for Connection {
    fn send(&self, request: http::Request<Vec<u8>>) -> BoxFuture<'_, Result<http::Response<Vec<u8>>, TransportError>> {
        Box::pin(async move {
            let answer = timeout(self.deadline, async {
                let sends_twice = self.servers.state().sends_twice;
                let (answer, _) = futures::join!(self.answer(&request), async {
                    if sends_twice {
                        drop(self.answer(&request).await);
                    }
                });
                answer
            });
            let answer = answer.await;
            answer.unwrap_or(Err(TransportError::Timeout(self.deadline)))
        })
    }
}

type Answer = Result<http::Response<Vec<u8>>, TransportError>;

fn answered(status: u16, body: &Value) -> Answer {
    let mut answer = http::Response::new(body.to_string().into_bytes());
    *answer.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(answer)
}

impl Connection {
    async fn answer(&self, request: &http::Request<Vec<u8>>) -> Answer {
        let behavior = self.servers.state().behaviors.get(&self.name).copied().unwrap_or(Behavior::Normal);
        let path = request.uri().path();
        let asked = [TOKEN, MOVED].contains(&path).then(|| self.note(request.body()));
        let _in_flight = asked.as_ref().map(|(Asked { client, scopes, .. }, _)| {
            self.servers.depart(format!("{} for {client} with {scopes}", self.name))
        });
        match behavior {
            Behavior::Refuses => return Err(TransportError::Connection("connection refused".to_owned())),
            Behavior::Hangs => std::future::pending().await,
            Behavior::Slow(time) => sleep(time).await,
            _ => sleep(ANSWERED_AFTER).await,
        }
        match behavior {
            Behavior::Unavailable(status) => return Err(TransportError::Server(status, None, Vec::new())),
            Behavior::TooManyRequests(seconds) => {
                return Err(TransportError::RateLimited(Some(TimeDelta::seconds(seconds)), Vec::new()));
            }
            Behavior::Busy(seconds) if asked.is_some() => {
                return Err(TransportError::Server(503, Some(TimeDelta::seconds(seconds)), Vec::new()));
            }
            Behavior::Moved if path == TOKEN => return answered(404, &json!({})),
            Behavior::Malformed => return answered(200, &json!(["no", "token"])),
            _ => {}
        }
        if behavior == Behavior::WithoutMetadata && asked.is_none() {
            return Err(TransportError::Server(503, None, Vec::new()));
        }
        let issuer = format!("https://{}.example", self.name);
        match asked {
            Some(asked) => self.issue(&asked, behavior, &issuer),
            None if path == "/keys" => answered(200, &keys(self.servers.state().rotations)),
            None => answered(
                200,
                &json!({
                    "issuer": issuer,
                    "token_endpoint": format!("{issuer}{}", if behavior == Behavior::Moved { MOVED } else { TOKEN }),
                    "jwks_uri": format!("{issuer}/keys"),
                }),
            ),
        }
    }

    fn note(&self, body: &[u8]) -> (Asked, String) {
        let form: BTreeMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
        let field = |name: &str| form.get(name).cloned().unwrap_or_default();
        let asked = Asked { client: field("client_id"), scopes: field("scope"), at: self.servers.clocks.now() };
        self.servers.state().asked.push(asked.clone());
        (asked, field("client_secret"))
    }

    fn issue(&self, (asked, secret): &(Asked, String), behavior: Behavior, issuer: &str) -> Answer {
        let now = self.servers.clocks.now();
        let mut state = self.servers.state();
        if state.clients.get(&asked.client) != Some(secret) {
            return answered(401, &json!({"error": "invalid_client"}));
        }
        let lifetime = match behavior {
            Behavior::Expired => TimeDelta::seconds(-1),
            Behavior::ShortLived(seconds) => TimeDelta::seconds(seconds),
            _ => LIFETIME,
        };
        let scopes = if behavior == Behavior::NarrowScope { "other" } else { &asked.scopes };
        state.counter += 1;
        let expires_at = now + lifetime;
        let token = if self.name == "signed" {
            let forged = behavior == Behavior::ForgedSignature;
            let claims = json!({"iss": issuer, "exp": expires_at.timestamp(), "scope": scopes, "n": state.counter});
            signed(&claims, state.rotations, forged)
        } else {
            format!("{OPAQUE}{:08}", state.counter)
        };
        let is_bad = state.all_bad
            || matches!(behavior, Behavior::Expired | Behavior::NarrowScope)
            || (behavior == Behavior::ForgedSignature && self.name == "signed");
        let issued = Issued {
            server: self.name.clone(),
            client: asked.client.clone(),
            secret: secret.clone(),
            scopes: scopes.to_owned(),
            expires_at,
            counts_until: asked.at + lifetime,
            is_bad,
        };
        state.issued.insert(token.clone(), issued);
        let expires_in = lifetime.num_seconds().max(0);
        answered(
            200,
            &json!({"access_token": token, "token_type": "Bearer", "expires_in": expires_in, "scope": scopes}),
        )
    }
}

fn key(rotations: usize) -> &'static SigningKey {
    &KEYS[rotations % KEYS.len()]
}

fn keys(rotations: usize) -> Value {
    let (kid, public) = (rotations.to_string(), &key(rotations).public);
    json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": kid, "alg": "EdDSA", "use": "sig", "x": public}]})
}

fn signed(claims: &Value, rotations: usize, forged: bool) -> String {
    let header = Header { kid: Some(rotations.to_string()), ..Header::new(Algorithm::EdDSA) };
    let mut token = jsonwebtoken::encode(&header, claims, &key(rotations).private).expect("a token");
    if forged {
        // another signature of the same length
        let signature = token.rfind('.').expect("three parts") + 1;
        let flipped = if token.as_bytes()[signature] == b'A' { "B" } else { "A" };
        token.replace_range(signature..=signature, flipped);
    }
    token
}
