//! The fixture: an environment, and a follower of its Secrets. The tests start the operators.

use std::{collections::BTreeSet, ops::Deref, time::Duration};

use anyhow::{Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};
use serde_json::json;
use testbed::{api_proxy::ApiProxy, objects, operator::Operator};

use crate::{
    converge::{cell::Cell, follower::Follower},
    environment::TestEnvironment,
};

/// How long the operator must be idle once it is done.
const QUIET: Duration = Duration::from_secs(2);

pub struct Fixture {
    environment: TestEnvironment,
    pub follower: Follower,
}

impl Deref for Fixture {
    type Target = TestEnvironment;

    fn deref(&self) -> &TestEnvironment {
        &self.environment
    }
}

impl Fixture {
    pub async fn new(prefix: &str) -> Result<Self> {
        let environment = TestEnvironment::new(prefix).await?;
        let follower = Follower::start(environment.secrets(), &environment.faults().keys().await?)?;
        Ok(Self { environment, follower })
    }

    /// Starts an operator without waiting for its readiness.
    pub fn spawn(&self) -> Result<Operator> {
        self.spawn_operator(&[])
    }

    pub async fn start(&self) -> Result<Operator> {
        self.start_operator(&[]).await
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
        let before = (writes(self.proxy()), requests().await?);
        tokio::time::sleep(QUIET).await;
        let after = (writes(self.proxy()), requests().await?);
        ensure!(after == before, "writes and token requests went from {before:?} to {after:?}");
        Ok(())
    }

    /// Creates an authority, a client Secret and a credential.
    pub async fn create(&self, cell: &Cell) -> Result<()> {
        // the API server sets this label on every namespace
        let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": self.namespace.name}});
        let restricted = json!({"allowedNamespaces": selector});
        let spec = if cell.restricts_namespaces { restricted } else { json!({}) };
        let authority = self.create_authority(&cell.name, &spec).await?;
        self.create_client_secret(&cell.name).await?;
        let credential = objects::credential(&cell.name, &authority, &cell.client_secret_name(), &json!({}));
        self.namespace.create(credential).await
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
        self.faulty_requests(&cell.name).await
    }
}

/// How many calls that change something a proxy received.
pub fn writes(proxy: &ApiProxy) -> usize {
    proxy.records().iter().filter(|record| record.call.writes()).count()
}
