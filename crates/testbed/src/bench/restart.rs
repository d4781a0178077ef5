//! Starts: a restart, a restart among Secrets that no credential names, and the start of the next leader.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testbed::{eventually, operator::Operator};

use super::{
    Bench, ELECTED,
    burst::ALONE,
    leads,
    measure::{self, metric},
    patience, round, start,
};

/// For so long, the leader may renew what has expired before it is ended.
const SETTLED: Duration = Duration::from_secs(120);

impl Bench {
    pub(super) async fn restart(&mut self, phase: &str) -> Result<()> {
        self.stop();
        // short-lived tokens come due all the time: their renewals are not a cost of the restart
        let (audit, requests) = (self.audit()?, self.load.tokens.tokens());
        let bytes = measure::bytes_sent(&self.load.client).await?;
        let began = Instant::now();
        self.operator = start(&self.running, &self.program, &[]).await?;
        let ready = began.elapsed();
        let all = self.count + ALONE;
        eventually("a reconciliation of each", patience(self.count), async || {
            let reconciles = metric(&self.operator, "itwin_reconciles_total").await.ok()?;
            (reconciles as usize >= all).then_some(())
        })
        .await?;
        let writes = self.audit()?.since(&audit);
        let requests = self.load.tokens.tokens() - requests;
        let usage = self.usage()?;
        for (what, after) in measure::bytes_sent(&self.load.client).await? {
            let sent = after - bytes.get(&what).copied().unwrap_or_default();
            if sent > 0.0 {
                self.row(phase, &format!("KB of {what}"), round(sent / 1024.0));
            }
        }
        self.row(phase, "CPU seconds", round(usage.cpu));
        self.row(phase, "seconds to ready", round(ready.as_secs_f64()));
        self.row(phase, "seconds to a reconciliation of each", round(began.elapsed().as_secs_f64()));
        self.row(phase, "token requests", json!(requests));
        self.row(phase, "writes", json!(writes.writes));
        self.row(phase, "reads of Secrets", json!(writes.reads_of_secrets));
        self.row(phase, "RSS, MB", round(usage.rss_mb));
        Ok(())
    }

    pub(super) async fn unrelated_secrets(&mut self, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let before = self.usage()?;
        let took = self.load.create_unrelated(count).await?;
        let after = self.usage()?;
        self.row("unrelated Secrets", "created", json!(count));
        self.row("unrelated Secrets", "seconds to create them", round(took.as_secs_f64()));
        self.row("unrelated Secrets", "MB more while they were created", round(after.rss_mb - before.rss_mb));
        self.restart("restart with unrelated Secrets").await
    }

    /// Waits until each token is valid: short-lived ones have expired while no operator ran, and a failover is measured, not
    /// the end of an outage. Returns how many are not, where that takes too long.
    async fn not_ready(&self, operator: &Operator) -> Value {
        // a page of metrics takes the operator longer the more credentials there are
        let (all, pause) = (self.count + ALONE, Duration::from_millis(self.count as u64 / 20));
        let missing = async || {
            tokio::time::sleep(pause).await;
            let ready = metric(operator, "itwin_credential_ready{").await.ok()?;
            Some(all.saturating_sub(ready as usize))
        };
        let valid = eventually("a valid token of each", SETTLED, async || missing().await.filter(|count| *count == 0));
        match valid.await {
            Ok(none) => json!(none),
            Err(_) => json!(missing().await),
        }
    }

    pub(super) async fn failover(&mut self) -> Result<()> {
        self.stop();
        for (phase, signal) in [("failover, killed", Signal::SIGKILL), ("failover, stopped", Signal::SIGTERM)] {
            let mut leader = start(&self.running, &self.program, &ELECTED).await?;
            leads(&leader).await?;
            let standby = start(&self.running, &self.program, &ELECTED).await?;
            let not_ready = self.not_ready(&leader).await;
            self.row(phase, "credentials that were not Ready before", not_ready);
            leader.process.signal(signal);
            let name = format!("failover-{}", signal as i32);
            let (leads, written) = tokio::join!(leads(&standby), self.load.create_alone(&name));
            leads?;
            self.row(phase, "seconds until another has written a Secret", round(written?.as_secs_f64()));
            leader.process.wait(Duration::from_secs(20));
            drop(standby);
        }
        Ok(())
    }
}
