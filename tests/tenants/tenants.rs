//! The fixture: two namespaces, and one operator for both. Its authorization server is the faulty one.

use std::ops::Deref;

use anyhow::Result;
use serde_json::json;
use testbed::{namespace::Namespace, objects, operator::Operator};

use crate::{environment::TestEnvironment, fixture};

/// Objects that are created at the same time.
const AT_ONCE: usize = 16;

/// The fixture of the quiet namespace, and the noisy namespace.
pub struct Fixture {
    quiet: fixture::Fixture,
    pub noisy: Namespace,
}

impl Deref for Fixture {
    type Target = fixture::Fixture;

    fn deref(&self) -> &fixture::Fixture {
        &self.quiet
    }
}

impl Fixture {
    /// Creates two namespaces whose names begin with `prefix`, and an operator that watches both.
    pub async fn new(prefix: &str) -> Result<Self> {
        let noisy = Namespace::new(&format!("{prefix}-noisy")).await?;
        let environment = TestEnvironment::without_proxy(Namespace::new(&format!("{prefix}-quiet")).await?)?;
        let operator = start(&environment, &noisy).await?;
        Ok(Self {
            quiet: fixture::Fixture { operator, client: environment.namespace.new_client(), environment },
            noisy,
        })
    }

    /// Replaces the operator by another one.
    pub async fn restart(&mut self) -> Result<()> {
        self.quiet.stop();
        self.quiet.operator = start(&self.quiet.environment, &self.noisy).await?;
        Ok(())
    }
}

/// Starts an operator that watches both namespaces.
async fn start(environment: &TestEnvironment, noisy: &Namespace) -> Result<Operator> {
    let namespaces = format!("{},{}", noisy.name, environment.namespace.name);
    let mut operator = environment.spawn_operator_of(&namespaces, &[], &[])?;
    operator.wait_ready().await?;
    Ok(operator)
}

/// Creates the client Secret of a client that behaves like this, and credentials `<client>-0` to `<client>-<count>`.
/// Each has its own scopes, so that no request equals another one.
pub async fn credentials(
    namespace: &Namespace,
    authority: &str,
    client: &str,
    behaviour: &serde_json::Value,
    count: usize,
) -> Result<()> {
    namespace.testbed.faults.behave(&namespace.unique(client), behaviour).await?;
    namespace.create(namespace.faulty_client_secret(client)).await?;
    let credential = |number: usize| {
        let spec = json!({"scopes": [format!("scope-{number}")], "minimumValidity": "1s"});
        objects::credential(&format!("{client}-{number}"), authority, &format!("{client}-client"), &spec)
    };
    namespace.create_all((0..count).map(credential), AT_ONCE).await
}

/// How many token requests of a client the server received.
pub async fn requests(namespace: &Namespace, client: &str) -> Result<usize> {
    Ok(namespace.testbed.faults.requests(&namespace.unique(client)).await?.len())
}
