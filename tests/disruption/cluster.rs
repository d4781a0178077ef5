//! A control plane for one test.

use std::time::Duration;

use anyhow::Result;
use testbed::{Testbed, control_plane::ControlPlane, namespace::Namespace, setup};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::fixture::Fixture;

/// Control planes that run at the same time: as many as two cores can start without slowing down.
static PLANES: Semaphore = Semaphore::const_new(4);

pub struct Cluster {
    pub control_plane: ControlPlane,
    pub testbed: Testbed,
    _permit: SemaphorePermit<'static>,
}

impl Cluster {
    /// Starts a control plane with the chart installed. Processes end with the thread that started them, that of the
    /// test.
    pub async fn start(name: &str) -> Result<Self> {
        let permit = PLANES.acquire().await?;
        let (control_plane, testbed) = setup::own_control_plane(&Testbed::current()?, name).await?;
        Ok(Self { control_plane, testbed, _permit: permit })
    }

    pub async fn namespace(&self, prefix: &str) -> Result<Namespace> {
        Namespace::on(self.testbed.clone(), prefix).await
    }

    /// A namespace with an operator; no authority, no client Secret, no credential.
    pub async fn fixture(&self, prefix: &str, arguments: &[&str]) -> Result<Fixture> {
        Fixture::on(self.namespace(prefix).await?, arguments).await
    }
}

/// Waits until the operator has reconciled as many credentials, and knows no other.
pub async fn wait_credentials(fixture: &Fixture, count: usize, limit: Duration) -> Result<()> {
    let what = format!("{count} credentials in the metrics");
    let known = async || Some(fixture.operator.get("/metrics").await.ok()?.matches("itwin_credential_ready{").count());
    fixture.eventually(&what, limit, async || known().await.filter(|known| *known == count)).await.map(drop)
}
