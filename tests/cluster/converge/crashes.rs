//! The operator is killed at each of its calls, before the call is forwarded and after: another one takes over.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{
    api_proxy::fault::{Fault, Rule},
    eventually,
    operator::Operator,
};

use crate::converge::{
    cell::Cell,
    columns::{CALLS, Column, LISTS, Object, Phase},
    fixture::Fixture,
};

/// Cells at the same time: as many as two cores can serve.
const AT_ONCE: usize = 8;
/// Limit for the call at which the operator is killed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The process that is to be killed; locked while it does not exist yet.
type Victim = Arc<Mutex<Option<Pid>>>;

/// Starts an operator as the victim.
fn spawn(fixture: &Fixture, victim: &Victim) -> Result<Operator> {
    // the first call waits for this lock if it comes before the process is known
    let mut pid = victim.lock().unwrap_or_else(PoisonError::into_inner);
    let operator = fixture.spawn()?;
    *pid = Some(Pid::from_raw(i32::try_from(operator.process.id())?));
    Ok(operator)
}

/// Whether ending the operator here may cost a token: it was issued, and then was nowhere but in the memory of a
/// process that is gone. Nothing can avoid that.
fn may_cost_a_token(column: &Column, fault: Fault) -> bool {
    match column.kind {
        "create secrets" | "patch secrets" => fault == Fault::KilledBefore,
        // the credentials of an authority that has responded do not wait until that is reported
        "patch itwinauthorities/status" => true,
        "create events" => column.object == Object::Authority,
        _ => false,
    }
}

/// Goes through all phases; in each one with this call, the operator is killed at the call.
async fn play(column: &Column, fault: Fault) -> Result<()> {
    let fixture = Fixture::new("crash").await?;
    let cell = Cell::new(column.name, column.object == Object::Namespace);
    fixture.create(&cell).await?;
    let victim = Victim::default();
    let mut operator: Option<Operator> = None;
    let mut allowed = 0;
    for phase in Phase::ALL {
        allowed += 1;
        if phase != Phase::Issue {
            cell.next_second(&fixture).await?;
        }
        let crash = column.phases.contains(&phase).then(|| {
            let victim = victim.clone();
            let end = move || {
                if let Some(pid) = *victim.lock().unwrap_or_else(PoisonError::into_inner) {
                    let _ = kill(pid, Signal::SIGKILL);
                }
            };
            let rule = |kind: &str| match fault {
                Fault::KilledBefore => Rule::new(kind, fault).calling_before(end),
                _ => Rule::new(kind, fault).calling_after(end),
            };
            fixture.proxy().play(column.aim(rule, &fixture, &cell))
        });
        let mut running = match operator.take() {
            Some(running) => running,
            None => spawn(&fixture, &victim)?,
        };
        let before = cell.begin(&fixture, phase).await?;
        if let Some(crash) = crash {
            let what = format!("the operator's end in {phase:?}");
            eventually(&what, PATIENCE, async || (!running.process.is_running()).then_some(())).await?;
            ensure!(crash.times() == 1, "it ended by itself: {}", running.process.log_tail());
            allowed += usize::from(may_cost_a_token(column, fault));
            running = spawn(&fixture, &victim)?;
        }
        cell.end(&fixture, phase, &before).await.with_context(|| running.process.log_tail())?;
        let requests = fixture.token_requests(&cell).await?;
        ensure!(requests <= allowed, "{requests} token requests up to {phase:?}, where {allowed} are due");
        operator = Some(running);
    }
    cell.assert_never_worse(&fixture).await?;
    fixture.assert_quiet(&[&cell]).await
}

async fn play_all(fault: Fault) -> Result<()> {
    let columns: Vec<&Column> = CALLS.iter().chain(&LISTS).collect();
    let results: Vec<Result<()>> = stream::iter(&columns)
        .map(async |column| play(column, fault).await.with_context(|| format!("ended at {}", column.name)))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(failures.is_empty(), "{} of {} cells:\n{}", failures.len(), columns.len(), failures.join("\n"));
    Ok(())
}

#[tokio::test]
async fn operator_killed_before_a_call_is_carried_out_is_replaced_without_loss() -> Result<()> {
    play_all(Fault::KilledBefore).await
}

#[tokio::test]
async fn operator_killed_after_a_call_was_carried_out_is_replaced_without_loss() -> Result<()> {
    play_all(Fault::AnswerLost).await
}
