//! Installing, upgrading, rolling back and removing the chart as an administrator does, with Helm 3 and Helm 4, and an
//! authorization server that does not respond. The upgrade from the last release. The examples and the demo. Each test
//! has a control plane of its own.

#![allow(missing_docs)]

mod demo_programs;
mod fleet;
mod last_release;
mod observer;
mod uninstall;
mod upgrade;

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use testbed::{INSTALLATION, Testbed, control_plane::ControlPlane, eventually, operator::Operator, project, setup};

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

async fn rolls_out_and_back(version: &str) -> Result<()> {
    let cluster = Cluster::new(&format!("helm{version}-dead-authority")).await?;
    let helm = helm(&cluster.testbed, version);
    let verbose = ["--set", "logLevel=debug"];
    let three = ["--set", "logLevel=debug,authorities.ims.maxConcurrentRequests=3"];
    cluster.helm(&helm, "install", "prod", &[]).await.context("install")?;
    let _operator = Operator::start(&cluster.testbed, Path::new(PROGRAM), "", &[]).await?;
    cluster.authority_is_not_ready().await?;
    let (uid, before) = cluster.authority().await?;
    cluster.helm(&helm, "upgrade", "prod", &verbose).await.context("upgrade")?;
    cluster.helm(&helm, "upgrade", "prod", &three).await.context("change of the authority")?;
    assert_eq!(cluster.authority().await?, (uid.clone(), 3), "it is changed in place");
    cluster.authority_is_not_ready().await?;
    cluster.helm(&helm, "rollback", "prod", &["2"]).await.context("rollback")?;
    assert_eq!(cluster.authority().await?, (uid.clone(), before), "it is restored in place");
    cluster.helm(&helm, "upgrade", "prod", &["--set", "authorities.ims=null"]).await.context("removal")?;
    cluster.helm(&helm, "uninstall", "prod", &[]).await.context("uninstall")?;
    assert_eq!(cluster.authority().await?.0, uid, "it is kept");
    cluster.authority_is_not_ready().await?;
    cluster.helm(&helm, "install", "prod", &[]).await.context("install again")?;
    assert_eq!(cluster.authority().await?, (uid, before), "it is taken over");
    Ok(())
}

#[tokio::test]
async fn rollout_and_rollback_with_helm_4_do_not_depend_on_an_authorization_server() -> Result<()> {
    rolls_out_and_back("4").await
}

#[tokio::test]
async fn rollout_and_rollback_with_helm_3_do_not_depend_on_an_authorization_server() -> Result<()> {
    rolls_out_and_back("3").await
}

/// A release that Helm 3 created, after the upgrade with the flags that the documentation names.
#[tokio::test]
async fn helm_4_takes_over_a_release_of_helm_3() -> Result<()> {
    let cluster = Cluster::new("helm-both").await?;
    let [four, three] = ["4", "3"].map(|version| helm(&cluster.testbed, version));
    cluster.helm(&three, "install", "prod", &[]).await?;
    let _operator = Operator::start(&cluster.testbed, Path::new(PROGRAM), "", &[]).await?;
    cluster.helm(&three, "upgrade", "prod", &[]).await?;
    cluster.authority_is_not_ready().await?;
    let (uid, before) = cluster.authority().await?;
    let limit = |number: u64| format!("authorities.ims.maxConcurrentRequests={number}");
    let flags = ["--server-side=true", "--force-conflicts", "--wait=hookOnly", "--set", &limit(3)];
    cluster.helm(&four, "upgrade", "prod", &flags).await.context("the first upgrade with Helm 4")?;
    assert_eq!(cluster.authority().await?, (uid.clone(), 3));
    for number in [4, 5] {
        cluster.helm(&four, "upgrade", "prod", &["--set", &limit(number)]).await.context("the next upgrade")?;
        assert_eq!(cluster.authority().await?, (uid.clone(), number));
    }
    cluster.helm(&four, "rollback", "prod", &[]).await.context("rollback")?;
    assert_eq!(cluster.authority().await?, (uid.clone(), 4));
    // the authority of a revision that Helm 3 made is no hook
    refused(cluster.helm(&four, "rollback", "prod", &["2", "--timeout=5s"])).await?;
    let back = ["2", "--server-side=true", "--force-conflicts", "--wait=hookOnly"];
    cluster.helm(&four, "rollback", "prod", &back).await.context("a revision of Helm 3")?;
    assert_eq!(cluster.authority().await?, (uid, before));
    Ok(())
}

#[tokio::test]
async fn helm_4_takes_over_an_authority_that_kubectl_applied() -> Result<()> {
    let cluster = Cluster::new("helm4-kubectl-authority").await?;
    let helm = helm(&cluster.testbed, "4");
    cluster.testbed.kubectl(&["apply", "--server-side", "-f", &crds()]).await?;
    cluster.testbed.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &crds()]).await?;
    let _operator = Operator::start(&cluster.testbed, Path::new(PROGRAM), "", &[]).await?;
    let authority = json!({"apiVersion": "credentials.itwin.dev/v1alpha1", "kind": "ITwinAuthority",
        "metadata": {"name": "ims"}, "spec": {"issuer": DEAD}});
    cluster.testbed.kubectl_with(&["apply", "-f", "-"], Some(&authority.to_string())).await?;
    cluster.authority_is_not_ready().await?;
    let (uid, before) = cluster.authority().await?;
    // it is no hook yet
    let take = ["--take-ownership", "--wait=hookOnly"];
    cluster.helm(&helm, "install", "prod", &take).await.context("install")?;
    assert_eq!(cluster.authority().await?, (uid.clone(), before));
    cluster.helm(&helm, "upgrade", "prod", &["--set", "logLevel=debug"]).await.context("an upgrade, which waits")?;
    // kubectl owns the field too, and Helm forces no hook
    let limit = ["--set", "authorities.ims.maxConcurrentRequests=3"];
    let said = refused(cluster.helm(&helm, "upgrade", "prod", &limit)).await?;
    ensure!(said.contains("conflict with") && said.contains(".spec.maxConcurrentRequests"), "{said}");
    let edit = ["patch", "itauth", "ims", "--type=merge", "-p", r#"{"spec":{"maxConcurrentRequests":3}}"#];
    cluster.testbed.kubectl(&edit).await?;
    cluster.helm(&helm, "upgrade", "prod", &limit).await.context("after the same change with kubectl")?;
    assert_eq!(cluster.authority().await?, (uid.clone(), 3));
    // in the first revision, it is no hook
    refused(cluster.helm(&helm, "rollback", "prod", &["1", "--timeout=5s"])).await?;
    cluster.helm(&helm, "rollback", "prod", &["1", "--wait=hookOnly"]).await.context("rollback")?;
    assert_eq!(cluster.authority().await?.0, uid);
    Ok(())
}

fn crds() -> String {
    project().join("crds/credentials.itwin.dev.yaml").display().to_string()
}

/// An object that no API server accepts, so that an upgrade fails after it was rendered.
const INVALID: &str = r#"extraObjects=[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"Not_A_Name"}}]"#;

#[tokio::test]
async fn change_that_helm_would_lose_fails_instead() -> Result<()> {
    let cluster = Cluster::new("helm-lost-change").await?;
    let helm = cluster.testbed.helm3.clone();
    // the API server adds a field to a part of this spec
    let signed = "authorities.ims.clientAuthentication=private_key_jwt,authorities.ims.clientAssertion.algorithm=ES256";
    let limit = |number: u64| format!("{signed},authorities.ims.maxConcurrentRequests={number}");
    let [two, three, four] = [2, 3, 4].map(limit);
    let lost = async |what: &str, set: &str, says: &str| -> Result<()> {
        let said = refused(cluster.helm(&helm, what, "prod", &["--set", set])).await?;
        ensure!(said.contains("ITwinAuthority ims") && said.contains(says), "{what} with {set}: {said}");
        Ok(())
    };
    let upgrade =
        async |set: &str| cluster.helm(&helm, "upgrade", "prod", &["--set", set]).await.context(set.to_owned());
    cluster.helm(&helm, "install", "prod", &["--set", &two]).await?;
    lost("upgrade", &three, "upgrade once").await?;
    // what a user added is no change of the values
    let edit = ["patch", "itauth", "ims", "--type=merge", "-p", r#"{"spec":{"requestsPerMinute":60}}"#];
    cluster.testbed.kubectl(&edit).await?;
    lost("upgrade", signed, "upgrade once").await.context("a field that is removed")?;
    let said = refused(cluster.helm(&helm, "upgrade", "prod", &["--set", &two, "--set-json", INVALID])).await?;
    ensure!(said.contains("Not_A_Name"), "{said}");
    lost("upgrade", &three, "upgrade once").await.context("after an upgrade that failed")?;
    upgrade(&two).await?;
    upgrade(&three).await?;
    assert_eq!(cluster.authority().await?.1, 3);

    cluster.helm(&helm, "rollback", "prod", &["1"]).await?;
    lost("upgrade", &four, "upgrade once").await.context("after a rollback to the first revision")?;
    upgrade(&three).await?;
    upgrade("authorities.ims=null").await?;
    lost("upgrade", &four, "upgrade once").await.context("after it was left out")?;
    upgrade(&three).await?;
    upgrade(&four).await?;
    assert_eq!(cluster.authority().await?.1, 4);

    cluster.helm(&helm, "uninstall", "prod", &[]).await?;
    lost("install", &three, "then upgrade").await.context("after an uninstall")?;
    cluster.helm(&helm, "install", "prod", &["--set", &four]).await?;
    upgrade(&three).await?;
    assert_eq!(cluster.authority().await?.1, 3);
    Ok(())
}

#[tokio::test]
async fn helm_4_changes_an_authority_that_the_release_did_not_contain() -> Result<()> {
    let cluster = Cluster::new("helm4-change").await?;
    let helm = cluster.testbed.helm.clone();
    let limit = |number: u64| format!("authorities.ims.maxConcurrentRequests={number}");
    let upgrade =
        async |set: &str| cluster.helm(&helm, "upgrade", "prod", &["--set", set]).await.context(set.to_owned());
    cluster.helm(&helm, "install", "prod", &["--set", &limit(2)]).await?;
    refused(cluster.helm(&helm, "upgrade", "prod", &["--set-json", INVALID])).await?;
    upgrade(&limit(3)).await?;
    assert_eq!(cluster.authority().await?.1, 3);
    upgrade("authorities.ims=null").await?;
    upgrade(&limit(4)).await?;
    assert_eq!(cluster.authority().await?.1, 4);
    cluster.helm(&helm, "uninstall", "prod", &[]).await?;
    cluster.helm(&helm, "install", "prod", &["--set", &limit(5)]).await?;
    assert_eq!(cluster.authority().await?.1, 5);
    Ok(())
}

async fn takes_over(version: &str) -> Result<()> {
    let cluster = Cluster::new(&format!("helm{version}-take-ownership")).await?;
    let helm = helm(&cluster.testbed, version);
    // CRDs that kubectl applied
    cluster.testbed.kubectl(&["apply", "--server-side", "-f", &crds()]).await?;
    cluster.testbed.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &crds()]).await?;
    let take = ["--take-ownership"];
    let said = refused(cluster.helm(&helm, "install", "first", &[])).await?;
    assert!(said.contains("invalid ownership metadata"), "{said}");
    cluster.helm(&helm, "install", "first", &take).await.context("over CRDs of kubectl")?;

    // and those of a release of another name, which is gone
    let (uid, _) = cluster.authority().await?;
    cluster.helm(&helm, "uninstall", "first", &[]).await?;
    let said = refused(cluster.helm(&helm, "install", "second", &[])).await?;
    assert!(said.contains("invalid ownership metadata"), "{said}");
    cluster.helm(&helm, "install", "second", &take).await.context("over a release of another name")?;
    assert_eq!(cluster.authority().await?.0, uid);

    // not the authority of a release that is installed
    let chart = chart();
    let settings =
        format!("crds.enabled=false,replicaCount=0,authorities.bentley-ims=null,authorities.ims.issuer={DEAD}");
    let third = ["install", "third", &chart, "--namespace", "third", "--create-namespace", "--set", &settings];
    let said = refused(cluster.testbed.helm_with(&helm, &third)).await?;
    let expected =
        if version == "4" { "belongs to the release second in namespace operator" } else { "invalid ownership" };
    assert!(said.contains(expected), "{said}");
    Ok(())
}

#[tokio::test]
async fn helm_4_takes_over_what_remained_of_another_release() -> Result<()> {
    takes_over("4").await
}

#[tokio::test]
async fn helm_3_takes_over_what_remained_of_another_release() -> Result<()> {
    takes_over("3").await
}

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

/// `make demo` on a cluster of the user's, by context.
fn demo(cluster: &Cluster) -> Result<Command> {
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

fn played(mut demo: Command) -> Result<(bool, String)> {
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
