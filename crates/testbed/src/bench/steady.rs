//! Renewals at a steady rate, and what a client pays that only makes their calls.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::{Bench, measure, pace, round, start};

/// How long a client makes the same calls without an operator, in seconds.
const PACED: u64 = 30;
/// Time between two samples of a series, in seconds.
const SAMPLE: u64 = 10;

impl Bench {
    /// Renewals at a steady rate.
    pub(super) async fn steady(&mut self, seconds: u64) -> Result<()> {
        if seconds == 0 {
            return Ok(());
        }
        self.load.shorten().await?;
        self.row("steady", "credentials that are renewed", json!(self.load.renewed()));
        let text = self.operator.get("/metrics").await?;
        let expired = measure::replaced_after_expiry(&text);
        let (before, audit, cpu) = (measure::Lateness::read(&text), self.audit()?, self.usage()?);
        let (requests, programs) = (self.load.tokens.tokens(), measure::cpu_by_program()?);
        let began = Instant::now();
        let (mut peak, mut series) = (0.0_f64, Vec::new());
        while began.elapsed().as_secs() < seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let rss = self.usage()?.rss_mb;
            peak = peak.max(rss);
            if began.elapsed().as_secs() / SAMPLE >= series.len() as u64 {
                series.push(round(rss));
            }
        }
        let elapsed = began.elapsed().as_secs_f64();
        let busy = measure::cpu_by_program()?;
        let text = self.operator.get("/metrics").await?;
        let late = measure::Lateness::read(&text).since(&before);
        let (writes, after) = (self.audit()?.since(&audit), self.usage()?);
        let requests = self.load.tokens.tokens() - requests;
        let renewals = late.count.max(1.0);
        self.row("steady", "renewals a second", round(late.count / elapsed));
        self.row("steady", "seconds late, p50", round(late.quantile(0.5)));
        self.row("steady", "seconds late, p99", round(late.quantile(0.99)));
        self.row("steady", "seconds late, none more than", round(late.bound()));
        self.row("steady", "writes a renewal", round(writes.writes as f64 / renewals));
        self.row("steady", "reads of Secrets a renewal", round(writes.reads_of_secrets as f64 / renewals));
        self.row("steady", "lists", json!(writes.lists));
        self.row("steady", "token requests a renewal", round(requests as f64 / renewals));
        self.row("steady", "CPU ms a renewal", round((after.cpu - cpu.cpu) * 1000.0 / renewals));
        self.row("steady", "of which in the kernel", round((after.system - cpu.system) * 1000.0 / renewals));
        for (program, cpu) in busy {
            let cpu = cpu - programs.get(&program).copied().unwrap_or_default();
            self.row("steady", &format!("CPU ms a renewal: {program}"), round(cpu * 1000.0 / renewals));
        }
        self.row("steady", "peak RSS, MB", round(peak));
        let expired = measure::replaced_after_expiry(&text) - expired;
        self.row("steady", "tokens replaced after they expired", round(expired));
        self.row("steady", "CPU, share of a core", round((after.cpu - cpu.cpu) / elapsed));
        self.series.insert("RSS in MB, every 10 s of the steady phase".to_owned(), series.into());
        self.bare_renewals().await
    }

    /// What any client pays for the calls of a renewal at this pace, on the same cluster.
    async fn bare_renewals(&mut self) -> Result<()> {
        self.stop();
        let cpu = pace::cpu_of_bare_renewals(&self.running.testbed, &self.load, self.rate, PACED).await?;
        self.row("steady", "CPU ms of a client that only makes the same calls", round(cpu));
        self.operator = start(&self.running, &self.program, &[]).await?;
        Ok(())
    }
}
