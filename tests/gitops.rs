//! How GitOps tools show a credential: the health check for Argo CD, run by the interpreter that Argo CD uses.

#![allow(missing_docs)]

use anyhow::{Context, Result};
use itwin_api::conditions::Reason;
use serde_json::{Value, json};
use testbed::{Testbed, project};

/// The health check for a CRD, from the ConfigMap of the example.
fn check(kind: &str) -> Result<String> {
    let text = std::fs::read_to_string(project().join("docs/gitops/argocd-health.yaml"))?;
    let config: Value = serde_saphyr::from_str(&text)?;
    let key = format!("resource.customizations.health.credentials.itwin.dev_{kind}");
    Ok(config["data"][&key].as_str().context("there is no such check")?.to_owned())
}

/// A value in Lua syntax.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Array(items) => format!("{{{}}}", items.iter().map(lua).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(key, value)| format!("[{key:?}]={}", lua(value))).collect();
            format!("{{{}}}", fields.join(","))
        }
        plain => plain.to_string(),
    }
}

/// What Argo CD shows for these objects: status and message.
async fn healths(kind: &str, objects: &[Value]) -> Result<Vec<(String, String)>> {
    let objects: Vec<String> = objects.iter().map(lua).collect();
    let script = format!(
        "local function check(obj)\n{}\nend\nfor _, obj in ipairs({{{}}}) do local health = check(obj); print(health.status .. '|' .. health.message) end",
        check(kind)?,
        objects.join(",")
    );
    let printed = Testbed::current()?.lua(&script).await?;
    let lines = printed.lines().filter_map(|line| line.split_once('|'));
    Ok(lines.map(|(status, message)| (status.to_owned(), message.to_owned())).collect())
}

fn object(holds: &str, reason: Reason) -> Value {
    json!({
        "metadata": {"generation": 2},
        "status": {
            "observedGeneration": 2,
            "conditions": [
                {"type": "Renewed", "status": "False", "reason": "ServerError", "message": "not what counts"},
                {"type": "Ready", "status": holds, "reason": reason.as_str(), "message": "what to do"},
            ],
        },
    })
}

#[tokio::test]
async fn argo_cd_shows_every_reason_as_what_it_is() -> Result<()> {
    let objects: Vec<Value> = Reason::ALL.iter().map(|reason| object("False", *reason)).collect();
    for kind in ["ITwinServiceCredential", "ITwinAuthority"] {
        let shown = healths(kind, &objects).await?;
        assert_eq!(shown.len(), Reason::ALL.len());
        for (reason, (status, message)) in Reason::ALL.iter().zip(shown) {
            let expected = match reason {
                Reason::Suspended => "Suspended",
                Reason::Pending => "Progressing",
                _ => "Degraded",
            };
            assert_eq!(status, expected, "{kind}: {reason:?}");
            assert_eq!(message, format!("{}: what to do", reason.as_str()));
        }
        assert_eq!(healths(kind, &[object("True", Reason::TokenValid)]).await?[0].0, "Healthy");
    }
    Ok(())
}

#[tokio::test]
async fn authority_that_argo_cd_applies_as_a_hook_fails_no_sync() -> Result<()> {
    let mut hook = object("False", Reason::ConnectionFailed);
    hook["metadata"]["annotations"] = json!({"helm.sh/hook": "post-install,post-upgrade"});
    assert_eq!(healths("ITwinAuthority", &[hook.clone()]).await?[0].0, "Healthy");
    hook["metadata"]["annotations"] = json!({"other": "annotation"});
    assert_eq!(healths("ITwinAuthority", &[hook]).await?[0].0, "Degraded");
    Ok(())
}

#[tokio::test]
async fn argo_cd_waits_for_a_status_of_the_current_spec() -> Result<()> {
    let mut outdated = object("True", Reason::TokenValid);
    outdated["metadata"]["generation"] = json!(3);
    let objects = [json!({"metadata": {"generation": 1}}), json!({"metadata": {}, "status": {}}), outdated];
    for (status, _) in healths("ITwinServiceCredential", &objects).await? {
        assert_eq!(status, "Progressing");
    }
    Ok(())
}
