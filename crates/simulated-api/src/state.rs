//! Everything that the server knows, behind one lock.

use std::{fmt, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    admission::Admission,
    faults::Plan,
    log::Log,
    random::Random,
    request::Call,
    resources::{Resource, Rules},
    status::Failure,
    store::Store,
};

/// The wall clock.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// When a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The request has come.
    Arrived,
    /// It was carried out, and is not answered yet.
    Done,
}

/// What becomes of a request after its hook was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Continue,
    /// It never goes on: the process that made it crashes here.
    Stop,
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub struct Passing<'a> {
    /// Its number, from 1.
    pub number: u64,
    /// Where it is.
    pub phase: Phase,
    /// Name of the client.
    pub client: &'a str,
    /// Method.
    pub method: &'a str,
    /// Path, without the query.
    pub path: &'a str,
}

/// Called for each request where it passes.
pub type RequestHook = Arc<dyn Fn(Passing<'_>) -> Verdict + Send + Sync>;

/// The state of the server.
pub struct State {
    /// Objects and history.
    pub store: Store,
    /// What is offered.
    pub resources: Vec<Arc<Resource>>,
    /// Source of UIDs and other random parts.
    pub random: Random,
    /// Faults.
    pub plan: Plan,
    /// Admission hooks.
    pub admission: Admission,
    /// Requests.
    pub log: Log,
    /// Called for each request.
    pub hook: Option<RequestHook>,
    pub(crate) requests: u64,
    clock: Clock,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {}", self.store.revision())
    }
}

impl State {
    pub(crate) fn new(store: Store, resources: Vec<Resource>, seed: u64, clock: Clock) -> Self {
        Self {
            store,
            resources: resources.into_iter().map(Arc::new).collect(),
            random: Random::new(seed),
            plan: Plan::default(),
            admission: Admission::default(),
            log: Log::default(),
            hook: None,
            requests: 0,
            clock,
        }
    }

    /// The wall clock.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        (self.clock)()
    }

    /// The resource of this plural name or kind; the group is needed where two have it.
    #[must_use]
    pub fn resource(&self, name: &str) -> Option<Arc<Resource>> {
        let is_it = |resource: &&Arc<Resource>| resource.plural == name || resource.kind == name;
        self.resources.iter().find(is_it).cloned()
    }

    pub(crate) fn namespaces(&self) -> Arc<Resource> {
        let found = self.resources.iter().find(|resource| resource.rules == Rules::Namespace).cloned();
        found.unwrap_or_else(|| Arc::new(Resource::new("", "v1", "namespaces", "Namespace", false, Rules::Namespace)))
    }

    pub(crate) fn admit(&self, call: &Call, object: &mut Value, old: Option<&Value>) -> Result<(), Failure> {
        self.admission.run(call, object, old)
    }
}
