//! The server: what tests hold in their hands.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::sleep;

use crate::{
    admission::Hook,
    changes::{Changes, Listener},
    faults::{Disturbance, Match, Rule},
    gc,
    log::Entry,
    resources::{Resource, table},
    service::ClientService,
    state::{Clock, RequestHook, State},
    store::Store,
    user::User,
};

/// The revision of an empty server, as of an etcd in which the API server has left its own objects.
const FIRST_REVISION: u64 = 100;
/// Changes that are kept: over an hour of a Lease that is renewed each second.
const HISTORY: usize = 4096;
/// After a change, controllers have seen it within this.
const CONTROLLERS: Duration = Duration::from_millis(50);

/// How a server is made.
pub struct Config {
    /// Where UIDs and other random parts come from.
    pub seed: u64,
    /// The wall clock, for timestamps.
    pub clock: Clock,
    /// What is offered; [`table`] by default.
    pub resources: Vec<Resource>,
    /// Changes that can at least be read, watched and restored, as between two of etcd's compactions; 4096 by default.
    pub history: usize,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, {} resources", self.seed, self.resources.len())
    }
}

impl Config {
    /// The usual resources, with this seed and this wall clock.
    #[must_use]
    pub fn new(seed: u64, clock: Clock) -> Self {
        Self { seed, clock, resources: table(), history: HISTORY }
    }
}

/// A Kubernetes API server in memory. Clones are the same server.
#[derive(Clone, Debug)]
pub struct ApiServer {
    state: Arc<Mutex<State>>,
    changed: Changes,
}

impl ApiServer {
    /// A server without objects, but for the namespace `default`.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let state = State::new(Store::new(FIRST_REVISION, config.history), config.resources, config.seed, config.clock);
        let server = Self { state: Arc::new(Mutex::new(state)), changed: Changes::default() };
        let default = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
        // it cannot be refused: nothing else is there yet
        let _ = server.as_user("kube-apiserver").create(&default);
        server
    }

    /// A connection for the client of this name, for `kube::Client::new`.
    #[must_use]
    pub fn client_service(&self, client: &str) -> ClientService {
        ClientService::new(self.clone(), client)
    }

    /// Direct access as a user of this name, past faults and the log.
    #[must_use]
    pub fn as_user(&self, name: &str) -> User {
        User::new(self.clone(), name)
    }

    /// Plans a fault of calls.
    pub fn plan(&self, rule: Rule) {
        self.with(|state| state.plan.add(rule));
    }

    /// Disturbs watches. Where they lag, so does the cache from which a GET with a version is answered.
    pub fn disturb(&self, matching: Match, disturbance: Disturbance) {
        self.change(|state| {
            if disturbance == Disturbance::End {
                state.store.forget_outlived();
            }
            state.plan.disturb(matching, disturbance);
        });
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.change(|state| state.plan.clear());
    }

    /// Installs an admission hook for the writes that match.
    pub fn admit(&self, matching: Match, hook: Hook) {
        self.with(|state| state.admission.add(matching, hook));
    }

    /// Removes all admission hooks.
    pub fn clear_admission(&self) {
        self.with(|state| state.admission.clear());
    }

    /// Calls the hook for each request, when it arrives and when it was carried out. The hook must not call the server.
    pub fn on_request(&self, hook: RequestHook) {
        self.with(|state| state.hook = Some(hook));
    }

    /// The current revision, for [`Self::restore`].
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.with(|state| state.store.revision())
    }

    /// Restores the store as it was at a revision, as etcd from a backup: the revision goes down. Watches stay open and
    /// silent until the revision passes what they have seen, and until then a GET with a version is answered from before;
    /// [`Disturbance::End`] ends both. Returns false where it was compacted away.
    pub fn restore(&self, revision: u64) -> bool {
        self.change(|state| state.store.restore(revision))
    }

    /// Compacts the history: versions before the revision cannot be read or watched from.
    pub fn compact(&self, revision: u64) {
        self.change(|state| state.store.compact(revision));
    }

    /// The requests up to now.
    #[must_use]
    pub fn requests(&self) -> Vec<Entry> {
        self.with(|state| state.log.entries().to_vec())
    }

    /// A hash of the requests up to now.
    #[must_use]
    pub fn requests_hash(&self) -> u64 {
        self.with(|state| state.log.hash())
    }

    /// Does what controllers have to do now; returns how many changes that were.
    pub fn run_controllers_once(&self) -> usize {
        let changes = self.with(gc::collect);
        // to notify where nothing changed would notify those who wait for changes, which this does, indefinitely
        if changes > 0 {
            self.notify();
        }
        changes
    }

    /// Does what controllers have to do, shortly after each change, until it is dropped.
    pub async fn run_controllers(self) {
        let mut changes = self.changes();
        loop {
            sleep(CONTROLLERS).await;
            changes.mark_unchanged();
            if self.run_controllers_once() == 0 {
                changes.changed().await;
            }
        }
    }

    /// Reads or changes the state directly. Watches do not notice; [`Self::change`] is for what they must.
    pub fn with<T>(&self, access: impl FnOnce(&mut State) -> T) -> T {
        access(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state, and notifies watches.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = self.with(change);
        self.notify();
        result
    }

    fn notify(&self) {
        self.changed.report();
    }

    pub(crate) fn changes(&self) -> Listener {
        self.changed.listen()
    }
}
