//! A control plane for one test.

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use itwin_api::credential::ITwinServiceCredential;
use kube::{Api, api::PostParams};
use serde_json::Value;
use testbed::{Testbed, control_plane::ControlPlane, namespace::Namespace, setup};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::fixture::Fixture;

/// Calls to the API server at the same time.
pub const AT_ONCE: usize = 32;

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
}

/// Creates credentials with these names.
pub async fn create_credentials(fixture: &Fixture, names: &[String], spec: &Value) -> Result<()> {
    let credentials: Api<ITwinServiceCredential> =
        Api::namespaced(fixture.namespace.client.clone(), &fixture.namespace.name);
    let create = async |name: &String| {
        let object = serde_json::from_value(fixture.namespace.credential(name, spec))?;
        credentials.create(&PostParams::default(), &object).await.map(drop)?;
        anyhow::Ok(())
    };
    stream::iter(names).map(create).buffer_unordered(AT_ONCE).try_collect().await
}
