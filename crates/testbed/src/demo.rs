//! `make demo`: the main task on the testbed, with the output that a user would read.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use base64::Engine;
use serde_json::Value;
use testbed::{authority::Client, eventually, namespace::data, objects, operator::Operator, project, setup::Running};

/// Lifetime of the demo's tokens, in seconds: long enough to read along, short enough to see a renewal.
const LIFETIME: u32 = 45;
/// The time limit of a wait.
const PATIENCE: Duration = Duration::from_secs(90);
/// The namespace of the examples.
const NAMESPACE: &str = "team-a";

pub async fn demo(program: PathBuf) -> Result<ExitCode> {
    let running = Running::start().await?;
    let testbed = running.testbed.clone();
    let show = async |arguments: &[&str]| -> Result<()> {
        println!("$ kubectl {}", arguments.join(" "));
        println!("{}", testbed.kubectl(arguments).await?.trim_end());
        Ok(())
    };

    step("The operator starts, with the permissions of its service account");
    let operator = Operator::start(&testbed, &program, NAMESPACE, &[]).await?;
    println!("ready; its log is {}", operator.process.log().display());

    step("The administrator names the authority that may be asked, as examples/authority.yaml does");
    let authority = example("authority.yaml")?
        .replace("https://ims.example.com", &testbed.authority.issuer)
        .replace("REPLACE_WITH_BASE64_OF_THE_CA", &testbed.authority.ca_bundle());
    testbed.kubectl_with(&["apply", "-f", "-"], Some(&authority)).await?;
    testbed.kubectl(&["wait", "--for=condition=Ready", "itauth/example-ims", "--timeout=60s"]).await?;
    show(&["get", "itauth"]).await?;

    step("The application team creates its client Secret and applies examples/credential.yaml");
    let client = Client { lifetime: LIFETIME, ..Client::new("service-demo") };
    testbed.authority.register(&client).await?;
    testbed.kubectl(&["create", "namespace", NAMESPACE]).await?;
    let secret = objects::client_secret("render-agent-client", &client.client_id, &client.client_secret);
    testbed.kubectl_with(&["-n", NAMESPACE, "apply", "-f", "-"], Some(&secret.to_string())).await?;
    testbed.kubectl_with(&["-n", NAMESPACE, "apply", "-f", "-"], Some(&example("credential.yaml")?)).await?;
    // the demo's tokens are too short-lived for the default of five minutes
    let patch = r#"{"spec":{"minimumValidity":"10s"}}"#;
    testbed.kubectl(&["-n", NAMESPACE, "patch", "itcred/render-agent", "--type=merge", "-p", patch]).await?;
    show(&["-n", NAMESPACE, "wait", "--for=condition=Ready", "itcred/render-agent", "--timeout=60s"]).await?;
    show(&["-n", NAMESPACE, "get", "itcred", "-o", "wide"]).await?;

    step("The Secret that pods mount");
    let first = secret_data(&testbed).await?;
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
        let data = secret_data(&testbed).await.ok()?;
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
        step("Left running (KEEP=1); Ctrl-C stops it");
        println!("  export KUBECONFIG={}", testbed.kubeconfig.display());
        println!("  {} get itcred -A", testbed.kubectl.display());
        std::future::pending::<()>().await;
    }
    step("Done; everything is stopped");
    Ok(ExitCode::SUCCESS)
}

fn step(what: &str) {
    println!("\n== {what}");
}

fn example(name: &str) -> Result<String> {
    let file: PathBuf = Path::new(&project()).join("examples").join(name);
    std::fs::read_to_string(&file).with_context(|| format!("{} is missing", file.display()))
}

async fn secret_data(testbed: &testbed::Testbed) -> Result<BTreeMap<String, String>> {
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
