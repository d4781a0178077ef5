//! `make demo`: the main task on the testbed, or on a cluster of the user's, with the output that a user would read.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use serde_json::{Value, json};
use testbed::{
    INSTALLATION, Testbed, authority::Client, eventually, namespace::data, objects, operator::Operator, project, setup,
    setup::Running,
};

/// Lifetime of the demo's tokens, in seconds: long enough to read along, short enough to see a renewal.
const LIFETIME: u32 = 45;
/// The time limit of a wait.
const PATIENCE: Duration = Duration::from_secs(90);
/// The namespace of the demo's credential.
const NAMESPACE: &str = "itwin-demo-team";
/// The release of the demo, and its objects.
const RELEASE: &str = "itwin-demo";
/// The namespace of the release.
const INSTALLED: &str = "itwin-demo-operator";
/// The authority of the demo.
const AUTHORITY: &str = "itwin-demo-ims";
/// The label of all objects of the release, and of the namespaces.
const LABEL: &str = "app.kubernetes.io/instance=itwin-demo";
/// The kinds of its objects outside of its namespaces.
const KINDS: &str = "crd,clusterrole,clusterrolebinding,role,rolebinding,namespace";
/// Events about the authority.
const EVENTS: &str = "involvedObject.kind=ITwinAuthority,involvedObject.name=itwin-demo-ims";

/// Shows everything, and removes it from a cluster of the user's, also if a step fails or a signal ends the demo.
pub async fn demo(program: PathBuf) -> Result<ExitCode> {
    let running = crate::or_interrupted(Running::start_empty()).await?;
    let testbed = &running.testbed;
    if running.is_of_the_user() {
        ensure_nothing_is_there(testbed).await?;
        announce();
    }
    let shown = crate::or_interrupted(async {
        install(testbed).await?;
        show(testbed, &program).await
    });
    let shown = shown.await;
    if running.is_of_the_user() {
        step("Removing what the demo created");
        remove(testbed).await.with_context(|| format!("not everything was removed; run\n{}", removal()))?;
    }
    shown?;
    step("Done; everything is stopped, and nothing that the demo created is left");
    Ok(ExitCode::SUCCESS)
}

/// The demo shares nothing with an installed operator, which could act on the demo's objects, or lose its CRDs.
async fn ensure_nothing_is_there(testbed: &Testbed) -> Result<()> {
    let get = ["get", KINDS, "--selector", LABEL, "--namespace", "default", "--ignore-not-found", "-o", "name"];
    let found = testbed.kubectl(&get).await?;
    ensure!(
        found.trim().is_empty(),
        "the cluster has objects of the demo already ({}), perhaps from a demo that was killed: run\n{}",
        found.split_whitespace().collect::<Vec<_>>().join(", "),
        removal()
    );
    let crds = ["itwinauthorities.credentials.itwin.dev", "itwinservicecredentials.credentials.itwin.dev"];
    let crds = [&["get", "crd", "--ignore-not-found", "-o", "name"], &crds[..]].concat();
    let found = testbed.kubectl(&crds).await?;
    ensure!(
        found.trim().is_empty(),
        "the cluster has the CRDs of the operator already ({}), so an operator may be installed: use another cluster, or \
         omit CLUSTER to run the demo on a cluster of its own",
        found.split_whitespace().collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

fn announce() {
    step("The demo creates this in your cluster, and removes it at the end");
    println!("  the namespaces {INSTALLED} and {NAMESPACE}");
    println!(
        "  the Helm release {RELEASE}, with the CRDs of the operator, a service account and its roles, but no pod:"
    );
    println!("  the operator runs on this machine, and watches {NAMESPACE} only");
    println!("  the ITwinAuthority {AUTHORITY}, and in {NAMESPACE} a credential and two Secrets");
    println!("  in the namespace default a Role, and events about the authority");
    println!("If the demo is killed, this removes everything:\n{}", removal());
}

/// What removes everything: with the CRDs go the authority and the credential, with the namespaces all that is in them.
/// Events about the authority are in the namespace `default` and carry no label.
fn removals() -> [Vec<&'static str>; 2] {
    [
        vec!["delete", KINDS, "--selector", LABEL, "--namespace", "default"],
        vec!["delete", "events", "--field-selector", EVENTS, "--namespace", "default"],
    ]
}

/// The same as a user would type it.
fn removal() -> String {
    let context = std::env::var("CLUSTER").unwrap_or_default();
    let commands = removals().map(|arguments| format!("  kubectl {} --context {context}", arguments.join(" ")));
    commands.join(" &&\n")
}

async fn remove(testbed: &Testbed) -> Result<()> {
    for arguments in removals() {
        testbed.kubectl(&arguments).await?;
    }
    Ok(())
}

/// Creates a namespace that goes with the rest.
async fn namespace(testbed: &Testbed, name: &str) -> Result<()> {
    let (key, value) = LABEL.split_once('=').context("a label has a value")?;
    let metadata = json!({"name": name, "labels": {key: value}});
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
    testbed.kubectl_with(&["create", "-f", "-"], Some(&object.to_string())).await.map(drop)
}

/// Installs the chart without pods, for the namespace of the demo alone.
async fn install(testbed: &Testbed) -> Result<()> {
    namespace(testbed, NAMESPACE).await?;
    namespace(testbed, INSTALLED).await?;
    let chart = project().join("charts").join(INSTALLATION).display().to_string();
    let settings = format!(
        "replicaCount=0,crds.keep=false,authorities.bentley-ims=null,fullnameOverride={RELEASE},\
         rbac.aggregateClusterRoles=false,watchNamespaces={{{NAMESPACE}}}"
    );
    let install = ["install", RELEASE, &chart, "--namespace", INSTALLED, "--set", &settings];
    testbed.helm(&install).await?;
    setup::account_kubeconfig(testbed, INSTALLED, RELEASE, &testbed.operator_kubeconfig).await
}

async fn show(testbed: &Testbed, program: &Path) -> Result<()> {
    let show = async |arguments: &[&str]| -> Result<()> {
        println!("$ kubectl {}", arguments.join(" "));
        println!("{}", testbed.kubectl(arguments).await?.trim_end());
        Ok(())
    };

    step("The operator starts, with the permissions of its service account");
    let operator = Operator::start(testbed, program, NAMESPACE, &[]).await?;
    println!("ready; its log is {}", operator.process.log().display());

    step("The administrator names the authority that may be asked, as examples/authority.yaml does");
    let ca_bundle = format!("{}\n  caBundle: {}", testbed.authority.issuer, testbed.authority.ca_bundle());
    let authority = example("authority.yaml")?
        .replace("https://ims.example.com", &ca_bundle)
        .replace("name: example-ims", &format!("name: {}", AUTHORITY));
    testbed.kubectl_with(&["apply", "-f", "-"], Some(&authority)).await?;
    let authority = format!("itauth/{}", AUTHORITY);
    testbed.kubectl(&["wait", "--for=condition=Ready", &authority, "--timeout=60s"]).await?;
    show(&["get", "itauth"]).await?;

    step("The application team creates its client Secret and applies examples/credential.yaml");
    let client = Client { lifetime: LIFETIME, ..Client::new("service-demo") };
    testbed.authority.register(&client).await?;
    let credential = example("credential.yaml")?.replace("name: example-ims", &format!("name: {}", AUTHORITY));
    let secret = objects::client_secret("render-agent-client", &client.client_id, &client.client_secret);
    testbed.kubectl_with(&["-n", NAMESPACE, "apply", "-f", "-"], Some(&secret.to_string())).await?;
    testbed.kubectl_with(&["-n", NAMESPACE, "apply", "-f", "-"], Some(&credential)).await?;
    // the demo's tokens are too short-lived for the default of five minutes
    let patch = r#"{"spec":{"minimumValidity":"10s"}}"#;
    testbed.kubectl(&["-n", NAMESPACE, "patch", "itcred/render-agent", "--type=merge", "-p", patch]).await?;
    show(&["-n", NAMESPACE, "wait", "--for=condition=Ready", "itcred/render-agent", "--timeout=60s"]).await?;
    show(&["-n", NAMESPACE, "get", "itcred", "-o", "wide"]).await?;

    step("The Secret that pods mount");
    let first = secret_data(testbed).await?;
    for (key, value) in &first {
        let shown = if key == "access_token" || key == "authorization" {
            format!("{} characters", value.len())
        } else {
            value.clone()
        };
        println!("  {key:<14} {shown}");
    }
    println!("the token, decoded:\n{}", claims(&first)?);

    step("A renewal, before the token expires");
    println!("waiting for it; tokens of this demo are valid for {LIFETIME} s");
    let started = std::time::Instant::now();
    let old = value(&first, "access_token")?;
    let second = eventually("a renewed token", PATIENCE, async || {
        let data = secret_data(testbed).await.ok()?;
        (value(&data, "access_token").ok()? != old).then_some(data)
    })
    .await?;
    println!(
        "renewed after {} s: it expired at {}, now it expires at {}",
        started.elapsed().as_secs(),
        value(&first, "expires_at")?,
        value(&second, "expires_at")?
    );
    show(&["-n", NAMESPACE, "get", "itcred"]).await?;
    println!(
        "token requests that the authority received: {}",
        testbed.authority.requests(&client.client_id).await?.len()
    );

    step("What happened, in events");
    eventually("the event of the first token", PATIENCE, async || {
        testbed
            .kubectl(&["-n", NAMESPACE, "get", "events", "-o", "name"])
            .await
            .ok()
            .filter(|text| !text.trim().is_empty())
    })
    .await?;
    show(&["-n", NAMESPACE, "get", "events", "-o", "custom-columns=TYPE:.type,REASON:.reason,MESSAGE:.message"])
        .await?;

    if std::env::var("KEEP").is_ok_and(|keep| keep == "1") {
        step("Left running (KEEP=1); Ctrl-C stops it and removes what it created");
        println!("  export KUBECONFIG={}", testbed.kubeconfig.display());
        println!("  {} get itcred -A", testbed.kubectl.display());
        std::future::pending::<()>().await;
    }
    Ok(())
}

fn step(what: &str) {
    println!("\n== {what}");
}

fn example(name: &str) -> Result<String> {
    let file: PathBuf = Path::new(&project()).join("examples").join(name);
    std::fs::read_to_string(&file).with_context(|| format!("{} is missing", file.display()))
}

async fn secret_data(testbed: &Testbed) -> Result<BTreeMap<String, String>> {
    let text = testbed.kubectl(&["-n", NAMESPACE, "get", "secret", "render-agent-token", "-o", "json"]).await?;
    data(&serde_json::from_str(&text)?)
}

fn value(data: &BTreeMap<String, String>, key: &str) -> Result<String> {
    data.get(key).cloned().with_context(|| format!("the Secret has no {key}"))
}

fn claims(data: &BTreeMap<String, String>) -> Result<String> {
    let token = value(data, "access_token")?;
    let body = token.split('.').nth(1).context("the token is no JWT")?;
    let claims: Value = serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(body)?)?;
    Ok(serde_json::to_string_pretty(&claims)?)
}
