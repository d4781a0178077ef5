//! Every fault at every call.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use testbed::api_proxy::fault::{Fault, Played, Rule};

use crate::converge::{
    cell::{Cell, assert_all_ended_well},
    columns::{CALLS, Column, Object, Phase},
    fixture::Fixture,
};

/// Longer than the operator waits for a response (8 s).
const SILENCE: Duration = Duration::from_secs(9);

/// A fault, and how often it is injected in each phase: two consecutive times if the second costs only one backoff
/// step.
#[derive(Clone, Copy)]
struct Row {
    fault: Fault,
    times: u32,
}

/// Plays a row: one operator, and for each column a credential that goes through all phases, with the fault in each
/// phase that makes the call.
async fn play(prefix: &str, row: Row) -> Result<()> {
    let fixture = Fixture::new(prefix).await?;
    let cells: Vec<(&Column, Cell)> =
        CALLS.iter().map(|column| (column, Cell::new(column.name, column.object == Object::Namespace))).collect();
    for (_, cell) in &cells {
        fixture.create(cell).await?;
    }
    // in place before the operator starts
    let armed: Vec<_> = cells.iter().map(|(column, cell)| arm(row, column, cell, &fixture, Phase::Issue)).collect();
    let operator = fixture.start().await?;
    let played = cells.iter().zip(armed).map(|((column, cell), armed)| {
        let fixture = &fixture;
        async move {
            let result = play_cell(row, column, cell, fixture, armed).await;
            result.with_context(|| format!("{:?} at {}", row.fault, column.name))
        }
    });
    assert_all_ended_well(join_all(played).await, &operator)?;
    let cells: Vec<&Cell> = cells.iter().map(|(_, cell)| cell).collect();
    fixture.assert_quiet(&cells).await
}

fn arm(row: Row, column: &Column, cell: &Cell, fixture: &Fixture, phase: Phase) -> Option<Played> {
    let rule = |kind: &str| Rule::new(kind, row.fault).times(row.times);
    column.phases.contains(&phase).then(|| fixture.proxy().play(column.aim(rule, fixture, cell)))
}

async fn play_cell(row: Row, column: &Column, cell: &Cell, fixture: &Fixture, mut armed: Option<Played>) -> Result<()> {
    for (number, phase) in Phase::ALL.into_iter().enumerate() {
        if phase != Phase::Issue {
            cell.next_second(fixture).await?;
            armed = arm(row, column, cell, fixture, phase);
        }
        let before = cell.begin(fixture, phase).await?;
        cell.end(fixture, phase, &before).await?;
        if let Some(played) = &armed {
            // an event is published after the state is reached
            let what = format!("the fault in {phase:?}");
            testbed::eventually(&what, SILENCE, async || (played.times() > 0).then_some(())).await?;
            fixture.proxy().stop(played);
        }
        let requests = fixture.token_requests(cell).await?;
        ensure!(requests <= number + 1, "{requests} token requests up to {phase:?}, where {} are due", number + 1);
    }
    // a call that failed once loses no event, unless it is the event's own call
    if !column.kind.ends_with(" events") {
        let events = fixture.events(cell).await?;
        // while a read hangs, the status may have said in time that there is no token: the next one is the first again
        let hangs = matches!(row.fault, Fault::BlackHole(_));
        let restored = hangs || events.contains("Restored") || events.contains("Recovered");
        ensure!(events.contains("Issued") && restored, "events are {events:?}");
    }
    cell.assert_never_worse(fixture).await
}

macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident, $prefix:literal, $times:literal, $fault:expr;)*) => {
        $($(#[$doc])* #[tokio::test]
        async fn $name() -> Result<()> {
            play($prefix, Row { fault: $fault, times: $times }).await
        })*
    };
}

rows! {
    calls_killed_before_they_are_sent_converge, "killed", 2, Fault::KilledBefore;
    responses_lost_after_the_call_was_carried_out_converge, "lost", 2, Fault::AnswerLost;
    responses_broken_off_in_the_middle_converge, "broken", 2, Fault::ResetMidBody;
    late_responses_converge, "late", 2, Fault::Delay(Duration::from_secs(1));
    calls_never_answered_converge, "silent", 1, Fault::BlackHole(SILENCE);
    forbidden_calls_converge, "r403", 2, Fault::Refused(403);
    calls_answered_not_found_converge, "r404", 2, Fault::Refused(404);
    calls_answered_with_a_conflict_converge, "r409", 2, Fault::Refused(409);
    calls_answered_invalid_converge, "r422", 2, Fault::Refused(422);
    calls_answered_too_many_requests_converge, "r429", 2, Fault::Refused(429);
    calls_answered_internal_error_converge, "r500", 2, Fault::Refused(500);
    calls_answered_with_what_is_no_object_converge, "r200", 2, Fault::NO_OBJECT;
}
