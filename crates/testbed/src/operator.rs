//! The operator as a process outside the cluster, with the permissions of its service account.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Result, bail};

use crate::{
    Testbed, eventually,
    process::{Process, free_ports},
};

const READY: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(5);

/// A running operator. It is stopped when this is dropped; its last metrics are saved next to its log.
pub struct Operator {
    /// The process.
    pub process: Process,
    address: String,
}

impl Drop for Operator {
    fn drop(&mut self) {
        // the scan for secrets reads the last metrics; an operator that a test has ended has none
        let file = self.process.log().with_extension("metrics");
        if let Ok(text) = last_metrics(&self.address) {
            let _ = std::fs::write(file, text);
        }
    }
}

/// What is reached without a proxy: this machine, and what the user's environment names.
fn without_proxy() -> String {
    let own = ["NO_PROXY", "no_proxy"].map(|name| std::env::var(name).unwrap_or_default());
    ["localhost,127.0.0.1,::1"].into_iter().chain(own.iter().map(String::as_str)).collect::<Vec<_>>().join(",")
}

/// The metrics, without an async runtime.
fn last_metrics(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

impl Operator {
    /// Starts the program for these namespaces and waits until it is ready. Leader election is off, unless the
    /// arguments say otherwise.
    ///
    /// # Errors
    /// Fails, with its log, if it does not become ready.
    pub async fn start(testbed: &Testbed, program: &Path, namespaces: &str, arguments: &[&str]) -> Result<Self> {
        Self::start_with(testbed, program, namespaces, arguments, &[]).await
    }

    /// Like [`Self::start`], with environment variables.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(
        testbed: &Testbed,
        program: &Path,
        namespaces: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let mut operator = Self::spawn(testbed, program, namespaces, arguments, variables)?;
        operator.wait_ready().await?;
        Ok(operator)
    }

    /// Starts the program and does not wait, so that a test can end it while it starts.
    ///
    /// # Errors
    /// Fails if the program cannot be started.
    pub fn spawn(
        testbed: &Testbed,
        program: &Path,
        namespaces: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let [port] = free_ports()?;
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(program);
        command.args(["run", "--log-format", "json", "--metrics-address", &address]);
        command.env("ITWIN_OPERATOR_LOG_LEVEL", "debug");
        // without the argument it watches all namespaces
        if !namespaces.is_empty() {
            command.args(["--namespaces", namespaces]);
        }
        command.args(arguments).env("KUBECONFIG", &testbed.operator_kubeconfig);
        // the authorization servers are on this machine, and the user's proxy is not asked for them
        command.env("NO_PROXY", without_proxy());
        // tests run in parallel, and one Lease would let only one operator act
        command.env("ITWIN_OPERATOR_LEADER_ELECTION", "false");
        command.envs(variables.iter().copied());
        let process = Process::start(&format!("operator-{namespaces}-{port}"), command, &testbed.directory)?;
        Ok(Self { process, address })
    }

    /// The address of its HTTP server.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// Fails, with its log, if it does not become ready.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let url = format!("http://{}/readyz", self.address);
        let client = crate::http().timeout(ANSWER).build()?;
        let ready = eventually("the operator", READY, async || {
            if !self.process.is_running() {
                return Some(false);
            }
            client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()).then_some(true)
        });
        if !matches!(ready.await, Ok(true)) {
            bail!("the operator did not become ready; {}", self.process.log_tail());
        }
        Ok(())
    }

    /// The status and the body of the response of its HTTP server for a path.
    ///
    /// # Errors
    /// Fails if it does not respond.
    pub async fn answer(&self, path: &str) -> Result<(u16, String)> {
        let client = reqwest::Client::builder().timeout(ANSWER).build()?;
        let answer = client.get(format!("http://{}{path}", self.address)).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// The response of its HTTP server for a path.
    ///
    /// # Errors
    /// Fails if it does not respond.
    pub async fn get(&self, path: &str) -> Result<String> {
        let client = crate::http().timeout(ANSWER).build()?;
        Ok(client.get(format!("http://{}{path}", self.address)).send().await?.error_for_status()?.text().await?)
    }
}
