//! One simulated cluster: the API server, the authorization servers, the replicas, and what watches over them.

use std::{
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use itwin_api::{authority::ITwinAuthority, credential::ITwinServiceCredential};
use kube::CustomResourceExt;
use serde_json::{Value, json};
use simulated_api::{ApiServer, Config, resources};
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    authority::{NAMES, Servers},
    clock::Clocks,
    mutants::Mutant,
    oracle::Oracle,
    play::RECOVERED,
    replica::{Mode, Replica},
};

/// The namespaces of the tenants.
pub const NAMESPACES: [&str; 2] = ["alpha", "beta"];
/// The namespace of a hostile tenant.
pub const HOSTILE: &str = "mallory";
/// Clients that are registered with each authorization server.
pub const CLIENTS: usize = 2;
/// A Deployment in each namespace.
pub const WORKLOAD: &str = "workload";
/// A process that ended is started again within this.
const STEP: Duration = Duration::from_secs(3);
/// The state is checked this often, and before each event.
const CHECKED: Duration = Duration::from_secs(60);

/// A simulated cluster.
pub struct Cluster {
    pub api: ApiServer,
    pub servers: Servers,
    pub clocks: Clocks,
    pub oracle: Oracle,
    pub replicas: Vec<Replica>,
    pub mode: Mode,
    /// Processes that were started.
    started: usize,
    _controllers: JoinHandle<()>,
}

/// The name of the client Secret with this number, which is the identifier of the client in every namespace.
pub fn client_secret_name(number: usize) -> String {
    format!("client-{number}")
}

/// The client of a client Secret of a namespace.
pub fn client_id(namespace: &str, number: usize) -> String {
    format!("{namespace}-{}", client_secret_name(number))
}

impl Cluster {
    /// A cluster with the authorities, the namespaces and their clients, without credentials.
    pub fn new(seed: u64, mode: Mode, is_calm: bool, mutant: Option<Mutant>) -> Self {
        let clocks = Clocks::new();
        let wall = clocks.clone();
        let mut config = Config::new(seed, Arc::new(move || wall.now()));
        config.resources = RESOURCES.clone();
        let api = ApiServer::new(config);
        let servers = Servers::new(clocks.clone());
        // a mutant changes what is written before the oracle sees it
        if let Some(mutant) = mutant {
            mutant.install(&api, &servers);
        }
        let oracle = Oracle::new(&api, &servers, &clocks, is_calm);
        let controllers = tokio::spawn(api.clone().run_controllers());
        let cluster =
            Self { api, servers, clocks, oracle, replicas: Vec::new(), mode, started: 0, _controllers: controllers };
        cluster.populate();
        cluster
    }

    fn populate(&self) {
        let admin = self.api.as_user("admin");
        let create = |object: &Value| drop(admin.create(object).expect("it is new and valid"));
        for name in NAMES {
            let format = if name == "signed" { "jwt" } else { "opaque" };
            create(&json!({
                "apiVersion": "credentials.itwin.dev/v1alpha1",
                "kind": "ITwinAuthority",
                "metadata": {"name": name},
                "spec": {"issuer": format!("https://{name}.example"), "accessTokenFormat": format},
            }));
        }
        for namespace in NAMESPACES.into_iter().chain([HOSTILE]) {
            create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
            create(&json!({
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": WORKLOAD, "namespace": namespace},
                "spec": {"template": {"metadata": {"labels": {"app": WORKLOAD}}}},
            }));
            for number in 0..CLIENTS {
                let (id, secret) = (client_id(namespace, number), format!("client-password-{namespace}-{number}-0"));
                self.servers.set_client(&id, &secret);
                create(&client_secret(namespace, number, &secret));
            }
        }
    }

    /// Creates the credential `alpha/agent-0` of this authority.
    pub fn create_credential(&self, authority: &str) {
        let credential = json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinServiceCredential",
            "metadata": {"name": "agent-0", "namespace": "alpha"},
            "spec": {
                "authorityRef": {"name": authority},
                "clientCredentialsRef": {"name": client_secret_name(0)},
                "minimumValidity": "60s",
            },
        });
        let created = self.api.as_user("kubectl").create(&credential).expect("it is valid");
        self.oracle.owners.created(&created);
    }

    /// Starts one more replica.
    pub fn start(&mut self) {
        self.started += 1;
        self.oracle.excuse(RECOVERED);
        let name = format!("replica-{}", self.started);
        self.replicas.push(Replica::start(name, self.mode, &self.api, &self.servers, &self.clocks));
    }

    /// Lets time pass. What ended by itself is started again, as a kubelet does.
    pub async fn pass(&mut self, time: Duration) {
        let (mut left, mut checked) = (time, Duration::ZERO);
        while !left.is_zero() {
            let step = left.min(STEP);
            sleep(step).await;
            left -= step;
            checked += step;
            self.restart_ended().await;
            if left.is_zero() || checked >= CHECKED {
                checked = Duration::ZERO;
                self.oracle.check(&self.servers);
            }
        }
    }

    async fn restart_ended(&mut self) {
        let (ended, running) = std::mem::take(&mut self.replicas).into_iter().partition(Replica::is_to_restart);
        self.replicas = running;
        let ended: Vec<Replica> = ended;
        for replica in ended {
            let name = replica.name.clone();
            if !replica.has_ended() {
                // the probe fails, and the process gets a signal and then none
                replica.crash().await;
            } else if let Err(error) = replica.terminate().await {
                self.oracle.note_end(&name, &error);
            } else {
                self.oracle.note_end(&name, "ended without being asked to");
            }
            self.start();
        }
    }
}

/// A client Secret.
pub fn client_secret(namespace: &str, number: usize, secret: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": client_secret_name(number), "namespace": namespace},
        "stringData": {"client_id": client_id(namespace, number), "client_secret": secret},
    })
}

/// What every cluster offers.
static RESOURCES: LazyLock<Vec<resources::Resource>> = LazyLock::new(|| with_schemas(resources::table()));

/// The resources with the schemas of the real CRDs, so that defaults are set as a real API server sets them.
fn with_schemas(table: Vec<resources::Resource>) -> Vec<resources::Resource> {
    let schema = |crd: Value| crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    let of = |crd| schema(serde_json::to_value(crd).expect("a CRD is JSON"));
    let credentials = of(ITwinServiceCredential::crd());
    let authorities = of(ITwinAuthority::crd());
    let plural = |resource: &resources::Resource| resource.plural.clone();
    table
        .into_iter()
        .map(|resource| match plural(&resource).as_str() {
            "itwinservicecredentials" => resource.with_schema(credentials.clone()),
            "itwinauthorities" => resource.with_schema(authorities.clone()),
            _ => resource,
        })
        .collect()
}

/// What was found wrong, in order, each once.
#[derive(Clone, Default)]
pub struct Violations(Arc<Mutex<Vec<String>>>);

impl Violations {
    pub fn add(&self, violation: String) {
        let mut all = self.0.lock().expect("no panic");
        if !all.contains(&violation) {
            all.push(violation);
        }
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }
}
