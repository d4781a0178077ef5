//! A service account and a role for one test: for an operator, whose permissions the test removes while it runs, or for
//! another program. What is forbidden to it does not count against the chart's role.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};
use testbed::{INSTALLATION, namespace::Namespace, setup::account_kubeconfig};

/// All verbs that the operator uses on Secrets.
pub const ALL: [&str; 5] = ["get", "list", "watch", "create", "patch"];

/// Creates a namespace whose operators have an account with these verbs on Secrets, and otherwise what the chart
/// grants.
pub async fn namespace_with_own_account(prefix: &str, secrets: &[&str]) -> Result<Namespace> {
    let mut namespace = Namespace::new(prefix).await?;
    grant(&namespace, secrets).await?;
    namespace.testbed.operator_kubeconfig = own_account(&namespace).await?;
    Ok(namespace)
}

/// Creates an account that has these permissions and no others; returns the file of its kubeconfig.
pub async fn account_with(namespace: &Namespace, rules: &[Value]) -> Result<PathBuf> {
    apply_role(namespace, rules).await?;
    own_account(namespace).await
}

/// Creates an account with the role that is named like the namespace; returns the file of its kubeconfig.
async fn own_account(namespace: &Namespace) -> Result<PathBuf> {
    let (testbed, name) = (&namespace.testbed, &namespace.name);
    testbed.kubectl(&["--namespace", INSTALLATION, "create", "serviceaccount", name]).await?;
    let (role, account) = (format!("--clusterrole={name}"), format!("--serviceaccount={INSTALLATION}:{name}"));
    testbed.kubectl(&["create", "clusterrolebinding", name, &role, &account]).await?;
    let file = testbed.directory.join(format!("{name}.kubeconfig"));
    account_kubeconfig(testbed, INSTALLATION, name, &file).await?;
    Ok(file)
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
    apply_role(namespace, &rules).await
}

/// Applies the role that is named like the namespace.
async fn apply_role(namespace: &Namespace, rules: &[Value]) -> Result<()> {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": namespace.name},
        "rules": rules,
    });
    namespace.apply(&role).await.map(drop)
}
