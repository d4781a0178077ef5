//! Every fault at every list and watch: after the start, and again after all watches ended with `410 Gone`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::{
    api_proxy::fault::{Fault, Played, Rule},
    eventually,
};

use crate::converge::{
    cell::Cell,
    columns::{Column, LISTS, Phase},
    fixture::Fixture,
};

/// Longer than the operator waits for any other response; it waits longer for lists and watches.
const SILENCE: Duration = Duration::from_secs(9);
const PATIENCE: Duration = Duration::from_secs(60);

fn arm(fixture: &Fixture, fault: Fault, times: u32) -> Vec<(&'static str, Played)> {
    let rule = |kind| (kind, fixture.proxy().play(Rule::new(kind, fault).times(times)));
    LISTS.iter().map(|column| rule(column.kind)).collect()
}

/// Waits until each of the rules was applied this often.
async fn all_played(armed: &[(&'static str, Played)], times: u32) -> Result<()> {
    for (kind, played) in armed {
        eventually(&format!("the fault at {kind}"), PATIENCE, async || (played.times() == times).then_some(())).await?;
    }
    Ok(())
}

/// Waits until each call was repeated after the last fault.
async fn all_repeated(fixture: &Fixture, times: u32) -> Result<()> {
    for Column { kind, .. } in LISTS {
        eventually(&format!("another {kind}"), PATIENCE, async || {
            let calls = fixture.proxy().records().iter().filter(|record| record.call.kind == kind).count();
            (calls > times as usize).then_some(())
        })
        .await?;
    }
    Ok(())
}

async fn play(prefix: &str, fault: Fault, times: u32) -> Result<()> {
    let fixture = Fixture::new(prefix).await?;
    let cell = Cell::new("agent", false);
    fixture.create(&cell).await?;
    let armed = arm(&fixture, fault, times);
    let operator = fixture.start().await?;
    let played = async {
        cell.go_through(&fixture, Phase::Issue).await?;
        all_played(&armed, times).await?;
        if !matches!(fault, Fault::Delay(_)) {
            all_repeated(&fixture, times).await?;
        }
        let armed = arm(&fixture, fault, times);
        for kind in ["watch itwinservicecredentials", "watch itwinauthorities", "watch secrets"] {
            eventually(kind, PATIENCE, async || (fixture.proxy().expire(kind) > 0).then_some(())).await?;
        }
        for phase in [Phase::Renewal, Phase::ManualEdit, Phase::Deletion] {
            cell.go_through(&fixture, phase).await?;
        }
        all_played(&armed, times).await?;
        let requests = fixture.token_requests(&cell).await?;
        ensure!(requests == Phase::ALL.len(), "{requests} token requests");
        cell.assert_never_worse(&fixture).await?;
        fixture.assert_quiet(&[&cell]).await
    };
    played.await.with_context(|| operator.process.log_tail())
}

macro_rules! rows {
    ($($name:ident, $prefix:literal, $times:literal, $fault:expr;)*) => {
        $(#[tokio::test]
        async fn $name() -> Result<()> {
            play($prefix, $fault, $times).await
        })*
    };
}

rows! {
    lists_killed_before_they_are_sent_converge, "list-killed", 2, Fault::KilledBefore;
    lists_whose_responses_are_lost_converge, "list-lost", 2, Fault::AnswerLost;
    lists_broken_off_in_the_middle_converge, "list-broken", 1, Fault::ResetMidBody;
    late_lists_converge, "list-late", 1, Fault::Delay(Duration::from_secs(1));
    lists_never_answered_converge, "list-silent", 1, Fault::BlackHole(SILENCE);
    forbidden_lists_converge, "list-403", 2, Fault::Refused(403);
    lists_answered_not_found_converge, "list-404", 2, Fault::Refused(404);
    lists_answered_with_a_conflict_converge, "list-409", 2, Fault::Refused(409);
    lists_answered_gone_converge, "list-410", 2, Fault::Refused(410);
    lists_answered_invalid_converge, "list-422", 2, Fault::Refused(422);
    lists_answered_too_many_requests_converge, "list-429", 2, Fault::Refused(429);
    lists_refused_by_an_overloaded_api_server_converge, "list-overload", 2, Fault::Overloaded;
    lists_answered_internal_error_converge, "list-500", 2, Fault::Refused(500);
}
