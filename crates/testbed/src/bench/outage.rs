//! The authority goes down for minutes, and comes back.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::json;
use testbed::eventually;

use super::{
    Bench,
    measure::{self, metric},
    patience, round,
};

/// The least time in which all credentials get the tokens that come due while the authority is down.
const SPAN: Duration = Duration::from_secs(60);
/// Tokens a second that all programs together can certainly issue and write here.
const SURELY: u64 = 100;

impl Bench {
    /// The only authority goes down when all tokens come due, and comes back.
    pub(super) async fn outage(&mut self, seconds: u64) -> Result<()> {
        if seconds == 0 {
            return Ok(());
        }
        // due at half of the lifetime, at most a twentieth earlier; until the authority is back, no token may expire
        let span = SPAN.max(Duration::from_secs(self.load.renewed() as u64 / SURELY));
        let lifetime = (seconds + span.as_secs()) * 2 + 80;
        let began = Instant::now();
        self.load.renew_at_half(lifetime as u32, span).await?;
        let due = began + Duration::from_secs(lifetime * 9 / 20).saturating_sub(Duration::from_secs(5));
        tokio::time::sleep_until(due.into()).await;
        let text = self.operator.get("/metrics").await?;
        let expired = measure::replaced_after_expiry(&text);
        let (audit, usage, requests) = (self.audit()?, self.usage()?, self.load.tokens.tokens());
        let died = Instant::now();
        self.load.tokens.die();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let (writes, after) = (self.audit()?.since(&audit), self.usage()?);
        let failing = metric(&self.operator, "itwin_credential_consecutive_failures{").await?;
        let refused = self.load.tokens.revive();
        let revived = Instant::now();
        self.load.tokens_reach(requests + self.load.renewed()).await?;
        let (all_after, renewing) = (revived.elapsed(), self.usage()?.cpu - after.cpu);
        eventually("the last metric", patience(self.count), async || {
            let failing = metric(&self.operator, "itwin_credential_consecutive_failures{").await.ok()?;
            (failing == 0.0).then_some(())
        })
        .await?;
        let text = self.operator.get("/metrics").await?;
        let mut by_second: HashMap<u64, usize> = HashMap::new();
        for at in &refused {
            *by_second.entry(at.saturating_duration_since(died).as_secs()).or_default() += 1;
        }
        let phase = "authority dead";
        self.row(phase, "seconds", json!(seconds));
        self.row(phase, "failed attempts, of all credentials", json!(failing));
        self.row(phase, "connections to the authority", json!(refused.len()));
        self.row(phase, "connections in the busiest second", json!(by_second.values().max()));
        self.row(phase, "writes", json!(writes.writes));
        self.row(phase, "events", json!(writes.events));
        self.row(phase, "CPU, share of a core", round((after.cpu - usage.cpu) / seconds as f64));
        self.row(phase, "RSS, MB", round(after.rss_mb));
        self.row("authority back", "seconds until all have a new token", round(all_after.as_secs_f64()));
        self.row("authority back", "CPU ms a renewal", round(renewing * 1000.0 / self.load.renewed() as f64));
        let expired = measure::replaced_after_expiry(&text) - expired;
        self.row("authority back", "tokens replaced after they expired", round(expired));
        Ok(())
    }
}
