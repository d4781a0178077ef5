//! The time that `kubectl itcred lint` needs for many pods, and its memory.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{Testbed, namespace::Namespace};
use tokio::process::Command;

use super::{Bench, measure::Usage, round};

/// Pods that are created; 0 skips the phase.
pub const PODS: (&str, usize) = ("BENCH_PODS", 10_000);
/// Pods that are created at the same time.
const AT_ONCE: usize = 32;
/// How often they are read.
const RUNS: usize = 3;
/// The time limit of one run.
const LIMIT: Duration = Duration::from_secs(120);
/// The time between two reads of the memory.
const SAMPLE: Duration = Duration::from_millis(5);
const PHASE: &str = "kubectl itcred lint";

impl Bench {
    /// The plugin reads many pods, while no operator runs.
    pub(super) async fn lint(&mut self, pods: usize) -> Result<()> {
        if pods == 0 {
            return Ok(());
        }
        let plugin = self.program.with_file_name("kubectl-itcred");
        ensure!(plugin.exists(), "{} does not exist: cargo build --workspace", plugin.display());
        let testbed = self.running.testbed.clone();
        let namespace = Namespace::on(testbed.clone(), "lint").await?;
        namespace.create_all((0..pods).map(pod), AT_ONCE).await?;
        let (mut slowest, mut peak) = (Duration::ZERO, 0_f64);
        for _ in 0..RUNS {
            let (took, megabytes) = run(&testbed, &plugin, &namespace.name).await?;
            (slowest, peak) = (slowest.max(took), peak.max(megabytes));
        }
        self.row(PHASE, "pods", json!(pods));
        self.row(PHASE, &format!("seconds, the slowest of {RUNS}"), round(slowest.as_secs_f64()));
        self.row(PHASE, "peak RSS, MB", round(peak));
        Ok(())
    }
}

/// A pod that mounts a Secret.
fn pod(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("app-{number}")},
        "spec": {
            "containers": [{"name": "main", "image": "example.com/app",
                            "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/itwin"}]}],
            "volumes": [{"name": "token", "secret": {"secretName": "token"}}],
        },
    })
}

/// How long one run took, and its peak memory in MB, as far as it was seen.
async fn run(testbed: &Testbed, plugin: &Path, namespace: &str) -> Result<(Duration, f64)> {
    let began = Instant::now();
    let mut command = Command::new(plugin);
    command.args(["lint", "--namespace", namespace]).env("KUBECONFIG", &testbed.kubeconfig);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn()?;
    let pid = child.id().context("it ended already")?;
    let mut peak = 0_f64;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        ensure!(began.elapsed() < LIMIT, "kubectl itcred lint takes too long");
        peak = peak.max(Usage::of(pid).map_or(0.0, |usage| usage.peak_mb));
        tokio::time::sleep(SAMPLE).await;
    };
    ensure!(status.success(), "kubectl itcred lint: {status}");
    Ok((began.elapsed(), peak))
}
