//! The examples, applied as they are.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testbed::{INSTALLATION, eventually, operator::Operator, project, setup};

use crate::{Cluster, PATIENCE, PROGRAM, chart, crds, helm};

/// What kubectl applies of `folder`: each file, the folder, the folder as a kustomization if it is one, and everything
/// below it.
fn examples(folder: &Path, found: &mut Vec<Vec<String>>) -> Result<()> {
    let apply = |flags: &[&str], path: &Path| {
        flags.iter().map(|flag| (*flag).to_owned()).chain([path.display().to_string()]).collect::<Vec<_>>()
    };
    let (mut has_objects, mut folders) = (false, vec![]);
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.ends_with("workloads") {
            // programs
        } else if path.is_dir() {
            folders.push(path);
        } else if path.file_name().is_some_and(|name| name == "Kustomization") {
            // kubectl reads only .yaml and .json files of a folder, so that this name does not stand in the way of -f
            found.push(apply(&["-k"], folder));
        } else {
            ensure!(path.extension().is_some_and(|kind| kind == "yaml"), "{} is not an object", path.display());
            found.push(apply(&["-f"], &path));
            has_objects = true;
        }
    }
    if has_objects {
        found.push(apply(&["-f"], folder));
    }
    for folder in folders {
        examples(&folder, found)?;
    }
    found.push(apply(&["-R", "-f"], folder));
    Ok(())
}

#[tokio::test]
async fn examples_apply_as_they_are() -> Result<()> {
    let cluster = Cluster::new("examples").await?;
    cluster.testbed.kubectl(&["apply", "--server-side", "-f", &crds()]).await?;
    cluster.testbed.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &crds()]).await?;
    let mut found = Vec::new();
    examples(&project().join("examples"), &mut found)?;
    assert!(found.iter().filter(|flags| flags[0] == "-k").count() >= 3, "{found:?}");
    for flags in &found {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        cluster.testbed.kubectl(&[&["apply"], &flags[..]].concat()).await.with_context(|| flags.join(" "))?;
    }
    for namespace in ["render-qa", "render-production"] {
        cluster
            .testbed
            .kubectl(&["--namespace", namespace, "get", "itcred/render-agent", "deployment/render-agent"])
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn team_installs_an_operator_for_its_namespace_without_cluster_wide_permissions() -> Result<()> {
    let cluster = Cluster::new("single-namespace").await?;
    let testbed = &cluster.testbed;
    testbed.kubectl(&["apply", "--server-side", "-f", &crds()]).await?;
    let folder = project().join("examples/single-namespace");
    let administrator = folder.join("administrator.yaml").display().to_string();
    testbed.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &crds()]).await?;
    // the cluster has the chart already: what it made must stay as it is
    let authorities = ["--show-only", "templates/authorities.yaml"];
    let of_the_chart = testbed.helm(&[&["template", INSTALLATION, &chart()], &authorities[..]].concat()).await?;
    testbed.kubectl_with(&["apply", "-f", "-"], Some(&of_the_chart)).await?;
    let authority = async || testbed.kubectl(&["get", "itauth", "bentley-ims", "-o", "jsonpath={.spec}"]).await;
    let before = authority().await?;
    testbed.kubectl(&["apply", "-f", &folder.display().to_string()]).await?;
    assert_eq!(authority().await?, before);
    let selects = ["get", "itauth", "team-a-ims", "-o", "jsonpath={.spec.allowedNamespaces.matchLabels}"];
    assert_eq!(testbed.kubectl(&selects).await?, r#"{"kubernetes.io/metadata.name":"team-a"}"#);
    let binding = ["create", "rolebinding", "team", "--clusterrole=admin", "--user=someone", "--namespace", "team-a"];
    testbed.kubectl(&binding).await?;
    let values = format!("--values={}", project().join("charts/values/single-namespace.yaml").display());
    let chart = chart();
    let install = ["install", INSTALLATION, &chart, "--namespace", "team-a", &values, "--set", "replicaCount=0"];
    for version in ["4", "3"] {
        let (helm, as_team) = (helm(testbed, version), ["--kube-as-user", "someone"]);
        let installed = async || testbed.helm_with(&helm, &[&install[..], &as_team].concat()).await;
        // the roles take a moment
        eventually("an installation by the team", PATIENCE, async || installed().await.ok())
            .await
            .with_context(|| format!("Helm {version}"))?;
        testbed.helm_with(&helm, &["uninstall", INSTALLATION, "--namespace", "team-a"]).await?;
    }

    // the operator works with the permissions of the administrator's part, and those are what the chart would create
    testbed.helm(&install).await?;
    setup::account_kubeconfig(testbed, "team-a", INSTALLATION, &testbed.operator_kubeconfig).await?;
    let arguments = ["--leader-election=true", "--lease-namespace=team-a", "--watch-secrets=false"];
    let _operator = Operator::start(testbed, Path::new(PROGRAM), "team-a", &arguments).await?;
    let show = ["template", INSTALLATION, &chart, "--namespace", "team-a", &values, "--set", "rbac.create=true"];
    let rendered = testbed.helm(&[&show[..], &["--show-only", "templates/rbac.yaml"]].concat()).await?;
    let rules = async |objects: &str| -> Result<Vec<String>> {
        let create = ["create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-"];
        let text = testbed.kubectl_with(&create, Some(objects)).await?;
        let objects = serde_json::Deserializer::from_str(&text).into_iter::<Value>().collect::<Result<Vec<_>, _>>()?;
        let roles = objects.iter().filter(|object| object["rules"].is_array());
        let for_users =
            |object: &&Value| object["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] != "true";
        let mut rules: Vec<String> = roles.filter(for_users).map(|object| object["rules"].to_string()).collect();
        rules.sort();
        Ok(rules)
    };
    assert_eq!(rules(&std::fs::read_to_string(administrator)?).await?, rules(&rendered).await?);
    // users of the namespace write credentials
    eventually("the aggregated role", PATIENCE, async || {
        let may = ["auth", "can-i", "create", "itwinservicecredentials.credentials.itwin.dev", "--namespace", "team-a"];
        testbed.kubectl(&[&may[..], &["--as", "someone"]].concat()).await.ok()
    })
    .await?;
    Ok(())
}
