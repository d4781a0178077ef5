//! Two operators on one namespace, as without leader election: they must not fight.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::{api_proxy::ApiProxy, eventually};

use crate::converge::{
    cell::Cell,
    columns::Phase,
    fixture::{Fixture, writes},
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Writes of both in one phase: each may write Secret, status, the authority's status and an event, and may have to
/// repeat each of the first two after the other one was faster.
const WRITES: usize = 12;

#[tokio::test]
async fn two_operators_converge_without_a_conflict_loop() -> Result<()> {
    let fixture = Fixture::new("rivals").await?;
    let other = ApiProxy::start(&fixture.namespace.testbed, &fixture.namespace.name)?;
    let cell = Cell::new("agent", false);
    fixture.create(&cell).await?;
    let behind_the_other = fixture.spawn_operator_of(&fixture.namespace.name, &[], &other.variables())?;
    let (mut first, mut second) = (fixture.spawn()?, behind_the_other);
    first.wait_ready().await?;
    second.wait_ready().await?;
    let both = || writes(fixture.proxy()) + writes(&other);
    let mut before = (0, 0);
    for phase in Phase::ALL {
        cell.go_through(&fixture, phase)
            .await
            .with_context(|| format!("{}\n{}", first.process.log_tail(), second.process.log_tail()))?;
        // the slower one may still have something to report
        eventually("both to be quiet", PATIENCE, async || {
            let now = both();
            fixture.assert_quiet(&[&cell]).await.is_ok().then_some(())?;
            (both() == now).then_some(())
        })
        .await?;
        let now = (both(), fixture.token_requests(&cell).await?);
        ensure!(now.0 - before.0 <= WRITES, "{} writes in {phase:?}", now.0 - before.0);
        ensure!(now.1 - before.1 <= 2, "{} token requests in {phase:?}", now.1 - before.1);
        before = now;
    }
    cell.assert_never_worse(&fixture).await
}
