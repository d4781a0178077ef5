//! A proxy between an operator and the API server that injects faults on demand.
//!
//! It runs inside the process of the test, on its own thread, so that neither waits for the other. Operators call it
//! over plain HTTP on loopback. It forwards the operator's own token, so that the permissions are the real ones. It
//! is also where a test ends an operator at a given call: production code needs no hook for that.

pub mod call;
pub mod fault;
mod server;
mod stream;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::{Context, Result};
use hyper::{Uri, body::Bytes};
use serde_json::Value;
use tokio::{net::TcpListener, sync::oneshot};

use self::{
    call::Call,
    fault::{Played, Rule},
    stream::{Injection, Streams},
};
use crate::{Testbed, namespace::TEST_LABEL};

/// A call that the proxy received.
#[derive(Clone, Debug)]
pub struct Record {
    /// The call.
    pub call: Call,
    /// When it came.
    pub at: Instant,
    /// HTTP status of the response, from the proxy or from the API server; `None` if there was none.
    pub status: Option<u16>,
}

/// A running proxy. It stops, and closes all its connections, when it is dropped.
pub struct ApiProxy {
    /// A kubeconfig of the operator's service account that points to the proxy.
    pub kubeconfig: PathBuf,
    state: Arc<State>,
    _stop: oneshot::Sender<()>,
}

struct State {
    /// The API server.
    server: String,
    upstream: reqwest::Client,
    /// The query that selects the only authorities that an operator behind this proxy sees.
    authorities: String,
    rules: Mutex<Vec<Rule>>,
    records: Mutex<Vec<Record>>,
    first_answers: Mutex<HashMap<String, Bytes>>,
    streams: Arc<Streams>,
}

impl ApiProxy {
    /// Starts a proxy. `name` names its kubeconfig. Authorities are cluster-scoped: an operator behind this proxy
    /// sees only those with the label [`TEST_LABEL`] `<name>`, so that operators of other tests do not write their status.
    ///
    /// # Errors
    /// Fails if the testbed's kubeconfig cannot be read, or no port is free.
    pub fn start(testbed: &Testbed, name: &str) -> Result<Self> {
        let mut kubeconfig: Value = serde_json::from_slice(&std::fs::read(&testbed.operator_kubeconfig)?)?;
        let cluster = &mut kubeconfig["clusters"][0]["cluster"];
        let server = cluster["server"].as_str().context("the kubeconfig has no server")?.to_owned();
        let ca = cluster["certificate-authority-data"].as_str().context("the kubeconfig has no certificate")?;
        let ca = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, ca)?;
        let upstream = crate::http()
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&ca)?)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        *cluster = serde_json::json!({"server": format!("http://{}", listener.local_addr()?)});
        let file = testbed.directory.join(format!("proxy-{name}-{}.kubeconfig", listener.local_addr()?.port()));
        std::fs::write(&file, kubeconfig.to_string())?;
        let state = Arc::new(State {
            server,
            upstream,
            authorities: format!("labelSelector={TEST_LABEL}%3D{name}"),
            rules: Mutex::default(),
            records: Mutex::default(),
            first_answers: Mutex::default(),
            streams: Arc::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let served = state.clone();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = server::serve(listener, served) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { kubeconfig: file, state, _stop: stop })
    }

    /// The environment variables that make an operator use this proxy.
    #[must_use]
    pub fn variables(&self) -> [(&str, &str); 1] {
        [("KUBECONFIG", self.kubeconfig.to_str().unwrap_or_default())]
    }

    /// Applies a rule from now on, before the rules that were added earlier.
    pub fn play(&self, rule: Rule) -> Played {
        let played = rule.played();
        lock(&self.state.rules).insert(0, rule);
        played
    }

    /// Removes a rule.
    pub fn stop(&self, played: &Played) {
        lock(&self.state.rules).retain(|rule| !Arc::ptr_eq(&rule.played().0, &played.0));
    }

    /// The calls up to now, in the order in which they came.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        lock(&self.state.records).clone()
    }

    /// Ends all open watches of this kind with `410 Gone` in the stream; returns how many there were.
    pub fn expire(&self, kind: &str) -> usize {
        let call = Call { kind: kind.to_owned(), namespace: String::new(), object: String::new() };
        self.state.streams.inject(kind, &Injection::Last(stream::gone(&call)))
    }

    /// Lets all open watches of this kind fall silent indefinitely; returns how many there were.
    pub fn freeze(&self, kind: &str) -> usize {
        self.state.streams.inject(kind, &Injection::Freeze)
    }

    /// Sends the first event of an object again, into all open watches of this kind; returns how many
    /// there were.
    pub fn send_first_event_again(&self, kind: &str, object: &str) -> usize {
        let event = self.state.streams.first_event(kind, object);
        event.map_or(0, |line| self.state.streams.inject(kind, &Injection::Line(line)))
    }

    /// Swallows the next event of this type (`DELETED`) about an object.
    pub fn swallow(&self, kind: &str, event: &'static str, object: &str) -> Played {
        self.state.streams.swallow(kind, event, object)
    }
}

impl State {
    /// Records a call and finds the rule that applies to it.
    fn came(&self, call: &Call) -> (usize, Option<Rule>) {
        let mut records = lock(&self.records);
        records.push(Record { call: call.clone(), at: Instant::now(), status: None });
        let rule = lock(&self.rules).iter_mut().find_map(|rule| rule.takes(call).then(|| rule.clone()));
        (records.len() - 1, rule)
    }

    fn answered(&self, record: usize, status: u16) {
        if let Some(record) = lock(&self.records).get_mut(record) {
            record.status = Some(status);
        }
    }

    /// The target of the call, limited to the authorities of this test.
    fn narrowed(&self, uri: &Uri, call: &Call) -> String {
        let all = call.object.is_empty() && call.resource() == "itwinauthorities";
        let (path, query) = (uri.path(), uri.query().unwrap_or_default());
        let more = if all { format!("&{}", self.authorities) } else { String::new() };
        format!("{}{path}?{query}{more}", self.server)
    }

    /// The first response that this list ever got.
    fn first_answer(&self, path: &str, call: &Call, answer: &Bytes) -> Bytes {
        let key = format!("{} {path}", call.kind);
        lock(&self.first_answers).entry(key).or_insert_with(|| answer.clone()).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
