//! An application team: a namespace with credentials, and pods that use them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::{
    Testbed,
    authority::{Client, TokenRequest},
    eventually,
    namespace::{Namespace, data},
};

use crate::{PATIENCE, installation::restrict, reader::Reader};

/// Lifetime of the tokens that are observed, in seconds: short, and long enough for the kubelet to bring a renewed one
/// into the pod's file although no operator runs for a while.
pub const SHORT_LIFETIME: u32 = 70;
/// They are renewed at most this long before they expire, in seconds: half of the lifetime, a twentieth for the
/// jitter, and one second, because the times of a token are whole seconds.
const RENEWED_BEFORE: i64 = 35 + 4 + 1;
/// The contract: a deleted Secret is restored within this.
const RESTORED: Duration = Duration::from_secs(5);

pub struct Team {
    namespace: Namespace,
}

impl Team {
    pub async fn new(testbed: &Testbed) -> Result<Self> {
        let namespace = Namespace::on(testbed.clone(), "team").await?;
        restrict(testbed, &namespace.name).await?;
        testbed.kubectl(&["label", "namespace", &namespace.name, "itwin=allowed"]).await?;
        Ok(Self { namespace })
    }

    /// A pod that mounts this Secret.
    pub async fn start_reader(&self, name: &str, secret: &str) -> Result<Reader<'_>> {
        Reader::start(&self.namespace, name, secret).await
    }

    fn client_id(&self, credential: &str) -> String {
        format!("service-{}-{credential}", self.namespace.name)
    }

    /// Creates a credential with its own client. It names no authority, so it uses the default one. Waits until it is
    /// Ready.
    pub async fn credential(&self, name: &str, lifetime: u32, renew_before: &str) -> Result<()> {
        let client = Client { lifetime, ..Client::new(&self.client_id(name)) };
        self.namespace.testbed.authority.register(&client).await?;
        self.namespace.apply(&self.namespace.client_secret(name, &client)).await?;
        let spec = json!({"authorityRef": null, "renewBefore": renew_before, "minimumValidity": "5s"});
        self.namespace.apply(&self.namespace.credential(name, &spec)).await?;
        let wait = ["wait", "--for=condition=Ready", &format!("itcred/{name}"), "--timeout=60s"];
        if let Err(error) = self.namespace.kubectl(&wait).await {
            let reported = self.namespace.kubectl(&["get", "itcred,itauth", "-o", "yaml"]).await?;
            return Err(error.context(reported));
        }
        Ok(())
    }

    async fn requests(&self, credential: &str) -> Result<Vec<TokenRequest>> {
        self.namespace.testbed.authority.requests(&self.client_id(credential)).await
    }

    /// Checks that tokens for these credentials were requested as often as there was a reason to.
    pub async fn issued(&self, expected: &[(&str, usize)]) -> Result<()> {
        for (credential, times) in expected {
            assert_eq!(self.requests(credential).await?.len(), *times, "tokens requested for {credential}");
        }
        Ok(())
    }

    /// Checks that no token was requested before it was due, by any replica of any version.
    pub async fn issued_only_when_due(&self, credential: &str) -> Result<()> {
        let requests = self.requests(credential).await?;
        let at: Vec<i64> = requests.iter().map(|request| request.at).collect();
        let earliest = (i64::from(SHORT_LIFETIME) - RENEWED_BEFORE) * 1000;
        for pair in at.windows(2) {
            assert!(pair[1] - pair[0] >= earliest, "requested again after {} ms: {at:?}", pair[1] - pair[0]);
        }
        assert!(requests.iter().all(|request| request.status == 200), "{requests:?}");
        assert!(at.len() > 2, "there were renewals");
        Ok(())
    }

    /// Waits for the next token of this credential.
    pub async fn renewed(&self, credential: &str) -> Result<()> {
        let before = self.requests(credential).await?.len();
        let limit = Duration::from_secs(u64::from(SHORT_LIFETIME));
        eventually("a renewal", limit, async || (self.requests(credential).await.ok()?.len() > before).then_some(()))
            .await
    }

    async fn secret(&self, name: &str) -> Result<Value> {
        self.namespace.get("secret", name).await?.context("there is no such Secret")
    }

    /// The token of each credential, from its Secret.
    pub async fn tokens(&self) -> Result<BTreeMap<String, String>> {
        let mut tokens = BTreeMap::new();
        let names = self.namespace.kubectl(&["get", "itcred", "-o", "jsonpath={.items[*].metadata.name}"]).await?;
        for name in names.split_whitespace() {
            let token = data(&self.secret(name).await?)?.remove("access_token").context("no access_token")?;
            tokens.insert(name.to_owned(), token);
        }
        Ok(tokens)
    }

    /// Deletes the Secret of a credential twice; each time it is restored soon, with a new token, because the operator
    /// keeps none.
    pub async fn restore_twice(&self, credential: &str) -> Result<()> {
        for _ in 0..2 {
            let before = self.secret(credential).await?;
            self.namespace.kubectl(&["delete", "secret", credential]).await?;
            let deleted = Instant::now();
            let restored = eventually("a restored Secret", PATIENCE, async || {
                let secret = self.secret(credential).await.ok()?;
                (secret["metadata"]["uid"] != before["metadata"]["uid"]).then_some(secret)
            });
            restored.await?;
            let took = deleted.elapsed();
            assert!(took < RESTORED, "restored after {took:?}");
        }
        // the second event of the same kind makes a series of the first one
        eventually("both events", PATIENCE, async || {
            let events = self.namespace.kubectl(&["get", "events.events.k8s.io", "-o", "json"]).await.ok()?;
            let events: Value = serde_json::from_str(&events).ok()?;
            let is_series =
                |event: &&Value| event["reason"] == "Restored" && event["series"]["count"].as_u64() > Some(1);
            events["items"].as_array()?.iter().find(is_series).map(drop)
        })
        .await
    }
}
