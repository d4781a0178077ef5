//! `make demo` on a cluster of the user.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Cluster, PROGRAM};

/// `make demo` on a cluster of the user's, by context.
pub fn demo(cluster: &Cluster) -> Result<Command> {
    let config: Value = serde_json::from_str(&std::fs::read_to_string(&cluster.testbed.kubeconfig)?)?;
    let context = config["contexts"][0]["name"].as_str().context("no context")?;
    // built with this test, next to its folder
    let program = Path::new(PROGRAM).with_file_name("testbed");
    ensure!(program.exists(), "build the workspace first: {} is missing", program.display());
    let mut command = Command::new(program);
    command.args(["demo", PROGRAM]).env("CLUSTER", context).env("KUBECONFIG", &cluster.testbed.kubeconfig);
    // everything that the demo calls is on this machine: a proxy that a user needs for other servers is not asked
    for proxy in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"] {
        command.env(proxy, "http://127.0.0.1:1");
    }
    Ok(command)
}

pub fn played(mut demo: Command) -> Result<(bool, String)> {
    let output = demo.output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

/// Every object of the cluster that a demo or an installation creates.
async fn everything(cluster: &Cluster) -> Result<String> {
    let kinds = "crd,namespaces,clusterroles,clusterrolebindings,secrets,roles,rolebindings,serviceaccounts,events";
    let names = cluster.testbed.kubectl(&["get", kinds, "-A", "-o", "name"]).await?;
    // the API server and its controllers create these at their own pace
    let own = |name: &&str| name.contains("itwin") || name.starts_with("namespace");
    Ok(names.lines().filter(own).collect::<Vec<_>>().join(" "))
}

#[tokio::test]
async fn demo_that_was_killed_is_removed_by_the_commands_that_it_printed() -> Result<()> {
    let cluster = Cluster::new("demo-killed").await?;
    let before = everything(&cluster).await?;
    let mut demo = demo(&cluster)?.env("KEEP", "1").stdout(Stdio::piped()).spawn()?;
    let mut said = String::new();
    for line in BufReader::new(demo.stdout.take().context("no output")?).lines() {
        said.push_str(&line?);
        said.push('\n');
        if said.contains("Left running") {
            break;
        }
    }
    demo.kill()?;
    demo.wait()?;
    ensure!(said.contains("Left running"), "{said}");
    assert_ne!(everything(&cluster).await?, before);
    let (succeeded, complaint) = played(self::demo(&cluster)?)?;
    let expected = "perhaps from a demo that was killed: run\n  kubectl delete";
    ensure!(!succeeded && complaint.contains(expected), "{complaint}");

    let commands: Vec<&str> = said.lines().filter(|line| line.trim_start().starts_with("kubectl delete ")).collect();
    let folder = tempfile::tempdir()?;
    std::os::unix::fs::symlink(&cluster.testbed.kubectl, folder.path().join("kubectl"))?;
    let mut shell = Command::new("/bin/bash");
    shell.args(["-euc", &commands.join("\n")]).env("KUBECONFIG", &cluster.testbed.kubeconfig);
    // nothing else of the machine is needed, such as Helm
    shell.env("PATH", folder.path());
    let (succeeded, printed) = played(shell)?;
    ensure!(succeeded && commands.len() == 2, "{commands:?}: {printed}");
    assert_eq!(everything(&cluster).await?, before, "{said}");
    Ok(())
}

#[tokio::test]
async fn demo_on_a_cluster_of_the_user_leaves_nothing_and_refuses_one_with_an_operator() -> Result<()> {
    let cluster = Cluster::new("demo").await?;
    let before = everything(&cluster).await?;
    let (succeeded, said) = played(demo(&cluster)?)?;
    assert!(succeeded, "{said}");
    let announced = said.find("The demo creates this in your cluster").context("it does not say what it creates")?;
    assert!(announced < said.find("The operator starts").context("it shows nothing")?, "{said}");
    assert_eq!(everything(&cluster).await?, before, "{said}");

    cluster.helm(&cluster.testbed.helm, "install", "prod", &[]).await?;
    let installed = everything(&cluster).await?;
    let (succeeded, said) = played(demo(&cluster)?)?;
    assert!(!succeeded && said.contains("has the CRDs of the operator already"), "{said}");
    assert_eq!(everything(&cluster).await?, installed);
    Ok(())
}
