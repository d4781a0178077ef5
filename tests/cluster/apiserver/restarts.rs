//! Which workloads a credential restarts, how often and when.

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{MANAGER, secret_keys};
use serde_json::{Value, json};
use testbed::eventually;

use crate::fixture::{Fixture, NAME, PATIENCE, SOON, condition};

/// What the operator's second try of something takes at most: backoffs of up to 4 s, on a busy machine.
const RETRIED: std::time::Duration = PATIENCE;

pub(super) fn workload(kind: &str, name: &str) -> Value {
    let labels = json!({"app": name});
    let mut spec = json!({
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "main", "image": "example"}]},
        },
    });
    if kind == "StatefulSet" {
        spec["serviceName"] = json!(name);
    }
    let api_version = if kind == "Rollout" { "argoproj.io/v1alpha1" } else { "apps/v1" };
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// A spec that restarts these Deployments at once.
fn restarting(names: &[&str]) -> Value {
    let targets: Vec<Value> = names.iter().map(|name| json!({"kind": "Deployment", "name": name})).collect();
    json!({"rolloutRestartTargets": targets, "rolloutRestartDelay": "0s"})
}

impl Fixture {
    async fn object(&self, kind: &str, name: &str) -> Result<Value> {
        self.namespace.get(kind, name).await?.with_context(|| format!("no {kind} {name}"))
    }

    /// The generation of a workload: one more for each restart.
    async fn generation(&self, kind: &str, name: &str) -> Result<i64> {
        self.object(kind, name).await?["metadata"]["generation"].as_i64().context("no generation")
    }

    /// When the token was issued that a credential restarted this workload for last.
    async fn restarted_for(&self, credential: &str, kind: &str, name: &str) -> Result<Option<String>> {
        let credential = self.object("itcred", credential).await?;
        let key = secret_keys::restarted_for(credential["metadata"]["uid"].as_str().unwrap_or_default());
        let workload = self.object(kind, name).await?;
        let annotations = &workload["spec"]["template"]["metadata"]["annotations"];
        Ok(annotations[key].as_str().map(str::to_owned))
    }

    /// Waits until the Secret of a credential records that all workloads were restarted for its token.
    async fn wait_recorded(&self, credential: &str) -> Result<String> {
        let result = eventually("the record of the restarts", RETRIED, async || {
            let secret = self.object("secret", credential).await.ok()?;
            let annotation = |key: &str| secret["metadata"]["annotations"][key].as_str().map(str::to_owned);
            let issued_at = annotation(secret_keys::ISSUED_AT)?;
            (annotation(secret_keys::RESTARTED_FOR)? == issued_at).then_some(issued_at)
        });
        result.await.with_context(|| self.operator.process.log_tail())
    }

    /// Requests a token of another second: the second of their issue distinguishes tokens.
    pub(super) async fn renew(&self, credential: &str, value: &str) -> Result<()> {
        let issued = self.status_of(credential).await?["issuedAt"].clone();
        eventually("another second", PATIENCE, async || {
            let now = itwin_api::time::to_rfc3339(itwin_credential_operator::clock::Clock::system().now());
            (issued.as_str() < Some(now.as_str())).then_some(())
        })
        .await?;
        let annotation = format!("{}={value}", secret_keys::RENEW);
        self.namespace.kubectl(&["annotate", "itcred", credential, &annotation, "--overwrite"]).await?;
        eventually("the renewal", PATIENCE, async || {
            let status = self.status_of(credential).await.ok()?;
            (status["issuedAt"] != issued && status["lastRenewRequest"] == value).then_some(())
        })
        .await
        .with_context(|| self.operator.process.log_tail())
    }

    /// Replaces the operator, and waits until the new one reconciled every credential.
    async fn restart_and_reconcile(&mut self, credentials: usize) -> Result<()> {
        self.restart().await?;
        eventually("reconciliations by the new process", PATIENCE, async || {
            let reconciled = self.metric(r#"itwin_reconciles_total{result="success"}"#).await.ok()?;
            (reconciled >= credentials as f64).then_some(())
        })
        .await
    }

    /// Notes of events of type Warning about restarts.
    async fn restart_warnings(&self, credential: &str) -> Result<Vec<String>> {
        let events: Value =
            serde_json::from_str(&self.namespace.kubectl(&["get", "events.events.k8s.io", "-o", "json"]).await?)?;
        let events = events["items"].as_array().cloned().unwrap_or_default().into_iter();
        let about = events.filter(|event| {
            event["reason"] == "RolloutRestarted"
                && event["type"] == "Warning"
                && event["regarding"]["name"] == credential
        });
        Ok(about.map(|event| event["note"].as_str().unwrap_or_default().to_owned()).collect())
    }
}

#[tokio::test]
async fn workloads_are_restarted_once_for_each_token() -> Result<()> {
    let mut fixture = Fixture::new("rollout").await?;
    let kinds = ["Deployment", "StatefulSet", "DaemonSet"];
    for kind in kinds {
        fixture.namespace.apply(&workload(kind, "reader")).await?;
    }
    let targets: Vec<Value> = kinds.iter().map(|kind| json!({"kind": kind, "name": "reader"})).collect();
    fixture.apply_credential(&json!({"rolloutRestartTargets": targets, "rolloutRestartDelay": "0s"})).await?;
    fixture.wait_ready().await?;
    fixture.wait_recorded(NAME).await?;
    fixture.renew(NAME, "1").await?;
    let issued = fixture.wait_recorded(NAME).await?;
    for kind in kinds {
        assert_eq!(fixture.restarted_for(NAME, kind, "reader").await?, Some(issued.clone()), "{kind}");
        assert_eq!(fixture.generation(kind, "reader").await?, 3, "{kind}: one for each of two tokens");
    }
    eventually("the event", SOON, async || {
        fixture.events().await.ok().filter(|events| events.iter().any(|event| event == "RolloutRestarted"))
    })
    .await?;
    fixture.restart_and_reconcile(1).await?;
    assert_eq!(fixture.metric(r#"itwin_kubernetes_requests_total{resource="daemonsets""#).await?, 0.0);
    assert_eq!(fixture.token_requests().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn credentials_that_share_a_workload_restart_it_once_each_also_after_git_ops_and_a_restart() -> Result<()> {
    let mut fixture = Fixture::new("rollout-shared").await?;
    fixture.namespace.apply(&workload("Deployment", "web")).await?;
    let mut other = restarting(&["web"]);
    other["clientCredentialsRef"] = json!({"name": "agent-client"});
    fixture.namespace.apply(&fixture.namespace.credential("other", &other)).await?;
    fixture.apply_credential(&restarting(&["web"])).await?;
    for name in [NAME, "other"] {
        let issued = fixture.wait_recorded(name).await?;
        assert_eq!(fixture.restarted_for(name, "Deployment", "web").await?, Some(issued));
    }
    assert_eq!(fixture.generation("Deployment", "web").await?, 3);
    // as Argo CD or Flux does, if it is configured to remove what is not in Git
    let strip = r#"[{"op": "remove", "path": "/spec/template/metadata/annotations"}]"#;
    fixture.namespace.kubectl(&["patch", "deployment", "web", "--type=json", "-p", strip]).await?;
    assert_eq!(fixture.generation("Deployment", "web").await?, 4);
    fixture.restart_and_reconcile(2).await?;
    fixture.renew(NAME, "1").await?;
    let issued = fixture.wait_recorded(NAME).await?;
    assert_eq!(fixture.restarted_for(NAME, "Deployment", "web").await?, Some(issued));
    assert_eq!(fixture.restarted_for("other", "Deployment", "web").await?, None);
    assert_eq!(fixture.generation("Deployment", "web").await?, 5, "for the new token only");
    Ok(())
}

#[tokio::test]
async fn workload_that_was_restarted_is_not_again_while_another_is_missing_after_git_ops_and_a_restart() -> Result<()> {
    let mut fixture = Fixture::new("rollout-left").await?;
    fixture.namespace.apply(&workload("Deployment", "web")).await?;
    fixture.apply_credential(&restarting(&["web", "missing"])).await?;
    eventually("the record of what is left", PATIENCE, async || {
        let secret = fixture.namespace.get("secret", NAME).await.ok()??;
        let left = secret["metadata"]["annotations"]["credentials.itwin.dev/restart-targets"].as_str()?;
        (!left.contains(',')).then_some(())
    })
    .await?;
    assert_eq!(fixture.generation("Deployment", "web").await?, 2);
    let strip = r#"[{"op": "remove", "path": "/spec/template/metadata/annotations"}]"#;
    fixture.namespace.kubectl(&["patch", "deployment", "web", "--type=json", "-p", strip]).await?;
    fixture.restart().await?;
    eventually("tries of the missing one", PATIENCE, async || {
        let missed = r#"itwin_kubernetes_requests_total{resource="deployments",result="not_found""#;
        (fixture.metric(missed).await.ok()? >= 2.0).then_some(())
    })
    .await?;
    assert_eq!(fixture.generation("Deployment", "web").await?, 3, "only the annotation was removed");
    Ok(())
}

#[tokio::test]
async fn missing_workload_is_reported_and_keeps_no_other_from_its_one_restart() -> Result<()> {
    let fixture = Fixture::new("no-workload").await?;
    fixture.namespace.apply(&workload("Deployment", "web")).await?;
    let mut other = restarting(&["web", "missing"]);
    other["clientCredentialsRef"] = json!({"name": "agent-client"});
    fixture.namespace.apply(&fixture.namespace.credential("other", &other)).await?;
    fixture.apply_credential(&restarting(&["web", "missing"])).await?;
    let complaint = "; restarts of workloads: Deployment missing does not exist";
    for name in [NAME, "other"] {
        let message = eventually("the complaint", PATIENCE, async || {
            let (_, _, message) = condition(&fixture.status_of(name).await.ok()?, "Renewed")?;
            message.ends_with(complaint).then_some(message)
        });
        message.await.with_context(|| fixture.operator.process.log_tail())?;
    }
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    eventually("more tries of the missing one", PATIENCE, async || {
        let missed = r#"itwin_kubernetes_requests_total{resource="deployments",result="not_found""#;
        (fixture.metric(missed).await.ok()? >= 6.0).then_some(())
    })
    .await?;
    assert_eq!(fixture.generation("Deployment", "web").await?, 3, "one restart for each credential");

    fixture.apply_authority(&json!({"allowedScopes": ["another"]})).await?;
    fixture.namespace.kubectl(&["annotate", "itcred", NAME, "credentials.itwin.dev/renew=1"]).await?;
    let message = fixture.wait_condition("Renewed", "False", "ScopeNotAllowed", PATIENCE).await?;
    assert!(message.ends_with(complaint), "{message}");
    assert_eq!(fixture.restart_warnings(NAME).await?, ["Deployment missing does not exist"]);

    fixture.namespace.apply(&workload("Deployment", "missing")).await?;
    fixture.wait_recorded("other").await?;
    eventually("the end of the complaint", SOON, async || {
        let (_, _, message) = condition(&fixture.status_of("other").await.ok()?, "Renewed")?;
        (!message.contains("restarts of workloads")).then_some(())
    })
    .await?;
    assert_eq!(fixture.generation("Deployment", "missing").await?, 1, "its pods are younger than the token");
    assert_eq!(fixture.generation("Deployment", "web").await?, 3);
    Ok(())
}

#[tokio::test]
async fn workload_that_is_added_waits_for_the_next_token_whichever_process_writes_it() -> Result<()> {
    let mut fixture = Fixture::ready("rollout-added").await?;
    fixture.namespace.apply(&workload("Deployment", "late")).await?;
    fixture.apply_credential(&restarting(&["late"])).await?;
    fixture.wait_recorded(NAME).await?;
    fixture.restart_and_reconcile(1).await?;
    assert_eq!(fixture.generation("Deployment", "late").await?, 1);
    fixture.renew(NAME, "1").await?;
    let issued = fixture.wait_recorded(NAME).await?;
    assert_eq!(fixture.restarted_for(NAME, "Deployment", "late").await?, Some(issued));
    assert_eq!(fixture.generation("Deployment", "late").await?, 2);
    Ok(())
}

/// When the operator wrote an object last, by the clock of the API server, in whole seconds.
fn written_at(object: &Value) -> Result<DateTime<Utc>> {
    let entries = object["metadata"]["managedFields"].as_array().context("no managedFields")?;
    let ours = entries.iter().find(|entry| entry["manager"] == MANAGER).context("never written")?;
    Ok(DateTime::parse_from_rfc3339(ours["time"].as_str().context("no time")?)?.to_utc())
}

#[tokio::test]
async fn restart_follows_the_write_after_the_delay_also_by_another_process() -> Result<()> {
    let mut fixture = Fixture::new("rollout-delay").await?;
    fixture.namespace.apply(&workload("Deployment", "web")).await?;
    let mut spec = restarting(&["web"]);
    spec["rolloutRestartDelay"] = json!("3s");
    fixture.apply_credential(&spec).await?;
    let read = async |fixture: &Fixture, kind: &str, name: &str| {
        let text = fixture.namespace.kubectl(&["get", kind, name, "-o", "json", "--show-managed-fields"]).await?;
        written_at(&serde_json::from_str(&text)?)
    };
    fixture.wait_ready().await?;
    let written = read(&fixture, "secret", NAME).await?;
    fixture.wait_recorded(NAME).await?;
    let restarted = read(&fixture, "deployment", "web").await?;
    assert!(restarted - written >= TimeDelta::seconds(3), "{restarted} after {written}");

    fixture.renew(NAME, "1").await?;
    let written = read(&fixture, "secret", NAME).await?;
    // before the delay has passed
    fixture.restart().await?;
    fixture.wait_recorded(NAME).await?;
    let restarted = read(&fixture, "deployment", "web").await?;
    assert!(restarted - written >= TimeDelta::seconds(3), "{restarted} after {written}");
    assert_eq!(fixture.generation("Deployment", "web").await?, 3);
    Ok(())
}

/// The part of Argo Rollouts' CRD that is used here.
fn rollouts() -> Value {
    let spec = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"restartAt": {"type": "string", "format": "date-time"}}});
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "rollouts.argoproj.io"},
        "spec": {
            "group": "argoproj.io",
            "scope": "Namespaced",
            "names": {"kind": "Rollout", "plural": "rollouts", "singular": "rollout"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

#[tokio::test]
async fn argo_rollout_is_restarted_once_for_each_token_and_a_missing_kind_is_reported_as_such() -> Result<()> {
    let fixture = Fixture::new("argo").await?;
    let targets = json!([{"kind": "Rollout", "name": "canary"}]);
    fixture.apply_credential(&json!({"rolloutRestartTargets": targets, "rolloutRestartDelay": "0s"})).await?;
    let complains = async |what: &str| {
        let result = eventually(what, RETRIED, async || {
            let (_, _, message) = condition(&fixture.status().await.ok()?, "Renewed")?;
            message.contains(what).then_some(())
        });
        result.await.with_context(|| fixture.operator.process.log_tail())
    };
    complains("Rollout canary cannot exist, since the cluster serves no Rollout").await?;
    fixture.namespace.apply(&rollouts()).await?;
    complains("Rollout canary does not exist").await?;
    eventually("a Rollout", PATIENCE, async || fixture.namespace.apply(&workload("Rollout", "canary")).await.ok())
        .await?;
    fixture.wait_recorded(NAME).await?;
    let restart_at = async || -> Result<Value> {
        Ok(fixture.object("rollouts.argoproj.io", "canary").await?["spec"]["restartAt"].clone())
    };
    assert_eq!(restart_at().await?, Value::Null, "its pods are younger than the token");
    fixture.renew(NAME, "1").await?;
    let issued = fixture.wait_recorded(NAME).await?;
    let restarted = restart_at().await?;
    assert!(restarted.as_str() >= Some(issued.as_str()), "{restarted} after {issued}");
    assert_eq!(fixture.generation("rollouts.argoproj.io", "canary").await?, 2);
    Ok(())
}

#[tokio::test]
async fn workload_that_is_added_while_no_operator_runs_waits_for_the_next_token() -> Result<()> {
    let mut fixture = Fixture::ready("rollout-down").await?;
    for name in ["reader", "second"] {
        fixture.namespace.apply(&workload("Deployment", name)).await?;
    }
    fixture.stop();
    fixture.apply_credential(&restarting(&["reader"])).await?;
    fixture.restart_and_reconcile(1).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    fixture.reconcile().await?;
    assert_eq!(fixture.generation("Deployment", "reader").await?, 1, "no token was written since");
    fixture.renew(NAME, "1").await?;
    fixture.wait_recorded(NAME).await?;
    assert_eq!(fixture.generation("Deployment", "reader").await?, 2);

    // the list changes while a restart is left that waits
    let mut spec = restarting(&["reader"]);
    spec["rolloutRestartDelay"] = json!("1h");
    fixture.apply_credential(&spec).await?;
    fixture.renew(NAME, "2").await?;
    fixture.stop();
    fixture.apply_credential(&restarting(&["reader", "second"])).await?;
    fixture.start().await?;
    fixture.wait_recorded(NAME).await?;
    assert_eq!(fixture.generation("Deployment", "reader").await?, 3, "it was left");
    assert_eq!(fixture.generation("Deployment", "second").await?, 1, "it was not in the list of this token");
    Ok(())
}
