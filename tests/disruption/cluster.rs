//! A control plane of one test's own.

use anyhow::Result;
use stage::{Stage, control_plane::ControlPlane, namespace::Namespace, setup};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Control planes that run at the same time: what two cores can start without getting slow.
static PLANES: Semaphore = Semaphore::const_new(3);

pub struct Cluster {
    pub control_plane: ControlPlane,
    pub stage: Stage,
    _permit: SemaphorePermit<'static>,
}

impl Cluster {
    /// Starts one, with the chart installed. Processes end with the thread that started them, which is the test's.
    pub async fn start(name: &str) -> Result<Self> {
        let permit = PLANES.acquire().await?;
        let (control_plane, stage) = setup::own_control_plane(&Stage::current()?, name).await?;
        Ok(Self { control_plane, stage, _permit: permit })
    }

    pub async fn namespace(&self, prefix: &str) -> Result<Namespace> {
        Namespace::on(self.stage.clone(), prefix).await
    }
}
