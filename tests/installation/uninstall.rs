//! What an uninstall of the chart removes and what it keeps, with Helm 3 and Helm 4. `make matrix` runs this on each
//! version of Kubernetes.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testbed::{eventually, objects};

use crate::{Cluster, PATIENCE, helm};

/// Parts of the chart that are off by default.
const ALSO: [&str; 2] = ["--set", "networkPolicy.enabled=true,validatingAdmissionPolicy.enabled=true"];
/// What the chart creates then, in a namespace and without one.
const KINDS: [&str; 9] = [
    "clusterrole.rbac.authorization.k8s.io",
    "clusterrolebinding.rbac.authorization.k8s.io",
    "deployment.apps",
    "networkpolicy.networking.k8s.io",
    "role.rbac.authorization.k8s.io",
    "service",
    "serviceaccount",
    "validatingadmissionpolicy.admissionregistration.k8s.io",
    "validatingadmissionpolicybinding.admissionregistration.k8s.io",
];
/// What an uninstall keeps: with the CRDs every credential, and so every token.
const KEPT: [&str; 3] = [
    "customresourcedefinition.apiextensions.k8s.io/itwinauthorities.credentials.itwin.dev",
    "customresourcedefinition.apiextensions.k8s.io/itwinservicecredentials.credentials.itwin.dev",
    "itwinauthority.credentials.itwin.dev/ims",
];

/// The objects of the release `prod`, and what Kubernetes made from them: of every kind that can be deleted.
async fn of_release(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let kinds = cluster.testbed.kubectl(&["api-resources", "--verbs=list,delete", "-o", "name"]).await?;
    let kinds = kinds.split_whitespace().collect::<Vec<_>>().join(",");
    let get = ["get", &kinds, "-A", "-l", "app.kubernetes.io/instance=prod", "-o", "name"];
    Ok(cluster.testbed.kubectl(&get).await?.lines().map(str::to_owned).collect())
}

async fn uninstalls(version: &str) -> Result<()> {
    let cluster = Cluster::new(&format!("helm{version}-uninstall")).await?;
    let (testbed, helm) = (&cluster.testbed, helm(&cluster.testbed, version));
    cluster.helm(&helm, "install", "prod", &ALSO).await.context("install")?;
    let credential = objects::credential("kept", "ims", "kept-client", &json!({})).to_string();
    testbed.kubectl_with(&["create", "-f", "-"], Some(&credential)).await?;
    let uid = ["get", "itcred", "kept", "-o", "jsonpath={.metadata.uid}"];
    let before = testbed.kubectl(&uid).await?;
    let installed = of_release(&cluster).await?;
    for kind in KINDS {
        let is_there = installed.iter().any(|name| name.split('/').next() == Some(kind));
        ensure!(is_there, "the release has no {kind}: {installed:?}");
    }
    let records = ["get", "secrets", "--namespace", "operator", "-l", "owner=helm", "-o", "name"];
    ensure!(testbed.kubectl(&records).await?.contains("prod"), "Helm keeps its record elsewhere");

    cluster.helm(&helm, "uninstall", "prod", &[]).await.context("uninstall")?;
    let kept = BTreeSet::from(KEPT.map(str::to_owned));
    // what Kubernetes made from an object goes a moment after it
    let removed = eventually("the end of everything else", PATIENCE, async || {
        (of_release(&cluster).await.ok()? == kept).then_some(())
    });
    let removed = removed.await;
    let left = of_release(&cluster).await?;
    removed.with_context(|| format!("these are left: {left:?}"))?;
    assert_eq!(testbed.kubectl(&records).await?, "", "the record of the release");
    assert_eq!(testbed.kubectl(&uid).await?, before, "the credential is the same");
    Ok(())
}

#[tokio::test]
async fn uninstall_with_helm_4_leaves_crds_and_what_users_made_and_nothing_else() -> Result<()> {
    uninstalls("4").await
}

#[tokio::test]
async fn uninstall_with_helm_3_leaves_crds_and_what_users_made_and_nothing_else() -> Result<()> {
    uninstalls("3").await
}
