//! Watches that fall silent while their connections stay open.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use testbed::eventually;

use crate::converge::{
    columns::Phase,
    watches::{assert_requests, issued},
};

/// The longest time in which a watch that fell silent may go unnoticed.
const UNNOTICED: Duration = Duration::from_secs(150);

const KINDS: [&str; 3] = ["watch itwinservicecredentials", "watch itwinauthorities", "watch secrets"];

/// It takes as long as the operator's own limit, over a minute: this is the slowest test here.
#[tokio::test]
async fn kars_456_watches_that_fall_silent_are_noticed() -> Result<()> {
    let (fixture, cell, operator) = issued("frozen").await?;
    let opened = |kind: &str| fixture.proxy().records().iter().filter(|record| record.call.kind == kind).count();
    let before: Vec<usize> = KINDS.iter().map(|kind| opened(kind)).collect();
    for kind in KINDS {
        ensure!(fixture.proxy().freeze(kind) == 1, "one {kind} is open");
    }
    for phase in [Phase::Renewal, Phase::ManualEdit, Phase::Deletion] {
        cell.next_second(&fixture).await?;
        let before = cell.begin(&fixture, phase).await?;
        // each watch is noticed separately
        let end = cell.end_within(UNNOTICED, &fixture, phase, &before).await;
        end.with_context(|| operator.process.log_tail())?;
    }
    for (kind, before) in KINDS.iter().zip(before) {
        // it was silent, and did not just end: nothing else opens it again
        eventually(kind, UNNOTICED, async || (opened(kind) > before).then_some(())).await?;
    }
    assert_requests(&fixture, &cell, 4).await?;
    cell.assert_never_worse(&fixture).await
}
