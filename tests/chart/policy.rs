//! What the admission policy of the chart reserves for the operator.

use anyhow::{Context, Result};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use testbed::{INSTALLATION, eventually, namespace::Namespace, objects};

use crate::{SOON, chart, refused};

#[tokio::test]
async fn admission_policy_reserves_for_the_operator_what_it_decides_from() -> Result<()> {
    let namespace = Namespace::new("chart-policy").await?;
    let (testbed, name) = (&namespace.testbed, &namespace.name);
    // only this namespace: other tests make manual edits that this policy forbids
    let set = format!(
        "watchNamespaces={{{name}}},validatingAdmissionPolicy.enabled=true,crds.enabled=false,replicaCount=0,\
         authorities.bentley-ims=null"
    );
    let chart = chart();
    // authorities are cluster-scoped: the accounts that write their status in other tests are exempt
    let others =
        format!("validatingAdmissionPolicy.exemptUsers={{system:serviceaccount:{INSTALLATION}:{INSTALLATION}}}");
    testbed.helm(&["install", name, &chart, "--namespace", name, "--set", &set, "--set", &others]).await?;
    let operator = format!("system:serviceaccount:{name}:{name}-{INSTALLATION}");
    let impersonate = format!("--as={operator}");
    let secret = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/managed-by": INSTALLATION},
            "annotations": {"credentials.itwin.dev/owner-uid": "u", "credentials.itwin.dev/expires-at": "then"},
        }})
        .to_string()
    };
    let create = async |who: &[&str], name: &str| {
        let arguments = [&["--namespace", &namespace.name, "create", "-f", "-"], who].concat();
        testbed.kubectl_with(&arguments, Some(&secret(name))).await
    };
    eventually("the policy", SOON, async || create(&["--dry-run=server"], "forged").await.is_err().then_some(()))
        .await?;
    eventually("the operator's Secret", SOON, async || create(&[&impersonate], "token").await.ok()).await?;
    namespace.kubectl(&["create", "secret", "generic", "not-owned"]).await?;

    let annotate = async |secret: &str, annotation: &str| {
        namespace.kubectl(&["annotate", "--overwrite", "secret", secret, annotation]).await
    };
    refused("a forged time", annotate("token", "credentials.itwin.dev/expires-at=later")).await?;
    refused("a removed time", annotate("token", "credentials.itwin.dev/expires-at-")).await?;
    refused("a forged owner", annotate("not-owned", "credentials.itwin.dev/owner-uid=mine")).await?;
    // what a user may do, and the operator reverts
    annotate("not-owned", "credentials.itwin.dev/adopt=mine").await?;
    annotate("token", "team=a").await?;
    namespace.kubectl(&["label", "secret", "token", "app.kubernetes.io/managed-by-"]).await?;
    refused("a forged time without the label", annotate("token", "credentials.itwin.dev/expires-at=later")).await?;
    let data = r#"{"stringData":{"access_token":"by hand"}}"#;
    namespace.kubectl(&["patch", "secret", "token", "--type=merge", "-p", data]).await?;
    let patch_metadata = r#"{"metadata":{"annotations":{"credentials.itwin.dev/expires-at":"later"}}}"#;
    namespace.kubectl(&["patch", "secret", "token", "--type=merge", "-p", patch_metadata, &impersonate]).await?;

    // statuses
    namespace.apply(&namespace.credential("agent", &json!({}))).await?;
    let status = json!({"status": {"secretName": "somebody-elses"}});
    let manually = ["patch", "itcred", "agent", "--subresource=status", "--type=merge", "-p", &status.to_string()];
    let refused_by_policy = async || {
        let said = refused("a manual edit of a status", namespace.kubectl(&manually)).await.ok()?;
        said.contains("the status is written by itwin-credential-operator only").then_some(())
    };
    eventually("the policy about statuses", SOON, refused_by_policy).await?;
    let kubeconfig = kube::config::Kubeconfig::read_from(&testbed.kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    config.auth_info.impersonate = Some(operator);
    let credentials: Api<itwin_api::credential::ITwinServiceCredential> =
        Api::namespaced(kube::Client::try_from(config)?, name);
    credentials.patch_status("agent", &PatchParams::default(), &Patch::Merge(&status)).await?;

    // garbage collection removes the owner reference, and deleted objects disappear
    let uid = credential_uid(&namespace).await?;
    let owner = json!({"metadata": {"ownerReferences": [objects::owner_reference("agent", uid)]}});
    namespace.kubectl(&["patch", "secret", "token", "--type=merge", "-p", &owner.to_string(), &impersonate]).await?;
    namespace.orphan("agent").await?;
    eventually("a Secret without owner", SOON, async || {
        let secret = namespace.get("secret", "token").await.ok()??;
        secret["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty).then_some(())
    })
    .await?;
    testbed.helm(&["uninstall", name, "--namespace", name]).await?;
    Ok(())
}

async fn credential_uid(namespace: &Namespace) -> Result<String> {
    let credential = namespace.get("itcred", "agent").await?.context("the credential is there")?;
    Ok(credential["metadata"]["uid"].as_str().context("no uid")?.to_owned())
}
