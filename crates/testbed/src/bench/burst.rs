//! First tokens: those of all credentials at the same time, and of one alone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use testbed::{eventually, operator::Operator};

use super::{
    Bench, SERVERS,
    load::bare::Bare,
    measure::{self, metric, quantile},
    patience, round,
};

/// Credentials that are created one at a time.
pub(super) const ALONE: usize = 200;
/// Events that were published.
const PUBLISHED: &str = "itwin_kubernetes_requests_total{resource=\"events\",result=\"success\"";
/// The phase of a client that makes the requests of first tokens, and two of its figures.
const BARE: &str = "bare requests";
const WALL: &str = "ms a credential";
const CPU: &str = "CPU ms of kube-apiserver and etcd a credential";

impl Bench {
    /// Reports the requests of first tokens, made by a client that decides nothing.
    pub(super) fn bare_requests(&mut self, bare: &Bare) {
        let per = |value: f64| round(value * 1000.0 / bare.count as f64);
        let spent = SERVERS.map(|program| measure::spent(&bare.before, &bare.after, program));
        self.row(BARE, "credentials", json!(bare.count));
        self.row(BARE, WALL, per(bare.wall.as_secs_f64()));
        for (program, seconds) in SERVERS.iter().zip(spent) {
            self.row(BARE, &format!("CPU ms of {program} a credential"), per(seconds));
        }
        self.row(BARE, CPU, per(spent.iter().sum()));
    }

    pub(super) async fn burst(&mut self) -> Result<()> {
        let (before, audit) = (self.usage()?, self.audit()?);
        let requests = self.load.tokens.tokens();
        let programs = measure::cpu_by_program()?;
        let began = Instant::now();
        let watch = self.load.watch_secrets(self.count);
        let (created, seen) = tokio::join!(self.load.create_credentials(), watch);
        let (created, wall) = (created?, {
            seen?;
            began.elapsed()
        });
        let busy = measure::cpu_by_program()?;
        self.last_of("the last status", "itwin_credential_ready{").await?;
        let after = self.usage()?;
        self.last_of("the last event", PUBLISHED).await?;
        let (settled, whole) = (began.elapsed(), measure::cpu_by_program()?);
        let writes = self.audit()?.since(&audit);
        let requests = self.load.tokens.tokens() - requests;
        let count = self.count as f64;
        let per = |value: f64| round(value / count);
        let bare = self.value("bare writes", "ms a Secret and a status") * count / 1000.0;
        self.row("burst", "seconds to the last Secret", round(wall.as_secs_f64()));
        self.row("burst", "that, divided by what bare writes take", round(wall.as_secs_f64() / bare));
        self.row("burst", "of which the creation of the credentials took", round(created.as_secs_f64()));
        self.row("burst", "credentials a second", round(self.count as f64 / wall.as_secs_f64()));
        for (program, cpu) in busy {
            let cpu = cpu - programs.get(&program).copied().unwrap_or_default();
            self.row("burst", &format!("CPU seconds until then: {program}"), round(cpu));
        }
        self.row("burst", "CPU ms of the operator a credential", per((after.cpu - before.cpu) * 1000.0));
        self.row("burst", "of which in the kernel", per((after.system - before.system) * 1000.0));
        self.row("burst", "writes a credential, without events", per(writes.writes as f64));
        self.row("burst", "events a credential", per(writes.events as f64));
        self.row("burst", "reads of Secrets a credential", per(writes.reads_of_secrets as f64));
        self.row("burst", "token requests a credential", per(requests as f64));
        self.row("burst", "peak RSS, MB", round(after.peak_mb));
        let spent = |program: &str| measure::spent(&programs, &whole, program) * 1000.0 / count;
        let servers = SERVERS.map(|program| (program, spent(program)));
        self.row("burst", "seconds to the last status and event", round(settled.as_secs_f64()));
        for (program, ms) in servers {
            self.row("burst", &format!("CPU ms of {program} a credential"), round(ms));
        }
        let bare = |what: &str| self.value(BARE, what);
        let wall = settled.as_secs_f64() * 1000.0 / count / bare(WALL);
        let cpu = servers.iter().map(|(_, ms)| ms).sum::<f64>() / bare(CPU);
        self.row("burst", "seconds to the last status and event, divided by bare requests", round(wall));
        self.row("burst", "CPU of kube-apiserver and etcd, divided by bare requests", round(cpu));
        Ok(())
    }

    /// Waits until a metric has counted each credential.
    async fn last_of(&self, what: &str, series: &str) -> Result<()> {
        // a page of metrics takes the operator longer the more credentials there are
        let pause = Duration::from_millis(self.count as u64 / 20);
        eventually(what, patience(self.count), async || {
            tokio::time::sleep(pause).await;
            let counted = metric(&self.operator, series).await.ok()?;
            (counted as usize >= self.count).then_some(())
        })
        .await
    }

    pub(super) async fn one_alone(&mut self) -> Result<()> {
        let mut took = Vec::new();
        let before = token_request_seconds(&self.operator).await?;
        for number in 0..ALONE {
            took.push(self.load.create_alone(&format!("alone-{number}")).await?.as_secs_f64() * 1000.0);
        }
        let after = token_request_seconds(&self.operator).await?;
        let answer = (after.0 - before.0) / (after.1 - before.1).max(1.0) * 1000.0;
        self.row("one alone", "ms from create to Secret, p50", round(quantile(&mut took, 0.5)));
        self.row("one alone", "ms from create to Secret, p99", round(quantile(&mut took, 0.99)));
        self.row("one alone", "of which the token request took, mean ms", round(answer));
        Ok(())
    }
}

/// Seconds in token requests, and their number.
async fn token_request_seconds(operator: &Operator) -> Result<(f64, f64)> {
    let sum = metric(operator, "itwin_token_request_duration_seconds_sum").await.context("sum")?;
    Ok((sum, metric(operator, "itwin_token_request_duration_seconds_count").await.context("count")?))
}
