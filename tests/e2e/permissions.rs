//! The permissions of the operator's service account are those that its pods used.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::{
    INSTALLATION, Testbed,
    audit::{Use, granted, used},
    eventually,
};

use crate::{PATIENCE, installation::Installation};

/// The permissions of the account in the namespace of the installation, from the API server: the same as
/// `kubectl auth can-i --list`, in a form for programs.
async fn may(testbed: &Testbed, account: &str) -> Result<BTreeSet<Use>> {
    let question = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": INSTALLATION},
    });
    let account = format!("--as=system:serviceaccount:{INSTALLATION}:{account}");
    let arguments = ["create", "--validate=false", "-f", "-", "-o", "json", &account];
    let answer: Value = serde_json::from_str(&testbed.kubectl_with(&arguments, Some(&question.to_string())).await?)?;
    Ok(granted(&answer["status"]["resourceRules"]))
}

pub async fn are_what_is_used(installation: &Installation) -> Result<()> {
    let testbed = &installation.testbed;
    let everyone = may(testbed, "no-one").await?;
    let mut granted: BTreeSet<Use> = &may(testbed, &installation.account().await?).await? - &everyone;
    // replicas of an earlier release during an upgrade and a rollback, and the operator where a write is refused
    let status = ["patch", "credentials.itwin.dev", "itwinservicecredentials/status"].map(str::to_owned);
    let [verb, group, resource] = status;
    assert!(granted.remove(&(verb, group, resource)));
    assert!(!granted.is_empty());
    eventually("the use of everything that is granted", PATIENCE, async || {
        used(testbed).ok().filter(|(used, _)| *used == granted)
    })
    .await
    .with_context(|| {
        let used = used(testbed).map(|(used, _)| used).unwrap_or_default();
        format!("never used: {:?}; used and not granted: {:?}", &granted - &used, &used - &granted)
    })?;
    let (_, refused) = used(testbed)?;
    assert!(refused.is_empty(), "the operator tried what is forbidden: {refused:?}");
    Ok(())
}
