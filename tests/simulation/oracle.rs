//! What must hold in every scenario, whatever happens: looked for at every write, at every step, and at the end.
//!
//! These sentences of the contract it asserts:
//!
//! - 3: a token is replaced only by a verified one, and for an unchanged spec and client never by one that expires
//!   earlier; a Secret is never written without a token (at every write of a Secret).
//! - 3, 8: a Secret of someone else, a client Secret and a copy from another namespace are left alone; no Secret changes
//!   hands while its owner is there ([`ownership`]).
//! - 3: what was edited by hand is reverted, and a changed client or spec gets a token (`calm.rs`, at every step of a
//!   calm scenario; `assess.rs`, at the end of each). Anyone who keeps changing a Secret is named, and a good token stays good.
//! - 3, 4: failover, crashes and failures never make a storm of token requests; a quiet cluster requests nothing that is
//!   not due.
//! - 2: a workload is restarted at most once for each token (at every write of one); a retained Secret is not deleted
//!   with its credential, also if that is suspended.
//! - 4: equal requests share one in flight; renewals on request come at most every 10 s; one credential asks at most once a
//!   second.
//! - 5: `observedGeneration`, which never goes back except from a spec that there is not, `usableUntil`, the set of
//!   reasons, the length of messages ([`status`]); no failure of an attempt for an earlier spec is claimed for this one
//!   ([`generations`]); `Ready` is False once the token has less than the minimum validity left, whatever fails;
//!   `Renewed` is not True for a spec that names what is not there; a denied write is shown in the words of the API
//!   server.
//! - 6: no metrics of a credential that is gone.
//! - 7: only the leader writes.
//! - 8: no process ends by itself; no secret value is anywhere but in Secrets; the tokens of honest tenants are as if a
//!   hostile one were not there.

mod generations;
mod ownership;
mod restarts;
mod status;

use std::sync::{Arc, Mutex};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use generations::Generations;
use ownership::Owners;
use restarts::Restarts;
use serde_json::Value;
use simulated_api::{
    ApiServer,
    faults::Match,
    request::{Call, Verb},
    state::{Passing, Phase, Verdict},
};

pub use status::MINIMUM_VALIDITY;

use crate::{
    authority::{Asked, Issued, Servers},
    clock::Clocks,
    cluster::{HOSTILE, NAMESPACES, Violations, client_id},
    scenario::CREDENTIALS,
};

/// A key of Secrets that are not the operator's.
pub const UNOWNED: &str = "unowned-password";
/// The names of the clients of replicas begin with this.
const REPLICA: &str = "replica-";
/// More token requests than these of one client within a minute are a storm. The backoff of a credential is at least half
/// of a sixth of what is left of its token, so that in the last minute before expiry it asks about 31 times.
const ASKED_IN_A_MINUTE: usize = 31 * CREDENTIALS;
/// A clock that is wrong by more makes good tokens look expired, and expired ones good: what is in them cannot be checked.
pub const SKEW: TimeDelta = TimeDelta::seconds(30);

/// Watches over one cluster.
#[derive(Clone)]
pub struct Oracle {
    pub violations: Violations,
    /// Who owns which Secret.
    pub owners: Owners,
    restarts: Restarts,
    generations: Generations,
    /// Nothing goes wrong but what other users do.
    pub is_calm: bool,
    /// Until then a status may be late.
    excused: Arc<Mutex<DateTime<Utc>>>,
    clocks: Clocks,
    holder: Arc<Mutex<Option<String>>>,
    ends: Arc<Mutex<Vec<String>>>,
}

impl Oracle {
    /// Watches every write and request of the replicas.
    pub fn new(api: &ApiServer, servers: &Servers, clocks: &Clocks, is_calm: bool) -> Self {
        let oracle = Self {
            violations: Violations::default(),
            owners: Owners::default(),
            restarts: Restarts::default(),
            generations: Generations::default(),
            is_calm,
            excused: Arc::new(Mutex::new(clocks.now())),
            clocks: clocks.clone(),
            holder: Arc::default(),
            ends: Arc::default(),
        };
        let (of_secrets, issuers) = (oracle.clone(), servers.clone());
        let secrets = move |call: &Call, new: &mut Value, old: Option<&Value>| {
            // a guarded write of a Secret that has changed is refused after this
            let is_refused = old.is_some_and(|old| is_stale(new, old));
            if call.client.starts_with(REPLICA) && !is_refused {
                of_secrets.secret_written(&issuers, new, old);
            }
            Ok(())
        };
        api.admit(Match::any().target("secrets"), Arc::new(secrets));
        let (of_writes, every) = (oracle.clone(), servers.clone());
        let writes = move |call: &Call, new: &mut Value, _: Option<&Value>| {
            if call.client.starts_with(REPLICA) && call.target() != "leases" {
                of_writes.no_leak(&every, &call.target(), new);
            }
            Ok(())
        };
        api.admit(Match::any(), Arc::new(writes));
        let of_leases = oracle.clone();
        let leases = move |call: &Call, new: &mut Value, old: Option<&Value>| {
            of_leases.lease_written(call, new, old);
            Ok(())
        };
        api.admit(Match::any().target("leases"), Arc::new(leases));
        oracle.watch_credentials(api);
        oracle.watch_workloads(api);
        oracle.watch_requests(api);
        oracle
    }

    fn watch_credentials(&self, api: &ApiServer) {
        let oracle = self.clone();
        let statuses = move |call: &Call, new: &mut Value, old: Option<&Value>| {
            let written = if call.client.starts_with(REPLICA) { status::written(call, new, old) } else { None };
            if let Some(new) = &written {
                let now = Some(oracle.clocks.now() - SKEW).filter(|_| oracle.clocks.ahead().abs() <= SKEW);
                let name = format!("{}/{}", call.namespace.as_deref().unwrap_or_default(), call.name);
                let of_generation = oracle.generations.objection(new).filter(|_| oracle.clocks.were_right());
                let went_back = old.and_then(|old| oracle.generations.went_back(new, old, call.verb, &call.client));
                let ahead = oracle.generations.ahead(new, call.verb);
                let of_generation = of_generation.into_iter().chain(went_back).chain(ahead);
                for objection in status::objections(new, now).into_iter().chain(of_generation) {
                    oracle.violations.add(format!("status of {name}: {objection}"));
                }
            }
            Ok(())
        };
        api.admit(Match::any().target("itwinservicecredentials/status"), Arc::new(statuses));
        let oracle = self.clone();
        let specs = move |_: &Call, new: &mut Value, old: Option<&Value>| {
            oracle.generations.written(new, old, oracle.clocks.now());
            Ok(())
        };
        api.admit(Match::any().verb(Verb::Patch).target("itwinservicecredentials"), Arc::new(specs));
        let owners = self.owners.clone();
        let deletions = move |_: &Call, _: &mut Value, old: Option<&Value>| {
            old.into_iter().for_each(|old| owners.deleted(&old["metadata"]["uid"]));
            Ok(())
        };
        api.admit(Match::any().verb(Verb::Delete).target("itwinservicecredentials"), Arc::new(deletions));
    }

    fn watch_workloads(&self, api: &ApiServer) {
        let oracle = self.clone();
        let patches = move |call: &Call, new: &mut Value, old: Option<&Value>| {
            if call.client.starts_with(REPLICA) {
                oracle.restarts.objections(new, old).into_iter().for_each(|objection| oracle.violations.add(objection));
            }
            Ok(())
        };
        api.admit(Match::any().verb(Verb::Patch).target("deployments"), Arc::new(patches));
    }

    /// For so long from now a status may be late.
    pub fn excuse(&self, time: TimeDelta) {
        let mut excused = self.excused.lock().expect("no panic");
        *excused = (*excused).max(self.clocks.now() + time);
    }

    /// Whether a status may be late.
    pub fn is_excused(&self) -> bool {
        self.clocks.now() < *self.excused.lock().expect("no panic")
    }

    /// Watches the requests of the replicas, in place of who watched them before.
    pub fn watch_requests(&self, api: &ApiServer) {
        let oracle = self.clone();
        api.on_request(Arc::new(move |passing| oracle.request(passing)));
    }

    /// No one knows who leads: the Lease was restored to an older state.
    pub fn forget_holder(&self) {
        self.owners.forget_deletions();
        self.restarts.forget();
        self.generations.forget();
        self.excuse(TimeDelta::minutes(10));
        *self.holder.lock().expect("no panic") = None;
    }

    /// A process ended by itself: it may only because it lost the Lease.
    pub fn note_end(&self, name: &str, error: &str) {
        self.ends.lock().expect("no panic").push(name.to_owned());
        if !error.contains("Lease") {
            self.violations.add(format!("{name} ended: {error}"));
        }
    }

    fn lease_written(&self, call: &Call, new: &Value, old: Option<&Value>) {
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let is_current = old.is_none_or(|old| version(old) == call.json().map_or(Value::Null, |sent| version(&sent)));
        let mut known = self.holder.lock().expect("no panic");
        // a second replica that creates the Lease is refused after this
        let is_late = call.verb == Verb::Create && known.is_some();
        if is_current
            && !is_late
            && let Some(holder) = new["spec"]["holderIdentity"].as_str()
        {
            *known = Some(holder.to_owned());
        }
    }

    /// Only the leader sends writes (contract of the leadership fence).
    pub fn request(&self, passing: Passing<'_>) -> Verdict {
        let writes = !matches!(passing.method, "GET") && !passing.path.contains("/leases");
        if passing.phase == Phase::Arrived && writes && passing.client.starts_with(REPLICA) {
            let holder = self.holder.lock().expect("no panic").clone();
            if holder.is_some_and(|holder| holder != passing.client) {
                self.violations.add(format!("{} wrote {} while another replica leads", passing.client, passing.path));
            }
        }
        Verdict::Continue
    }

    fn secret_written(&self, servers: &Servers, new: &Value, old: Option<&Value>) {
        let name = &new["metadata"]["name"];
        if old.is_some_and(|old| !old["data"][UNOWNED].is_null()) {
            self.violations.add(format!("Secret {name} is not the operator's, and was written"));
        }
        self.owners.objection(new, old).into_iter().for_each(|objection| self.violations.add(objection));
        let before = old.and_then(token_of_data);
        let Some(token) = token(new) else {
            // a change of metadata alone, as by deletionPolicy, loses nothing where others have removed the token
            let is_kept = before.is_none() && old.is_some_and(|old| old["data"] == new["data"]);
            if !is_kept {
                self.violations.add(format!("Secret {name} was written without a token"));
            }
            return;
        };
        if before.as_deref() == Some(&*token) {
            return;
        }
        let Some(issued) = servers.issued(&token) else {
            return self.violations.add(format!("Secret {name} holds a token that no one issued"));
        };
        if issued.is_bad {
            self.violations.add(format!("Secret {name} holds a token that had to be rejected"));
        }
        if self.clocks.ahead().abs() > SKEW {
            return;
        }
        let now = self.clocks.now();
        if issued.expires_at <= now - SKEW {
            self.violations.add(format!("Secret {name} was written with an expired token"));
        }
        let replaced = before.and_then(|before| servers.issued(&before)).filter(|old| old.expires_at > now);
        let request = |issued: &Issued| {
            (issued.server.clone(), issued.client.clone(), issued.secret.clone(), issued.scopes.clone())
        };
        let is_for_the_same = |old: &Issued| request(old) == request(&issued);
        // an opaque token has its expiry from the operator's clock
        let tolerance = TimeDelta::seconds(1) + self.clocks.ahead().abs();
        let is_later = |old: &Issued| old.counts_until > issued.counts_until + tolerance;
        if replaced.is_some_and(|old| is_for_the_same(&old) && is_later(&old)) {
            self.violations.add(format!("Secret {name} held a token that expires later"));
        }
    }

    /// What is true at every step.
    pub fn check(&self, servers: &Servers) {
        self.no_storm(servers);
        self.no_burst(servers);
        for request in servers.doubled() {
            self.violations.add(format!("two equal token requests were in flight at the same time: {request}"));
        }
    }

    /// No token and no client secret is anywhere but in the data of Secrets.
    fn no_leak(&self, servers: &Servers, target: &str, object: &Value) {
        let shown = if target == "secrets" { &object["metadata"] } else { object };
        if is_in(shown, &|text| text.contains("client-password-") || servers.is_token_in(text)) {
            self.violations.add(format!("a secret value was written into {target}"));
        }
    }

    /// A credential asks at most once a second, whatever others do to its Secret. A process that starts does not know when
    /// the one before asked, and a user may ask for one more.
    fn no_burst(&self, servers: &Servers) {
        let asked = servers.asked_within(TimeDelta::minutes(2));
        let recent: Vec<_> = asked.iter().rev().filter(|asked| !asked.client.starts_with(HOSTILE)).collect();
        for (place, last) in recent.iter().enumerate() {
            let is_equal = |asked: &Asked| (&asked.client, &asked.scopes) == (&last.client, &last.scopes);
            let within = recent[place..].iter().take_while(|asked| last.at - asked.at < TimeDelta::seconds(1));
            let count = within.filter(|asked| is_equal(asked)).count();
            if count > CREDENTIALS + 1 {
                self.violations.add(format!("{} asked for {count} tokens within a second at {}", last.client, last.at));
            }
        }
    }

    fn no_storm(&self, servers: &Servers) {
        let asked = servers.asked_within(TimeDelta::minutes(1));
        for namespace in NAMESPACES {
            for number in 0..crate::cluster::CLIENTS {
                let client = client_id(namespace, number);
                let count = asked.iter().filter(|asked| asked.client == client).count();
                if count > ASKED_IN_A_MINUTE {
                    self.violations.add(format!("{client} asked for {count} tokens within a minute"));
                }
            }
        }
    }
}

/// Whether a write names another version of the object than the one that is stored.
fn is_stale(new: &Value, old: &Value) -> bool {
    let [named, stored] = [new, old].map(|object| &object["metadata"]["resourceVersion"]);
    !named.is_null() && named != stored
}

/// Whether a value contains such a text, as a name or as a value.
fn is_in(value: &Value, is_wanted: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => is_wanted(text),
        Value::Array(items) => items.iter().any(|item| is_in(item, is_wanted)),
        Value::Object(fields) => fields.iter().any(|(name, field)| is_wanted(name) || is_in(field, is_wanted)),
        _ => false,
    }
}

/// The token in the data of a stored Secret.
pub fn token_of_data(secret: &Value) -> Option<String> {
    let decoded = STANDARD.decode(secret["data"]["access_token"].as_str()?).ok()?;
    String::from_utf8(decoded).ok().filter(|token| !token.is_empty())
}

/// The token of a Secret as it is being written.
fn token(secret: &Value) -> Option<String> {
    let text = secret["stringData"]["access_token"].as_str().map(str::to_owned);
    text.or_else(|| token_of_data(secret))
}
