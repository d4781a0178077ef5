//! The largest objects that the API server accepts: what they cost the operator at a start, and while they are created.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use itwin_api::secret_keys;
use serde_json::json;
use testbed::objects;

use crate::{
    cluster::{Cluster, wait_credentials},
    fixture::{Fixture, PATIENCE},
};

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
    let credential = |number: usize| {
        let mut noise = Noise(number as u64 + 1);
        let spec = large_spec(&format!("client-{number}"), &mut noise);
        let mut object = fixture.namespace.credential(&format!("agent-{number}"), &spec);
        let mut annotations = if renew < ANNOTATIONS { annotations(number, &mut noise) } else { BTreeMap::new() };
        annotations.insert(secret_keys::RENEW.to_owned(), noise.text(renew));
        object["metadata"]["annotations"] = json!(annotations);
        let labels: BTreeMap<String, String> = (0..labels).map(|key| (format!("l{key}"), noise.text(60))).collect();
        object["metadata"]["labels"] = json!(labels);
        object
    };
    fixture.namespace.create_all((0..count).map(credential), AT_ONCE).await
}

async fn create_secrets(fixture: &Fixture, names: impl Iterator<Item = String>) -> Result<()> {
    let secrets = names.enumerate().map(|(number, name)| {
        let mut secret = objects::secret(&name, &json!({}));
        secret["metadata"]["annotations"] = json!(annotations(number, &mut Noise(number as u64 + 1)));
        secret
    });
    fixture.namespace.create_all(secrets, AT_ONCE).await
}

/// The peak memory of the operator, in mebibytes.
fn peak(fixture: &Fixture) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", fixture.operator.process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// The peaks while the objects are created and during a start with them, in mebibytes.
async fn restart_and_measure(mut fixture: Fixture, credentials: usize, what: &str) -> Result<(f64, f64)> {
    wait_credentials(&fixture, credentials, PATIENCE * 4).await?;
    let coming = peak(&fixture)?;
    fixture.restart().await?;
    wait_credentials(&fixture, credentials, PATIENCE * 4).await?;
    let (start, after) = (peak(&fixture)?, fixture.metric("process_resident_memory_bytes").await? / f64::from(1 << 20));
    eprintln!("{what}: peak {coming:.1} MiB while they were created, {start:.1} at a start, {after:.1} after it");
    Ok((coming, start))
}

#[tokio::test]
async fn largest_credentials_and_secrets_do_not_decide_what_a_start_costs() -> Result<()> {
    const CREDENTIALS: usize = 500;
    let cluster = Cluster::start("fat").await?;
    let fixture = cluster.fixture("fat", &[]).await?;
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
    let fixture = cluster.fixture("megabytes", &[]).await?;
    create_credentials(&fixture, OBJECTS, ANNOTATIONS, LABELS).await?;
    let (_, start) = restart_and_measure(fixture, OBJECTS, "60 credentials of a megabyte").await?;
    assert!(start < ALLOWED, "{start} MiB");
    Ok(())
}

/// The API server accepts any text as the type of a Secret.
#[tokio::test]
async fn types_of_secrets_are_not_kept_whatever_their_length() -> Result<()> {
    const OBJECTS: usize = 60;
    const LENGTH: usize = 700_000;
    let cluster = Cluster::start("types").await?;
    let fixture = cluster.fixture("types", &[]).await?;
    fixture.with_surroundings().await?;
    let name = |number: usize| format!("agent-{number}");
    let secrets = (0..OBJECTS).map(|number| {
        let mut secret = objects::secret(&name(number), &json!({}));
        secret["metadata"]["annotations"] = json!({secret_keys::ADOPT: name(number)});
        secret["type"] = json!(Noise(number as u64 + 1).text(LENGTH));
        secret
    });
    fixture.namespace.create_all(secrets, AT_ONCE).await?;
    let spec = json!({"clientCredentialsRef": {"name": "agent-client"}});
    let credentials = (0..OBJECTS).map(|number| fixture.namespace.credential(&name(number), &spec));
    fixture.namespace.create_all(credentials, AT_ONCE).await?;
    for number in 0..OBJECTS {
        let reason = "SecretTypeMismatch";
        let message = fixture.wait_condition_of(&name(number), "Renewed", "False", reason, PATIENCE).await?;
        assert!(message.len() < 1000, "{} bytes", message.len());
    }
    let (coming, start) = restart_and_measure(fixture, OBJECTS, "60 Secrets with a long type").await?;
    assert!(coming < ALLOWED && start < ALLOWED, "{coming} and {start} MiB");
    Ok(())
}

#[tokio::test]
async fn client_secrets_of_a_megabyte_are_not_read_all_at_the_same_time() -> Result<()> {
    const CLIENTS: usize = 64;
    /// The API server accepts a Secret of 1 MiB; base64 makes it a third longer.
    const DATA: usize = 1_000_000;
    let cluster = Cluster::start("clients").await?;
    let fixture = cluster.fixture("clients", &["--concurrency", "64"]).await?;
    fixture.with_surroundings().await?;
    let unrelated = json!({"unrelated": "x".repeat(DATA)});
    let secrets = (0..CLIENTS).map(|number| objects::secret(&format!("client-{number}"), &unrelated));
    fixture.namespace.create_all(secrets, AT_ONCE).await?;
    let credentials = (0..CLIENTS).map(|number| {
        fixture.namespace.credential(
            &format!("agent-{number}"),
            &json!({"clientCredentialsRef": {"name": format!("client-{number}")}}),
        )
    });
    fixture.namespace.create_all(credentials, AT_ONCE).await?;
    let (coming, _) = restart_and_measure(fixture, CLIENTS, "64 client Secrets of a megabyte").await?;
    assert!(coming < ALLOWED, "{coming} MiB");
    Ok(())
}
