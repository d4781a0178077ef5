//! `testbed bench OPERATOR N` measures what the operator costs and how late it is. It writes a table and a JSON file; it
//! tests nothing.
//!
//! The operator runs outside the cluster with its own permissions. It shares the machine with etcd (which syncs its
//! writes here), the API server and the token server, as in the published measurements of comparable operators.

mod burst;
mod idle;
mod lint;
mod load;
mod measure;
mod outage;
pub mod pace;
mod paths;
mod restart;
mod steady;
mod token_server;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testbed::{eventually, operator::Operator, setup::Running};

use self::{
    load::Load,
    measure::{Audit, Usage},
};

/// Renewals a second in the steady phase, and by which the lifetime of short-lived tokens is chosen.
const RATE: (&str, usize) = ("BENCH_RENEWALS_PER_SECOND", 25);
/// Length of the idle phase, in seconds; 0 skips it.
const IDLE: (&str, usize) = ("BENCH_IDLE_SECONDS", 60);
/// Length of the steady phase, in seconds; 0 skips it.
const STEADY: (&str, usize) = ("BENCH_STEADY_SECONDS", 60);
/// How long the authority is down, in seconds; 0 skips it.
const OUTAGE: (&str, usize) = ("BENCH_OUTAGE_SECONDS", 300);
/// Unrelated Secrets that are created; 0 skips them.
const UNRELATED: (&str, usize) = ("BENCH_UNRELATED_SECRETS", 20_000);
/// The most credentials for which a client makes the requests of the operator without one.
const BARE_MAX: usize = 1000;
/// Arguments of an operator that takes part in leader election.
const ELECTED: [&str; 3] = ["--leader-election=true", "--lease-namespace", testbed::INSTALLATION];
/// The programs that make an operator's requests expensive.
const SERVERS: [&str; 2] = ["kube-apiserver", "etcd"];

/// The time limit of a phase with so many credentials.
fn patience(count: usize) -> Duration {
    Duration::from_secs(900 + count as u64 / 20)
}

fn setting((variable, default): (&str, usize)) -> Result<usize> {
    let text = std::env::var(variable);
    text.map_or(Ok(default), |text| text.parse()).with_context(|| format!("{variable} must be a number"))
}

pub async fn bench(program: PathBuf, count: usize) -> Result<ExitCode> {
    let running = Running::start_durable().await?;
    let mut bench = Bench::new(running, program, count).await?;
    bench.burst().await?;
    bench.one_alone().await?;
    bench.idle(setting(IDLE)? as u64).await?;
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
    /// Renewals a second in the steady phase.
    rate: f64,
    operator: Operator,
    rows: Vec<(String, String, Value)>,
    series: serde_json::Map<String, Value>,
}

impl Bench {
    async fn new(running: Running, program: PathBuf, count: usize) -> Result<Self> {
        // the lifetime of tokens gives the wanted rate of renewals: each is renewed at two thirds of it
        let rate = setting(RATE)? as f64;
        let lifetime = ((load::renewed(count) as f64 / rate) * 1.5).max(30.0) as u32;
        let load = Load::new(&running.testbed, count, lifetime).await?;
        // before the operator starts, because it would react to these writes
        let bare = count.min(BARE_MAX);
        let (created, took) = load.bare_writes(bare).await?;
        let requests = load.bare_first_tokens(bare).await?;
        let operator = start(&running, &program, &[]).await?;
        let (rows, series) = (Vec::new(), serde_json::Map::new());
        let mut bench = Self { running, program, load, count, rate, operator, rows, series };
        let per = |time: Duration| round(time.as_secs_f64() * 1000.0 / bare as f64);
        bench.row("bare writes", "ms a Secret and a status", per(took));
        bench.row("bare writes", "ms a credential that is created", per(created));
        bench.bare_requests(&requests);
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

    /// Stops the operator.
    fn stop(&mut self) {
        self.operator.process.signal(Signal::SIGTERM);
        self.operator.process.wait(Duration::from_secs(20));
    }

    fn usage(&self) -> Result<Usage> {
        Usage::of(self.operator.process.id())
    }

    fn audit(&self) -> Result<Audit> {
        Audit::read(&self.running.testbed.directory.join("audit.log"))
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

fn round(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}
