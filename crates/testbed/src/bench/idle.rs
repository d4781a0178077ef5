//! What an operator costs that has nothing to do: all tokens are valid, one replica leads, and one is a standby.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use testbed::eventually;

use super::{
    Bench, ELECTED, SERVERS, leads,
    measure::{self, Requests, Usage, metric},
    patience, round, start,
};

/// What follows a start is over by then: the first renewals of the Lease, and the connections of watches.
const SETTLED: Duration = Duration::from_secs(10);

impl Bench {
    /// Measures a leader and a standby for so many seconds.
    pub(super) async fn idle(&mut self, seconds: u64) -> Result<()> {
        if seconds == 0 {
            return Ok(());
        }
        self.stop();
        self.operator = start(&self.running, &self.program, &ELECTED).await?;
        leads(&self.operator).await?;
        let standby = start(&self.running, &self.program, &ELECTED).await?;
        eventually("a reconciliation of each", patience(self.count), async || {
            let reconciles = metric(&self.operator, "itwin_reconciles_total").await.ok()?;
            (reconciles as usize >= self.count).then_some(())
        })
        .await?;
        tokio::time::sleep(SETTLED).await;
        let replicas = [("the leader", self.operator.process.id()), ("the standby", standby.process.id())];
        let usage = |(_, id): (&str, u32)| Usage::of(id);
        let (before, programs) = (self.requests()?, measure::cpu_by_program()?);
        let issued = self.load.tokens.tokens();
        let [leader, follower] = replicas.map(usage);
        let used = [leader?, follower?];
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let [leader, follower] = replicas.map(usage);
        let (requests, busy) = (self.requests()?.since(&before), measure::cpu_by_program()?);
        let minutes = seconds as f64 / 60.0;
        for ((replica, _), (before, after)) in replicas.iter().zip(used.into_iter().zip([leader?, follower?])) {
            self.row(
                "idle",
                &format!("CPU ms a minute: {replica}"),
                round((after.cpu - before.cpu) * 1000.0 / minutes),
            );
            self.row("idle", &format!("RSS of {replica}, MB"), round(after.rss_mb));
        }
        for program in SERVERS {
            let spent = measure::spent(&programs, &busy, program) * 1000.0 / minutes;
            self.row("idle", &format!("CPU ms a minute: {program}"), round(spent));
        }
        self.row("idle", "requests a minute", round(requests.total() as f64 / minutes));
        for (request, count) in requests.by_kind {
            self.row("idle", &format!("requests a minute: {request}"), round(count as f64 / minutes));
        }
        self.row("idle", "token requests", json!(self.load.tokens.tokens() - issued));
        drop(standby);
        self.stop();
        self.operator = start(&self.running, &self.program, &[]).await?;
        Ok(())
    }

    fn requests(&self) -> Result<Requests> {
        Requests::read(&self.running.testbed.directory.join("audit.log"))
    }
}
