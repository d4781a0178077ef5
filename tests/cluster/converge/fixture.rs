//! The fixture: a namespace with a proxy, and an operator behind it.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use itwin_api::{authority::ITwinAuthority, credential::ITwinServiceCredential};
use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};
use testbed::{api_proxy::ApiProxy, namespace::Namespace, operator::Operator};

use crate::converge::{cell::Cell, follower::Follower};

/// How long the operator must be idle once it is done.
const QUIET: Duration = Duration::from_secs(2);

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_itwin-credential-operator");

pub struct Fixture {
    pub namespace: Namespace,
    pub proxy: ApiProxy,
    pub follower: Follower,
}

impl Fixture {
    pub async fn new(prefix: &str) -> Result<Self> {
        let namespace = Namespace::new(prefix).await?;
        let proxy = ApiProxy::start(&namespace.testbed, &namespace.name)?;
        let keys = namespace.testbed.faults.keys().await?;
        let follower = Follower::start(Api::namespaced(namespace.client.clone(), &namespace.name), &keys)?;
        Ok(Self { namespace, proxy, follower })
    }

    /// Starts an operator behind the proxy, without waiting for its readiness.
    pub fn spawn(&self) -> Result<Operator> {
        self.spawn_behind(&self.proxy)
    }

    /// The same behind another proxy.
    pub fn spawn_behind(&self, proxy: &ApiProxy) -> Result<Operator> {
        let Namespace { testbed, name, .. } = &self.namespace;
        Operator::spawn(testbed, Path::new(PROGRAM), name, &[], &proxy.variables())
    }

    pub async fn start(&self) -> Result<Operator> {
        let mut operator = self.spawn()?;
        operator.wait_ready().await?;
        Ok(operator)
    }

    /// Fails if anything is written, or a token requested, within some seconds without an event.
    pub async fn assert_quiet(&self, cells: &[&Cell]) -> Result<()> {
        let requests = async || -> Result<usize> {
            let mut sum = 0;
            for cell in cells {
                sum += self.token_requests(cell).await?;
            }
            Ok(sum)
        };
        let before = (writes(&self.proxy), requests().await?);
        tokio::time::sleep(QUIET).await;
        let after = (writes(&self.proxy), requests().await?);
        ensure!(after == before, "writes and token requests went from {before:?} to {after:?}");
        Ok(())
    }

    pub fn credentials(&self) -> Api<ITwinServiceCredential> {
        Api::namespaced(self.namespace.client.clone(), &self.namespace.name)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.namespace.client.clone(), &self.namespace.name)
    }

    pub fn authorities(&self) -> Api<ITwinAuthority> {
        Api::all(self.namespace.client.clone())
    }

    /// Creates an authority, a client Secret and a credential.
    pub async fn create(&self, cell: &Cell) -> Result<()> {
        let faults = &self.namespace.testbed.faults;
        let mut authority = json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinAuthority",
            "metadata": {"name": cell.authority_name(self), "labels": {"test": self.namespace.name}},
            "spec": {"issuer": faults.issuer, "caBundle": faults.ca_bundle()},
        });
        if cell.restricts_namespaces {
            // the API server sets this label on every namespace
            let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": self.namespace.name}});
            authority["spec"]["allowedNamespaces"] = selector;
        }
        let client = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": cell.client_secret_name()},
            "stringData": {"client_id": cell.client_id(self), "client_secret": format!("secret-of-{}", cell.client_id(self))},
        });
        let credential = json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinServiceCredential",
            "metadata": {"name": cell.name},
            "spec": {
                "authorityRef": {"name": cell.authority_name(self)},
                "clientCredentialsRef": {"name": cell.client_secret_name()},
            },
        });
        let params = PostParams::default();
        let parsed = |value: Value| serde_json::from_value(value);
        self.authorities().create(&params, &parsed(authority)?).await.context("authority")?;
        self.secrets().create(&params, &serde_json::from_value(client)?).await.context("client Secret")?;
        self.credentials().create(&params, &serde_json::from_value(credential)?).await.context("credential")?;
        Ok(())
    }

    /// Reasons of the events about a cell's credential.
    pub async fn events(&self, cell: &Cell) -> Result<BTreeSet<String>> {
        let api: Api<Event> = Api::namespaced(self.namespace.client.clone(), &self.namespace.name);
        let events = api.list(&ListParams::default()).await?;
        let about = |event: &Event| event.regarding.as_ref().and_then(|it| it.name.as_ref()) == Some(&cell.name);
        Ok(events.items.into_iter().filter(about).filter_map(|event| event.reason).collect())
    }

    /// How many token requests of a cell's client the authority received.
    pub async fn token_requests(&self, cell: &Cell) -> Result<usize> {
        Ok(self.namespace.testbed.faults.requests(&cell.client_id(self)).await?.len())
    }
}

/// How many calls that change something a proxy received.
pub fn writes(proxy: &ApiProxy) -> usize {
    proxy.records().iter().filter(|record| record.call.writes()).count()
}
