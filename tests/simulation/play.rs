//! Plays a scenario on a cluster, and says in which state it ends.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use simulated_api::{
    faults::{Disturbance, Match, Rule},
    request::Verb,
    state::{Passing, Phase, Verdict},
};

use tokio::task::JoinHandle;

use crate::{
    cluster::{Cluster, WORKLOAD, client_id, client_secret, client_secret_name},
    meddler,
    mutants::Mutant,
    oracle::UNOWNED,
    scenario::{Edit, Event, Scenario, Trouble, Which},
    tenant::Tenant,
};

pub const CREDENTIALS: &str = "itwinservicecredentials";
/// Then nothing happens for this long, in which each credential is renewed once at most.
const QUIET: Duration = Duration::from_secs(10 * 60);

/// The state is checked this often.
const LOOKED: Duration = Duration::from_secs(20);
/// After something went wrong with the API server, the clocks or a replica, statuses follow within this.
pub const RECOVERED: TimeDelta = TimeDelta::seconds(150);

/// A crash at a write that does not come within this does not happen.
const CRASHED_WITHIN: Duration = Duration::from_secs(120);

/// How a scenario ended.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    pub violations: Vec<String>,
    /// The requests to the API server, as lines.
    pub log: Vec<String>,
    /// The token requests, as lines.
    pub asked: Vec<String>,
    /// What became of each credential, without times.
    pub state: BTreeMap<String, String>,
}

/// Plays a scenario to its end.
pub async fn play(seed: u64, scenario: &Scenario, mutant: Option<Mutant>) -> End {
    let mut cluster = Cluster::new(seed, scenario.mode, scenario.is_calm, mutant);
    cluster.start();
    if scenario.mode.leader_election {
        cluster.start();
    }
    let mut player =
        Player { cluster, rotations: 0, settled: BTreeMap::new(), disputed: BTreeMap::new(), tenants: Vec::new() };
    for (wait, event) in &scenario.events {
        player.pass(*wait).await;
        match event {
            Event::Edit(which, edit) => player.edit(*which, *edit),
            Event::Trouble(trouble) => player.trouble(trouble).await,
        }
    }
    player.recover();
    player.pass(scenario.settle).await;
    let asked = player.cluster.servers.asked().len();
    player.pass(QUIET).await;
    player.assess(player.cluster.servers.asked().len() - asked);
    End {
        violations: player.cluster.oracle.violations.all(),
        log: player.cluster.api.requests().iter().map(line).collect(),
        asked: player.cluster.servers.asked().iter().map(|asked| format!("{asked:?}")).collect(),
        state: player.state(),
    }
}

/// Who plays it.
pub struct Player {
    pub cluster: Cluster,
    /// Secrets of clients that were made.
    rotations: usize,
    /// From when on the credentials of a namespace must be as they should be, in a calm scenario.
    pub settled: BTreeMap<&'static str, DateTime<Utc>>,
    /// Until when a credential of the namespace may report a conflict.
    pub disputed: BTreeMap<&'static str, DateTime<Utc>>,
    /// What hostile tenants do.
    tenants: Vec<JoinHandle<()>>,
}

fn policy(retained: bool) -> &'static str {
    if retained { "Retain" } else { "Delete" }
}

pub fn name(which: Which) -> String {
    format!("agent-{}", which.number)
}

impl Player {
    /// Lets time pass, and checks the cluster at each step.
    pub async fn pass(&mut self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(LOOKED);
            self.cluster.pass(step).await;
            left -= step;
            self.check_expiry();
            if self.cluster.oracle.is_calm {
                self.look();
            }
        }
    }

    /// Does what a user does; what the API server refuses did not happen.
    pub fn edit(&mut self, which: Which, edit: Edit) {
        self.edited(which.namespace);
        let user = self.cluster.api.as_user("kubectl");
        let (namespace, name) = (which.namespace, name(which));
        let spec = |spec: Value| drop(user.patch(CREDENTIALS, namespace, &name, &json!({"spec": spec})));
        let secret = |patch: Value| drop(user.patch("secrets", namespace, &name, &patch));
        match edit {
            Edit::Create { authority, client, retained } => {
                let restarted = json!([{"kind": "Deployment", "name": WORKLOAD}]);
                let created = user.create(&json!({
                    "apiVersion": "credentials.itwin.dev/v1alpha1",
                    "kind": "ITwinServiceCredential",
                    "metadata": {"name": name, "namespace": namespace},
                    "spec": {
                        "authorityRef": {"name": authority},
                        "clientCredentialsRef": {"name": client_secret_name(client)},
                        "minimumValidity": "60s",
                        "deletionPolicy": policy(retained),
                        "rolloutRestartTargets": if which.number == 0 { restarted } else { json!([]) },
                    },
                }));
                created.into_iter().for_each(|created| self.cluster.oracle.owners.created(&created));
            }
            Edit::ChangeAuthority(authority) => spec(json!({"authorityRef": {"name": authority}})),
            Edit::ChangeClient(client) => spec(json!({"clientCredentialsRef": {"name": client_secret_name(client)}})),
            Edit::Delete => drop(user.delete(CREDENTIALS, namespace, &name, &json!({}))),
            Edit::ChangeScopes(number) => spec(json!({"scopes": [format!("scope-{number}")]})),
            Edit::ChangePolicy(seconds) => spec(json!({"renewBefore": format!("{seconds}s")})),
            Edit::Suspend(suspend) => spec(json!({"suspend": suspend})),
            Edit::Retain(retained) => spec(json!({"deletionPolicy": policy(retained)})),
            Edit::Renew => {
                let value = self.cluster.clocks.now().timestamp().to_string();
                let patch = json!({"metadata": {"annotations": {"credentials.itwin.dev/renew": value}}});
                drop(user.patch(CREDENTIALS, namespace, &name, &patch));
            }
            Edit::Label => secret(json!({"metadata": {"labels": {"team": "a", "app.kubernetes.io/managed-by": "x"}}})),
            Edit::TamperToken => secret(json!({"data": {"access_token": STANDARD.encode("tampered")}})),
            Edit::RemoveToken => secret(json!({"data": {"access_token": null}})),
            Edit::RemoveAnnotations => secret(json!({"metadata": {"annotations": null}})),
            Edit::AddExtraKey => secret(json!({"data": {"extra": STANDARD.encode("more")}})),
            Edit::DeleteSecret => {
                if !self.is_unowned(namespace, &name) {
                    drop(user.delete("secrets", namespace, &name, &json!({})));
                }
            }
            Edit::CreateUnownedSecret => drop(user.create(&json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": namespace},
                "stringData": {UNOWNED: "of someone else"},
            }))),
            Edit::DeleteUnownedSecret => {
                if self.is_unowned(namespace, &name) {
                    drop(user.delete("secrets", namespace, &name, &json!({})));
                }
            }
            Edit::RotateClient | Edit::BreakClient | Edit::DeleteClient | Edit::RestoreClient => {
                self.edit_client(which, edit);
            }
        }
    }

    pub fn is_unowned(&self, namespace: &str, name: &str) -> bool {
        let secret = self.cluster.api.as_user("oracle").get("secrets", namespace, name);
        secret.is_some_and(|secret| !secret["data"][UNOWNED].is_null())
    }

    /// Changes a client and its Secret.
    fn edit_client(&mut self, which: Which, edit: Edit) {
        let user = self.cluster.api.as_user("kubectl");
        let (namespace, number) = (which.namespace, which.number % crate::cluster::CLIENTS);
        let name = client_secret_name(number);
        self.rotations += 1;
        let secret = format!("client-password-{namespace}-{number}-{}", self.rotations);
        let encoded = STANDARD.encode(&secret);
        match edit {
            Edit::RotateClient => {
                self.cluster.servers.set_client(&client_id(namespace, number), &secret);
                drop(user.patch("secrets", namespace, &name, &json!({"data": {"client_secret": encoded}})));
            }
            Edit::BreakClient => {
                drop(user.patch("secrets", namespace, &name, &json!({"data": {"client_secret": encoded}})));
            }
            Edit::DeleteClient => drop(user.delete("secrets", namespace, &name, &json!({}))),
            _ => self.restore_client(namespace, number, &secret),
        }
    }

    fn restore_client(&self, namespace: &str, number: usize, secret: &str) {
        let user = self.cluster.api.as_user("kubectl");
        self.cluster.servers.set_client(&client_id(namespace, number), secret);
        if user.create(&client_secret(namespace, number, secret)).is_err() {
            let patch = json!({"data": {"client_secret": STANDARD.encode(secret)}});
            drop(user.patch("secrets", namespace, &client_secret_name(number), &patch));
        }
    }

    async fn trouble(&mut self, trouble: &Trouble) {
        let Cluster { api, servers, clocks, oracle, .. } = &self.cluster;
        match trouble {
            Trouble::RotateKeys => servers.rotate_keys(),
            Trouble::Sleep(time) => {
                clocks.sleep(*time);
                oracle.excuse(RECOVERED);
            }
            Trouble::Admission { target, admission, seconds } => {
                let time = TimeDelta::seconds(*seconds);
                oracle.excuse(time + RECOVERED);
                meddler::install(api, clocks, (target, None), *admission, clocks.now() + time);
            }
            Trouble::Fight(which, fight) => self.fight(*which, *fight).await,
            Trouble::Deny(which, code) => self.deny(*which, *code).await,
            Trouble::Tenant(hostility) => {
                let tenant = Tenant { api: api.clone(), servers: servers.clone(), oracle: oracle.clone() };
                self.tenants.push(tokio::spawn(tenant.act(*hostility)));
            }
            Trouble::Server(server, behavior) => servers.behave(server, *behavior),
            Trouble::ServersRecover => servers.recover(),
            Trouble::Call { verb, target, fault, times } => {
                oracle.excuse(RECOVERED);
                let matching = Match::any().verb(*verb).target(target);
                api.plan(Rule::once(matching, fault.clone()).times(*times));
            }
            Trouble::Watch(target, disturbance) => api.disturb(Match::any().target(target), *disturbance),
            Trouble::ApiRecovers => api.clear_faults(),
            Trouble::SetClock(ahead) => clocks.set_ahead(*ahead),
            Trouble::Compact => api.compact(api.revision()),
            Trouble::RestoreBackup { changes, keeps_watches } => {
                if api.restore(api.revision().saturating_sub(*changes)) {
                    oracle.forget_holder();
                }
                if !keeps_watches {
                    api.disturb(Match::any().verb(Verb::Watch), Disturbance::End);
                }
            }
            Trouble::CrashLeader => self.end_one(true).await,
            Trouble::Terminate => self.end_one(false).await,
            Trouble::StartAnother => {
                if self.cluster.replicas.len() < 3 {
                    self.cluster.start();
                }
            }
            Trouble::CrashAtWrite(number) => self.crash_at(*number).await,
        }
    }

    async fn end_one(&mut self, crash: bool) {
        if self.cluster.replicas.is_empty() {
            return;
        }
        let replica = self.cluster.replicas.remove(0);
        let name = replica.name.clone();
        if crash {
            replica.crash().await;
        } else if let Err(error) = replica.terminate().await {
            self.cluster.oracle.note_end(&name, &error);
        }
        self.cluster.start();
    }

    /// The process crashes at this write from now: the write is carried out, and not answered. Reads are not counted: to
    /// crash after one is to crash before the next write.
    async fn crash_at(&mut self, number: u64) {
        let oracle = self.cluster.oracle.clone();
        let (stopped, mut stop) = tokio::sync::watch::channel(false);
        let written = std::sync::atomic::AtomicU64::new(0);
        self.cluster.api.on_request(std::sync::Arc::new(move |passing: Passing<'_>| {
            let is_write = passing.method != "GET" && passing.phase == Phase::Done;
            if is_write && written.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 == number {
                stopped.send_replace(true);
                return Verdict::Stop;
            }
            oracle.request(passing)
        }));
        // it may write so little that it is not reached
        let reached = tokio::time::timeout(CRASHED_WITHIN, stop.wait_for(|stopped| *stopped)).await.is_ok();
        self.cluster.oracle.watch_requests(&self.cluster.api);
        if reached {
            self.end_one(true).await;
        }
    }

    /// Everything that went wrong ends.
    fn recover(&mut self) {
        self.tenants.drain(..).for_each(|tenant| tenant.abort());
        self.cluster.api.clear_faults();
        self.cluster.servers.recover();
        if !self.cluster.clocks.ahead().is_zero() {
            self.cluster.clocks.set_ahead(TimeDelta::zero());
        }
        if self.cluster.replicas.is_empty() {
            self.cluster.start();
        }
    }
}

fn line(entry: &simulated_api::log::Entry) -> String {
    let simulated_api::log::Entry { number, time, client, method, path, body, result } = entry;
    format!("{number} {} {client} {method} {path} {body:016x} {result}", time.format("%H:%M:%S%.3f"))
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub fn label(object: &Value) -> String {
    format!("{}/{}", text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

/// The status of a condition of a credential.
pub fn condition(credential: &Value, kind: &str) -> String {
    of_condition(credential, kind, "status")
}

/// The reason of a condition of a credential.
pub fn reason(credential: &Value, kind: &str) -> String {
    of_condition(credential, kind, "reason")
}

fn of_condition(credential: &Value, kind: &str, field: &str) -> String {
    let mut conditions = credential["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == kind);
    found.map_or_else(|| "none".to_owned(), |condition| text(&condition[field]).to_owned())
}
