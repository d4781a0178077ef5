//! `testbed bench OPERATOR N` measures what the operator costs and how late it is. It writes a table and a JSON file; it
//! tests nothing.
//!
//! The operator runs outside the cluster with its own permissions. It shares the machine with etcd (which syncs its
//! writes here), the API server and the token server, as in the published measurements of comparable operators.

mod lint;
mod load;
mod measure;
pub mod pace;
mod token_server;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testbed::{eventually, operator::Operator, setup::Running};

use self::{
    load::Load,
    measure::{Audit, Usage, metric, quantile},
};

/// The time limit of a phase.
const PATIENCE: Duration = Duration::from_secs(900);
/// Credentials that are created one at a time.
const ALONE: usize = 200;
/// Renewals a second in the steady phase.
const PER_SECOND: f64 = 25.0;
/// Length of the steady phase, in seconds; 0 skips it.
const STEADY: (&str, usize) = ("BENCH_STEADY_SECONDS", 60);
/// How long the authority is down, in seconds; 0 skips it.
const OUTAGE: (&str, usize) = ("BENCH_OUTAGE_SECONDS", 300);
/// Unrelated Secrets that are created; 0 skips them.
const UNRELATED: (&str, usize) = ("BENCH_UNRELATED_SECRETS", 20_000);
/// How long a client makes the same calls without an operator, in seconds.
const PACED: u64 = 30;
/// Time between two samples of a series, in seconds.
const SAMPLE: u64 = 10;
/// The least time in which all credentials get the tokens that come due while the authority is down.
const SPAN: Duration = Duration::from_secs(60);
/// Tokens a second that all programs together can certainly issue and write here.
const SURELY: u64 = 100;

fn setting((variable, default): (&str, usize)) -> Result<usize> {
    let text = std::env::var(variable);
    text.map_or(Ok(default), |text| text.parse()).with_context(|| format!("{variable} must be a number"))
}

pub async fn bench(program: PathBuf, count: usize) -> Result<ExitCode> {
    let running = Running::start_durable().await?;
    let mut bench = Bench::new(running, program, count).await?;
    bench.burst().await?;
    bench.one_alone().await?;
    bench.restart("restart, everything valid").await?;
    bench.unrelated_secrets(setting(UNRELATED)?).await?;
    bench.steady(setting(STEADY)? as u64).await?;
    bench.outage(setting(OUTAGE)? as u64).await?;
    bench.failover().await?;
    bench.lint(setting(lint::PODS)?).await?;
    bench.print()?;
    Ok(ExitCode::SUCCESS)
}

struct Bench {
    running: Running,
    program: PathBuf,
    load: Load,
    count: usize,
    operator: Operator,
    rows: Vec<(String, String, Value)>,
    series: serde_json::Map<String, Value>,
}

impl Bench {
    async fn new(running: Running, program: PathBuf, count: usize) -> Result<Self> {
        // the lifetime of tokens gives the wanted rate of renewals: each is renewed at two thirds of it
        let lifetime = ((count as f64 / PER_SECOND) * 1.5).max(30.0) as u32;
        let load = Load::new(&running.testbed, count, lifetime).await?;
        // before the operator starts, because it would react to these writes
        let bare = count.min(1000);
        let (created, took) = load.bare_writes(bare).await?;
        let operator = start(&running, &program, &[]).await?;
        let mut bench = Self { running, program, load, count, operator, rows: Vec::new(), series: Default::default() };
        let per = |time: Duration| round(time.as_secs_f64() * 1000.0 / bare as f64);
        bench.row("bare writes", "ms a Secret and a status", per(took));
        bench.row("bare writes", "ms a credential that is created", per(created));
        Ok(bench)
    }

    fn row(&mut self, phase: &str, what: &str, value: Value) {
        eprintln!("bench: {phase}: {what} = {value}");
        self.rows.push((phase.to_owned(), what.to_owned(), value));
    }

    fn value(&self, phase: &str, what: &str) -> f64 {
        let row = self.rows.iter().find(|row| row.0 == phase && row.1 == what);
        row.and_then(|row| row.2.as_f64()).unwrap_or(f64::NAN)
    }

    fn usage(&self) -> Result<Usage> {
        Usage::of(self.operator.process.id())
    }

    fn audit(&self) -> Result<Audit> {
        Audit::read(&self.running.testbed.directory.join("audit.log"))
    }

    async fn burst(&mut self) -> Result<()> {
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
        let reported = eventually("the last status", PATIENCE, async || {
            let ready = metric(&self.operator, "itwin_credential_ready{").await.ok()?;
            (ready as usize >= self.count).then_some(())
        });
        reported.await?;
        let (after, writes) = (self.usage()?, self.audit()?.since(&audit));
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
        Ok(())
    }

    async fn one_alone(&mut self) -> Result<()> {
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

    async fn restart(&mut self, phase: &str) -> Result<()> {
        self.operator.process.signal(Signal::SIGTERM);
        self.operator.process.wait(Duration::from_secs(20));
        // short-lived tokens come due all the time: their renewals are not a cost of the restart
        let (audit, requests) = (self.audit()?, self.load.tokens.tokens());
        let bytes = measure::bytes_sent(&self.load.client).await?;
        let began = Instant::now();
        self.operator = start(&self.running, &self.program, &[]).await?;
        let ready = began.elapsed();
        let all = self.count + ALONE;
        eventually("a reconciliation of each", PATIENCE, async || {
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

    /// Renewals at a steady rate.
    async fn steady(&mut self, seconds: u64) -> Result<()> {
        if seconds == 0 {
            return Ok(());
        }
        self.load.shorten().await?;
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
        self.operator.process.signal(Signal::SIGTERM);
        self.operator.process.wait(Duration::from_secs(20));
        let cpu = pace::cpu_of_bare_renewals(&self.running.testbed, &self.load, PER_SECOND, PACED).await?;
        self.row("steady", "CPU ms of a client that only makes the same calls", round(cpu));
        self.operator = start(&self.running, &self.program, &[]).await?;
        Ok(())
    }

    /// The only authority goes down when all tokens come due, and comes back.
    async fn outage(&mut self, seconds: u64) -> Result<()> {
        if seconds == 0 {
            return Ok(());
        }
        // due at half of the lifetime, at most a twentieth earlier; until the authority is back, no token may expire
        let span = SPAN.max(Duration::from_secs(self.count as u64 / SURELY));
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
        self.load.tokens_reach(requests + self.count).await?;
        let (all_after, renewing) = (revived.elapsed(), self.usage()?.cpu - after.cpu);
        eventually("the last metric", PATIENCE, async || {
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
        self.row("authority back", "CPU ms a renewal", round(renewing * 1000.0 / self.count as f64));
        let expired = measure::replaced_after_expiry(&text) - expired;
        self.row("authority back", "tokens replaced after they expired", round(expired));
        Ok(())
    }

    async fn unrelated_secrets(&mut self, count: usize) -> Result<()> {
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

    async fn failover(&mut self) -> Result<()> {
        self.operator.process.signal(Signal::SIGTERM);
        self.operator.process.wait(Duration::from_secs(20));
        let elected = ["--leader-election=true", "--lease-namespace", testbed::INSTALLATION];
        for (phase, signal) in [("failover, killed", Signal::SIGKILL), ("failover, stopped", Signal::SIGTERM)] {
            let mut leader = start(&self.running, &self.program, &elected).await?;
            leads(&leader).await?;
            let standby = start(&self.running, &self.program, &elected).await?;
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

    fn print(&self) -> Result<()> {
        println!("\n{} credentials in {} namespaces", self.count, self.load.namespaces());
        let mut last = "";
        for (phase, what, value) in &self.rows {
            println!("{:<28} {what:<50} {value:>10}", if phase == last { "" } else { phase });
            last = phase;
        }
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(phase, what, value)| json!({"phase": phase, "what": what, "value": value}))
            .collect();
        let file = Path::new("target").join(format!("bench-{}.json", self.count));
        std::fs::write(
            &file,
            serde_json::to_string_pretty(&json!({"credentials": self.count, "rows": rows, "series": self.series}))?,
        )?;
        println!("\nthe same as JSON: {}", file.display());
        Ok(())
    }
}

async fn start(running: &Running, program: &Path, arguments: &[&str]) -> Result<Operator> {
    let arguments = [&["--log-level", "warn"], arguments].concat();
    Operator::start(&running.testbed, program, "", &arguments).await
}

async fn leads(operator: &Operator) -> Result<()> {
    eventually("a leader", Duration::from_secs(60), async || {
        operator.get("/metrics").await.ok()?.contains("itwin_leader 1\n").then_some(())
    })
    .await
}

/// Seconds in token requests, and their number.
async fn token_request_seconds(operator: &Operator) -> Result<(f64, f64)> {
    let sum = metric(operator, "itwin_token_request_duration_seconds_sum").await.context("sum")?;
    Ok((sum, metric(operator, "itwin_token_request_duration_seconds_count").await.context("count")?))
}

fn round(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}
