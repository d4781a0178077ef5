//! Watches that fall silent while their connections stay open.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{
    columns::Phase,
    watches::{assert_requests, issued},
};

/// The longest time for which a watch that fell silent may go unnoticed.
const UNNOTICED: Duration = Duration::from_secs(150);

/// Takes as long as the operator's own bound, over a minute: the slowest test here.
#[tokio::test]
async fn frozen_watches_are_noticed() -> Result<()> {
    let (world, cell, operator) = issued("frozen").await?;
    for kind in ["watch itwinservicecredentials", "watch itwinauthorities", "watch secrets"] {
        ensure!(world.proxy.freeze(kind) == 1, "one {kind} is open");
    }
    cell.next_second(&world).await?;
    let before = cell.begin(&world, Phase::Renewal).await?;
    let end = cell.end_within(UNNOTICED, &world, Phase::Renewal, &before).await;
    end.with_context(|| operator.process.log_tail())?;
    cell.go_through(&world, Phase::HandEdit).await?;
    cell.go_through(&world, Phase::Deletion).await?;
    assert_requests(&world, &cell, 4).await?;
    cell.assert_never_worse(&world).await
}
