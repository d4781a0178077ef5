//! What must hold in every scenario, whatever happens: looked for at every write, at every step, and at the end.

use std::sync::{Arc, Mutex};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::TimeDelta;
use serde_json::Value;
use simulated_api::{
    ApiServer,
    faults::Match,
    request::{Call, Verb},
    state::{Passing, Phase, Verdict},
};

use crate::{
    authority::Servers,
    clock::Clocks,
    cluster::{NAMESPACES, Violations, client_id},
};

/// A key of Secrets that are not the operator's.
pub const UNOWNED: &str = "unowned-password";
/// The names of the clients of replicas begin with this.
const REPLICA: &str = "replica-";
/// More token requests than these of one client within a minute are a storm: the backoff asks at most once a second at
/// first, and doubles.
const ASKED_IN_A_MINUTE: usize = 30;
/// A clock that is wrong by more makes good tokens look expired, and expired ones good: what is in them cannot be judged.
const SKEW: TimeDelta = TimeDelta::seconds(30);

/// Watches over one cluster.
#[derive(Clone)]
pub struct Oracle {
    pub violations: Violations,
    clocks: Clocks,
    holder: Arc<Mutex<Option<String>>>,
    ends: Arc<Mutex<Vec<String>>>,
}

impl Oracle {
    /// Watches every write and request of the replicas.
    pub fn new(api: &ApiServer, servers: &Servers, clocks: &Clocks) -> Self {
        let oracle = Self {
            violations: Violations::default(),
            clocks: clocks.clone(),
            holder: Arc::default(),
            ends: Arc::default(),
        };
        let (of_secrets, issuers) = (oracle.clone(), servers.clone());
        let secrets = move |call: &Call, new: &mut Value, old: Option<&Value>| {
            if call.client.starts_with(REPLICA) {
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
        oracle.watch_requests(api);
        oracle
    }

    /// Watches the requests of the replicas, in place of who watched them before.
    pub fn watch_requests(&self, api: &ApiServer) {
        let oracle = self.clone();
        api.on_request(Arc::new(move |passing| oracle.request(passing)));
    }

    /// No one knows who leads: the Lease was restored to an older state.
    pub fn forget_holder(&self) {
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
        let Some(token) = token(new) else {
            return self.violations.add(format!("Secret {name} was written without a token"));
        };
        let before = old.and_then(token_of_data);
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
        let is_for_the_same = |old: &crate::authority::Issued| {
            (&old.client, &old.secret, &old.scopes) == (&issued.client, &issued.secret, &issued.scopes)
        };
        if replaced
            .is_some_and(|old| is_for_the_same(&old) && old.expires_at > issued.expires_at + TimeDelta::seconds(1))
        {
            self.violations.add(format!("Secret {name} held a token that expires later"));
        }
    }

    /// What is true at every step.
    pub fn check(&self, servers: &Servers) {
        self.no_storm(servers);
    }

    /// No token and no client secret is anywhere but in the data of Secrets.
    fn no_leak(&self, servers: &Servers, target: &str, object: &Value) {
        let text = if target == "secrets" { object["metadata"].to_string() } else { object.to_string() };
        if text.contains("client-password-") || servers.any_token(|token| text.contains(token)) {
            self.violations.add(format!("a secret value was written into {target}"));
        }
    }

    fn no_storm(&self, servers: &Servers) {
        let asked = servers.asked();
        let now = self.clocks.now();
        for namespace in NAMESPACES {
            for number in 0..crate::cluster::CLIENTS {
                let client = client_id(namespace, number);
                let recent = asked.iter().rev().take_while(|asked| now - asked.at < TimeDelta::minutes(1));
                let count = recent.filter(|asked| asked.client == client).count();
                if count > ASKED_IN_A_MINUTE {
                    self.violations.add(format!("{client} asked for {count} tokens within a minute"));
                }
            }
        }
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
