//! A service account and a role for one test, whose permissions the test removes while the operator runs. What is
//! forbidden to it does not count against the chart's role.

use anyhow::Result;
use serde_json::{Value, json};
use testbed::{INSTALLATION, namespace::Namespace, setup::account_kubeconfig};

/// All verbs that the operator uses on Secrets.
pub const ALL: [&str; 5] = ["get", "list", "watch", "create", "patch"];

/// Creates a namespace whose operators have an account with these verbs on Secrets, and otherwise what the chart
/// grants.
pub async fn namespace_with_own_account(prefix: &str, secrets: &[&str]) -> Result<Namespace> {
    let mut namespace = Namespace::new(prefix).await?;
    let name = namespace.name.clone();
    grant(&namespace, secrets).await?;
    namespace.testbed.kubectl(&["--namespace", INSTALLATION, "create", "serviceaccount", &name]).await?;
    let (role, account) = (format!("--clusterrole={name}"), format!("--serviceaccount={INSTALLATION}:{name}"));
    namespace.testbed.kubectl(&["create", "clusterrolebinding", &name, &role, &account]).await?;
    let file = namespace.testbed.directory.join(format!("{name}.kubeconfig"));
    account_kubeconfig(&namespace.testbed, INSTALLATION, &name, &file).await?;
    namespace.testbed.operator_kubeconfig = file;
    Ok(namespace)
}

/// Grants these verbs on Secrets instead of the earlier ones.
pub async fn grant(namespace: &Namespace, secrets: &[&str]) -> Result<()> {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| -> Value {
        json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
    };
    let group = "credentials.itwin.dev";
    let mut rules = vec![
        rule(group, &["itwinservicecredentials", "itwinauthorities"], &["list", "watch"]),
        rule(group, &["itwinservicecredentials/status"], &["update", "patch"]),
        rule(group, &["itwinauthorities/status"], &["patch"]),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
    ];
    if !secrets.is_empty() {
        rules.push(rule("", &["secrets"], secrets));
    }
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": namespace.name},
        "rules": rules,
    });
    namespace.apply(&role).await.map(drop)
}
