//! A call that keeps failing is reported within 10 s of its first failure, whatever the failure is; and once it ends, all
//! is as without it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testbed::{
    api_proxy::fault::{Fault, Rule},
    eventually,
};

use crate::{
    converge::{
        cell::{Cell, assert_all_ended_well},
        columns::{Column, Object, Phase},
        fixture::Fixture,
        others::deployment,
    },
    environment::condition,
};

/// Within this a failure is reported, ...
const REPORTED: Duration = Duration::from_secs(10);
/// ... and a busy machine takes so much longer.
const MARGIN: Duration = Duration::from_secs(3);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);
/// Limit for what a busy machine does.
const PATIENCE: Duration = Duration::from_secs(60);

const fn column(name: &'static str, kind: &'static str, object: Object, phases: &'static [Phase]) -> Column {
    Column { name, kind, object, phases }
}

/// The calls, each with the phase that makes it.
const CALLS: [Column; 6] = [
    column("get-secret", "get secrets", Object::Own, &[Phase::ManualEdit]),
    column("get-client", "get secrets", Object::Client, &[Phase::Renewal]),
    column("get-namespace", "get namespaces (metadata)", Object::Namespace, &[Phase::Renewal]),
    column("patch-secret", "patch secrets", Object::Own, &[Phase::Renewal]),
    column("get-workload", "get deployments", Object::Own, &[Phase::Renewal]),
    column("patch-workload", "patch deployments", Object::Own, &[Phase::Renewal]),
];

/// A Secret whose metadata is not found, and that is read then, is no failure.
fn is_failure(fault: Fault, column: &Column) -> bool {
    fault != Fault::Refused(404) || column.name != "get-client-meta"
}

/// Those that are made where Secrets are not watched, and the others of which the order differs there.
const UNWATCHED: [Column; 4] = [
    column("get-metadata", "get secrets (metadata)", Object::Own, &[Phase::Renewal]),
    column("get-client-meta", "get secrets (metadata)", Object::Client, &[Phase::Renewal]),
    column("get-client", "get secrets", Object::Client, &[Phase::Renewal]),
    column("patch-secret", "patch secrets", Object::Own, &[Phase::Renewal]),
];

fn restarts(column: &Column) -> bool {
    column.kind.ends_with(" deployments")
}

/// What the credential reports of a failure, if it does.
async fn report(fixture: &Fixture, cell: &Cell) -> Option<String> {
    let status = fixture.status_of(&cell.name).await.ok()?;
    let (holds, reason, message) = condition(&status, "Renewed")?;
    let is_reported = holds == "False" || message.contains("; restarts of workloads: ");
    is_reported.then(|| format!("{reason}: {message}"))
}

async fn play_cell(fault: Fault, column: &Column, cell: &Cell, fixture: &Fixture) -> Result<()> {
    let before = cell.before(fixture).await?;
    cell.end(fixture, Phase::Issue, &before).await?;
    cell.next_second(fixture).await?;
    let phase = column.phases[0];
    let rule = column.aim(|kind| Rule::new(kind, fault).lasting(LONG), fixture, cell);
    let played = fixture.proxy().play(rule);
    if phase == Phase::ManualEdit {
        // the end of a later phase is only reached with a renewal
        cell.request_renewal(fixture).await?;
    }
    let before = cell.begin(fixture, phase).await?;
    eventually("the fault", PATIENCE, async || (played.times() > 0).then_some(())).await?;
    let text = eventually("a report", PATIENCE, async || report(fixture, cell).await).await?;
    let late = played.first().context("there was no fault")?.elapsed();
    ensure!(late <= REPORTED + MARGIN, "reported {late:?} after the first failure: {text}");
    fixture.proxy().stop(&played);
    eventually("an end of the report", PATIENCE, async || report(fixture, cell).await.is_none().then_some(())).await?;
    cell.end(fixture, phase, &before).await
}

async fn play(prefix: &str, fault: Fault, arguments: &[&str], columns: &[Column]) -> Result<()> {
    let fixture = Fixture::new(prefix).await?;
    let cells: Vec<(&Column, Cell)> = columns
        .iter()
        .filter(|column| is_failure(fault, column))
        .map(|column| (column, Cell::new(column.name, column.object == Object::Namespace)))
        .collect();
    for (column, cell) in &cells {
        fixture.create(cell).await?;
        if restarts(column) {
            fixture.namespace.apply(&deployment(&cell.name)).await?;
            let targets = json!([{"kind": "Deployment", "name": cell.name}]);
            let patch = json!({"spec": {"rolloutRestartTargets": targets, "rolloutRestartDelay": "0s"}});
            fixture.credentials().patch(&cell.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        }
    }
    let operator = fixture.start_operator(arguments).await?;
    let played = cells.iter().map(|(column, cell)| {
        let fixture = &fixture;
        async move {
            let result = play_cell(fault, column, cell, fixture).await;
            result.with_context(|| format!("{fault:?} at {}", column.name))
        }
    });
    assert_all_ended_well(join_all(played).await, &operator)
}

macro_rules! rows {
    ($($name:ident, $prefix:literal, $fault:expr;)*) => {
        $(#[tokio::test]
        async fn $name() -> Result<()> {
            play($prefix, $fault, &[], &CALLS).await?;
            play(concat!($prefix, "-un"), $fault, &["--watch-secrets=false"], &UNWATCHED).await
        })*
    };
}

rows! {
    calls_that_are_forbidden_are_reported_in_time, "rep-403", Fault::Refused(403);
    calls_that_find_nothing_are_reported_in_time, "rep-404", Fault::Refused(404);
    calls_that_conflict_are_reported_in_time, "rep-409", Fault::Refused(409);
    calls_that_are_invalid_are_reported_in_time, "rep-422", Fault::Refused(422);
    calls_that_are_too_many_are_reported_in_time, "rep-429", Fault::Refused(429);
    calls_refused_by_an_overloaded_api_server_are_reported_in_time, "rep-overload", Fault::Overloaded;
    calls_that_fail_are_reported_in_time, "rep-500", Fault::Refused(500);
    calls_that_hang_are_reported_in_time, "rep-hang", Fault::BlackHole(LONG);
    calls_that_are_reset_are_reported_in_time, "rep-reset", Fault::KilledBefore;
    calls_answered_with_what_is_no_object_are_reported_in_time, "rep-200", Fault::NO_OBJECT;
}
