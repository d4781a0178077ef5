//! The operator ended at each of its calls, before the call is carried out and after: another one takes over.

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
use stage::{
    api_proxy::fault::{Fault, Rule},
    eventually,
    operator::Operator,
};

use crate::{
    cell::Cell,
    columns::{CALLS, Column, LISTINGS, Object, Phase},
    world::World,
};

/// Cells at the same time: what two cores can serve.
const AT_ONCE: usize = 8;
/// For the call at which the operator ends to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// The process that is to be ended; locked while there is none yet.
type Victim = Arc<Mutex<Option<Pid>>>;

/// Starts an operator as the victim.
fn spawn(world: &World, victim: &Victim) -> Result<Operator> {
    // the first call waits for this lock, should it come before the process is known
    let mut pid = victim.lock().unwrap_or_else(PoisonError::into_inner);
    let operator = world.spawn()?;
    *pid = Some(Pid::from_raw(i32::try_from(operator.process.id())?));
    Ok(operator)
}

/// Whether ending the operator here may cost a token: it was issued, and then was nowhere but in the memory of a process
/// that is gone. Nothing can avoid that.
fn may_cost_a_token(column: &Column, fault: Fault) -> bool {
    match column.kind {
        "create secrets" | "patch secrets" => fault == Fault::KilledBefore,
        // the credentials of an authority that has answered do not wait until its status is written
        "patch itwinauthorities/status" => true,
        _ => false,
    }
}

/// Goes through all phases, the operator ended at the call in each phase in which it is made.
async fn play(column: &Column, fault: Fault) -> Result<()> {
    let world = World::new("crash").await?;
    let cell = Cell::new(column.name, column.object == Object::Namespace);
    world.create(&cell).await?;
    let victim = Victim::default();
    let mut operator: Option<Operator> = None;
    let mut allowed = 0;
    for phase in Phase::ALL {
        allowed += 1;
        if phase != Phase::Issue {
            cell.next_second(&world).await?;
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
            world.proxy.play(column.aim(rule, &world, &cell))
        });
        let mut running = match operator.take() {
            Some(running) => running,
            None => spawn(&world, &victim)?,
        };
        let before = cell.begin(&world, phase).await?;
        if let Some(crash) = crash {
            let what = format!("the operator's end in {phase:?}");
            eventually(&what, PATIENCE, async || (!running.process.is_running()).then_some(())).await?;
            ensure!(crash.times() == 1, "it ended by itself: {}", running.process.log_tail());
            allowed += usize::from(may_cost_a_token(column, fault));
            running = spawn(&world, &victim)?;
        }
        cell.end(&world, phase, &before).await.with_context(|| running.process.log_tail())?;
        let requests = world.token_requests(&cell).await?;
        ensure!(requests <= allowed, "{requests} token requests up to {phase:?}, where {allowed} are due");
        operator = Some(running);
    }
    cell.assert_never_worse(&world).await?;
    world.assert_quiet(&[&cell]).await
}

async fn play_all(fault: Fault) -> Result<()> {
    let columns: Vec<&Column> = CALLS.iter().chain(&LISTINGS).collect();
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
async fn operator_ended_before_a_call_is_carried_out_is_replaced_without_loss() -> Result<()> {
    play_all(Fault::KilledBefore).await
}

#[tokio::test]
async fn operator_ended_after_a_call_was_carried_out_is_replaced_without_loss() -> Result<()> {
    play_all(Fault::AnswerLost).await
}
