//! Replicas of the real operator over the simulated API server and the simulated authorization servers.

use std::{collections::BTreeSet, sync::Arc};

use clap::Parser;
use itwin_credential_operator::{
    config::args::{Cli, Command, RunArgs},
    liveness::Liveness,
    metrics::Metrics,
    runtime::{
        client,
        run::{Surroundings, operate},
    },
};
use kube::client::ClientBuilder;
use serde_json::Value;
use simulated_api::ApiServer;
use tokio::{sync::watch, task::JoinHandle};

use crate::{authority::Servers, clock::Clocks};

/// One process of the operator.
pub struct Replica {
    /// Its identity, and the name of its client.
    pub name: String,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), String>>,
    /// Whether its liveness probe passes.
    pub liveness: Arc<Liveness>,
    metrics: Arc<Metrics>,
}

/// How replicas are run.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// One of several, elected.
    pub leader_election: bool,
    /// Whether Secrets are watched.
    pub watch_secrets: bool,
}

fn arguments(mode: Mode) -> RunArgs {
    let Mode { leader_election, watch_secrets } = mode;
    let arguments = [
        "operator".to_owned(),
        "run".to_owned(),
        format!("--leader-election={leader_election}"),
        format!("--watch-secrets={watch_secrets}"),
        "--lease-namespace=default".to_owned(),
    ];
    match Cli::parse_from(arguments).command {
        Command::Run(arguments) => arguments,
        Command::Crd => unreachable!("the arguments say run"),
    }
}

impl Replica {
    /// Starts a process with a name that none had before.
    pub fn start(name: String, mode: Mode, api: &ApiServer, servers: &Servers, clocks: &Clocks) -> Self {
        let liveness = Arc::new(Liveness::default());
        let (stop, stopped) = watch::channel(false);
        let metrics = Arc::new(Metrics::new(true).expect("metrics"));
        let surroundings = Surroundings {
            client: client::observed(ClientBuilder::new(api.client_service(&name), "default"), liveness.clone()),
            liveness: liveness.clone(),
            clock: clocks.of_operator(),
            connect: servers.connect(),
            identity: name.clone(),
            metrics: metrics.clone(),
            listener: None,
            stop: stopped,
        };
        let task = tokio::spawn(operate(arguments(mode), surroundings));
        Self { name, stop, task, liveness, metrics }
    }

    /// The series of credentials that are not among these.
    pub fn series_of_none(&self, credentials: &[Value]) -> Vec<String> {
        let labels = |credential: &Value| {
            let text = |field: &str| credential["metadata"][field].as_str().unwrap_or_default().to_owned();
            (text("namespace"), text("name"))
        };
        let known: BTreeSet<(String, String)> = credentials.iter().map(labels).collect();
        let value = |line: &str, label: &str| {
            let (_, rest) = line.split_once(&format!("{label}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        let pages: String = self.metrics.pages().expect("metrics").collect();
        let of_credentials = pages.lines().filter(|line| line.starts_with("itwin_credential_ready{"));
        of_credentials
            .filter(|line| {
                let named = value(line, "namespace").zip(value(line, "name"));
                named.is_none_or(|named| !known.contains(&named))
            })
            .map(str::to_owned)
            .collect()
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Whether a kubelet starts the process again: it has ended, or its liveness probe fails.
    pub fn is_to_restart(&self) -> bool {
        self.has_ended() || self.liveness.stalled().is_some()
    }

    /// Ends the process where it is.
    pub async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Ends the process as SIGTERM does.
    pub async fn terminate(self) -> Result<(), String> {
        self.stop.send_replace(true);
        self.task.await.map_err(|error| error.to_string())?
    }
}
