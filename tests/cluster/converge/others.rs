//! The calls that only some installations make: about the Lease, and about workloads to restart.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use itwin_api::secret_keys;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use testbed::{
    INSTALLATION,
    api_proxy::fault::{Fault, Rule},
    eventually,
    namespace::Namespace,
    operator::Operator,
};

use crate::{
    converge::{cell::Cell, fixture::Fixture},
    environment::TestEnvironment,
};

/// Longer than the operator waits for a response: 8 s, and 2 s for the Lease.
const SILENCE: Duration = Duration::from_secs(9);
/// Limit of a cell: a call without a response, backoffs, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Cells that run at the same time.
const AT_ONCE: usize = 6;

/// Each fault, and how often it is injected.
const ROWS: [(Fault, u32); 11] = [
    (Fault::KilledBefore, 2),
    (Fault::AnswerLost, 2),
    (Fault::ResetMidBody, 2),
    (Fault::Delay(Duration::from_secs(1)), 2),
    (Fault::BlackHole(SILENCE), 1),
    (Fault::Refused(403), 2),
    (Fault::Refused(404), 2),
    (Fault::Refused(409), 2),
    (Fault::Refused(422), 2),
    (Fault::Refused(429), 2),
    (Fault::Refused(500), 2),
];

const LEASE_CALLS: [&str; 3] = ["get leases", "create leases", "update leases"];

async fn leads(operator: &Operator) -> Option<()> {
    operator.get("/metrics").await.ok()?.contains("itwin_leader 1\n").then_some(())
}

async fn holder(namespace: &Namespace) -> Result<String> {
    namespace.kubectl(&["get", "lease", INSTALLATION, "-o", "jsonpath={.spec.holderIdentity}"]).await
}

/// A replica becomes the leader, and stays it, whatever happens to this call.
async fn lease_cell(call: &str, fault: Fault, times: u32) -> Result<()> {
    let environment = TestEnvironment::new("lease").await?;
    let (namespace, proxy) = (&environment.namespace, environment.proxy());
    namespace.allow_lease().await?;
    let played = proxy.play(Rule::new(call, fault).times(times));
    let mut operator = environment.spawn_operator(&["--leader-election=true", "--lease-namespace", &namespace.name])?;
    let made = |kind: &str| proxy.records().iter().filter(|record| record.call.kind == kind).count();
    let cell = async {
        operator.wait_ready().await?;
        eventually("the fault", PATIENCE, async || (played.times() > 0).then_some(())).await?;
        let before = made("update leases");
        eventually("renewals after it", PATIENCE, async || (made("update leases") >= before + 3).then_some(())).await?;
        eventually("a leader", PATIENCE, async || leads(&operator).await).await?;
        ensure!(operator.process.is_running(), "it ended");
        ensure!(!holder(namespace).await?.is_empty(), "no one holds the Lease");
        Ok(())
    };
    let result = cell.await;
    result.with_context(|| format!("{fault:?} at {call}; {}", operator.process.log_tail()))
}

#[tokio::test]
async fn election_survives_every_fault_at_every_call() -> Result<()> {
    let cells = LEASE_CALLS.iter().flat_map(|call| ROWS.map(|(fault, times)| (*call, fault, times)));
    let play = |(call, fault, times)| lease_cell(call, fault, times);
    stream::iter(cells).map(play).buffer_unordered(AT_ONCE).try_collect::<()>().await
}

pub(super) fn deployment(name: &str) -> Value {
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "example"}]},
            },
        },
    })
}

/// A workload is restarted once for each token, whatever happens to the calls about it.
async fn restart_row(fault: Fault, times: u32) -> Result<()> {
    let fixture = Fixture::new("restarts").await?;
    let cells = ["get deployments", "patch deployments"].map(|call| (call, Cell::new(&call[..3], false)));
    for (_, cell) in &cells {
        fixture.namespace.apply(&deployment(&cell.name)).await?;
        fixture.create(cell).await?;
    }
    let operator = fixture.start().await?;
    for (call, cell) in &cells {
        let played = async {
            fixture.create_restart(cell).await?;
            let restarted = async || fixture.is_restarted(cell).await.ok().filter(|restarted| *restarted).map(drop);
            cell.next_second(&fixture).await?;
            let played = fixture.proxy().play(Rule::new(call, fault).of(&cell.name).times(times));
            cell.request_renewal(&fixture).await?;
            eventually("the fault", PATIENCE, async || (played.times() > 0).then_some(())).await?;
            eventually("a restart for the second token, and no complaint", PATIENCE, restarted).await?;
            let requests = fixture.token_requests(cell).await?;
            ensure!(requests == 2, "{requests} token requests");
            Ok(())
        };
        let result: Result<()> = played.await;
        result.with_context(|| format!("{fault:?} at {call}; {}", operator.process.log_tail()))?;
    }
    let kinds: BTreeSet<String> = fixture.proxy().records().into_iter().map(|record| record.call.kind).collect();
    ensure!(kinds.contains("get deployments") && kinds.contains("patch deployments"), "{kinds:?}");
    Ok(())
}

impl Fixture {
    /// Adds a workload that is restarted for each token of a cell, once its first token exists.
    async fn create_restart(&self, cell: &Cell) -> Result<()> {
        eventually("the first token", PATIENCE, async || self.secrets().get(&cell.name).await.ok()).await?;
        let targets = json!([{"kind": "Deployment", "name": cell.name}]);
        let patch = json!({"spec": {"rolloutRestartTargets": targets, "rolloutRestartDelay": "0s"}});
        self.credentials().patch(&cell.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        eventually("a record that nothing is left for the first token", PATIENCE, async || {
            let secret = self.secrets().get(&cell.name).await.ok()?;
            secret.metadata.annotations?.contains_key(secret_keys::RESTARTED_FOR).then_some(())
        })
        .await
    }

    async fn is_restarted(&self, cell: &Cell) -> Result<bool> {
        let credential = self.credentials().get(&cell.name).await?;
        let status = credential.status.unwrap_or_default();
        let key = secret_keys::restarted_for(credential.metadata.uid.as_deref().unwrap_or_default());
        let deployment = self.namespace.get("deployment", &cell.name).await?.context("no Deployment")?;
        let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
        let complaint =
            status.conditions.iter().any(|condition| condition.message.contains("; restarts of workloads: "));
        Ok(!complaint && annotations[key].as_str() == status.issued_at.as_deref())
    }
}

#[tokio::test]
async fn restarts_of_workloads_survive_every_fault_at_every_call() -> Result<()> {
    let play = |(fault, times)| restart_row(fault, times);
    stream::iter(ROWS).map(play).buffer_unordered(AT_ONCE).try_collect::<()>().await
}
