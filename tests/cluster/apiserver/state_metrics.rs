//! kube-state-metrics itself, with the configuration of the chart and the permissions that the documentation names.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use chrono::DateTime;
use serde_json::{Value, json};
use testbed::{
    INSTALLATION, Testbed,
    objects::API_VERSION,
    process::{Process, bound_to_us, free_ports},
    project,
};

use crate::{
    account::account_with,
    fixture::{Fixture, NAME, PATIENCE},
};

/// The labels that kube-state-metrics adds to each series of a custom resource.
const ADDED: [&str; 3] = ["customresource_group", "customresource_version", "customresource_kind"];

/// The labels of a series with their values.
type Labels = BTreeMap<String, String>;
/// Series by metric and labels, with their values.
type Series = BTreeMap<(String, Labels), f64>;

/// A running kube-state-metrics.
struct StateMetrics {
    process: Process,
    http: reqwest::Client,
    url: String,
}

impl StateMetrics {
    fn start(testbed: &Testbed, kubeconfig: &Path) -> Result<Self> {
        let [port, telemetry_port] = free_ports()?;
        let (port, telemetry_port) = (port.to_string(), telemetry_port.to_string());
        let config = project().join("charts").join(INSTALLATION).join("files/kube-state-metrics.yaml");
        let mut command = bound_to_us(&testbed.state_metrics);
        command.arg("--kubeconfig").arg(kubeconfig);
        command.arg("--custom-resource-state-only").arg("--custom-resource-state-config-file").arg(config);
        command.args(["--host", "127.0.0.1", "--port", &port]);
        command.args(["--telemetry-host", "127.0.0.1", "--telemetry-port", &telemetry_port]);
        let process = Process::start("kube-state-metrics", command, &testbed.directory)?;
        let http = testbed::http().timeout(PATIENCE).build()?;
        Ok(Self { process, http, url: format!("http://127.0.0.1:{port}/metrics") })
    }

    /// The series of the object with this UID.
    async fn of(&self, uid: &str) -> Result<Series> {
        let text = self.http.get(&self.url).send().await?.error_for_status()?.text().await?;
        let all = text.lines().filter_map(parsed);
        let of_object = all.filter(|((_, labels), _)| labels.get("uid").is_some_and(|found| found == uid));
        let listed: Vec<_> = of_object.collect();
        let (count, series) = (listed.len(), listed.into_iter().collect::<Series>());
        // Prometheus refuses them
        ensure!(series.len() == count, "a series is there twice: {text}");
        Ok(series)
    }

    /// Waits until the series of credential and authority are those of the objects as they are then; returns both.
    async fn wait_as_promised(&self, fixture: &Fixture) -> Result<[Series; 2]> {
        let mut last = String::new();
        let result = fixture.eventually("the series of both objects", PATIENCE, async || {
            let credential = fixture.namespace.get("itcred", NAME).await.ok()??;
            let authority = fixture.namespace.get("itauth", &fixture.namespace.name).await.ok()??;
            let promised = [of_credential(&credential)?, of_authority(&authority)?];
            let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            let found = [self.of(&uid(&credential)).await.ok()?, self.of(&uid(&authority)).await.ok()?];
            last = format!("promised: {promised:#?}\nfound: {found:#?}");
            (found == promised).then_some(found)
        });
        result.await.with_context(|| format!("{last}\n{}", self.process.log_tail()))
    }
}

/// A line of the text format as a series; `None` for a comment.
fn parsed(line: &str) -> Option<((String, Labels), f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (metric, labels) = series.strip_suffix("\"}")?.split_once('{')?;
    let labels = labels.split("\",").filter_map(|label| label.split_once("=\""));
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Some(((metric.to_owned(), labels), value.parse().ok()?))
}

/// The series that the documentation promises of one object.
struct Promised {
    prefix: &'static str,
    common: Labels,
    series: Series,
}

impl Promised {
    /// Those of every object, and of its conditions.
    fn new(prefix: &'static str, kind: &str, object: &Value) -> Option<Self> {
        let (group, version) = API_VERSION.split_once('/')?;
        let added = ADDED.into_iter().zip([group, version, kind]);
        let identity = ["namespace", "name", "uid"];
        let identity = identity.iter().filter_map(|name| Some((*name, object["metadata"][*name].as_str()?)));
        let common = added.chain(identity).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut promised = Self { prefix, common, series: Series::new() };
        promised.add("created", &[], time(&object["metadata"]["creationTimestamp"])?);
        for condition in object["status"]["conditions"].as_array()? {
            let value = if condition["status"] == "True" { 1.0 } else { 0.0 };
            let labels = [("type", &condition["type"]), ("reason", &condition["reason"])];
            promised.add("status_condition", &labels, value);
        }
        Some(promised)
    }

    fn add(&mut self, metric: &str, labels: &[(&str, &Value)], value: f64) {
        let mut all = self.common.clone();
        all.extend(
            labels.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().unwrap_or_default().to_owned())),
        );
        self.series.insert((format!("{}_{metric}", self.prefix), all), value);
    }
}

/// Seconds since 1970, without their fraction.
fn time(value: &Value) -> Option<f64> {
    Some(DateTime::parse_from_rfc3339(value.as_str()?).ok()?.timestamp() as f64)
}

fn of_credential(object: &Value) -> Option<Series> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut promised = Promised::new("kube_itwinservicecredential", "ITwinServiceCredential", object)?;
    let labels = [("authority", &spec["authorityRef"]["name"]), ("secret", &status["secretName"])];
    promised.add("info", &labels, 1.0);
    promised.add("spec_suspend", &[], if spec["suspend"] == true { 1.0 } else { 0.0 });
    promised.add("status_consecutive_failures", &[], status["consecutiveFailures"].as_f64().unwrap_or_default());
    for (metric, field) in [
        ("status_expires_timestamp_seconds", "expiresAt"),
        ("status_renews_timestamp_seconds", "renewAt"),
        ("status_client_secret_expires_timestamp_seconds", "clientSecretExpiresAt"),
    ] {
        if let Some(value) = time(&status[field]) {
            promised.add(metric, &[], value);
        }
    }
    Some(promised.series)
}

fn of_authority(object: &Value) -> Option<Series> {
    let mut promised = Promised::new("kube_itwinauthority", "ITwinAuthority", object)?;
    promised.add("info", &[("issuer", &object["spec"]["issuer"])], 1.0);
    promised.add("status_signing_keys", &[], object["status"]["signingKeys"].as_f64().unwrap_or_default());
    Some(promised.series)
}

/// The section about kube-state-metrics of docs/operating.md.
fn section() -> Result<String> {
    let text = std::fs::read_to_string(project().join("docs/operating.md"))?;
    let section = text.split("\n### kube-state-metrics\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    section.map(str::to_owned).context("there is no such section")
}

/// The permissions in the documented values of the chart of kube-state-metrics.
fn permissions(section: &str) -> Result<Vec<Value>> {
    let block = section.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).context("no values")?;
    let values: Value = serde_saphyr::from_str(block)?;
    values["rbac"]["extraRules"].as_array().cloned().context("no rules")
}

/// The documented metrics with the names of their labels.
fn documented(section: &str) -> BTreeMap<String, BTreeSet<String>> {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let rows = rows.filter(|(metric, _)| metric.starts_with("kube_"));
    let labels = |rest: &str| -> BTreeSet<String> {
        rest.split(" | ").next().unwrap_or_default().split(", ").map(str::to_owned).collect()
    };
    rows.map(|(metric, rest)| (metric.to_owned(), labels(rest))).collect()
}

/// The metrics of these series with the names of their labels, without those that every series has.
fn label_names(series: &[Series]) -> BTreeMap<String, BTreeSet<String>> {
    let own = |labels: &Labels| -> BTreeSet<String> {
        labels.keys().filter(|name| !ADDED.contains(&name.as_str())).cloned().collect()
    };
    series.iter().flat_map(BTreeMap::keys).map(|(metric, labels)| (metric.clone(), own(labels))).collect()
}

/// A credential that is Ready, whose client Secret says when it expires, and an authority that is Ready.
async fn ready() -> Result<Fixture> {
    let fixture = Fixture::new("state-metrics").await?;
    let mut client_secret = fixture.namespace.client_secret(NAME, &fixture.client);
    client_secret["stringData"]["expires_at"] = json!("2999-01-31T00:00:00Z");
    fixture.namespace.apply(&client_secret).await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_ready().await?;
    let authority = format!("itauth/{}", fixture.namespace.name);
    fixture.namespace.kubectl(&["wait", "--for=condition=Ready", &authority, "--timeout=30s"]).await?;
    fixture
        .eventually("all times in the status", PATIENCE, async || {
            let status = fixture.status().await.ok()?;
            let is_there = |field: &str| status[field].is_string();
            ["expiresAt", "renewAt", "clientSecretExpiresAt"].into_iter().all(is_there).then_some(())
        })
        .await?;
    Ok(fixture)
}

#[tokio::test]
async fn kube_state_metrics_shows_what_the_documentation_promises() -> Result<()> {
    let fixture = ready().await?;
    let section = section()?;
    let kubeconfig = account_with(&fixture.namespace, &permissions(&section)?).await?;
    let state_metrics = StateMetrics::start(&fixture.namespace.testbed, &kubeconfig)?;
    let found = state_metrics.wait_as_promised(&fixture).await?;
    assert_eq!(label_names(&found), documented(&section));
    for label in ADDED {
        assert!(section.contains(&format!("`{label}`")), "docs/operating.md does not name {label}");
    }

    let value = |[credential, _]: &[Series; 2], metric: &str| -> Vec<f64> {
        credential.iter().filter(|((name, _), _)| name.ends_with(metric)).map(|(_, value)| *value).collect()
    };
    assert_eq!(value(&found, "_client_secret_expires_timestamp_seconds"), [32_474_736_000.0]);
    assert_eq!(value(&found, "_spec_suspend"), [0.0]);
    // it follows a change
    fixture.apply_credential(&json!({"suspend": true})).await?;
    let suspended = state_metrics.wait_as_promised(&fixture).await?;
    assert_eq!(value(&suspended, "_spec_suspend"), [1.0]);
    Ok(())
}
