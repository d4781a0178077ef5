//! The metrics that documentation, alerts and dashboard name exist, and documentation and dashboard show all of them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use itwin_credential_operator::metrics::{CredentialGauges, CredentialLabels, Metrics};

use crate::{documents, none, project, read};

/// What the operator exposes once everything has happened once.
fn exposed() -> String {
    let metrics = Arc::new(Metrics::new(true).expect("metrics"));
    let labels = CredentialLabels { namespace: "a", name: "b", uid: "uid", authority: "c" };
    metrics.expect_credential("a", "b", "uid");
    let (expires_at, renew_at) = (Some(1.0), Some(1.0));
    let gauges = CredentialGauges {
        expires_at,
        renew_at,
        client_expires_at: Some(1.0),
        ready: true,
        suspended: false,
        failures: 0,
    };
    metrics.credential(labels, gauges);
    metrics.authorities.authority("c", true, Some(1));
    metrics.watch("secrets", 1);
    metrics.renewed_late(1.0);
    metrics.replaced_with_left(1.0);
    metrics.authorities.token_request("c", "success", Duration::from_secs(1));
    metrics.authorities.request_waited("c", Duration::from_secs(1));
    metrics.authorities.queue("c", 1, true);
    metrics.reconciled("success", Duration::from_secs(1));
    metrics.kubernetes_request("get", "secrets", "success");
    metrics.pages().expect("text").collect()
}

/// The names of all series.
fn series(exposed: &str) -> BTreeSet<String> {
    let samples = exposed.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// The names of the families of all series.
fn families(exposed: &str) -> BTreeSet<String> {
    let types = exposed.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    types.map(str::to_owned).collect()
}

/// The names of all series and families that a text mentions.
fn mentioned(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("itwin_") || word.starts_with("process_")).map(str::to_owned).collect()
}

/// The text of a file of the chart.
fn of_the_chart(file: &str) -> String {
    read(project().join("charts/itwin-credential-operator").join(file))
}

#[test]
fn metrics_exist_and_are_all_documented() {
    let exposed = exposed();
    let exposed = &series(&exposed) | &families(&exposed);
    let mut wrong = Vec::new();
    for (file, text) in documents() {
        let mentioned = mentioned(&text);
        let unknown = mentioned.difference(&exposed);
        wrong.extend(unknown.map(|name| format!("{}: there is no metric {name}", file.display())));
    }
    none(&wrong);
    let operating = read(project().join("docs/operating.md"));
    let own = exposed.iter().filter(|name| name.starts_with("itwin_"));
    let own = own.filter(|name| !["_bucket", "_sum", "_count"].iter().any(|suffix| name.ends_with(suffix)));
    let missing: Vec<&String> = own.filter(|name| !operating.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/operating.md does not describe {missing:?}");
}

#[test]
fn alerts_and_dashboard_use_only_series_that_exist() {
    let exposed = series(&exposed());
    assert!(exposed.contains("itwin_credential_renewal_lateness_seconds_bucket"));
    for file in ["files/alerts.yaml", "files/dashboard.json"] {
        let mentioned = mentioned(&of_the_chart(file));
        assert!(!mentioned.is_empty());
        let missing: Vec<&String> = mentioned.difference(&exposed).collect();
        assert!(missing.is_empty(), "{file} uses series that do not exist: {missing:?}");
    }
}

#[test]
fn every_series_of_the_operator_is_on_the_dashboard() {
    let shown = mentioned(&of_the_chart("files/dashboard.json"));
    for name in series(&exposed()).iter().filter(|name| name.starts_with("itwin_")) {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        assert!(shown.iter().any(|shown| shown.starts_with(family)), "the dashboard does not show {family}");
    }
}

#[test]
fn recorded_outage_has_every_series_of_the_dashboard() {
    let recorded = mentioned(&read(project().join("tests/alerts/outage.test.yaml")));
    let shown = mentioned(&of_the_chart("files/dashboard.json"));
    let missing: Vec<&String> = shown.difference(&recorded).collect();
    assert!(missing.is_empty(), "panels have no recorded data, run `make record-outage`: {missing:?}");
}
