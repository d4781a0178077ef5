//! Plays a scenario on a cluster, and says in which state it ends.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::TimeDelta;
use serde_json::{Value, json};
use simulated_api::{
    faults::{Disturbance, Match, Rule},
    request::Verb,
    state::{Passing, Phase, Verdict},
};

use crate::{
    cluster::{Cluster, client_id, client_secret, client_secret_name},
    mutants::Mutant,
    oracle::{self, UNOWNED},
    scenario::{Edit, Event, Scenario, Trouble, Which},
};

/// The annotation that proves ownership where there is no owner reference.
const OWNER_UID: &str = "credentials.itwin.dev/owner-uid";
const CREDENTIALS: &str = "itwinservicecredentials";
/// Then nothing happens for this long, in which each credential is renewed once at most.
const QUIET: Duration = Duration::from_secs(10 * 60);

/// Token requests of one credential in that time: one renewal, or an attempt in at least 2.5 minutes where the client is
/// wrong.
const ASKED_IN_QUIET: usize = 4;

/// A crash at a write that does not come within this does not happen.
const CRASHED_WITHIN: Duration = Duration::from_secs(120);

/// How a scenario ended.
#[derive(Debug)]
pub struct End {
    pub violations: Vec<String>,
    /// The requests, as lines.
    pub log: Vec<String>,
    /// What became of each credential, without times.
    pub state: BTreeMap<String, String>,
}

/// Plays a scenario to its end.
pub async fn play(seed: u64, scenario: &Scenario, mutant: Option<Mutant>) -> End {
    let mut cluster = Cluster::new(seed, scenario.mode, mutant);
    cluster.start();
    if scenario.mode.leader_election {
        cluster.start();
    }
    let mut player = Player { cluster, rotations: 0 };
    for (wait, event) in &scenario.events {
        player.cluster.pass(*wait).await;
        match event {
            Event::Edit(which, edit) => player.edit(*which, *edit),
            Event::Trouble(trouble) => player.trouble(trouble).await,
        }
    }
    player.recover();
    player.cluster.pass(scenario.settle).await;
    let asked = player.cluster.servers.asked().len();
    player.cluster.pass(QUIET).await;
    player.assess(player.cluster.servers.asked().len() - asked);
    End {
        violations: player.cluster.oracle.violations.all(),
        log: player.cluster.api.requests().iter().map(line).collect(),
        state: player.state(),
    }
}

struct Player {
    cluster: Cluster,
    /// Secrets of clients that were made.
    rotations: usize,
}

fn name(which: Which) -> String {
    format!("agent-{}", which.number)
}

impl Player {
    /// Does what a user does; what the API server refuses did not happen.
    fn edit(&mut self, which: Which, edit: Edit) {
        let user = self.cluster.api.as_user("kubectl");
        let (namespace, name) = (which.namespace, name(which));
        let spec = |spec: Value| drop(user.patch(CREDENTIALS, namespace, &name, &json!({"spec": spec})));
        let secret = |patch: Value| drop(user.patch("secrets", namespace, &name, &patch));
        match edit {
            Edit::Create { authority, client, retained } => drop(user.create(&json!({
                "apiVersion": "credentials.itwin.dev/v1alpha1",
                "kind": "ITwinServiceCredential",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "authorityRef": {"name": authority},
                    "clientCredentialsRef": {"name": client_secret_name(client)},
                    "minimumValidity": "60s",
                    "deletionPolicy": if retained { "Retain" } else { "Delete" },
                },
            }))),
            Edit::Delete => drop(user.delete(CREDENTIALS, namespace, &name, &json!({}))),
            Edit::ChangeScopes(number) => spec(json!({"scopes": [format!("scope-{number}")]})),
            Edit::ChangePolicy(seconds) => spec(json!({"renewBefore": format!("{seconds}s")})),
            Edit::Suspend(suspend) => spec(json!({"suspend": suspend})),
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

    fn is_unowned(&self, namespace: &str, name: &str) -> bool {
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
        let Cluster { api, servers, clocks, .. } = &self.cluster;
        match trouble {
            Trouble::Server(server, behavior) => servers.behave(server, *behavior),
            Trouble::ServersRecover => servers.recover(),
            Trouble::Call { verb, target, fault, times } => {
                let matching = Match::any().verb(*verb).target(target);
                api.plan(Rule::once(matching, fault.clone()).times(*times));
            }
            Trouble::Watch(target, disturbance) => api.disturb(Match::any().target(target), *disturbance),
            Trouble::ApiRecovers => api.clear_faults(),
            Trouble::SetClock(ahead) => clocks.set_ahead(*ahead),
            Trouble::Compact => api.compact(api.revision()),
            Trouble::RestoreBackup { changes, keeps_watches } => {
                if api.restore(api.revision().saturating_sub(*changes)) {
                    self.cluster.oracle.forget_holder();
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
        self.cluster.api.clear_faults();
        self.cluster.servers.recover();
        self.cluster.clocks.set_ahead(TimeDelta::zero());
        if self.cluster.replicas.is_empty() {
            self.cluster.start();
        }
    }

    /// What must be true once nothing goes wrong any more.
    fn assess(&self, asked: usize) {
        let Cluster { api, oracle, replicas, .. } = &self.cluster;
        let reader = api.as_user("oracle");
        let credentials = reader.list(CREDENTIALS, "");
        for credential in &credentials {
            let name = label(credential);
            for problem in self.problems(credential) {
                oracle.violations.add(format!("{name}: {problem} at the end: {}", credential["status"]));
            }
        }
        if asked > ASKED_IN_QUIET * credentials.len() {
            oracle.violations.add(format!("{asked} token requests while nothing happened"));
        }
        for replica in replicas {
            if let Some(stalled) = replica.liveness.stalled() {
                oracle.violations.add(format!("{}: {stalled}", replica.name));
            }
        }
        for secret in reader.list("secrets", "") {
            if oracle::token_of_data(&secret).is_none() {
                continue;
            }
            let is_owned = credentials.iter().any(|credential| label(credential) == label(&secret));
            let is_retained = secret["metadata"]["ownerReferences"].is_null();
            if !is_owned && !is_retained {
                oracle.violations.add(format!("Secret {} outlives its credential", label(&secret)));
            }
        }
    }

    fn problems(&self, credential: &Value) -> Vec<String> {
        let Cluster { api, servers, clocks, .. } = &self.cluster;
        let reader = api.as_user("oracle");
        let (namespace, name) = (text(&credential["metadata"]["namespace"]), text(&credential["metadata"]["name"]));
        let spec = &credential["spec"];
        let ready = condition(credential, "Ready");
        let secret = reader.get("secrets", namespace, name);
        let token = secret.as_ref().and_then(oracle::token_of_data);
        let issued = token.as_deref().and_then(|token| servers.issued(token));
        let holds = issued.as_ref().is_some_and(|issued| issued.expires_at > clocks.now());
        let mut problems = Vec::new();
        if ready == "True" && !holds {
            let expires_at = issued.as_ref().map(|issued| issued.expires_at);
            let says = secret
                .as_ref()
                .map(|secret| secret["metadata"]["annotations"]["credentials.itwin.dev/expires-at"].clone());
            problems.push(format!(
                "Ready, and the token of {} expired at {expires_at:?} ({says:?})",
                spec["authorityRef"]["name"]
            ));
        }
        let generation = &credential["metadata"]["generation"];
        if &credential["status"]["observedGeneration"] != generation {
            problems.push(format!("observedGeneration is not {generation}"));
        }
        let is_possible = spec["suspend"] != true
            && self.client_works(namespace, spec)
            && secret.as_ref().is_none_or(|secret| is_provably_owned(secret, credential));
        if !is_possible {
            return problems;
        }
        if ready != "True" || condition(credential, "Renewed") == "False" {
            problems.push("not Ready and Renewed".to_owned());
        }
        let client = self.client(namespace, spec);
        let scopes: Vec<&str> = spec["scopes"].as_array().into_iter().flatten().map(text).collect();
        if !issued.is_some_and(|issued| Some(issued.client) == client && issued.scopes == scopes.join(" ")) {
            problems.push("the token is not for the current spec".to_owned());
        }
        let keys = secret.as_ref().and_then(|secret| secret["data"].as_object()).map_or(0, serde_json::Map::len);
        if keys != 6 {
            problems.push(format!("the Secret has {keys} keys"));
        }
        let managed = secret.map(|secret| secret["metadata"]["labels"]["app.kubernetes.io/managed-by"].clone());
        if managed != Some(json!("itwin-credential-operator")) {
            problems.push("the label of the Secret is not restored".to_owned());
        }
        problems
    }

    fn client(&self, namespace: &str, spec: &Value) -> Option<String> {
        let reader = self.cluster.api.as_user("oracle");
        let secret = reader.get("secrets", namespace, text(&spec["clientCredentialsRef"]["name"]))?;
        let decoded = STANDARD.decode(text(&secret["data"]["client_id"])).ok()?;
        String::from_utf8(decoded).ok()
    }

    fn client_works(&self, namespace: &str, spec: &Value) -> bool {
        let reader = self.cluster.api.as_user("oracle");
        let Some(secret) = reader.get("secrets", namespace, text(&spec["clientCredentialsRef"]["name"])) else {
            return false;
        };
        let value = |key: &str| {
            String::from_utf8(STANDARD.decode(text(&secret["data"][key])).unwrap_or_default()).unwrap_or_default()
        };
        self.cluster.servers.is_client(&value("client_id"), &value("client_secret"))
    }

    /// What became of each credential, without what depends on the time.
    fn state(&self) -> BTreeMap<String, String> {
        let reader = self.cluster.api.as_user("oracle");
        let credentials = reader.list(CREDENTIALS, "");
        let mut state = BTreeMap::new();
        for credential in &credentials {
            let secret = reader.get(
                "secrets",
                text(&credential["metadata"]["namespace"]),
                text(&credential["metadata"]["name"]),
            );
            let keys: Vec<String> = secret
                .iter()
                .flat_map(|secret| secret["data"].as_object().into_iter().flatten())
                .map(|(key, _)| key.clone())
                .collect();
            let line = format!(
                "Ready {}, Renewed {}, keys {keys:?}",
                condition(credential, "Ready"),
                condition(credential, "Renewed")
            );
            state.insert(label(credential), line);
        }
        state
    }
}

/// Whether the Secret shows by itself that this credential owns it.
fn is_provably_owned(secret: &Value, credential: &Value) -> bool {
    let (metadata, uid) = (&secret["metadata"], &credential["metadata"]["uid"]);
    let mut owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    owners.any(|owner| &owner["uid"] == uid) || &metadata["annotations"][OWNER_UID] == uid
}

fn line(entry: &simulated_api::log::Entry) -> String {
    let simulated_api::log::Entry { number, time, client, method, path, result } = entry;
    format!("{number} {} {client} {method} {path} {result}", time.format("%H:%M:%S%.3f"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn label(object: &Value) -> String {
    format!("{}/{}", text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

/// The status of a condition of a credential.
fn condition(credential: &Value, kind: &str) -> String {
    let conditions = credential["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.into_iter().find(|condition| condition["type"] == kind);
    found.map_or_else(|| "none".to_owned(), |condition| text(&condition["status"]).to_owned())
}
