//! Two operators on one namespace, as without leader election: they must not fight.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
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

/// Attempts of both that are waited for: that takes more than ten seconds.
const ATTEMPTS: usize = 10;
/// Statuses of both besides one for each attempt: what each reports before the first one, when the circuit opens, and what
/// each writes again over the status of the other one.
const OTHER_STATUSES: usize = 20;

/// How many statuses of credentials were written through a proxy.
fn statuses(proxy: &ApiProxy) -> usize {
    let records = proxy.records();
    let written = records.iter().filter(|record| {
        record.call.writes() && record.call.resource() == "itwinservicecredentials/status" && record.status == Some(200)
    });
    written.count()
}

#[tokio::test]
async fn two_operators_whose_attempts_fail_do_not_answer_each_others_statuses() -> Result<()> {
    let fixture = Fixture::new("rivals-fail").await?;
    let other = ApiProxy::start(&fixture.namespace.testbed, &fixture.namespace.name)?;
    let cell = Cell::new("agent", false);
    let refused = json!({"name": "oauthError", "value": {"status": 401, "error": "invalid_client"}});
    fixture.faults().behave(&cell.client_id(&fixture), &refused).await?;
    fixture.create(&cell).await?;
    let behind_the_other = fixture.spawn_operator_of(&fixture.namespace.name, &[], &other.variables())?;
    let (mut first, mut second) = (fixture.spawn()?, behind_the_other);
    first.wait_ready().await?;
    second.wait_ready().await?;
    let attempts = eventually("attempts of both", PATIENCE * 4, async || {
        let attempts = fixture.token_requests(&cell).await.ok()?;
        (attempts >= ATTEMPTS).then_some(attempts)
    });
    let attempts = attempts.await?;
    let (ours, theirs) = (statuses(fixture.proxy()), statuses(&other));
    ensure!(ours > 0 && theirs > 0, "both write: {ours} and {theirs}");
    let most = attempts + OTHER_STATUSES;
    ensure!(ours + theirs <= most, "{ours} and {theirs} statuses with {attempts} attempts");
    Ok(())
}
