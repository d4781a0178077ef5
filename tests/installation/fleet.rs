//! The credentials of an upgrade: in several namespaces, many with tokens that are renewed throughout, and others with
//! tokens of an hour. Each has a client of its own, so that its token requests can be counted.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testbed::{
    Testbed,
    authority::{Client, TokenRequest},
    eventually,
    namespace::Namespace,
    objects,
};

use crate::{PATIENCE, observer::Observer};

/// The authority of all of them, which the chart creates.
pub const AUTHORITY: &str = "upgraded-ims";
/// The credential that is edited under the new version. Its token lives for an hour.
const EDITED: &str = "long-0";
/// The start of the names of credentials whose tokens are renewed throughout.
const SHORT: &str = "short";
const NAMESPACES: usize = 4;
/// In each namespace: 60 credentials together, with a renewal each second and a half.
const SHORT_LIVED: usize = 10;
const LONG_LIVED: usize = 5;
/// Lifetime of the short-lived tokens, in seconds: on a busy machine half of it is left for their renewal.
const LIFETIME: u32 = 60;
/// They are renewed at most this long before they expire, in seconds: half of the lifetime, a twentieth for the jitter,
/// and one second, because the times of a token are whole seconds.
const RENEWED_BEFORE: i64 = 30 + 3 + 1;
const LONG_LIFETIME: u32 = 3600;

/// The credentials by namespace.
pub struct Fleet {
    testbed: Testbed,
    namespaces: Vec<Namespace>,
    /// The client of each credential, by `namespace/name` of its Secret.
    clients: BTreeMap<String, String>,
}

impl Fleet {
    /// Creates the credentials, and waits until each Secret is there.
    pub async fn new(testbed: &Testbed, observer: &Observer) -> Result<Self> {
        let mut fleet = Self { testbed: testbed.clone(), namespaces: Vec::new(), clients: BTreeMap::new() };
        for _ in 0..NAMESPACES {
            fleet.namespaces.push(Namespace::on(testbed.clone(), "upgraded").await?);
        }
        for number in 0..NAMESPACES {
            for short in 0..SHORT_LIVED {
                fleet.add(number, &format!("{SHORT}-{short}"), LIFETIME).await?;
            }
            for long in 0..LONG_LIVED {
                fleet.add(number, &format!("long-{long}"), LONG_LIFETIME).await?;
            }
        }
        fleet.wait_filled(observer).await?;
        Ok(fleet)
    }

    /// Creates a credential whose token is renewed throughout, as users do while another version runs.
    pub async fn add_later(&mut self, observer: &Observer) -> Result<()> {
        self.add(0, &format!("{SHORT}-made-later"), LIFETIME).await?;
        self.wait_filled(observer).await
    }

    async fn add(&mut self, number: usize, name: &str, lifetime: u32) -> Result<()> {
        let namespace = &self.namespaces[number];
        let client = Client { lifetime, ..Client::new(&namespace.unique(name)) };
        self.testbed.authority.register(&client).await?;
        let spec = if lifetime == LIFETIME {
            json!({"renewBefore": format!("{}s", LIFETIME / 2), "minimumValidity": "5s"})
        } else {
            json!({})
        };
        namespace.create(namespace.client_secret(name, &client)).await?;
        namespace.create(objects::credential(name, AUTHORITY, &format!("{name}-client"), &spec)).await?;
        self.clients.insert(format!("{}/{name}", namespace.name), client.client_id);
        Ok(())
    }

    /// Waits until each Secret is there.
    async fn wait_filled(&self, observer: &Observer) -> Result<()> {
        eventually("a token for each credential", PATIENCE, async || {
            (observer.tokens().len() == self.clients.len()).then_some(())
        })
        .await
    }

    fn short_lived(&self) -> impl Iterator<Item = &String> {
        self.clients.keys().filter(|key| is_short_lived(key))
    }

    /// Waits until each short-lived token has been replaced.
    pub async fn wait_renewed(&self, observer: &Observer) -> Result<()> {
        let before = observer.tokens();
        eventually("a renewal of each token", Duration::from_secs(u64::from(LIFETIME)), async || {
            let now = observer.tokens();
            self.short_lived().all(|key| now.get(key) != before.get(key)).then_some(())
        })
        .await
    }

    /// Waits until every credential is Ready for its current spec.
    pub async fn wait_ready(&self) -> Result<()> {
        for namespace in &self.namespaces {
            let wait = ["wait", "--for=condition=Ready", "itcred", "--all", "--timeout=60s"];
            namespace.kubectl(&wait).await?;
        }
        Ok(())
    }

    /// Fails if any token was requested before it was due: a second one of an hour, or a short-lived one too early.
    pub async fn requested_what_was_due(&self) -> Result<()> {
        for (key, client) in &self.clients {
            let requests = self.testbed.authority.requests(client).await?;
            check(&requests, is_short_lived(key)).with_context(|| format!("{key}: {requests:?}"))?;
        }
        Ok(())
    }

    /// Edits a credential without changing its token: its Secret gets a label.
    pub async fn edit(&self) -> Result<()> {
        let patch = json!({"spec": {"secretTemplate": {"labels": {"edited": "yes"}}}}).to_string();
        self.namespaces[0].kubectl(&["patch", "itcred", EDITED, "--type=merge", "-p", &patch]).await?;
        eventually("the label on the Secret", PATIENCE, async || self.is_edited().await.ok().filter(|edited| *edited))
            .await
            .map(drop)
    }

    /// Whether the credential and its Secret are as edited.
    pub async fn is_edited(&self) -> Result<bool> {
        let namespace = &self.namespaces[0];
        let credential = namespace.get("itcred", EDITED).await?.unwrap_or_default();
        let secret = namespace.get("secret", EDITED).await?.unwrap_or_default();
        let labels = [&credential["spec"]["secretTemplate"]["labels"], &secret["metadata"]["labels"]];
        Ok(labels.iter().all(|labels| labels["edited"] == "yes"))
    }
}

fn is_short_lived(key: &str) -> bool {
    key.split('/').nth(1).is_some_and(|name| name.starts_with(SHORT))
}

fn check(requests: &[TokenRequest], is_short_lived: bool) -> Result<()> {
    ensure!(requests.iter().all(|request| request.status == 200), "a request failed");
    if !is_short_lived {
        ensure!(requests.len() == 1, "{} requests for a token of an hour", requests.len());
        return Ok(());
    }
    let earliest = (i64::from(LIFETIME) - RENEWED_BEFORE) * 1000;
    for pair in requests.windows(2) {
        let passed = pair[1].at - pair[0].at;
        ensure!(passed >= earliest, "requested again after {passed} ms");
    }
    Ok(())
}
