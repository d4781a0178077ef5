//! A hostile tenant: what one may do who may write credentials and Secrets in one namespace, and nothing else (contract
//! section 8). It acts next to the honest tenants, whose tokens must be renewed as if it were not there.

use std::time::Duration;

use serde_json::{Value, json};
use simulated_api::ApiServer;
use tokio::time::sleep;

use crate::{
    authority::Servers,
    cluster::{HOSTILE, NAMESPACES, client_id, client_secret_name},
    oracle::Oracle,
};

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hostility {
    /// Objects of the largest size.
    LargeObjects,
    /// A renewal on request in a loop.
    RenewLoop,
    /// Another spec in a loop.
    SpecLoop,
    /// Several credentials that name one Secret, and one that names a client Secret.
    Contend,
    /// Copies of the Secrets of others, with credentials of the same names.
    CopySecrets,
}

impl Hostility {
    pub const ALL: [Self; 5] = [Self::LargeObjects, Self::RenewLoop, Self::SpecLoop, Self::Contend, Self::CopySecrets];
}

/// Rounds of a loop, and how long each takes.
const ROUNDS: usize = 100;
const ROUND: Duration = Duration::from_millis(300);
/// Renewals on request come at most this often.
const RENEWED_EVERY: u64 = 10;
/// The size of what is only limited by the API server, in bytes.
const LARGE: usize = 100_000;
const CREDENTIALS: &str = "itwinservicecredentials";

/// A tenant at work in one cluster.
#[derive(Clone)]
pub struct Tenant {
    pub api: ApiServer,
    pub servers: Servers,
    pub oracle: Oracle,
}

impl Tenant {
    /// Does it, until it is done.
    pub async fn act(self, hostility: Hostility) {
        match hostility {
            Hostility::LargeObjects => self.create_large(),
            Hostility::Contend => self.contend(),
            Hostility::CopySecrets => self.copy_secrets(),
            Hostility::RenewLoop => self.renew_in_a_loop().await,
            Hostility::SpecLoop => {
                self.create("spec", json!({}));
                for round in 0..ROUNDS {
                    self.patch("spec", &json!({"spec": {"scopes": [format!("scope-{round}")]}}));
                    sleep(ROUND).await;
                }
            }
        }
    }

    fn create(&self, name: &str, spec: Value) {
        let mut object = json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinServiceCredential",
            "metadata": {"name": name, "namespace": HOSTILE},
            "spec": {"authorityRef": {"name": "signed"}, "clientCredentialsRef": {"name": client_secret_name(0)}},
        });
        for (field, value) in spec.as_object().into_iter().flatten() {
            object["spec"][field] = value.clone();
        }
        self.submit(&object);
    }

    fn submit(&self, object: &Value) {
        if let Ok(created) = self.api.as_user("mallory").create(object) {
            self.oracle.owners.created(&created);
        }
    }

    fn patch(&self, name: &str, patch: &Value) {
        drop(self.api.as_user("mallory").patch(CREDENTIALS, HOSTILE, name, patch));
    }

    fn create_large(&self) {
        let data: serde_json::Map<String, Value> =
            (0..16).map(|number| (format!("key-{number}"), json!("x".repeat(1000)))).collect();
        for number in 0..4 {
            let name = format!("large-{number}");
            self.create(&name, json!({"secretTemplate": {"data": data}}));
            let annotations =
                json!({"example.com/large": "x".repeat(LARGE), "credentials.itwin.dev/renew": "y".repeat(LARGE)});
            self.patch(&name, &json!({"metadata": {"annotations": annotations}}));
        }
    }

    fn contend(&self) {
        (0..4).for_each(|number| self.create(&format!("rival-{number}"), json!({"secretName": "contended"})));
        self.create("thief", json!({"secretName": client_secret_name(1)}));
    }

    fn copy_secrets(&self) {
        let reader = self.api.as_user("mallory");
        for secret in reader.list("secrets", NAMESPACES[0]) {
            let metadata = &secret["metadata"];
            let name = metadata["name"].as_str().unwrap_or_default();
            if crate::oracle::token_of_data(&secret).is_none() {
                continue;
            }
            drop(reader.create(&json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "name": name,
                    "namespace": HOSTILE,
                    "labels": metadata["labels"],
                    "annotations": metadata["annotations"],
                },
                "data": secret["data"],
            })));
            self.create(name, json!({}));
        }
    }

    async fn renew_in_a_loop(&self) {
        self.create("loop", json!({"scopes": ["loop"], "clientCredentialsRef": {"name": client_secret_name(1)}}));
        let before = self.asked();
        for round in 0..ROUNDS {
            self.patch(
                "loop",
                &json!({"metadata": {"annotations": {"credentials.itwin.dev/renew": round.to_string()}}}),
            );
            sleep(ROUND).await;
        }
        let (asked, seconds) = (self.asked() - before, ROUND.as_secs_f64() * ROUNDS as f64);
        let limit = 2 + seconds as usize / RENEWED_EVERY as usize;
        if self.oracle.is_calm && asked > limit {
            self.oracle
                .violations
                .add(format!("renewals on request in a loop cost {asked} token requests in {seconds} s"));
        }
    }

    fn asked(&self) -> usize {
        let client = client_id(HOSTILE, 1);
        self.servers.asked().iter().filter(|asked| asked.client == client && asked.scopes == "loop").count()
    }
}
