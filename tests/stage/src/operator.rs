//! The operator as a process outside the cluster, with the permissions of its service account.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Result, bail};

use crate::{
    Stage, eventually,
    process::{Process, free_ports},
};

const READY: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(5);

/// A running operator. It is told to stop when this is dropped.
pub struct Operator {
    /// The process.
    pub process: Process,
    address: String,
}

impl Operator {
    /// Starts the program for these namespaces and waits until it is ready.
    ///
    /// # Errors
    /// With its log where it does not become ready.
    pub async fn start(stage: &Stage, program: &Path, namespaces: &str, arguments: &[&str]) -> Result<Self> {
        let [port] = free_ports()?;
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(program);
        command.args(["run", "--log-format", "json", "--log-level", "debug", "--metrics-address", &address]);
        command.args(["--namespaces", namespaces]).args(arguments).env("KUBECONFIG", &stage.operator_kubeconfig);
        let mut process = Process::start(&format!("operator-{namespaces}-{port}"), command, &stage.directory)?;
        let url = format!("http://{address}/readyz");
        let client = reqwest::Client::builder().timeout(ANSWER).build()?;
        let ready = eventually("the operator", READY, async || {
            if !process.is_running() {
                return Some(false);
            }
            client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()).then_some(true)
        });
        if !matches!(ready.await, Ok(true)) {
            bail!("the operator did not become ready; {}", process.log_tail());
        }
        Ok(Self { process, address })
    }

    /// What a path of its HTTP server gives.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn get(&self, path: &str) -> Result<String> {
        let client = reqwest::Client::builder().timeout(ANSWER).build()?;
        Ok(client.get(format!("http://{}{path}", self.address)).send().await?.error_for_status()?.text().await?)
    }
}
