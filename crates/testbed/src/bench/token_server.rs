//! An authorization server that is no bottleneck. It signs with ES256, which costs it a fortieth of RS256. Verifying
//! such a signature costs the operator about twice as much as with RS256, so the choice does not make its work easier.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use base64::Engine;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use testbed::authority::certificates;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

const KEY: &str = "bench";

/// The server. It runs on its own thread and ends with the process.
pub struct TokenServer {
    /// Its issuer identifier.
    pub issuer: String,
    ca: String,
    state: Arc<State>,
}

struct State {
    issuer: String,
    key: EncodingKey,
    keys: Value,
    /// Lifetime of the tokens, in seconds.
    lifetime: AtomicU32,
    tokens: AtomicUsize,
    dead: watch::Sender<bool>,
    /// Connections that came while the server was down.
    refused: Mutex<Vec<Instant>>,
}

impl TokenServer {
    /// Starts the server on loopback.
    pub fn start() -> Result<Self> {
        let (ca, certificate, key) = certificates(&["localhost", "127.0.0.1"])?;
        let certificate = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>()?;
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(certificate, PrivateKeyDer::from_pem_slice(key.as_bytes())?)?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let issuer = format!("https://localhost:{}", listener.local_addr()?.port());
        let key = EncodingKey::from_ec_der(&KeyPair::generate()?.serialize_der());
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256)?)?;
        jwk["kid"] = json!(KEY);
        jwk["use"] = json!("sig");
        let state = Arc::new(State {
            issuer: issuer.clone(),
            key,
            keys: json!({"keys": [jwk]}),
            lifetime: AtomicU32::new(0),
            tokens: AtomicUsize::new(0),
            dead: watch::Sender::new(false),
            refused: Mutex::default(),
        });
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let served = state.clone();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                while let Ok((connection, _)) = listener.accept().await {
                    if *served.dead.borrow() {
                        served.refused.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                    } else {
                        tokio::spawn(serve(connection, acceptor.clone(), served.clone()));
                    }
                }
            });
        });
        Ok(Self { issuer, ca, state })
    }

    /// The certificate authority, in the form of `spec.caBundle`.
    pub fn ca_bundle(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(&self.ca)
    }

    /// Sets the lifetime of the tokens that are issued from now on, in seconds.
    pub fn tokens_live(&self, seconds: u32) {
        self.state.lifetime.store(seconds, Ordering::Relaxed);
    }

    /// The number of tokens that were issued.
    pub fn tokens(&self) -> usize {
        self.state.tokens.load(Ordering::Relaxed)
    }

    /// Closes every open connection, and each new one without a response.
    pub fn die(&self) {
        self.state.refused.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.state.dead.send_replace(true);
    }

    /// Serves again; returns the times of the connections that were closed meanwhile.
    pub fn revive(&self) -> Vec<Instant> {
        self.state.dead.send_replace(false);
        std::mem::take(&mut *self.state.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn serve(connection: TcpStream, acceptor: TlsAcceptor, state: Arc<State>) {
    let _ = connection.set_nodelay(true);
    let mut dead = state.dead.subscribe();
    let work = async {
        let Ok(connection) = acceptor.accept(connection).await else { return };
        let answer = service_fn(|request| answer(request, &state));
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), answer).await;
    };
    tokio::select! {
        () = work => {}
        _ = dead.wait_for(|dead| *dead) => {}
    }
}

async fn answer(request: Request<Incoming>, state: &State) -> Result<Response<Full<Bytes>>, Infallible> {
    let issuer = &state.issuer;
    let body = match request.uri().path() {
        "/.well-known/openid-configuration" => Some(
            json!({"issuer": issuer, "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/keys")}),
        ),
        "/keys" => Some(state.keys.clone()),
        "/token" => {
            let form = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            token(state, &String::from_utf8_lossy(&form))
        }
        _ => None,
    };
    let status = if body.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let mut response = Response::new(Full::from(body.unwrap_or_default().to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}

fn token(state: &State, form: &str) -> Option<Value> {
    let form = reqwest::Url::parse(&format!("http://localhost/?{form}")).ok()?;
    let field = |name: &str| form.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let (client, scope) = (field("client_id")?, field("scope")?);
    let lifetime = state.lifetime.load(Ordering::Relaxed);
    let issued_at = now().as_secs();
    let claims = json!({
        "iss": state.issuer,
        "sub": client,
        "client_id": client,
        "scope": scope,
        "iat": issued_at,
        "exp": issued_at + u64::from(lifetime),
        "jti": state.tokens.fetch_add(1, Ordering::Relaxed).to_string(),
    });
    let header = Header { kid: Some(KEY.to_owned()), ..Header::new(Algorithm::ES256) };
    let token = jsonwebtoken::encode(&header, &claims, &state.key).ok()?;
    Some(json!({"access_token": token, "token_type": "Bearer", "expires_in": lifetime, "scope": scope}))
}

#[expect(clippy::disallowed_methods, reason = "the server has its own clock")]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
