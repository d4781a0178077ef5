//! An API server that holds one Lease, with optimistic locking as the real one has it, and faults for each call.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt, Stream, StreamExt,
    stream::{self, pending},
};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep},
};

/// What happens to one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fault {
    /// How long it takes until the call is carried out, whether the client still waits or not.
    pub before: Duration,
    /// How long the answer takes after that; `None` where it is lost.
    pub after: Option<Duration>,
    /// An HTTP status in place of what was asked for.
    pub refused: Option<u16>,
}

impl Fault {
    /// A call as it should be.
    pub const NONE: Self =
        Self { before: Duration::from_millis(2), after: Some(Duration::from_millis(2)), refused: None };
}

/// A Lease, or an HTTP status with its reason.
type Answer = Result<Value, (u16, &'static str)>;
type Faults = dyn Fn(&str) -> Fault + Send + Sync;
type Content = UnsyncBoxBody<Bytes, Infallible>;

/// A watch lasts for so long.
const WATCH: Duration = Duration::from_secs(60);

/// The server.
#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lease: Option<Value>,
    revision: u64,
    deleted: Option<Instant>,
    calls: Vec<(&'static str, Instant)>,
    /// What watches show: type, version and object.
    events: Vec<(&'static str, u64, Value)>,
    changed: watch::Sender<()>,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client; `read` becomes the uid of each Lease that it is answered.
    pub fn client(
        &self,
        read: Arc<Mutex<Value>>,
        faults: impl Fn(&str) -> Fault + Send + Sync + 'static,
    ) -> kube::Client {
        let (server, faults): (_, Arc<Faults>) = (self.clone(), Arc::new(faults));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, faults, read) = (server.clone(), faults.clone(), read.clone());
            async move {
                let query = request.uri().query().unwrap_or_default().to_owned();
                if query.contains("watch=true") {
                    return Ok::<_, Infallible>(server.watch(&query, &*faults, read).await);
                }
                let answer = server.serve(request, &*faults).await;
                if let Ok(lease) = &answer {
                    *read.lock().unwrap_or_else(PoisonError::into_inner) = lease["metadata"]["uid"].clone();
                }
                Ok(respond(answer))
            }
            .boxed()
        });
        kube::Client::new(service, "operator")
    }

    /// A watch that was asked for; where answers are lost it shows nothing.
    async fn watch(&self, query: &str, faults: &Faults, read: Arc<Mutex<Value>>) -> Response<Content> {
        let fault = faults("watch");
        self.state().calls.push(("watch", Instant::now()));
        sleep(fault.before).await;
        if let Some(code) = fault.refused {
            return respond(Err((code, "Refused")));
        }
        assert!(query.contains("fieldSelector=metadata.name%3Ditwin-credential-operator"), "{query}");
        let version = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
        let version = version.and_then(|version| version.parse().ok()).expect("a version");
        let events = if fault.after.is_some() { self.events(version, read).boxed() } else { pending().boxed() };
        let end = sleep(WATCH);
        Response::new(StreamBody::new(events.take_until(Box::pin(end))).boxed_unsync())
    }

    fn events(
        &self,
        version: u64,
        read: Arc<Mutex<Value>>,
    ) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + use<> {
        let state = (self.clone(), self.state().changed.subscribe(), version, read);
        stream::unfold(state, |(server, mut changed, shown, read)| async move {
            loop {
                changed.mark_unchanged();
                let next = server.state().events.iter().find(|(_, version, _)| *version > shown).cloned();
                if let Some((kind, version, lease)) = next {
                    *read.lock().unwrap_or_else(PoisonError::into_inner) = lease["metadata"]["uid"].clone();
                    let line = format!("{{\"type\":\"{kind}\",\"object\":{lease}}}\n");
                    return Some((Ok(Frame::data(Bytes::from(line))), (server, changed, version, read)));
                }
                changed.changed().await.ok()?;
            }
        })
    }

    async fn serve(&self, request: Request<Body>, faults: &Faults) -> Answer {
        let verb = match *request.method() {
            Method::GET => "get",
            Method::POST => "create",
            Method::PUT => "update",
            _ => "another",
        };
        let fault = faults(verb);
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let (answer, received) = oneshot::channel();
        let server = self.clone();
        // a call that was sent is carried out, whatever becomes of the client
        tokio::spawn(async move {
            sleep(fault.before).await;
            let response = match fault.refused {
                Some(code) => Err((code, "Refused")),
                None => server.carry_out(verb, body),
            };
            if let Some(after) = fault.after {
                sleep(after).await;
                let _ = answer.send(response);
            } else {
                std::future::pending::<()>().await;
            }
        });
        received.await.expect("an answer")
    }

    fn carry_out(&self, verb: &'static str, mut body: Value) -> Answer {
        let mut state = self.state();
        state.calls.push((verb, Instant::now()));
        match (verb, state.lease.clone()) {
            ("get", Some(lease)) => Ok(lease),
            ("get", None) => Err((404, "NotFound")),
            ("create", Some(_)) => Err((409, "AlreadyExists")),
            ("create", None) => {
                body["metadata"]["uid"] = json!(format!("uid-{}", state.revision));
                Ok(state.store(body))
            }
            ("update", None) if body["metadata"]["uid"].is_string() => Err((409, "Conflict")),
            // an update may create a Lease
            ("update", None) => Ok(state.store(body)),
            ("update", Some(lease)) if !is_of(&lease, &body) => Err((409, "Conflict")),
            // what changes nothing is not stored
            ("update", Some(lease)) if body["spec"] == lease["spec"] => Ok(lease),
            ("update", Some(_)) => Ok(state.store(body)),
            _ => Err((405, "MethodNotAllowed")),
        }
    }

    /// The spec; `Null` where there is no Lease.
    pub fn spec(&self) -> Value {
        self.state().lease.as_ref().map(|lease| lease["spec"].clone()).unwrap_or_default()
    }

    /// The uid; `Null` where there is no Lease.
    pub fn uid(&self) -> Value {
        self.state().lease.as_ref().map(|lease| lease["metadata"]["uid"].clone()).unwrap_or_default()
    }

    /// How long ago it was deleted; `None` where it is there, or never was.
    pub fn missing_for(&self) -> Option<Duration> {
        let state = self.state();
        state.deleted.filter(|_| state.lease.is_none()).map(|at| at.elapsed())
    }

    pub fn exists(&self) -> bool {
        self.state().lease.is_some()
    }

    /// Another writer changes the Lease.
    pub fn put(&self, spec: &Value) {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "itwin-credential-operator", "uid": "by-hand"},
            "spec": spec,
        });
        self.state().store(lease);
    }

    /// Another writer annotates the Lease.
    pub fn annotate(&self) {
        let mut state = self.state();
        if let Some(mut lease) = state.lease.clone() {
            lease["metadata"]["annotations"]["example.com/number"] = json!(state.revision.to_string());
            state.store(lease);
        }
    }

    /// etcd is restored as it was so many changes ago. Watches that are made then show what came after that, as those of
    /// an API server that kept running do.
    pub fn restore(&self, changes: usize) {
        let mut state = self.state();
        let place = state.events.len() - 1 - changes;
        let (_, revision, lease) = state.events[place].clone();
        (state.revision, state.lease) = (revision, Some(lease));
    }

    /// Another writer deletes the Lease.
    pub fn delete(&self) {
        let mut state = self.state();
        state.deleted = Some(Instant::now());
        if let Some(mut lease) = state.lease.take() {
            state.revision += 1;
            lease["metadata"]["resourceVersion"] = json!(state.revision.to_string());
            state.show("DELETED", lease);
        }
    }

    /// The verbs since `since`.
    pub fn calls_since(&self, since: Instant) -> Vec<&'static str> {
        self.state().calls.iter().filter(|(_, at)| *at >= since).map(|(verb, _)| *verb).collect()
    }
}

impl State {
    fn store(&mut self, mut lease: Value) -> Value {
        self.revision += 1;
        lease["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let kind = if self.lease.is_some() { "MODIFIED" } else { "ADDED" };
        self.lease = Some(lease.clone());
        self.show(kind, lease.clone());
        lease
    }

    fn show(&mut self, kind: &'static str, lease: Value) {
        self.events.push((kind, self.revision, lease));
        self.changed.send_replace(());
    }
}

/// Whether an update is of this object in this version.
fn is_of(lease: &Value, update: &Value) -> bool {
    ["uid", "resourceVersion"].iter().all(|name| lease["metadata"][name] == update["metadata"][name])
}

fn respond(answer: Answer) -> Response<Content> {
    let (code, body) = match answer {
        Ok(lease) => (200, lease),
        Err((code, reason)) => (code, json!({"kind": "Status", "code": code, "reason": reason})),
    };
    let content = Full::new(Bytes::from(body.to_string())).boxed_unsync();
    Response::builder().status(code).body(content).expect("a response")
}
