//! An admission webhook over TLS that a test controls: what it answers, and whether it answers at all.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use base64::Engine;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::authority::certificates;

/// What the webhook answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The request is allowed.
    Allowed,
    /// The request is allowed with these operations of a JSON patch.
    Patched(Value),
    /// The request is denied with an HTTP status and a message.
    Denied(u16, String),
    /// The webhook itself fails with an HTTP status.
    Status(u16),
    /// There is no answer until the connection ends.
    Nothing,
}

type Decide = dyn Fn(&Value) -> Answer + Send + Sync;

/// A webhook. It stops when it is dropped.
pub struct Webhook {
    /// The certificate authority, in the form of `clientConfig.caBundle`.
    pub ca_bundle: String,
    /// The URL, for `clientConfig.url`.
    pub url: String,
    state: Arc<State>,
    is_up: watch::Sender<bool>,
}

struct State {
    decide: Mutex<Arc<Decide>>,
    requests: Mutex<Vec<Value>>,
}

impl Webhook {
    /// Starts a webhook that allows everything.
    ///
    /// # Errors
    /// Fails if no port is free.
    pub fn start() -> Result<Self> {
        let (ca, certificate, key) = certificates(&["127.0.0.1"])?;
        let certificate = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>()?;
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(certificate, PrivateKeyDer::from_pem_slice(key.as_bytes())?)?;
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State { decide: Mutex::new(Arc::new(|_| Answer::Allowed)), requests: Mutex::default() });
        let is_up = watch::Sender::new(true);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (served, up) = (state.clone(), is_up.subscribe());
        std::thread::spawn(move || runtime.block_on(serve(listener, port, acceptor, served, up)));
        let ca_bundle = base64::engine::general_purpose::STANDARD.encode(ca);
        Ok(Self { ca_bundle, url: format!("https://127.0.0.1:{port}/"), state, is_up })
    }

    /// Sets what it answers from now on to the `request` of an AdmissionReview.
    pub fn answers(&self, decide: impl Fn(&Value) -> Answer + Send + Sync + 'static) {
        *locked(&self.state.decide) = Arc::new(decide);
    }

    /// Refuses connections from now on, or accepts them again.
    pub fn set_up(&self, is_up: bool) {
        self.is_up.send_replace(is_up);
    }

    /// The `request` of each AdmissionReview up to now.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        locked(&self.state.requests).clone()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until the webhook is dropped. While it is down, nothing listens, and no connection stays.
async fn serve(
    listener: std::net::TcpListener,
    port: u16,
    acceptor: TlsAcceptor,
    state: Arc<State>,
    mut up: watch::Receiver<bool>,
) {
    let mut listener = TcpListener::from_std(listener).ok();
    loop {
        let mut connections = JoinSet::new();
        if let Some(listener) = listener.take() {
            let accept = async {
                while let Ok((connection, _)) = listener.accept().await {
                    connections.spawn(connected(connection, acceptor.clone(), state.clone()));
                }
            };
            tokio::select! {
                () = accept => {}
                down = up.wait_for(|up| !up) => if down.is_err() { return },
            }
        }
        drop(connections);
        if up.wait_for(|up| *up).await.is_err() {
            return;
        }
        listener = TcpListener::bind(("127.0.0.1", port)).await.ok();
    }
}

async fn connected(connection: TcpStream, acceptor: TlsAcceptor, state: Arc<State>) {
    let Ok(connection) = acceptor.accept(connection).await else { return };
    let service = service_fn(|request| answer(request, &state));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
}

async fn answer(request: Request<Incoming>, state: &State) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let request = review["request"].take();
    let mut answer = json!({"uid": request["uid"], "allowed": true});
    let decide = locked(&state.decide).clone();
    let decided = decide(&request);
    locked(&state.requests).push(request);
    match decided {
        Answer::Allowed => {}
        Answer::Patched(operations) => {
            answer["patchType"] = json!("JSONPatch");
            answer["patch"] = json!(base64::engine::general_purpose::STANDARD.encode(operations.to_string()));
        }
        Answer::Denied(code, message) => {
            answer["allowed"] = json!(false);
            answer["status"] = json!({"code": code, "message": message});
        }
        Answer::Status(code) => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap_or_default();
            return Ok(response);
        }
        Answer::Nothing => return std::future::pending().await,
    }
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer});
    let mut response = Response::new(Full::from(review.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}
