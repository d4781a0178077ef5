//! Watches that lie: an older state shown again, a deletion that is not told.

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
use stage::{
    api_proxy::fault::{Fault, Rule},
    eventually,
    operator::Operator,
};

use crate::{cell::Cell, columns::Phase, world::World};

const PATIENCE: Duration = Duration::from_secs(30);

const CREDENTIALS: &str = "watch itwinservicecredentials";
const SECRETS: &str = "watch secrets";

pub async fn issued(prefix: &str) -> Result<(World, Cell, Operator)> {
    let world = World::new(prefix).await?;
    let cell = Cell::new("agent", false);
    world.create(&cell).await?;
    let operator = world.start().await?;
    cell.go_through(&world, Phase::Issue).await?;
    Ok((world, cell, operator))
}

/// Fails unless the authority was asked for so many tokens.
pub async fn assert_requests(world: &World, cell: &Cell, expected: usize) -> Result<()> {
    let requests = world.token_requests(cell).await?;
    ensure!(requests == expected, "{requests} token requests, {expected} are due");
    Ok(())
}

#[tokio::test]
async fn older_states_shown_again_by_a_watch_change_nothing() -> Result<()> {
    let (world, cell, _operator) = issued("older-watch").await?;
    cell.go_through(&world, Phase::Renewal).await?;
    world.assert_quiet(&[&cell]).await?;
    for kind in [SECRETS, CREDENTIALS] {
        ensure!(world.proxy.send_first_event_again(kind, &cell.name) == 1, "{kind} showed the older state");
        world.assert_quiet(&[&cell]).await?;
    }
    assert_requests(&world, &cell, 2).await?;
    cell.go_through(&world, Phase::HandEdit).await?;
    cell.go_through(&world, Phase::Deletion).await?;
    assert_requests(&world, &cell, 4).await?;
    cell.assert_never_worse(&world).await
}

#[tokio::test]
async fn older_states_shown_again_by_a_list_change_nothing() -> Result<()> {
    let (world, cell, _operator) = issued("older-list").await?;
    cell.go_through(&world, Phase::Renewal).await?;
    world.assert_quiet(&[&cell]).await?;
    for (watch, list) in [(SECRETS, "list secrets"), (CREDENTIALS, "list itwinservicecredentials")] {
        let older = world.proxy.play(Rule::new(list, Fault::FirstAnswerAgain));
        ensure!(world.proxy.expire(watch) == 1, "{watch} is open");
        eventually(list, PATIENCE, async || (older.times() == 1).then_some(())).await?;
        world.assert_quiet(&[&cell]).await?;
    }
    assert_requests(&world, &cell, 2).await?;
    cell.go_through(&world, Phase::HandEdit).await?;
    cell.go_through(&world, Phase::Deletion).await?;
    assert_requests(&world, &cell, 4).await?;
    cell.assert_never_worse(&world).await
}

#[tokio::test]
async fn deletion_that_no_watch_reports_is_noticed_with_the_next_list() -> Result<()> {
    let (world, cell, _operator) = issued("untold").await?;
    cell.go_through(&world, Phase::Renewal).await?;
    cell.go_through(&world, Phase::HandEdit).await?;
    cell.next_second(&world).await?;
    let swallowed = world.proxy.swallow(SECRETS, "DELETED", &cell.name);
    let before = cell.begin(&world, Phase::Deletion).await?;
    eventually("the deletion to be swallowed", PATIENCE, async || (swallowed.times() == 1).then_some(())).await?;
    world.assert_quiet(&[&cell]).await?;
    ensure!(world.proxy.expire(SECRETS) == 1, "{SECRETS} is open");
    cell.end(&world, Phase::Deletion, &before).await?;
    assert_requests(&world, &cell, 4).await?;
    cell.assert_never_worse(&world).await
}

#[tokio::test]
async fn renewal_of_a_secret_whose_deletion_no_watch_reported_creates_it() -> Result<()> {
    let (world, cell, _operator) = issued("untold-renewal").await?;
    cell.next_second(&world).await?;
    let swallowed = world.proxy.swallow(SECRETS, "DELETED", &cell.name);
    let deleted = cell.begin(&world, Phase::Deletion).await?;
    eventually("the deletion to be swallowed", PATIENCE, async || (swallowed.times() == 1).then_some(())).await?;
    cell.request_renewal(&world).await?;
    cell.end(&world, Phase::Deletion, &deleted).await?;
    assert_requests(&world, &cell, 2).await?;
    cell.go_through(&world, Phase::HandEdit).await?;
    cell.assert_never_worse(&world).await
}

#[tokio::test]
async fn secret_deleted_between_reading_and_patching_is_created() -> Result<()> {
    let (world, cell, _operator) = issued("deleted-between").await?;
    cell.next_second(&world).await?;
    let swallowed = world.proxy.swallow(SECRETS, "DELETED", &cell.name);
    let (stage, namespace, name) = (world.namespace.stage.clone(), world.namespace.name.clone(), cell.name.clone());
    let delete = move || {
        let mut kubectl = Command::new(&stage.kubectl);
        kubectl.arg("--kubeconfig").arg(&stage.kubeconfig).args(["delete", "secret", "-n", &namespace, &name]);
        assert!(kubectl.output().is_ok_and(|output| output.status.success()), "the Secret can be deleted");
    };
    // the token is issued, and then the Secret is gone
    let played = world.proxy.play(Rule::new("patch secrets", Fault::Nothing).of(&cell.name).calling_before(delete));
    let before = cell.before(&world).await?;
    cell.request_renewal(&world).await?;
    cell.end(&world, Phase::Deletion, &before).await?;
    ensure!(played.times() == 1 && swallowed.times() == 1, "the Secret was deleted before the patch");
    let patched = world.proxy.records().into_iter().find(|record| record.call.kind == "patch secrets");
    ensure!(patched.and_then(|record| record.status) == Some(404), "the patch was answered with 404");
    assert_requests(&world, &cell, 2).await?;
    cell.go_through(&world, Phase::HandEdit).await?;
    cell.assert_never_worse(&world).await
}
