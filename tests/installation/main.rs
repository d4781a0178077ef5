//! Installing, upgrading, rolling back and removing the chart as an administrator does, with Helm 3 and Helm 4, and an
//! authorization server that does not respond. The upgrade from the last release. The examples and the demo. Each test
//! has a control plane of its own.

#![allow(missing_docs)]

mod demo;
mod demo_programs;
mod examples;
mod fleet;
mod last_release;
mod observer;
mod releases;
mod uninstall;
mod upgrade;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use testbed::{INSTALLATION, Testbed, control_plane::ControlPlane, project, setup};

const PROGRAM: &str = env!("CARGO_BIN_EXE_itwin-credential-operator");
/// The limit of a step on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A server that refuses every connection.
const DEAD: &str = "https://127.0.0.1:1";

fn chart() -> String {
    project().join("charts").join(INSTALLATION).display().to_string()
}

/// A cluster without the operator.
struct Cluster {
    testbed: Testbed,
    _control_plane: ControlPlane,
}

impl Cluster {
    async fn new(name: &str) -> Result<Self> {
        let (control_plane, testbed) = setup::empty_control_plane(&Testbed::current()?, name).await?;
        // the operator runs as the administrator: its service account comes and goes with the release
        std::fs::copy(&testbed.kubeconfig, &testbed.operator_kubeconfig)?;
        Ok(Self { testbed, _control_plane: control_plane })
    }

    /// Runs Helm for a release in the namespace `operator`, with an authority whose server is dead, and waits.
    async fn helm(&self, program: &Path, what: &str, release: &str, settings: &[&str]) -> Result<String> {
        let chart = chart();
        let values = format!("replicaCount=0,authorities.ims.issuer={DEAD},authorities.bentley-ims=null");
        let mut arguments = vec![what, release];
        if ["install", "upgrade"].contains(&what) {
            arguments.push(&chart);
            arguments.extend(["--set", &values]);
        }
        if what == "install" {
            arguments.push("--create-namespace");
        }
        arguments.extend(["--namespace", "operator", "--wait", "--timeout", "60s"]);
        arguments.extend(settings);
        self.testbed.helm_with(program, &arguments).await
    }

    /// The authority's UID, and the field that the tests change.
    async fn authority(&self) -> Result<(String, u64)> {
        let text = self.testbed.kubectl(&["get", "itauth", "ims", "-o", "json"]).await?;
        let object: Value = serde_json::from_str(&text)?;
        let uid = object["metadata"]["uid"].as_str().context("no uid")?.to_owned();
        Ok((uid, object["spec"]["maxConcurrentRequests"].as_u64().context("no field")?))
    }

    /// Waits until the operator has noticed that the server is dead.
    async fn authority_is_not_ready(&self) -> Result<()> {
        let wait = ["wait", "--for=condition=Ready=false", "itauth/ims", "--timeout=60s"];
        self.testbed.kubectl(&wait).await.map(drop)
    }
}

/// What a command that must fail says.
async fn refused(result: impl Future<Output = Result<String>>) -> Result<String> {
    match result.await {
        Ok(said) => bail!("it succeeded: {said}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

fn helm(testbed: &Testbed, version: &str) -> PathBuf {
    if version == "3" { testbed.helm3.clone() } else { testbed.helm.clone() }
}

fn crds() -> String {
    project().join("crds/credentials.itwin.dev.yaml").display().to_string()
}
