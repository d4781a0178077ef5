//! Watches that are wrong: an older state that is sent again, a deletion that is not reported.

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testbed::{
    api_proxy::fault::{Fault, Rule},
    eventually,
    operator::Operator,
};

use crate::converge::{cell::Cell, columns::Phase, fixture::Fixture};

const PATIENCE: Duration = Duration::from_secs(30);

const CREDENTIALS: &str = "watch itwinservicecredentials";
const SECRETS: &str = "watch secrets";

pub async fn issued(prefix: &str) -> Result<(Fixture, Cell, Operator)> {
    let fixture = Fixture::new(prefix).await?;
    let cell = Cell::new("agent", false);
    fixture.create(&cell).await?;
    let operator = fixture.start().await?;
    cell.go_through(&fixture, Phase::Issue).await?;
    Ok((fixture, cell, operator))
}

/// Fails unless the authority received this many token requests.
pub async fn assert_requests(fixture: &Fixture, cell: &Cell, expected: usize) -> Result<()> {
    let requests = fixture.token_requests(cell).await?;
    ensure!(requests == expected, "{requests} token requests, {expected} are due");
    Ok(())
}

#[tokio::test]
async fn older_states_sent_again_by_a_watch_change_nothing() -> Result<()> {
    let (fixture, cell, _operator) = issued("older-watch").await?;
    cell.go_through(&fixture, Phase::Renewal).await?;
    fixture.assert_quiet(&[&cell]).await?;
    for kind in [SECRETS, CREDENTIALS] {
        ensure!(fixture.proxy().send_first_event_again(kind, &cell.name) == 1, "{kind} showed the older state");
        fixture.assert_quiet(&[&cell]).await?;
    }
    assert_requests(&fixture, &cell, 2).await?;
    cell.go_through(&fixture, Phase::ManualEdit).await?;
    cell.go_through(&fixture, Phase::Deletion).await?;
    assert_requests(&fixture, &cell, 4).await?;
    cell.assert_never_worse(&fixture).await
}

#[tokio::test]
async fn older_spec_sent_again_by_a_watch_is_not_acted_upon() -> Result<()> {
    let (fixture, cell, _operator) = issued("older-spec").await?;
    let change = json!({"spec": {"scopes": ["other"], "secretTemplate": {"annotations": {"stage": "two"}}}});
    fixture.credentials().patch(&cell.name, &PatchParams::default(), &Patch::Merge(&change)).await?;
    let settled = async || {
        let status = fixture.status_of(&cell.name).await.ok()?;
        (status["observedGeneration"] == 2 && status["scopes"] == json!(["other"])).then_some(())
    };
    eventually("a token for the changed spec", PATIENCE, settled).await?;
    fixture.assert_quiet(&[&cell]).await?;
    ensure!(fixture.proxy().send_first_event_again(CREDENTIALS, &cell.name) == 1, "the older spec is shown");
    fixture.assert_quiet(&[&cell]).await?;
    assert_requests(&fixture, &cell, 2).await?;
    ensure!(settled().await.is_some(), "the status is about the older spec");
    Ok(())
}

#[tokio::test]
async fn older_states_sent_again_by_a_list_change_nothing() -> Result<()> {
    let (fixture, cell, _operator) = issued("older-list").await?;
    cell.go_through(&fixture, Phase::Renewal).await?;
    fixture.assert_quiet(&[&cell]).await?;
    for (watch, list) in [(SECRETS, "list secrets"), (CREDENTIALS, "list itwinservicecredentials")] {
        let older = fixture.proxy().play(Rule::new(list, Fault::FirstAnswerAgain));
        ensure!(fixture.proxy().expire(watch) == 1, "{watch} is open");
        eventually(list, PATIENCE, async || (older.times() == 1).then_some(())).await?;
        fixture.assert_quiet(&[&cell]).await?;
    }
    assert_requests(&fixture, &cell, 2).await?;
    cell.go_through(&fixture, Phase::ManualEdit).await?;
    cell.go_through(&fixture, Phase::Deletion).await?;
    assert_requests(&fixture, &cell, 4).await?;
    cell.assert_never_worse(&fixture).await
}

#[tokio::test]
async fn deletion_that_no_watch_reports_is_noticed_with_the_next_list() -> Result<()> {
    let (fixture, cell, _operator) = issued("unreported").await?;
    cell.go_through(&fixture, Phase::Renewal).await?;
    cell.go_through(&fixture, Phase::ManualEdit).await?;
    cell.next_second(&fixture).await?;
    let swallowed = fixture.proxy().swallow(SECRETS, "DELETED", &cell.name);
    let before = cell.begin(&fixture, Phase::Deletion).await?;
    eventually("the deletion to be swallowed", PATIENCE, async || (swallowed.times() == 1).then_some(())).await?;
    fixture.assert_quiet(&[&cell]).await?;
    ensure!(fixture.proxy().expire(SECRETS) == 1, "{SECRETS} is open");
    cell.end(&fixture, Phase::Deletion, &before).await?;
    assert_requests(&fixture, &cell, 4).await?;
    cell.assert_never_worse(&fixture).await
}

#[tokio::test]
async fn renewal_of_a_secret_whose_deletion_no_watch_reported_creates_it() -> Result<()> {
    let (fixture, cell, _operator) = issued("unreported-renewal").await?;
    cell.next_second(&fixture).await?;
    let swallowed = fixture.proxy().swallow(SECRETS, "DELETED", &cell.name);
    let deleted = cell.begin(&fixture, Phase::Deletion).await?;
    eventually("the deletion to be swallowed", PATIENCE, async || (swallowed.times() == 1).then_some(())).await?;
    cell.request_renewal(&fixture).await?;
    cell.end(&fixture, Phase::Deletion, &deleted).await?;
    assert_requests(&fixture, &cell, 2).await?;
    cell.go_through(&fixture, Phase::ManualEdit).await?;
    cell.assert_never_worse(&fixture).await
}

#[tokio::test]
async fn secret_deleted_between_reading_and_patching_is_created() -> Result<()> {
    let (fixture, cell, _operator) = issued("deleted-between").await?;
    cell.next_second(&fixture).await?;
    let swallowed = fixture.proxy().swallow(SECRETS, "DELETED", &cell.name);
    let (testbed, namespace, name) =
        (fixture.namespace.testbed.clone(), fixture.namespace.name.clone(), cell.name.clone());
    let delete = move || {
        let mut kubectl = Command::new(&testbed.kubectl);
        kubectl.arg("--kubeconfig").arg(&testbed.kubeconfig).args(["delete", "secret", "-n", &namespace, &name]);
        assert!(kubectl.output().is_ok_and(|output| output.status.success()), "the Secret can be deleted");
    };
    // the token is issued, and then the Secret is deleted
    let played = fixture.proxy().play(Rule::new("patch secrets", Fault::Nothing).of(&cell.name).calling_before(delete));
    let before = cell.before(&fixture).await?;
    cell.request_renewal(&fixture).await?;
    cell.end(&fixture, Phase::Deletion, &before).await?;
    ensure!(played.times() == 1 && swallowed.times() == 1, "the Secret was deleted before the patch");
    let patched = fixture.proxy().records().into_iter().find(|record| record.call.kind == "patch secrets");
    ensure!(patched.and_then(|record| record.status) == Some(404), "the patch was answered with 404");
    assert_requests(&fixture, &cell, 2).await?;
    cell.go_through(&fixture, Phase::ManualEdit).await?;
    cell.assert_never_worse(&fixture).await
}
