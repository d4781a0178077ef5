//! What must be true of the credentials: by the time, and once nothing goes wrong any more.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::TimeDelta;
use itwin_api::secret_keys::OWNER_UID;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, NAMESPACES},
    oracle::{self, MINIMUM_VALIDITY, SKEW},
    play::{CREDENTIALS, Player, RECOVERED, condition, label, text},
};

/// Token requests of one credential in that time: one renewal, or an attempt in at least 2.5 minutes where the client is
/// wrong.
const ASKED_IN_QUIET: usize = 4;

/// `Ready` is False so soon after the token has less than the minimum validity left, whatever fails.
const EXPIRY_SHOWN: TimeDelta = TimeDelta::seconds(60);

impl Player {
    /// The credentials of the tenants that are not hostile.
    pub fn honest(&self) -> Vec<Value> {
        let reader = self.cluster.api.as_user("oracle");
        NAMESPACES.iter().flat_map(|namespace| reader.list(CREDENTIALS, namespace)).collect()
    }

    /// Time passes for `Ready`, whatever fails: not longer than the token is valid does it say so.
    pub fn check_expiry(&self) {
        let Cluster { api, servers, clocks, oracle, .. } = &self.cluster;
        // a fault that is planned may come at any time
        if api.with(|state| state.plan.is_pending()) || clocks.ahead().abs() > SKEW {
            oracle.excuse(RECOVERED);
        }
        if oracle.is_excused() {
            return;
        }
        for credential in &self.honest() {
            let (namespace, name) = (text(&credential["metadata"]["namespace"]), text(&credential["metadata"]["name"]));
            let secret = api.as_user("oracle").get("secrets", namespace, name);
            let issued = secret.and_then(|secret| servers.issued(&oracle::token_of_data(&secret)?));
            let good_until = issued.map(|issued| issued.expires_at - MINIMUM_VALIDITY);
            let is_over = good_until.is_some_and(|good_until| good_until + EXPIRY_SHOWN < clocks.now());
            if is_over && condition(credential, "Ready") == "True" {
                let violation =
                    format!("{namespace}/{name} says Ready with a token that was good until {good_until:?}");
                oracle.violations.add(violation);
            }
        }
    }

    /// What must be true once nothing goes wrong any more.
    pub fn assess(&self, asked: usize) {
        let Cluster { api, oracle, replicas, .. } = &self.cluster;
        let reader = api.as_user("oracle");
        let credentials = reader.list(CREDENTIALS, "");
        for credential in honest(&credentials) {
            let name = label(credential);
            for problem in self.problems(credential) {
                oracle.violations.add(format!("{name}: {problem} at the end: {}", credential["status"]));
            }
        }
        if asked > ASKED_IN_QUIET * credentials.len() {
            oracle.violations.add(format!("{asked} token requests while nothing happened"));
        }
        for replica in replicas {
            for series in replica.series_of_none(&credentials) {
                oracle.violations.add(format!("{}: metrics of a credential that is gone: {series}", replica.name));
            }
            if let Some(stalled) = replica.liveness.stalled() {
                oracle.violations.add(format!("{}: {stalled}", replica.name));
            }
        }
        for secret in reader.list("secrets", "") {
            if oracle::token_of_data(&secret).is_none() || !is_honest(&secret) {
                continue;
            }
            let is_owned = credentials.iter().any(|credential| label(credential) == label(&secret));
            let is_retained = secret["metadata"]["ownerReferences"].is_null();
            if !is_owned && !is_retained {
                oracle.violations.add(format!("Secret {} outlives its credential", label(&secret)));
            }
        }
    }

    pub fn problems(&self, credential: &Value) -> Vec<String> {
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
        problems.extend(secret.as_ref().and_then(|secret| not_as_the_deletion_policy_says(secret, credential)));
        // a status says so before its client Secret is read: while the credential waits for its turn
        let client = reader.get("secrets", namespace, text(&spec["clientCredentialsRef"]["name"]));
        if client.is_none() && spec["suspend"] != true && condition(credential, "Renewed") == "True" {
            problems.push("Renewed without a client Secret".to_owned());
        }
        if !self.is_possible(credential) {
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

    /// Whether nothing keeps the operator from getting a token for the credential.
    pub fn is_possible(&self, credential: &Value) -> bool {
        let reader = self.cluster.api.as_user("oracle");
        let (namespace, spec) = (text(&credential["metadata"]["namespace"]), &credential["spec"]);
        let secret = reader.get("secrets", namespace, text(&credential["metadata"]["name"]));
        spec["suspend"] != true
            && reader.get("itwinauthorities", "", text(&spec["authorityRef"]["name"])).is_some()
            && self.client_works(namespace, spec)
            && secret.is_none_or(|secret| is_provably_owned(&secret, credential))
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
    pub fn state(&self) -> BTreeMap<String, String> {
        let reader = self.cluster.api.as_user("oracle");
        let credentials = reader.list(CREDENTIALS, "");
        let mut state = BTreeMap::new();
        for credential in honest(&credentials) {
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
            let (ready, renewed) = (condition(credential, "Ready"), condition(credential, "Renewed"));
            // without a good token it depends on what came first which attempt was the last, and what it found
            let rest = if ready == "True" { format!("Renewed {renewed}, keys {keys:?}") } else { String::new() };
            let line = format!("Ready {ready}, {rest}");
            state.insert(label(credential), line);
        }
        state
    }
}

/// Those of the tenants that are not hostile.
fn honest(credentials: &[Value]) -> impl Iterator<Item = &Value> {
    credentials.iter().filter(|credential| is_honest(credential))
}

fn is_honest(object: &Value) -> bool {
    NAMESPACES.contains(&text(&object["metadata"]["namespace"]))
}

/// A retained Secret has no owner that garbage collection would delete it with, also while its credential is suspended or
/// gets no token; any other one has.
fn not_as_the_deletion_policy_says(secret: &Value, credential: &Value) -> Option<String> {
    let uid = &credential["metadata"]["uid"];
    let mut owners = secret["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let is_deleted_with_it = owners.any(|owner| &owner["uid"] == uid);
    let is_ours = &secret["metadata"]["annotations"][OWNER_UID] == uid;
    let is_retained = credential["spec"]["deletionPolicy"] == "Retain";
    (is_ours && is_deleted_with_it == is_retained)
        .then(|| format!("deletionPolicy {} is not that of the Secret", credential["spec"]["deletionPolicy"]))
}

/// Whether the Secret shows by itself that this credential owns it.
fn is_provably_owned(secret: &Value, credential: &Value) -> bool {
    let (metadata, uid) = (&secret["metadata"], &credential["metadata"]["uid"]);
    let mut owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    owners.any(|owner| &owner["uid"] == uid) || &metadata["annotations"][OWNER_UID] == uid
}
