//! Alerts with promtool, the example of Alertmanager, and the objects that hold them.

use anyhow::{Context, Result};
use serde_json::Value;
use testbed::{INSTALLATION, Testbed, namespace::Namespace, project};

use crate::{file, objects, of_kind, split, template};

#[tokio::test]
async fn alerts_fire_when_they_should_and_only_then() -> Result<()> {
    let testbed = Testbed::current()?;
    let alerts = project().join("charts").join(INSTALLATION).join("files/alerts.yaml").display().to_string();
    testbed.promtool(&["check", "rules", "--lint=all", "--lint-fatal", &alerts]).await?;
    let tests = project().join("tests/alerts/alerts.test.yaml").display().to_string();
    testbed.promtool(&["test", "rules", &tests]).await?;
    Ok(())
}

#[tokio::test]
async fn alerts_follow_a_recorded_outage_from_its_beginning_to_its_end() -> Result<()> {
    let recorded = project().join("tests/alerts/outage.test.yaml").display().to_string();
    Testbed::current()?.promtool(&["test", "rules", &recorded]).await?;
    Ok(())
}

/// The severity of each alert of the chart, by its name.
fn severities() -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(project().join("charts").join(INSTALLATION).join("files/alerts.yaml"))?;
    let file: Value = serde_saphyr::from_str(&text)?;
    let rules = file["groups"].as_array().into_iter().flatten().flat_map(|group| group["rules"].as_array());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(rules.flatten().map(|rule| (text(&rule["alert"]), text(&rule["labels"]["severity"]))).collect())
}

#[tokio::test]
async fn alertmanager_example_pages_once_for_each_cause() -> Result<()> {
    let testbed = Testbed::current()?;
    let file = project().join("charts").join(INSTALLATION).join("files/alertmanager.yaml");
    let path = file.display().to_string();
    testbed.amtool(&["check-config", &path]).await?;
    let severities = severities()?;
    for (alert, severity) in &severities {
        let receiver = if severity == "critical" { "pager" } else { "tickets" };
        let verify = format!("--verify.receivers={receiver}");
        let labels = [format!("alertname={alert}"), format!("severity={severity}"), "authority=ims".to_owned()];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let test = ["config", "routes", "test", "--config.file", &path, &verify];
        testbed.amtool(&[&test[..], &labels].concat()).await?;
    }
    // a credential causes at most one page; those of an authority and of the operator stand for all others
    let critical = severities.iter().filter(|(alert, severity)| alert.contains("Credential") && severity == "critical");
    assert_eq!(critical.count(), 1);

    let config: Value = serde_saphyr::from_str(&std::fs::read_to_string(file)?)?;
    let rules = config["inhibit_rules"].as_array().context("no inhibition")?;
    // whether an alert is one of `first|second|Prefix.+`
    let selects = |matchers: &Value, alert: &str| {
        let matcher = matchers[0].as_str().unwrap_or_default();
        let names = matcher.split('"').nth(1).unwrap_or_default();
        names.split('|').any(|name| name.strip_suffix(".+").map_or(name == alert, |start| alert.starts_with(start)))
    };
    let inhibits = |source: &str, target: &str, equal: Option<&str>| {
        rules.iter().any(|rule| {
            let labels = rule["equal"].as_array();
            selects(&rule["source_matchers"], source)
                && selects(&rule["target_matchers"], target)
                && labels.and_then(|labels| labels.first()).and_then(Value::as_str) == equal
        })
    };
    for credential in severities.iter().map(|(alert, _)| alert).filter(|alert| alert.starts_with("ITwinCredential")) {
        for authority in ["ITwinAuthorityFailing", "ITwinAuthorityNotReady", "ITwinAuthorityTokensAtRisk"] {
            assert!(inhibits(authority, credential, Some("authority")), "{authority} {credential}");
        }
        assert!(inhibits("ITwinOperatorAbsent", credential, None), "{credential}");
        // another operator of the cluster may have a leader
        assert!(inhibits("ITwinOperatorWithoutLeader", credential, Some("job")), "{credential}");
        assert!(!inhibits("ITwinOperatorWithoutLeader", credential, None), "{credential}");
    }
    // one of several operators that is absent hides nothing of the others
    let absent = rules.iter().find(|rule| selects(&rule["source_matchers"], "ITwinOperatorAbsent"));
    assert_eq!(absent.context("no rule")?["source_matchers"][1], "job=\"\"");
    // an outage of the API server takes the Lease from the leader, and silences the watches
    for same in ["ITwinWatchSilent", "ITwinOperatorKubernetesErrors", "ITwinOperatorRestarting"] {
        assert!(inhibits("ITwinOperatorWithoutLeader", same, Some("job")), "{same}");
    }
    for ticket in ["ITwinAuthorityFailing", "ITwinAuthorityNotReady"] {
        assert!(inhibits("ITwinAuthorityTokensAtRisk", ticket, Some("authority")), "{ticket}");
    }
    // each name of the example is that of an alert
    for rule in rules {
        for matchers in [&rule["source_matchers"], &rule["target_matchers"]] {
            let names = matchers[0].as_str().and_then(|matcher| matcher.split('"').nth(1)).context("no names")?;
            for name in names.split('|') {
                let exists = |(alert, _): &(String, String)| alert.starts_with(name.trim_end_matches(".+"));
                assert!(severities.iter().any(exists), "there is no alert {name}");
            }
        }
    }
    Ok(())
}

#[test]
fn alert_about_the_last_operator_lacks_the_label_whose_absence_inhibits_the_others() -> Result<()> {
    let tests = std::fs::read_to_string(project().join("tests/alerts/alerts.test.yaml"))?;
    for (name, has_job) in [("one operator of two that ends", true), ("the last operator that ends", false)] {
        let test = tests.split("\n  - name: ").find(|test| test.starts_with(name)).context(name)?;
        let labels: Vec<&str> = test.lines().filter(|line| line.contains("exp_labels:")).collect();
        assert!(!labels.is_empty(), "{name}");
        assert!(labels.iter().all(|line| line.contains("job:") == has_job), "{name}: {labels:?}");
    }
    Ok(())
}

#[tokio::test]
async fn monitoring_objects_hold_what_the_files_hold() -> Result<()> {
    let namespace = Namespace::new("chart-monitoring").await?;
    let testbed = &namespace.testbed;
    let rendered = template(testbed, &namespace.name, &[&file("monitoring.yaml")?]).await?;
    let (_, monitoring) = split(&rendered);
    let rule = monitoring.iter().find(|text| text.contains("kind: PrometheusRule")).context("no PrometheusRule")?;
    assert!(rule.contains("team: platform") && rule.contains("release: prometheus"));
    assert!(rule.contains("runbook_url: https://example.com/runbooks/ITwinAuthorityFailing.md"));
    assert!(rule.contains("alert: ITwinCredentialTokenExpired") && rule.contains("name: own"));
    assert!(!rule.contains("alert: ITwinCredentialRenewalFailing"));
    let monitor = monitoring.iter().find(|text| text.contains("kind: ServiceMonitor")).context("no ServiceMonitor")?;
    assert!(monitor.contains("honorLabels: true") && monitor.contains("interval: 30s"));

    let objects = objects(testbed, &namespace.name, &[&file("monitoring.yaml")?]).await?;
    let dashboard = of_kind(&objects, "ConfigMap");
    let dashboard = dashboard.first().context("no ConfigMap")?;
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let reported = dashboard["data"]["itwin-credential-operator.json"].as_str().unwrap_or_default();
    let file = project().join("charts").join(INSTALLATION).join("files/dashboard.json");
    assert_eq!(reported.trim_end(), std::fs::read_to_string(file)?.trim_end());
    Ok(())
}
