//! A credential that waits for a rate limit costs nothing, and its status says so.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::eventually;

use crate::{
    audit::calls,
    tenants::{Fixture, credentials, requests},
};

const CREDENTIALS: usize = 300;
/// Those that may be on the way to the queue or to the server while both are read.
const AT_ONCE: usize = 5;
const WATCHED: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);
/// CPU time that the operator may use in that time, in seconds: a hundredth of it, and twice that if the code is not
/// optimised.
const PROCESSOR: f64 = if cfg!(debug_assertions) { 0.4 } else { 0.2 };

/// Credentials whose namespace is not allowed.
const NOT_ALLOWED: usize = 100;
/// Until their attempts come seldom.
const SELDOM: Duration = Duration::from_secs(240);
/// The time over which reconciles are counted.
const COUNTED: Duration = Duration::from_secs(10);

/// How many calls of the operator read an object of the noisy namespace.
fn reads(fixture: &Fixture) -> Result<usize> {
    Ok(calls(&fixture.noisy)?.iter().filter(|call| call.verb == "get").count())
}

/// CPU time of the operator, in seconds: `utime` and `stime` of proc(5), in hundredths.
fn processor(fixture: &Fixture) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", fixture.operator.process.id()))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}

#[tokio::test]
async fn three_hundred_that_wait_cost_about_one_read_a_token_and_hardly_any_processor() -> Result<()> {
    let fixture = Fixture::new("wait").await?;
    let authority = fixture.create_authority("ims", &json!({"requestsPerMinute": 60})).await?;
    credentials(&fixture.noisy, &authority, "crowd", &json!({"name": "good", "lifetime": 3600}), CREDENTIALS).await?;
    let waiting = "itwin_token_request_queue_length{";
    eventually("all in the queue, but for those that have a token", PATIENCE, async || {
        let tokens = requests(&fixture.noisy, "crowd").await.ok()?;
        (fixture.metric(waiting).await.ok()? as usize + tokens + AT_ONCE >= CREDENTIALS).then_some(())
    })
    .await?;
    let (reads_before, requests_before) = (reads(&fixture)?, requests(&fixture.noisy, "crowd").await?);
    let (before, started) = (processor(&fixture)?, Instant::now());
    tokio::time::sleep(WATCHED).await;
    let used = processor(&fixture)? - before;
    let requests = requests(&fixture.noisy, "crowd").await? - requests_before;
    let reads = reads(&fixture)? - reads_before;
    eprintln!("{requests} tokens, {reads} reads, {used} s of a processor in {:?}", started.elapsed());
    assert!((17..=22).contains(&requests), "{requests} requests at one a second");
    assert!(reads <= 3 * requests, "{reads} reads for {requests} tokens");
    assert!(used < PROCESSOR, "{used} s of a processor");

    // and each of them reports it, once it has waited for 30 s
    let message = eventually("a wait in Ready", PATIENCE, async || {
        let list = fixture.noisy.kubectl(&["get", "itcred", "-o", "json"]).await.ok()?;
        let list: Value = serde_json::from_str(&list).ok()?;
        let conditions = list["items"].as_array()?.iter().filter_map(|item| item["status"]["conditions"].as_array());
        let mut ready = conditions.flatten().filter(|condition| condition["type"] == "Ready");
        ready.find_map(|condition| {
            let message = condition["message"].as_str()?;
            (condition["reason"] == "Pending" && message.contains("queue")).then(|| message.to_owned())
        })
    })
    .await
    .with_context(|| fixture.operator.process.log_tail())?;
    assert!(message.contains(&authority) && message.contains("requestsPerMinute"), "{message}");
    Ok(())
}

#[tokio::test]
async fn credentials_of_a_namespace_that_is_not_allowed_are_hardly_ever_reconciled() -> Result<()> {
    let fixture = Fixture::new("barred").await?;
    let spec = json!({"requestsPerMinute": 600, "allowedNamespaces": {"matchLabels": {"itwin": "yes"}}});
    let authority = fixture.create_authority("ims", &spec).await?;
    let good = json!({"name": "good", "lifetime": 3600});
    credentials(&fixture.noisy, &authority, "barred", &good, NOT_ALLOWED).await?;
    eventually("failed attempts", PATIENCE, async || {
        let credential = fixture.noisy.get("itcred", "barred-0").await.ok()??;
        (credential["status"]["consecutiveFailures"].as_i64()? >= 5).then_some(())
    })
    .await?;
    // each was reconciled three times in this time, to find out whether the labels have changed
    let seldom = async || {
        let before = fixture.metric("itwin_reconciles_total").await.ok()?;
        tokio::time::sleep(COUNTED).await;
        let reconciles = fixture.metric("itwin_reconciles_total").await.ok()? - before;
        (reconciles < NOT_ALLOWED as f64).then_some(reconciles)
    };
    let reconciles = eventually("hardly any reconciles", SELDOM, seldom).await?;
    eprintln!("{reconciles} reconciles of {NOT_ALLOWED} credentials in {COUNTED:?}");
    // at 10 requests a second, before most attempts are due
    fixture.noisy.testbed.kubectl(&["label", "namespace", &fixture.noisy.name, "itwin=yes"]).await?;
    eventually("a token for each", PATIENCE / 3, async || {
        (requests(&fixture.noisy, "barred").await.ok()? >= NOT_ALLOWED).then_some(())
    })
    .await
}
