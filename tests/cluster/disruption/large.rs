//! The largest objects that the API server accepts: what they cost the operator at a start, and while they are created.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use itwin_api::{credential::ITwinServiceCredential, secret_keys};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, api::PostParams};
use serde_json::json;
use testbed::eventually;

use crate::disruption::cluster::Cluster;
use crate::fixture::{Fixture, PATIENCE};

/// Two thirds of the chart's limit, in mebibytes. A debug build needs 25 MiB more than a release build.
const ALLOWED: f64 = 85.0;
/// The API server's limit for the annotations of an object is 256 KiB, keys and values together.
const ANNOTATIONS: usize = 250_000;
/// Calls that create large objects at the same time: each of them costs the API server megabytes.
const AT_ONCE: usize = 4;

/// Text that does not compress, the same in each run.
struct Noise(u64);

impl Noise {
    fn text(&mut self, length: usize) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789xy";
        let mut letter = || {
            // xorshift64
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            char::from(LETTERS[(self.0 >> 58) as usize])
        };
        (0..length).map(|_| letter()).collect()
    }
}

/// As many annotations of other writers as an object can have: one long one, the same of characters that JSON escapes
/// with six, or tens of thousands of short ones, each of which is in `managedFields` too. The last variant is rare,
/// because it costs the API server seconds for each write, and most of the deadline of a call while other tests run.
fn annotations(number: usize, noise: &mut Noise) -> BTreeMap<String, String> {
    match number % 250 {
        0 => (0..ANNOTATIONS / 12).map(|number| (format!("a{number:06}"), noise.text(5))).collect(),
        1 => [("example.com/escaped".to_owned(), "<".repeat(ANNOTATIONS))].into(),
        _ => [("example.com/long".to_owned(), noise.text(ANNOTATIONS))].into(),
    }
}

/// About the largest spec (`api::limits`).
fn large_spec(client: &str, noise: &mut Noise) -> serde_json::Value {
    let texts = |prefix: &str, count: usize, length: usize, noise: &mut Noise| -> BTreeMap<String, String> {
        (0..count).map(|key| (format!("{prefix}{key}"), noise.text(length))).collect()
    };
    json!({
        "clientCredentialsRef": {"name": client},
        "scopes": (0..63).map(|_| noise.text(127)).collect::<Vec<_>>(),
        "resources": (0..4).map(|_| format!("https:{}", noise.text(2000))).collect::<Vec<_>>(),
        "secretTemplate": {
            "labels": texts("l", 32, 60, noise),
            "annotations": texts("a", 5, 2000, noise),
            "data": texts("d", 4, 4090, noise),
        },
        "suspend": true,
    })
}

async fn create_credentials(fixture: &Fixture, count: usize, renew: usize, labels: usize) -> Result<()> {
    let api: Api<ITwinServiceCredential> = Api::namespaced(fixture.namespace.client.clone(), &fixture.namespace.name);
    let create = async |number: usize| {
        let mut noise = Noise(number as u64 + 1);
        let spec = large_spec(&format!("client-{number}"), &mut noise);
        let mut object = fixture.namespace.credential(&format!("agent-{number}"), &spec);
        let mut annotations = if renew < ANNOTATIONS { annotations(number, &mut noise) } else { BTreeMap::new() };
        annotations.insert(secret_keys::RENEW.to_owned(), noise.text(renew));
        object["metadata"]["annotations"] = json!(annotations);
        let labels: BTreeMap<String, String> = (0..labels).map(|key| (format!("l{key}"), noise.text(60))).collect();
        object["metadata"]["labels"] = json!(labels);
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await.map(drop)?;
        anyhow::Ok(())
    };
    stream::iter(0..count).map(create).buffer_unordered(AT_ONCE).try_collect().await
}

async fn create_secrets(fixture: &Fixture, names: impl Iterator<Item = String>) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(fixture.namespace.client.clone(), &fixture.namespace.name);
    let create = async |(number, name): (usize, String)| {
        let metadata = kube::core::ObjectMeta {
            name: Some(name),
            annotations: Some(annotations(number, &mut Noise(number as u64 + 1))),
            ..Default::default()
        };
        api.create(&PostParams::default(), &Secret { metadata, ..Secret::default() }).await.map(drop)
    };
    stream::iter(names.enumerate()).map(create).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok(())
}

/// The peak memory of the operator, in mebibytes.
fn peak(fixture: &Fixture) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", fixture.operator.process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

async fn wait_reconciled(fixture: &Fixture, credentials: usize) -> Result<()> {
    eventually("a reconciliation of each", PATIENCE * 4, async || {
        let metrics = fixture.operator.get("/metrics").await.ok()?;
        (metrics.matches("itwin_credential_ready{").count() == credentials).then_some(())
    })
    .await
    .with_context(|| fixture.operator.process.log_tail())
}

/// The peaks while the objects are created and during a start with them, in mebibytes.
async fn restart_and_measure(mut fixture: Fixture, credentials: usize, what: &str) -> Result<(f64, f64)> {
    wait_reconciled(&fixture, credentials).await?;
    let coming = peak(&fixture)?;
    fixture.restart().await?;
    wait_reconciled(&fixture, credentials).await?;
    let (start, after) = (peak(&fixture)?, fixture.metric("process_resident_memory_bytes").await? / f64::from(1 << 20));
    eprintln!("{what}: peak {coming:.1} MiB while they were created, {start:.1} at a start, {after:.1} after it");
    Ok((coming, start))
}

#[tokio::test]
async fn largest_credentials_and_secrets_do_not_decide_what_a_start_costs() -> Result<()> {
    const CREDENTIALS: usize = 500;
    let cluster = Cluster::start("fat").await?;
    let fixture = Fixture::on(cluster.namespace("fat").await?, &[]).await?;
    // a quarter are token Secrets, a quarter are client Secrets, and no credential references the other half
    let quarter = CREDENTIALS / 4;
    let named = (0..quarter).flat_map(|number| [format!("agent-{number}"), format!("client-{number}")]);
    create_secrets(&fixture, named.chain((0..2 * quarter).map(|number| format!("unrelated-{number}")))).await?;
    create_credentials(&fixture, CREDENTIALS, 64, 0).await?;
    let (_, start) = restart_and_measure(fixture, CREDENTIALS, "500 credentials and as many Secrets").await?;
    assert!(start < ALLOWED, "{start} MiB");
    Ok(())
}

#[tokio::test]
async fn sixty_objects_of_a_megabyte_do_not_decide_what_a_start_costs() -> Result<()> {
    const OBJECTS: usize = 60;
    /// With their text of 60 bytes, and again in `managedFields`: 600 kB.
    const LABELS: usize = 6000;
    let cluster = Cluster::start("megabytes").await?;
    let fixture = Fixture::on(cluster.namespace("megabytes").await?, &[]).await?;
    create_credentials(&fixture, OBJECTS, ANNOTATIONS, LABELS).await?;
    let (_, start) = restart_and_measure(fixture, OBJECTS, "60 credentials of a megabyte").await?;
    assert!(start < ALLOWED, "{start} MiB");
    Ok(())
}

#[tokio::test]
async fn client_secrets_of_a_megabyte_are_not_read_all_at_the_same_time() -> Result<()> {
    const CLIENTS: usize = 64;
    /// The API server accepts a Secret of 1 MiB; base64 makes it a third longer.
    const DATA: usize = 1_000_000;
    let cluster = Cluster::start("clients").await?;
    let fixture = Fixture::on(cluster.namespace("clients").await?, &["--concurrency", "64"]).await?;
    fixture.with_surroundings().await?;
    let secrets: Api<Secret> = Api::namespaced(fixture.namespace.client.clone(), &fixture.namespace.name);
    let create = async |number: usize| {
        let metadata = kube::core::ObjectMeta { name: Some(format!("client-{number}")), ..Default::default() };
        let data = Some([("unrelated".to_owned(), ByteString(vec![b'x'; DATA]))].into());
        secrets.create(&PostParams::default(), &Secret { metadata, data, ..Secret::default() }).await.map(drop)
    };
    stream::iter(0..CLIENTS).map(create).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let api: Api<ITwinServiceCredential> = Api::namespaced(fixture.namespace.client.clone(), &fixture.namespace.name);
    let create = async |number: usize| {
        let spec = json!({"clientCredentialsRef": {"name": format!("client-{number}")}});
        let object = fixture.namespace.credential(&format!("agent-{number}"), &spec);
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await.map(drop)?;
        anyhow::Ok(())
    };
    stream::iter(0..CLIENTS).map(create).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let (coming, _) = restart_and_measure(fixture, CLIENTS, "64 client Secrets of a megabyte").await?;
    assert!(coming < ALLOWED, "{coming} MiB");
    Ok(())
}
