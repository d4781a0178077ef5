//! Measurements: the process, the audit log, the metrics.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::Value;
use testbed::operator::Operator;

/// Ticks per second of the kernel's accounting.
const TICKS: f64 = 100.0;

/// The resources that a process used up to now.
#[derive(Clone, Copy)]
pub struct Usage {
    /// Seconds of CPU.
    pub cpu: f64,
    /// The part of them that it spent in the kernel.
    pub system: f64,
    /// Resident memory.
    pub rss_mb: f64,
    /// Peak of the resident memory.
    pub peak_mb: f64,
}

impl Usage {
    /// Reads them from the kernel.
    pub fn of(pid: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kilobytes = |name: &str| -> f64 {
            let line = status.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_default()
        };
        Ok(Self {
            cpu: (ticks(11) + ticks(12)) / TICKS,
            system: ticks(12) / TICKS,
            rss_mb: kilobytes("VmRSS:") / 1024.0,
            peak_mb: kilobytes("VmHWM:") / 1024.0,
        })
    }
}

/// CPU seconds up to now of the programs that this process has started, by name, and its own.
pub fn cpu_by_program() -> Result<BTreeMap<String, f64>> {
    let ours = std::process::id();
    let mut programs = BTreeMap::from([("the load generator".to_owned(), Usage::of(ours)?.cpu)]);
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // it may have ended meanwhile
        let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("PPid:") == Some(&ours.to_string())
            && let (Some(name), Ok(usage)) = (field("Name:"), Usage::of(pid))
        {
            *programs.entry(name.to_owned()).or_default() += usage.cpu;
        }
    }
    Ok(programs)
}

/// CPU seconds of a program between two readings of [`cpu_by_program`].
pub fn spent(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, program: &str) -> f64 {
    let [before, after] = [before, after].map(|programs| programs.get(program).copied().unwrap_or_default());
    after - before
}

/// The requests of the operator, by verb and resource.
pub struct Requests {
    /// How many of each kind, such as `update leases`.
    pub by_kind: BTreeMap<String, usize>,
}

impl Requests {
    /// Counts the audit log up to now. A watch counts when it begins.
    pub fn read(log: &Path) -> Result<Self> {
        let mut by_kind: BTreeMap<String, usize> = BTreeMap::new();
        for line in BufReader::new(File::open(log)?).lines() {
            // the last line may be incomplete
            let Ok(entry) = serde_json::from_str::<Value>(&line?) else { continue };
            let verb = entry["verb"].as_str().unwrap_or_default();
            let is_end_of_watch = verb == "watch" && entry["stage"] != "ResponseStarted";
            if entry["user"]["username"] == "admin" || is_end_of_watch {
                continue;
            }
            // paths such as /version name no resource
            let resource = entry["objectRef"]["resource"].as_str().unwrap_or("path");
            *by_kind.entry(format!("{verb} {resource}")).or_default() += 1;
        }
        Ok(Self { by_kind })
    }

    /// The requests after an earlier count.
    pub fn since(mut self, before: &Self) -> Self {
        for (kind, count) in &mut self.by_kind {
            *count -= before.by_kind.get(kind).copied().unwrap_or_default();
        }
        self.by_kind.retain(|_, count| *count > 0);
        self
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.by_kind.values().sum()
    }
}

/// How often the operator made each kind of call to the API server.
#[derive(Clone, Copy, Default)]
pub struct Audit {
    /// Creations and changes, except those of events and the Lease.
    pub writes: usize,
    /// Creations and changes of events.
    pub events: usize,
    /// Secrets that were read one by one.
    pub reads_of_secrets: usize,
    /// Lists of any resource.
    pub lists: usize,
}

impl Audit {
    /// Counts the audit log up to now.
    pub fn read(log: &Path) -> Result<Self> {
        let mut audit = Self::default();
        for line in BufReader::new(File::open(log)?).lines() {
            // the last line may be incomplete
            let Ok(entry) = serde_json::from_str::<Value>(&line?) else { continue };
            if entry["user"]["username"] == "admin" {
                continue;
            }
            let resource = entry["objectRef"]["resource"].as_str().unwrap_or_default();
            match entry["verb"].as_str().unwrap_or_default() {
                "create" | "patch" | "update" if resource == "events" => audit.events += 1,
                "create" | "patch" | "update" if resource != "leases" => audit.writes += 1,
                "get" if resource == "secrets" => audit.reads_of_secrets += 1,
                "list" => audit.lists += 1,
                _ => {}
            }
        }
        Ok(audit)
    }

    /// The calls after an earlier count.
    pub fn since(self, before: &Self) -> Self {
        Self {
            writes: self.writes - before.writes,
            events: self.events - before.events,
            reads_of_secrets: self.reads_of_secrets - before.reads_of_secrets,
            lists: self.lists - before.lists,
        }
    }
}

/// The sum of a metric's series whose line starts with this.
pub async fn metric(operator: &Operator, series: &str) -> Result<f64> {
    let text = operator.get("/metrics").await?;
    let lines = text.lines().filter(|line| line.starts_with(series));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum())
}

/// The histogram of the renewal lateness.
pub struct Lateness {
    /// How many renewals were at most this many milliseconds late.
    buckets: BTreeMap<u64, f64>,
    /// Renewals.
    pub count: f64,
}

impl Lateness {
    pub fn read(metrics: &str) -> Self {
        let name = "itwin_credential_renewal_lateness_seconds";
        let mut lateness = Self { buckets: BTreeMap::new(), count: 0.0 };
        for line in metrics.lines().filter(|line| line.starts_with(name)) {
            let value: f64 = line.rsplit(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default();
            if let Some(bound) = line.split("le=\"").nth(1).and_then(|rest| rest.split('"').next()) {
                if let Ok(bound) = bound.parse::<f64>()
                    && bound.is_finite()
                {
                    lateness.buckets.insert((bound * 1000.0) as u64, value);
                }
            } else if line.contains("_count") {
                lateness.count = value;
            }
        }
        lateness
    }

    pub fn since(self, before: &Self) -> Self {
        let less = |(bound, value): (u64, f64)| (bound, value - before.buckets.get(&bound).copied().unwrap_or(0.0));
        Self { buckets: self.buckets.into_iter().map(less).collect(), count: self.count - before.count }
    }

    /// The lateness, in seconds, that this part of all renewals does not exceed, interpolated within its bucket;
    /// infinite if no bucket holds that many.
    pub fn quantile(&self, part: f64) -> f64 {
        let wanted = self.count * part;
        let mut below = (0, 0.0);
        for (bound, count) in &self.buckets {
            if *count >= wanted {
                let within = (wanted - below.1) / (count - below.1).max(1.0);
                return (below.0 as f64 + (*bound - below.0) as f64 * within) / 1000.0;
            }
            below = (*bound, *count);
        }
        f64::MAX
    }

    /// The upper bound, in seconds, of the last bucket that is not empty: no renewal was later.
    pub fn bound(&self) -> f64 {
        let bucket = self.buckets.iter().find(|(_, count)| **count >= self.count);
        bucket.map_or(f64::MAX, |(bound, _)| *bound as f64 / 1000.0)
    }
}

/// How many tokens had expired when they were replaced.
pub fn replaced_after_expiry(metrics: &str) -> f64 {
    let line = metrics
        .lines()
        .find(|line| line.starts_with("itwin_credential_validity_at_replacement_seconds_bucket{le=\"0\"}"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

/// The value that this part of all values does not exceed.
pub fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(((last as f64) * part).round() as usize).copied().context("no values").unwrap_or_default()
}

/// The resources that the operator lists and watches.
const LISTED: [&str; 3] = ["secrets", "itwinservicecredentials", "itwinauthorities"];

/// Bytes that the API server sent to any client, by resource: responses to lists, and events of watches.
pub async fn bytes_sent(client: &kube::Client) -> Result<BTreeMap<String, f64>> {
    let text = client.request_text(hyper::Request::get("/metrics").body(Vec::new())?).await?;
    let mut bytes = BTreeMap::new();
    for line in text.lines() {
        let kind = match line.split('{').next() {
            Some("apiserver_response_sizes_sum") if line.contains("verb=\"LIST\"") => "lists",
            Some("apiserver_watch_events_sizes_sum") => "watches",
            _ => continue,
        };
        let resource = line.split("resource=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        if !LISTED.contains(&resource) {
            continue;
        }
        let value: f64 = line.rsplit(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default();
        *bytes.entry(format!("{kind} of {resource}")).or_default() += value;
    }
    Ok(bytes)
}
